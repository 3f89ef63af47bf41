// A process that migrates and can be killed at any moment. Usage: node --import tsx migrator_process.ts <url>
import knex from 'knex';
import { migrator } from '../../src/store/maintenance/migrate.js';
import { MIGRATIONS_WITH_CONCURRENT_INDEX } from '../support/concurrent_index.js';

const [connectionString = ''] = process.argv.slice(2);
const database = knex({ client: 'pg', connection: { connectionString } });
await migrator(
  { knex: database, kind: 'postgres', url: connectionString },
  { migrations: MIGRATIONS_WITH_CONCURRENT_INDEX },
).up();
await database.destroy();
