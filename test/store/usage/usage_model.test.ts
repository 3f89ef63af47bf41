import { randomUUID } from 'node:crypto';
import fc from 'fast-check';
import type { Knex } from 'knex';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { insertAttempts, type NewAttempt, ROLLUP_KEY, rebuildSums } from '../../../src/store/usage/attempts.js';
import { deleteOldUsage } from '../../../src/store/usage/retention.js';
import { UsageWriter } from '../../../src/store/usage/usage_writer.js';
import { startPostgres } from '../../support/postgres.js';
import { openStore, type TestStore } from '../../support/store.js';

const HOUR_MS = 3_600_000;
const START = Date.UTC(2026, 9, 31, 20);

/** An attempt that a property chooses; its id is its index. */
interface Choice {
  readonly minutes: number;
  readonly agent: number;
  readonly model: number;
  readonly outcome: number;
  readonly cost: bigint | null;
  readonly tokens: number | null;
}

const choice: fc.Arbitrary<Choice> = fc.record({
  // Over the end of a month, so that two partitions are used.
  minutes: fc.integer({ min: 0, max: 600 }),
  agent: fc.integer({ min: 1, max: 3 }),
  model: fc.integer({ min: 0, max: 2 }),
  outcome: fc.integer({ min: 0, max: 2 }),
  cost: fc.option(fc.bigInt({ min: 0n, max: 10n ** 15n })),
  tokens: fc.option(fc.integer({ min: 0, max: 100_000_000 })),
});

const attemptOf = ({ minutes, agent, model, outcome, cost, tokens }: Choice): NewAttempt => ({
  attempt_id: randomUUID(),
  reservation_id: '',
  subject: '',
  call: undefined,
  revision: 1,
  started_at: new Date(START + minutes * 60_000 + agent),
  agent_id: agent,
  agent_name: `agent "${agent}" \\ ${minutes % 2}`,
  config_id: model === 0 ? null : model,
  provider: 'p,{}',
  model_name: `m ${model}`,
  experiment: '',
  variant: '',
  run_id: '',
  outcome: ['ATTEMPT_OUTCOME_SUCCEEDED', 'ATTEMPT_OUTCOME_TORN', 'ATTEMPT_OUTCOME_FAILED'][outcome] as string,
  fallback: model === 2,
  input_tokens: tokens,
  input_no_cache_tokens: tokens,
  input_cache_read_tokens: null,
  input_cache_write_tokens: 0,
  input_cache_write_long_tokens: null,
  output_tokens: tokens,
  output_reasoning_tokens: null,
  cost_nano_usd: cost,
  unpriced_reason: cost === null ? 'UNPRICED_REASON_NO_PRICE' : null,
  price_revision: 1,
  price_from_config: false,
  record: Buffer.from([0, 255, 34, 92, agent]),
});

/** The sums as a model computes them, without SQL. */
function modelOf(attempts: readonly NewAttempt[]): Map<string, { attempts: number; unpriced: number; cost: bigint }> {
  const sums = new Map<string, { attempts: number; unpriced: number; cost: bigint }>();
  for (const one of attempts) {
    const hour = new Date(Math.floor(one.started_at.getTime() / HOUR_MS) * HOUR_MS).toISOString();
    const key = [hour, one.agent_id, one.config_id ?? 0, one.model_name, one.outcome].join('|');
    const sum = sums.get(key) ?? { attempts: 0, unpriced: 0, cost: 0n };
    sums.set(key, {
      attempts: sum.attempts + 1,
      unpriced: sum.unpriced + (one.cost_nano_usd === null ? 1 : 0),
      cost: sum.cost + (one.cost_nano_usd ?? 0n),
    });
  }
  return sums;
}

