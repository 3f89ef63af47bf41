import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, existsSync, globSync, mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { packageFile } from '../../src/package.js';
import { startPostgres } from './postgres.js';

/** pg_dump and pg_restore with a server that they can read. */
export interface PgTools {
  /** For PATH. */
  readonly bin: string;
  readonly version: number;
  readonly start: () => Promise<{ createDatabase(): Promise<string>; stop(): Promise<void> }>;
}
