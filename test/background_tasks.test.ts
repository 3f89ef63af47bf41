import { pino } from 'pino';
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { startBackgroundTasks } from '../src/background_tasks.js';
import { generateKey } from '../src/domain/fernet.js';
import { openEncryption } from '../src/store/keys/encryption.js';
import { startWatchBackend, type WatchBackend } from './feed/backend.js';
import { attemptOf, countingWriter, createExperiment, record } from './store/experiments/support.js';
import { until } from './support/until.js';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

afterEach(() => {
  // In this order: the mock of setTimeout restores the fake one.
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const ENCRYPTION_KEY = generateKey();

/** Starts a replica that does not poll. */
async function startReplica(): Promise<WatchBackend> {
  const backend = await startWatchBackend({ encryptionKey: ENCRYPTION_KEY, pollIntervalMs: 24 * HOUR });
  onTestFinished(() => backend.stop());
  return backend;
}

/** Starts a replica with its background tasks, whose timers are fake. */
async function start(replica?: WatchBackend) {
  const backend = replica ?? (await startReplica());
  const lines: { msg: string; err?: { message?: string } }[] = [];
  const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(JSON.parse(line)) });
  const checked = await openEncryption(backend.store, ENCRYPTION_KEY);
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  const timers = vi.spyOn(globalThis, 'setTimeout');
  const settings = { ENCRYPTION_KEY, HISTORY_RETENTION: HOUR, USAGE_RETENTION: HOUR };
  const stop = startBackgroundTasks(backend.store, settings, checked, log);
  onTestFinished(stop);
  /** The delays before the runs of the maintenance that have been scheduled so far. */
  const delays = () => timers.mock.calls.flatMap(([, ms = 0]) => (ms >= MINUTE ? [ms] : []));
  const messages = () => lines.map(({ msg }) => msg);
  return { ...backend, lines, messages, stop, delays };
}

/** Inserts an audit event that the next maintenance deletes. */
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
    const service = await start();
    const [first = 0] = service.delays();
    expect(first).toBeGreaterThanOrEqual(MINUTE);
    expect(first).toBeLessThanOrEqual(5 * MINUTE);
    await insertExpired(service);
    vi.advanceTimersByTime(Math.floor(first) - 1);
    expect(await countExpired(service)).toBe(1);
    for (const [runs, delay] of [2, HOUR].entries()) {
      vi.advanceTimersByTime(delay);
      await until(() => service.delays().length === runs + 2);
      expect(service.delays().at(-1)).toBe(HOUR);
      expect(await countExpired(service)).toBe(0);
      await insertExpired(service);
    }
    await service.stop();
    vi.advanceTimersByTime(2 * HOUR);
    expect(await countExpired(service)).toBe(1);
    expect(service.messages()).toEqual([]);
  });

  it('logs the step that fails and runs again after an hour', async () => {
    const service = await start();
    const { knex } = service.database;
    await knex.raw('alter table idempotent_answers rename to other_name');
    vi.advanceTimersByTime(5 * MINUTE);
    await until(() => service.delays().length === 2);
    expect(service.messages()).toEqual(['a background task failed; it runs again within an hour']);
    expect(service.lines[0]?.err?.message).toContain('the maintenance could not delete expired responses');
    await knex.raw('alter table other_name rename to idempotent_answers');
    vi.advanceTimersByTime(HOUR);
    await until(() => service.delays().length === 3);
    expect(service.lines).toHaveLength(1);
  });

  it('ends after its current statement when the service stops', async () => {
    const service = await start();
    let stopped: Promise<void> | undefined;
    const deletes: string[] = [];
    service.database.knex.on('query', ({ sql }: { sql: string }) => {
      if (!/^delete/.test(sql)) return;
      deletes.push(sql);
      stopped ??= service.stop();
    });
    vi.advanceTimersByTime(5 * MINUTE);
    await until(() => stopped !== undefined);
    await stopped;
    expect(deletes).toHaveLength(1);
    expect(service.delays()).toHaveLength(1);
  });
});

describe('the check of the stored API keys', () => {
  /** Stores an API key, and returns functions that damage its ciphertext and restore it. */
  async function storeKey({ configs, database: { knex } }: WatchBackend) {
    const { config } = await configs.getPrimaryConfig({ agent: { name: 'trader' } });
    const id = config?.id as number;
    await configs.updateConfig({ config: { id }, api_key: 'sk-stored' });
    const row = () => knex('agent_llm_configs').where({ id });
    const [{ api_key_encrypted: ciphertext }] = await row().select('api_key_encrypted');
    return {
      damage: () => row().update({ api_key_encrypted: `${ciphertext}x` }),
      repair: () => row().update({ api_key_encrypted: ciphertext }),
    };
  }

  it('is repeated with the maintenance, and logs only what has changed', async () => {
    const replica = await startReplica();
    const { damage, repair } = await storeKey(replica);
    const service = await start(replica);
    const run = async (runs: number) => {
      vi.advanceTimersByTime(HOUR);
      await until(() => service.delays().length === runs + 1);
    };
    await run(1);
    await damage();
    await run(2);
    await until(() => service.messages().length === 1);
    await run(3);
    await repair();
    await run(4);
    await until(() => service.messages().length === 2);
    expect(service.messages()).toEqual(['stored API keys cannot be read', 'all stored API keys can be read again']);
  });

  it('is repeated when the state has been replaced, for example after a restore', async () => {
    const replica = await startReplica();
    const { store } = replica;
    const { damage } = await storeKey(replica);
    const service = await start(replica);
    await damage();
    store.replaceState(store.state);
    await until(() => service.messages().length > 0);
    expect(service.messages()).toEqual(['stored API keys cannot be read']);
    expect(service.delays()).toHaveLength(1);
  });
});

describe('the guardrails of experiments', () => {
  it('are checked every ten seconds, and a violated one pauses the experiment', async () => {
    const replica = await startReplica();
    const metric = {
      kind: 'EXPERIMENT_METRIC_KIND_COST_PER_CALL',
      outcome: '',
      direction: 'METRIC_DIRECTION_LOWER_IS_BETTER',
    } as const;
    const guardrails = [{ metric, relative_margin_basis_points: 1000, absolute_margin: null }];
    const { id, name, ...rest } = await createExperiment(replica, { guardrails });
    const attempts = Array.from({ length: 400 }, (_, at) =>
      attemptOf(
        { id, name, ...rest },
        { subject: `s${at}`, variant: at % 2 ? 'a' : 'b', cost_nano_usd: BigInt(at % 2 ? 1000 + at : 5000 + at) },
      ),
    );
    await record(countingWriter(replica), attempts);
    const service = await start(replica);
    vi.advanceTimersByTime(8_000);
    expect(replica.store.state.experiments.withId(id)?.state).toBe('EXPERIMENT_STATE_RUNNING');
    vi.advanceTimersByTime(4_000);
    await until(() => replica.store.state.experiments.withId(id)?.state === 'EXPERIMENT_STATE_PAUSED');
    await until(() => service.messages().includes('paused experiments that violate a guardrail'));
  });
});