describe.each(['embedded', 'postgres'] as const)('the sums of usage on %s', (engine) => {
  let opened: TestStore;
  let db: Knex;
  let stop = async () => {};

  beforeAll(async () => {
    if (engine === 'postgres') {
      const postgres = await startPostgres();
      stop = () => postgres.stop();
      opened = await openStore({ url: await postgres.createDatabase('migrated') });
    } else opened = await openStore();
    db = opened.database.knex;
  });
  afterAll(async () => {
    await opened.close();
    await stop();
  });

  const readSums = async () => {
    const rows: Record<string, unknown>[] = await db('llm_usage_hourly')
      .select('*')
      .orderBy([...ROLLUP_KEY]);
    const key = (row: Record<string, unknown>) => JSON.stringify(ROLLUP_KEY.map((name) => row[name]));
    return new Map(
      rows.map((row) => [key(row), Object.fromEntries(Object.entries(row).map(([k, v]) => [k, String(v)]))]),
    );
  };
  const rebuilt = async () => {
    const { rows } = await rebuildSums(db);
    const key = (row: Record<string, unknown>) => JSON.stringify(ROLLUP_KEY.map((name) => row[name]));
    return new Map(
      rows.map((row) => [key(row), Object.fromEntries(Object.entries(row).map(([k, v]) => [k, String(v)]))]),
    );
  };
  const clear = () =>
    db.raw('truncate llm_usage_attempts, llm_usage_attempt_ids, llm_usage_hourly, llm_usage_adjustments');

  it('equal those of a model and those that are rebuilt, under concurrency, retries, reordering and aborts', async () => {
    const property = fc.asyncProperty(
      fc.array(choice, { minLength: 1, maxLength: 40 }),
      fc.array(fc.array(fc.nat(), { minLength: 1, maxLength: 15 }), { minLength: 1, maxLength: 8 }),
      fc.array(fc.boolean(), { minLength: 8, maxLength: 8 }),
      async (choices, batches, aborts) => {
        await clear();
        const all = choices.map(attemptOf);
        const stored = new Set<string>();
        const news: string[] = [];
        // Two replicas, and transactions that fail after the attempts are inserted.
        const failing = new UsageWriter(opened.store, () => Promise.reject(new Error('a later step fails')));
        const writers = [new UsageWriter(opened.store), new UsageWriter(opened.store, async () => undefined)];
        await Promise.all(
          batches.map(async (indexes, at) => {
            const attempts = indexes.map((index) => all[index % all.length] as NewAttempt);
            if (aborts[at]) {
              // Without a new attempt there is no later step.
              const outcome = await failing.add({ attempts, losses: [] }, undefined).catch((error: Error) => error);
              if (outcome instanceof Error) expect(outcome.message).toBe('a later step fails');
              else expect(outcome.fresh.size).toBe(0);
              return;
            }
            const result = await (writers[at % 2] as UsageWriter).add({ attempts, losses: [] }, undefined);
            for (const { attempt_id } of attempts) stored.add(attempt_id);
            news.push(...result.fresh);
          }),
        );
        // Each attempt that was stored was new exactly once.
        expect(news.sort()).toEqual([...stored].sort());
        const rows = await readSums();
        expect(rows).toEqual(await rebuilt());
        const found = [...rows.values()].map((row): [string, object] => [
          [
            new Date(row['hour'] as string).toISOString(),
            row['agent_id'],
            row['config_id'],
            row['model_name'],
            row['outcome'],
          ].join('|'),
          {
            attempts: Number(row['attempts']),
            unpriced: Number(row['unpriced_attempts']),
            cost: BigInt(row['cost_nano_usd'] as string),
          },
        ]);
        expect(new Map(found)).toEqual(modelOf(all.filter(({ attempt_id }) => stored.has(attempt_id))));
      },
    );
    await fc.assert(property, { numRuns: engine === 'embedded' ? 15 : 30 });
  });

  it('keep the name of the newest attempt, in any order of arrival', async () => {
    await clear();
    const base: Choice = { minutes: 0, agent: 1, model: 0, outcome: 0, cost: 1n, tokens: 1 };
    const [older, newer] = [attemptOf({ ...base, minutes: 2 }), attemptOf({ ...base, minutes: 3 })];
    await insertAttempts(db, [newer]);
    await insertAttempts(db, [older]);
    expect(await db('llm_usage_hourly').select('agent_name')).toEqual([{ agent_name: newer.agent_name }]);
  });

  it('are kept when the attempts of a month are deleted, and the month can be used again', async () => {
    await clear();
    const month = 30 * 24 * HOUR_MS;
    const base = attemptOf({ minutes: 0, agent: 1, model: 0, outcome: 0, cost: 1n, tokens: 1 });
    const now = Date.now();
    const times = [now, now - 3 * month, now - 5 * month, now - 14 * month];
    const attempts = times.map((time) => ({ ...base, attempt_id: randomUUID(), started_at: new Date(time) }));
    await insertAttempts(db, attempts);
    await deleteOldUsage(opened.store, 100 * 24 * HOUR_MS, { rowsAtOnce: 1 });
    const kept = await db('llm_usage_attempts').select('attempt_id').orderBy('started_at', 'desc');
    expect(kept.map(({ attempt_id }) => attempt_id)).toEqual(attempts.slice(0, 2).map(({ attempt_id }) => attempt_id));
    expect(await db('llm_usage_attempt_ids').count('* as n')).toEqual([{ n: 2 }]);
    expect(await db('llm_usage_hourly').count('* as n')).toEqual([{ n: 4 }]);
  });

  it('do not include an attempt that the database rejects, which affects no other attempt', async () => {
    await clear();
    const base: Choice = { minutes: 0, agent: 1, model: 0, outcome: 0, cost: 1n, tokens: 1 };
    const valid = [attemptOf(base), attemptOf(base), attemptOf(base)];
    const invalid = { ...attemptOf(base), provider: 'x'.repeat(51) };
    const writer = new UsageWriter(opened.store);
    const { fresh, known } = await writer.add(
      { attempts: [...valid.slice(0, 2), invalid, ...valid.slice(2)], losses: [] },
      undefined,
    );
    expect([...fresh].sort()).toEqual(valid.map(({ attempt_id }) => attempt_id).sort());
    expect(known.size).toBe(0);
    expect(await readSums()).toEqual(await rebuilt());
  });
});
