// A process that kills itself (SIGKILL) after the statements of a migration and before the migration is recorded.
// Usage: node --import tsx killed_migrator.ts <url> <up|down> <name of the migration>
import knex from 'knex';
import { migrator } from '../../src/store/maintenance/migrate.js';
import { MIGRATIONS_WITH_CONCURRENT_INDEX } from './concurrent_index.js';

const [url, direction, migration] = process.argv.slice(2);
const RECORDING = /^(insert into|delete from) "knex_migrations" /;

const database = knex({ client: 'pg', connection: { connectionString: url } });
// Knex emits this event before it sends the query.
database.on('query', ({ sql, bindings }: { sql: string; bindings: unknown[] }) => {
  if (RECORDING.test(sql) && bindings.includes(migration)) process.kill(process.pid, 'SIGKILL');
});
const { up, down } = migrator(
  { knex: database, kind: 'postgres', url },
  { migrations: MIGRATIONS_WITH_CONCURRENT_INDEX },
);
await (direction === 'up' ? up() : down());
await database.destroy();
