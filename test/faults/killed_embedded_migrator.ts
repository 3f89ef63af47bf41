// A process that migrates an embedded database and is killed (SIGKILL) after the statements of the given migration and
// before the record of it. Usage: node --import tsx killed_embedded_migrator.ts <data directory> <name of the migration>
import { openDatabase } from '../../src/store/database.js';
import { migrator } from '../../src/store/maintenance/migrate.js';

const [dataDir = '', migration] = process.argv.slice(2);
const database = await openDatabase({ url: undefined, dataDir, poolSize: 1, acquireTimeoutMs: 10_000, notify: false });
// Knex emits the event before it sends the query.
database.knex.on('query', ({ sql, bindings }: { sql: string; bindings: unknown[] }) => {
  if (/^insert into "knex_migrations" /.test(sql) && bindings.includes(migration)) process.kill(process.pid, 'SIGKILL');
});
await migrator(database).up();
await database.close();
