import { pino } from 'pino';
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { startBackgroundTasks } from '../src/background_tasks.js';
import { generateKey } from '../src/domain/fernet.js';
import { createLog } from '../src/log.js';
import { openVault } from '../src/store/keys/vault.js';
import { startWatchBackend, type WatchBackend } from './feed/backend.js';
import { startPostgres } from './support/postgres.js';
import { rotate } from './support/rotation.js';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

afterEach(() => {
  vi.useRealTimers();
});

async function start(options: Parameters<typeof startWatchBackend>[0] = {}): Promise<WatchBackend> {
  const backend = await startWatchBackend(options);
  onTestFinished(() => backend.stop());
  return backend;
}

/** Starts the tasks of a replica and returns its log lines. */
async function startTasks({ store }: WatchBackend, key: string, toFake: ('setTimeout' | 'clearTimeout')[] = []) {
  const lines: string[] = [];
  const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(line) });
  const vault = await openVault(store, key);
  if (toFake.length > 0) vi.useFakeTimers({ toFake });
  const stop = startBackgroundTasks(store, { ENCRYPTION_KEY: key, HISTORY_RETENTION: HOUR }, vault, log);
  onTestFinished(stop);
  return { lines, stop };
}

/** Inserts an expired audit event, which the next maintenance deletes. */
const insertExpired = ({ database: { knex } }: WatchBackend) =>
  knex('audit_events').insert({
    kind: 'AUDIT_EVENT_KIND_TOKEN_USE',
    actor: 'expired',
    method: '',
    provider: '',
    outcome: 'used',
    created_at: knex.raw(`now() - interval '2 days'`),
  });
const countExpired = async ({ database: { knex } }: WatchBackend) =>
  (await knex('audit_events').where({ actor: 'expired' })).length;

describe('the maintenance', () => {
  it('runs within five minutes of the start, then every hour, and not after the end', async () => {
    const backend = await start();
    const { knex } = backend.database;
    let runs = 0;
    knex.on('query', ({ sql }: { sql: string }) => {
      if (/^delete from "audit_events"/.test(sql)) runs += 1;
    });
    const { stop } = await startTasks(backend, generateKey(), ['setTimeout', 'clearTimeout']);
    const advance = async (ms: number, expected: number) => {
      const before = vi.getTimerCount();
      vi.advanceTimersByTime(ms);
      if (expected === runs) return expect(before).toBeGreaterThan(0);
      // The next run is scheduled when this one has ended.
      vi.useRealTimers;
      for (let turns = 0; turns < 100_000 && runs < expected; turns++) await new Promise(setImmediate);
      expect(runs).toBe(expected);
    };
    await advance(MINUTE - 1, 0);
    await advance(4 * MINUTE + 1, 1);
    await stop();
    expect(runs).toBe(1);
  });
});
