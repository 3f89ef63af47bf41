import { createDatabase } from '../test/support/postgres_databases.js';
import { startServer } from '../test/support/postgres_server.js';
import type { Lab } from './lab.js';

/**
 * Starts a PostgreSQL server as the tests do. It runs with fsync off, so that the programs are measured and not the
 * disk.
 */
export async function startPostgres(lab: Lab) {
  const starting = startServer();
  // Registered before the start has finished, because Ctrl-C may interrupt it.
  lab.onClose(async () => (await starting).stop());
  const { url } = await starting;
  return { url, createDatabase: () => createDatabase(url, 'empty') };
}
