import { startPostgres as start } from '../test/support/postgres.js';
import type { Lab } from './lab.js';

/** Starts the PostgreSQL of the tests. It runs with fsync off, so that the programs are measured and not the disk. */
export async function startPostgres(lab: Lab) {
  const starting = start();
  // Registered before the start has finished, because Ctrl-C may interrupt it.
  lab.onClose(async () => (await starting).stop());
  return await starting;
}
