import { existsSync } from 'node:fs';
import { type InstalledServer, startInstalled } from './pg_tools.js';
import { startPostgres } from './postgres.js';

/** The oldest or the newest supported version of PostgreSQL. */
export interface ServerKind {
  readonly name: string;
  readonly start: () => Promise<InstalledServer>;
}

const DEBIAN_15 = '/usr/lib/postgresql/15/bin';

/** The servers to test with, if installed. Each test file starts its own, because roles belong to the whole server. */
export function serverKinds(): ServerKind[] {
  const kinds: ServerKind[] = [{ name: 'PostgreSQL 18', start: () => startPostgres({ own: true }) }];
  if (existsSync(`${DEBIAN_15}/initdb`)) kinds.push({ name: 'PostgreSQL 15', start: () => startInstalled(DEBIAN_15) });
  else console.log('PostgreSQL 15 is not installed: its tests are skipped (apt-get install postgresql-15)');
  return kinds;
}

/** The URL of the database for another role. */
export const asRole = (url: string, user: string, password = user): string =>
  Object.assign(new URL(url), { username: user, password }).href;

export const nameOf = (url: string): string => new URL(url).pathname.slice(1);
