// A process that is killed (SIGKILL) at the worst moment of a migration: its statements are done, its record is not.
// Usage: node --import tsx killed_migrator.ts <url> <up|down> <name of the migration>
import knex from 'knex';
import { migrator } from '../../src/store/maintenance/migrate.js';
import { MIGRATIONS_WITH_CONCURRENT_INDEX } from './concurrent_index.js';

const [url, direction, victim] = process.argv.slice(2);
const RECORDING = /^(insert into|delete from) "knex_migrations" /;

const database = knex({ client: 'pg', connection: { connectionString: url } });
// Knex tells of a query before it sends it.
database.on('query', ({ sql, bindings }: { sql: string; bindings: unknown[] }) => {
  if (RECORDING.test(sql) && bindings.includes(victim)) process.kill(process.pid, 'SIGKILL');
});
const { up, down } = migrator(
  { knex: database, kind: 'postgres', url },
  { migrations: MIGRATIONS_WITH_CONCURRENT_INDEX },
);
await (direction === 'up' ? up() : down());
await database.destroy();
