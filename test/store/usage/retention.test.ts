import { randomUUID } from 'node:crypto';
import type { Knex } from 'knex';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { QueryUsageRequest, QueryUsageResponse } from '../../../gen/ts/agentllm/v1/usage_service.js';
import { queryUsage } from '../../../src/api/handlers/query_usage.js';
import { recordUsage } from '../../../src/api/handlers/record_usage.js';
import { usageHorizon } from '../../../src/store/usage/horizon.js';
import { deleteOldUsage } from '../../../src/store/usage/retention.js';
import { startPostgres } from '../../support/postgres.js';
import { openStore, type TestStore } from '../../support/store.js';
import { noSignal, reporter, usageBackend, usageRecord } from '../../support/usage.js';

const DAY_MS = 86_400_000;

describe.each(['embedded', 'postgres'] as const)('the retention of usage on %s', (engine) => {
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
  beforeEach(async () => {
    await db.raw(
      `truncate llm_usage_attempts, llm_usage_attempt_ids, llm_usage_hourly, llm_usage_adjustments, llm_usage_losses,
                llm_usage_horizon`,
    );
  });

  const daysAgo = (days: number) => new Date(Date.now() - days * DAY_MS);
  const backend = (usageRetentionMs: number) => ({ ...usageBackend(opened), usageRetentionMs });
  const record = (usageRetentionMs: number, ...records: ReturnType<typeof usageRecord>[]) =>
    recordUsage(backend(usageRetentionMs), reporter, { records, losses: [] }, noSignal);
  const lose = (...losses: Parameters<typeof recordUsage>[2]['losses'][number][]) =>
    recordUsage(backend(Number.POSITIVE_INFINITY), reporter, { records: [], losses }, noSignal);
  const query = async (usageRetentionMs: number, since: Date, until: Date) => {
    const request = QueryUsageRequest.fromPartial({ since, until });
    return QueryUsageResponse.decode(await queryUsage(backend(usageRetentionMs), opened.store.state, request));
  };

  it('does not read or accept again what a shorter retention has deleted, when it is lengthened', async () => {
    const [year, quarter] = [400 * DAY_MS, 100 * DAY_MS];
    const old = usageRecord({ attempt: { started_at: daysAgo(200) } });
    await record(year, old, usageRecord());
    await deleteOldUsage(opened.store, year);
    expect(await usageHorizon(db)).toBe(0);
    await deleteOldUsage(opened.store, quarter);
    const horizon = await usageHorizon(db);
    expect(horizon).toBeGreaterThan(daysAgo(132).getTime());
    expect(horizon).toBeLessThanOrEqual(daysAgo(100).getTime());
    // The same attempt would count a second time, because its id is deleted too.
    const { results } = await record(year, old);
    expect(results).toMatchObject([{ status: 'USAGE_STATUS_REJECTED', rejection: 'USAGE_REJECTION_TOO_OLD' }]);
    // A part of an hour whose attempts are deleted is not reported as 0.
    const partly = new Date(old.attempt?.started_at?.getTime() ?? 0);
    partly.setUTCMinutes(30, 1, 1);
    const compacted = query(year, partly, new Date());
    await expect(compacted).rejects.toMatchObject({ reason: 'USAGE_COMPACTED' });
    partly.setUTCMinutes(0, 0, 0);
    const now = new Date();
    now.setUTCMinutes(60, 0, 0);
    expect((await query(year, partly, now)).totals?.attempts).toBe(2n);
    // A horizon never moves back.
    await record(year, usageRecord({ attempt: { started_at: new Date(horizon) } }));
    await deleteOldUsage(opened.store, year);
    expect(await usageHorizon(db)).toBe(horizon);
  });

  it('keeps the sums of losses for reports, by agent and hour', async () => {
    const hour = daysAgo(200);
    hour.setUTCMinutes(0, 0, 0);
    const at = (minutes: number) => new Date(hour.getTime() + minutes * 60_000);
    const loss = (agent: string, attempts: bigint, minutes: number) => ({
      loss_id: randomUUID(),
      agent,
      attempts,
      first_at: at(minutes),
      last_at: at(minutes + 200),
    });
    await lose(loss('a', 2n, 1), loss('a', 3n, 59), loss('a', 4n, 60), loss('b', 5n, 1), loss('b', 2n ** 63n - 1n, 2));
    await lose({ ...loss('a', 6n, 1), first_at: daysAgo(1), last_at: daysAgo(1) });
    const lost = async (from: Date, to: Date) => (await query(400 * DAY_MS, from, to)).lost_attempts;
    const nextHour = new Date(Math.ceil(Date.now() / 3_600_000) * 3_600_000);
    const before = [await lost(hour, at(60)), await lost(at(60), nextHour)];
    expect(before).toEqual([2n ** 63n - 1n, 10n]);
    for (let run = 0; run < 2; run++) {
      await deleteOldUsage(opened.store, 100 * DAY_MS, { rowsAtOnce: 1 });
      expect([await lost(hour, at(60)), await lost(at(60), nextHour)]).toEqual(before);
      const { rows } = await db.raw<{ rows: object[] }>(
        'select agent_name, attempts::text from llm_usage_losses order by agent_name, first_at',
      );
      expect(rows).toEqual([
        { agent_name: 'a', attempts: '5' },
        { agent_name: 'a', attempts: '4' },
        { agent_name: 'a', attempts: '6' },
        { agent_name: 'b', attempts: '9223372036854775807' },
      ]);
    }
  });
});
