import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import knex, { type Knex } from 'knex';
import pg from 'pg';
import { onTestFinished } from 'vitest';
import { type Engine, type EngineOptions, openEngine } from '../../../src/store/embedded/engine.js';
import { emptyCluster } from '../../support/empty_cluster.js';

/** Opens an empty database in memory from a prepared dump, which avoids the seconds that initdb takes. */
export async function openMemoryEngine(options: Partial<EngineOptions> = {}): Promise<Engine> {
  return openEngine({ dataDir: undefined, loadDump: await emptyCluster(), ...options });
}

export function openKnex(engine: Engine): Knex {
  return knex({
    client: 'pg',
    connection: { stream: () => engine.connect() } as Knex.PgConnectionConfig,
    pool: { min: 0, max: 1 },
  });
}

/** Opens a Knex for the current test and closes it when the test ends. */
export function useKnex(engine: Engine): Knex {
  const db = openKnex(engine);
  onTestFinished(() => db.destroy());
  return db;
}

export async function connectClient(engine: Engine): Promise<pg.Client> {
  const client = new pg.Client({ stream: () => engine.connect() } as pg.ClientConfig);
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

export function useDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'agentllm-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

export interface Child {
  process: ChildProcess;
  lines: string[];
  exited: Promise<number | NodeJS.Signals | null>;
  /** Resolves with the first line that matches. */
  line(pattern: RegExp): Promise<string>;
}

/** Runs `child.ts` in a separate process, which is killed when the test ends. */
export function spawnChild(args: string[], options: { uid?: number } = {}): Child {
  const script = fileURLToPath(new URL('./child.ts', import.meta.url));
  const tsx = createRequire(import.meta.url).resolve('tsx');
  const child = spawn(process.execPath, ['--import', tsx, script, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
    ...options,
  });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  const lines: string[] = [];
  const waiting = new Set<() => void>();
  let rest = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    const parts = (rest + chunk).split('\n');
    rest = parts.pop() ?? '';
    lines.push(...parts);
    for (const check of waiting) check();
  });
  const exited = new Promise<number | NodeJS.Signals | null>((resolve) => {
    child.once('close', (code, signal) => {
      resolve(signal ?? code);
      for (const check of waiting) check();
    });
  });
  const line = (pattern: RegExp): Promise<string> =>
    new Promise((resolve, reject) => {
      const check = (): void => {
        const found = lines.find((candidate) => pattern.test(candidate));
        if (found === undefined && child.exitCode === null && child.signalCode === null) return;
        waiting.delete(check);
        if (found !== undefined) resolve(found);
        else reject(new Error(`the child ended without ${pattern}: ${lines.slice(-5).join(' | ')}`));
      };
      waiting.add(check);
      check();
    });
  return { process: child, lines, exited, line };
}
