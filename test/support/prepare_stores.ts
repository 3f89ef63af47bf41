import { readFile, writeFile } from 'node:fs/promises';
import { readSettings } from '../../src/config.js';
import { createLog } from '../../src/log.js';
import { serve } from '../../src/main.js';
import { type Database, openDatabase } from '../../src/store/database.js';
import { catchUp } from '../../src/store/log.js';
import { migrator } from '../../src/store/migrate.js';
import { seed } from '../../src/store/seed.js';
import { Store } from '../../src/store/store.js';
import { emptyCluster } from './empty_cluster.js';
import { createTemplates } from './postgres_databases.js';
import { startServer } from './postgres_server.js';
import { type Prepared, preparedIn } from './prepared.js';

/*
 * A program that prepares stores for tests in a directory that it gets as its argument: migrated and seeded databases
 * on both engines. It runs under tsx, as the worker of the embedded engine cannot start inside the global set-up.
 */

const OPENING = { poolSize: 2, acquireTimeoutMs: 30_000 };

async function main(directory: string): Promise<void> {
  const prepared = preparedIn(directory);
  await Promise.all([prepareEmbedded(prepared), preparePostgres(prepared.postgres)]);
}

async function prepareEmbedded(prepared: Prepared): Promise<void> {
  await writeDumps(prepared.dumps);
  await startFirst(prepared.firstStart, prepared.dumps.seeded);
}

async function writeDumps(dumps: Prepared['dumps']): Promise<void> {
  const loadDump = await emptyCluster();
  const database = await openDatabase({ ...OPENING, url: undefined, dataDir: 'memory:', loadDump });
  try {
    await migrator(database).up();
    await writeFile(dumps.migrated, await dumpOf(database));
    await seedAll(database);
    await writeFile(dumps.seeded, await dumpOf(database));
  } finally {
    await database.close();
  }
}

async function dumpOf(database: Database): Promise<Uint8Array> {
  if (!database.dump) throw new Error(`${database.kind} cannot be dumped`);
  return (await database.dump()).tarball;
}

async function seedAll(database: Database): Promise<void> {
  const store = new Store(database);
  await catchUp(store);
  await seed(store, 'missing');
}

async function preparePostgres(saved: string): Promise<void> {
  const server = await startServer();
  await createTemplates(server.url, async (url, content) => {
    const database = await openDatabase({ ...OPENING, url, dataDir: '' });
    try {
      await migrator(database).up();
      if (content === 'seeded') await seedAll(database);
    } finally {
      await database.close();
    }
  });
  await server.save(saved);
}

/** Runs the service once on a new data directory, which it leaves complete. */
async function startFirst(dataDir: string, seeded: string): Promise<void> {
  const loadDump = await readFile(seeded);
  const database = await openDatabase({ ...OPENING, url: undefined, dataDir, loadDump });
  await database.close();
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
