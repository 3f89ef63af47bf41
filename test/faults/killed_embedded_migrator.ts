// A process that is killed (SIGKILL) while it migrates an embedded database: the statements of the migration named are
// done, its record is not. Usage: node --import tsx killed_embedded_migrator.ts <data directory> <name of the migration>
import { openDatabase } from '../../src/store/database.js';
import { migrator } from '../../src/store/maintenance/migrate.js';

const [dataDir = '', victim] = process.argv.slice(2);
const database = await openDatabase({ url: undefined, dataDir, poolSize: 1, acquireTimeoutMs: 10_000, notify: false });
// Knex tells of a query before it sends it.
database.knex.on('query', ({ sql, bindings }: { sql: string; bindings: unknown[] }) => {
  if (/^insert into "knex_migrations" /.test(sql) && bindings.includes(victim)) process.kill(process.pid, 'SIGKILL');
});
await migrator(database).up();
await database.close();
