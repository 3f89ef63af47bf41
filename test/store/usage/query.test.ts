import { randomUUID } from 'node:crypto';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { periodStarts, reportedRanges } from '../../../src/domain/usage_period.js';
import { insertAttempts } from '../../../src/store/usage/attempts.js';
import type { NewAttempt } from '../../../src/store/usage/new_attempt.js';
import { queryUsage } from '../../../src/store/usage/query.js';
import { startPostgres } from '../../support/postgres.js';
import { openStore, type TestStore } from '../../support/store.js';

const MINUTE_MS = 60_000;
/** Each range contains a change of daylight saving time of Berlin and the end of a month. */
const RANGES = [Date.UTC(2026, 2, 26), Date.UTC(2026, 9, 22)] as const;
const RANGE_MINUTES = 12 * 24 * 60;
const ZONES = ['UTC', 'Europe/Berlin', 'America/New_York', 'Asia/Kolkata', 'Australia/Lord_Howe'];
const EVERYTHING = {
  agents: undefined,
  configIds: [],
  providers: [],
  models: [],
  experiment: '',
  variants: [],
  outcomes: [],
  fallback: undefined,
};

const attemptAt = (ms: number, n: number): NewAttempt => ({
  attempt_id: randomUUID(),
  reservation_id: '',
  subject: '',
  call: undefined,
  revision: 0,
  started_at: new Date(ms),
  agent_id: 1,
  agent_name: 'a',
  config_id: null,
  provider: 'p',
  model_name: `m ${n % 2}`,
  experiment: '',
  variant: '',
  run_id: '',
  outcome: 'ATTEMPT_OUTCOME_SUCCEEDED',
  fallback: false,
  input_tokens: n,
  input_no_cache_tokens: null,
  input_cache_read_tokens: null,
  input_cache_write_tokens: null,
  input_cache_write_long_tokens: null,
  output_tokens: 1,
  output_reasoning_tokens: null,
  cost_nano_usd: BigInt(n),
  unpriced_reason: null,
  price_revision: 1,
  price_from_config: false,
  record: Buffer.alloc(0),
});

describe.each(['embedded', 'postgres'] as const)('queryUsage on %s', (engine) => {
  let opened: TestStore;
  let stop = async () => {};
  // Every 97 minutes, so that attempts are at many minutes of the hour.
  const attempts = RANGES.flatMap((from) =>
    Array.from({ length: Math.floor(RANGE_MINUTES / 97) }, (_, n) => attemptAt(from + n * 97 * MINUTE_MS, n + 1)),
  );

  beforeAll(async () => {
    if (engine === 'postgres') {
      const postgres = await startPostgres();
      stop = () => postgres.stop();
      opened = await openStore({ url: await postgres.createDatabase('migrated') });
    } else opened = await openStore();
    await insertAttempts(opened.database.knex, attempts);
  });
  afterAll(async () => {
    await opened.close();
    await stop();
  });

  it('has the sums of the attempts for every range, period and time zone', async () => {
    const minutes = fc.integer({ min: 0, max: RANGE_MINUTES });
    const property = fc.asyncProperty(
      fc.constantFrom(...RANGES),
      fc.tuple(minutes, minutes),
      fc.constantFrom('hour', 'day', 'month', undefined),
      fc.constantFrom(...ZONES),
      fc.boolean(),
      async (start, bounds, unit, zone, isWholeHour) => {
        const step = isWholeHour ? 60 : 1;
        const [since, until] = bounds
          .map((minute) => start + Math.floor(minute / step) * step * MINUTE_MS)
          .sort((a, b) => a - b) as [number, number];
        fc.pre(since < until);
        const periods = unit && [...periodStarts(unit, zone, since, until)];
        const expected = new Map<number | null, { attempts: number; cost: number; tokens: number }>();
        for (const { started_at, input_tokens } of attempts) {
          const at = started_at.getTime();
          if (at < since || at >= until) continue;
          const key = periods ? (periods.findLast((one) => one <= at) ?? null) : null;
          const sum = expected.get(key) ?? { attempts: 0, cost: 0, tokens: 0 };
          const tokens = input_tokens ?? 0;
          expected.set(key, { attempts: sum.attempts + 1, cost: sum.cost + tokens, tokens: sum.tokens + tokens });
        }
        const ranges = reportedRanges(since, until, periods ?? []);
        const query = { ranges, periods, dimensions: [], filter: EVERYTHING, after: undefined, limit: 10_000 };
        const { groups, totals } = await queryUsage(opened.store, query);
        const found = groups.map((group): [number | null, object] => [
          group.start_ms ?? null,
          { attempts: Number(group.attempts), cost: Number(group.cost_nano_usd), tokens: Number(group.input_tokens) },
        ]);
        expect(new Map(found)).toEqual(expected);
        const all = [...expected.values()].reduce((sum, one) => sum + one.attempts, 0);
        expect(Number(totals.attempts)).toBe(all);
      },
    );
    await fc.assert(property, { numRuns: engine === 'embedded' ? 30 : 60 });
  });
});
