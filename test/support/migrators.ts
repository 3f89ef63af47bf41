import knex, { type Knex } from 'knex';
import { afterAll, afterEach, beforeAll } from 'vitest';
import { migrations } from '../../migrations/index.js';
import { type MigratableDatabase, migrator } from '../../src/store/maintenance/migrate.js';
import { startPostgres, type TestPostgres } from './postgres.js';

/** Databases for migrators; their connections are closed after each test. */
export interface Migrators {
  /** Creates an empty database and returns its URL. */
  createDatabase(): Promise<string>;
  /** Opens one connection, like the embedded engine: code that needs two connections at once would block. */
  connect(url: string): MigratableDatabase;
  emptyDatabase(): Promise<MigratableDatabase>;
  /** A database with the first `count` migrations; all by default. */
  migratedDatabase(count?: number): Promise<MigratableDatabase>;
}

export function useMigrators(): Migrators {
  let server: TestPostgres;
  const open: Knex[] = [];

  beforeAll(async () => {
    server = await startPostgres();
  });
  afterEach(async () => {
    await Promise.all(open.splice(0).map((database) => database.destroy()));
  });
  afterAll(async () => {
    await server.stop();
  });

  const createDatabase = () => server.createDatabase();
  const connect = (url: string): MigratableDatabase => {
    const database = knex({ client: 'pg', connection: { connectionString: url }, pool: { min: 0, max: 1 } });
    open.push(database);
    return { knex: database, kind: 'postgres', url };
  };
  const emptyDatabase = async () => connect(await createDatabase());
  const migratedDatabase = async (count = migrations.length) => {
    const database = await emptyDatabase();
    await migrator(database, { migrations: migrations.slice(0, count) }).up();
    return database;
  };
  return { createDatabase, connect, emptyDatabase, migratedDatabase };
}
