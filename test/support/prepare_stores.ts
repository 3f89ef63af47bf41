import { mkdir } from 'node:fs/promises';
import { readSettings } from '../../src/config.js';
import { createLog } from '../../src/log.js';
import { serve } from '../../src/main.js';
import { type Database, openDatabase } from '../../src/store/database.js';
import { migrator } from '../../src/store/maintenance/migrate.js';
import { seed } from '../../src/store/maintenance/seed.js';
import { Store } from '../../src/store/store.js';
import { catchUp } from '../../src/store/write/change_log.js';
import { copyDirectory } from './copy_directory.js';
import { emptyCluster } from './empty_cluster.js';
import { createTemplates } from './postgres_databases.js';
import { startServer } from './postgres_server.js';
import { type Prepared, preparedIn } from './prepared.js';

/*
 * Prepares stores for tests in the directory that is its argument: migrated and seeded databases on both engines. It
 * is a separate program under tsx, because the worker of the embedded engine cannot start in the global set-up.
 */

const DATABASE_OPTIONS = { poolSize: 2, acquireTimeoutMs: 30_000 };

async function main(directory: string): Promise<void> {
  const prepared = preparedIn(directory);
  await Promise.all([prepareEmbedded(prepared), preparePostgres(prepared.postgres)]);
}

async function prepareEmbedded({ migrated, firstStart }: Prepared): Promise<void> {
  const loadDump = await emptyCluster();
  const database = await openDatabase({ ...DATABASE_OPTIONS, url: undefined, dataDir: migrated, loadDump });
  try {
    await migrator(database).up();
  } finally {
    await database.close();
  }
  await mkdir(firstStart);
  await copyDirectory(migrated, firstStart);
  await startFirst(firstStart);
}

async function seedAll(database: Database): Promise<void> {
  const store = new Store(database);
  await catchUp(store);
  await seed(store, 'missing');
}

async function preparePostgres(saved: string): Promise<void> {
  const server = await startServer();
  await createTemplates(server.url, async (url, content) => {
    const database = await openDatabase({ ...DATABASE_OPTIONS, url, dataDir: '' });
    try {
      await migrator(database).up();
      if (content === 'seeded') await seedAll(database);
    } finally {
      await database.close();
    }
  });
  await server.save(saved);
}

/** Runs the service once on a data directory, which is then in the state after a first start. */
async function startFirst(dataDir: string): Promise<void> {
  const settings = readSettings({
    DATA_DIR: dataDir,
    GRPC_ADDRESS: '127.0.0.1:0',
    HTTP_ADDRESS: 'off',
    LOG_LEVEL: 'silent',
  });
  const service = await serve(settings, { allowPlaintext: false, allowAnonymous: false }, createLog('silent'));
  await service.stop();
}

await main(process.argv[2] as string);
