import { startPostgres as start } from '../test/support/postgres.js';
import type { Lab } from './lab.js';

/** A real PostgreSQL, as the tests have it: it does not wait for the disk, so that what is measured is the programs. */
export async function startPostgres(lab: Lab) {
  const starting = start();
  // Before it is there: Ctrl-C may come while it starts.
  lab.onClose(async () => (await starting).stop());
  return await starting;
}
