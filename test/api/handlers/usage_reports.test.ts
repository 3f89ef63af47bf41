import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { UsageDimension, type UsageTotals } from '../../../gen/ts/agentllm/v1/usage.js';
import {
  ListUsageRequest,
  ListUsageResponse,
  QueryUsageRequest,
  QueryUsageResponse,
  RepriceUsageRequest,
  RepriceUsageResponse,
  WhatIfRequest,
  WhatIfResponse,
} from '../../../gen/ts/agentllm/v1/usage_service.js';
import { recordUsage } from '../../../src/api/handlers/record_usage.js';
import { methods, type Outcome, rawCaller } from '../../support/access.js';
import { startPostgres } from '../../support/postgres.js';
import { startBackend, type TestBackend } from '../../support/store.js';
import { noSignal, reporter, usageBackend, usageRecord } from '../../support/usage.js';

const { HOUR, DAY, AGENT, MODEL, OUTCOME, FALLBACK, CONFIG, VARIANT, PROVIDER } = UsageDimension;

/** A message type of the contract. */
interface Type<T> {
  encode(message: T): { finish(): Uint8Array };
  decode(bytes: Uint8Array): T;
  fromPartial(object: object): T;
}

describe.each(['embedded', 'postgres'] as const)('reports of usage on %s', (engine) => {
  let backend: TestBackend;
  let stop = async () => {};

  beforeAll(async () => {
    if (engine === 'embedded') backend = await startBackend();
    else {
      const postgres = await startPostgres();
      backend = await startBackend({ url: await postgres.createDatabase('seeded') });
      stop = () => postgres.stop();
    }
  });
  afterAll(async () => {
    await backend.close();
    await stop();
  });

  async function call<Request, Response>(
    name: string,
    request: Type<Request>,
    response: Type<Response>,
    fields: object,
  ): Promise<Outcome & { readonly response: Response }> {
    const method = methods.find((one) => one.name === name && one.parent.name === 'UsageService');
    if (!method) throw new Error(`no method ${name}`);
    const bytes = Buffer.from(request.encode(request.fromPartial(fields)).finish());
    const outcome = await rawCaller(backend.port)(method, { bytes });
    return { ...outcome, response: response.decode(outcome.bytes ?? Buffer.alloc(0)) };
  }
  const query = (fields: object) => call('QueryUsage', QueryUsageRequest, QueryUsageResponse, fields);
  const list = (fields: object) => call('ListUsage', ListUsageRequest, ListUsageResponse, fields);
  const whatIf = (fields: object) => call('WhatIf', WhatIfRequest, WhatIfResponse, fields);
  const reprice = (fields: object) => call('RepriceUsage', RepriceUsageRequest, RepriceUsageResponse, fields);

  async function record(...records: ReturnType<typeof usageRecord>[]) {
    const { results } = await recordUsage(usageBackend(backend), reporter, { records, losses: [] }, noSignal);
    expect(results.filter(({ message }) => message !== '')).toEqual([]);
    return results;
  }
  const at = (started_at: string, agent = 'desk', more: object = {}) =>
    usageRecord({ agent, agent_id: 70, attempt: { started_at: new Date(started_at), ...more } });

  it('sums by day in a time zone on both changes of daylight saving time', async () => {
    await record(
      ...['2026-03-28T22:59:59Z', '2026-03-28T23:00:00Z', '2026-03-29T21:59:59Z', '2026-03-29T22:00:00Z'].map((time) =>
        at(time, 'spring'),
      ),
      ...['2026-10-24T22:00:00Z', '2026-10-25T22:59:59Z', '2026-10-25T23:00:00Z'].map((time) => at(time, 'autumn')),
    );
    const days = async (agent: string) => {
      const range = { since: new Date('2026-01-01T00:00:00Z'), until: new Date('2026-11-01T00:00:00Z') };
      const fields = { ...range, group_by: [DAY], time_zone: 'Europe/Berlin', filter: { agents: [agent] } };
      const { response } = await query(fields);
      return response.groups.map(({ start, totals }) => [start?.toISOString(), totals?.attempts]);
    };
    // Both names are of agent 70, so each filter finds both.
    expect(await days('spring')).toEqual([
      ['2026-03-27T23:00:00.000Z', 1n],
      ['2026-03-28T23:00:00.000Z', 2n],
      ['2026-03-29T22:00:00.000Z', 1n],
      ['2026-10-24T22:00:00.000Z', 2n],
      ['2026-10-25T23:00:00.000Z', 1n],
    ]);
    expect(await days('autumn')).toEqual(await days('spring'));
  });

  it('divides hours in a time zone with an offset of 30 minutes, and where the range begins and ends', async () => {
    await record(
      ...['2025-12-31T18:29:59Z', '2025-12-31T18:30:00Z', '2025-12-31T19:10:00Z', '2025-12-31T19:40:00Z'].map((time) =>
        at(time, 'india'),
      ),
    );
    const range = { since: new Date('2025-12-31T18:00:00Z'), until: new Date('2025-12-31T19:40:00Z') };
    const { response } = await query({ ...range, group_by: [HOUR], time_zone: 'Asia/Kolkata' });
    expect(response.groups.map(({ start, totals }) => [start?.toISOString(), totals?.attempts])).toEqual([
      ['2025-12-31T17:30:00.000Z', 1n],
      ['2025-12-31T18:30:00.000Z', 2n],
    ]);
    expect(response.totals?.attempts).toBe(3n);
  });

  it('has totals that equal the sum of the groups, over all pages and dimensions', async () => {
    const since = new Date('2024-05-01T00:00:00Z');
    const until = new Date('2024-06-01T00:00:00Z');
    const models = ['gpt-4', 'gpt-4o', 'unknown'];
    const classes = ['ERROR_CLASS_UNSPECIFIED', 'ERROR_CLASS_TORN', 'ERROR_CLASS_CANCELLED', 'ERROR_CLASS_SERVER'];
    await record(
      ...Array.from({ length: 60 }, (_, n) =>
        usageRecord({
          agent_id: 100 + (n % 2),
          agent: `agent ${n % 2}`,
          experiment: n % 3 === 0 ? 'e' : '',
          variant: n % 3 === 0 ? 'v' : '',
          attempt: {
            started_at: new Date(since.getTime() + n * 7_000_000),
            model_name: models[n % 3] as string,
            error_class: classes[n % 4] as 'ERROR_CLASS_TORN',
            hop_index: n % 2,
            usage: n % 5 === 0 ? undefined : { input_tokens: n, output_tokens: 2 * n },
          },
        }),
      ),
    );
    const group_by = [OUTCOME, DAY, AGENT, MODEL, FALLBACK, CONFIG, VARIANT, PROVIDER];
    const groups: QueryUsageResponse['groups'] = [];
    let totals: UsageTotals | undefined;
    for (let page_token = ''; ; ) {
      const { response } = await query({ since, until, group_by, page_size: 7, page_token });
      groups.push(...response.groups);
      if (page_token !== '') expect(response.totals).toBeUndefined();
      totals ??= response.totals;
      page_token = response.next_page_token;
      if (page_token === '') break;
    }
    const sum = (field: keyof UsageTotals) => groups.reduce((all, group) => all + (group.totals?.[field] ?? 0n), 0n);
    expect(totals?.attempts).toBe(60n);
    for (const field of Object.keys(totals ?? {}) as (keyof UsageTotals)[]) expect(sum(field)).toBe(totals?.[field]);
    expect(new Set(groups.map((group) => JSON.stringify({ ...group, totals: undefined }))).size).toBe(groups.length);
    expect(totals?.unsuccessful_attempts).toBe(45n);
    const { response } = await query({ since, until });
    expect(response.groups[0]?.totals).toEqual(totals);
  });

  it('lists attempts newest first in pages, as they were reported', async () => {
    const since = new Date('2024-02-28T00:00:00Z');
    const until = new Date('2024-03-03T00:00:00Z');
    const records = Array.from({ length: 9 }, (_, n) =>
      usageRecord({ run_id: 'r', attempt: { started_at: new Date(since.getTime() + n * 36_000_000) } }),
    );
    await record(...records);
    const found: string[] = [];
    for (let page_token = ''; ; ) {
      const { response } = await list({ since, until, run_id: 'r', page_size: 2, page_token });
      found.push(...response.attempts.map((one) => one.record?.attempt?.attempt_id ?? ''));
      page_token = response.next_page_token;
      if (page_token === '') break;
    }
    expect(found).toEqual(records.map(({ attempt }) => attempt?.attempt_id).reverse());
    const { response } = await list({ since, until, run_id: 'r', page_size: 1 });
    expect(response.attempts[0]?.record).toEqual(records.at(-1));
  });

  it('reports every invalid field of a query', async () => {
    const { error } = await query({
      since: new Date(2),
      until: new Date(1),
      group_by: [DAY, HOUR, DAY],
      time_zone: 'Mars/Olympus',
      filter: { models: ['x'] },
    });
    expect(error?.fields.sort()).toEqual(['filter.models[0]', 'group_by', 'group_by[2]', 'time_zone', 'until'].sort());
  });

  it.each(['WyJ4Il0', Buffer.from('["x",1]').toString('base64url'), 'x'])(
    'rejects the page token %s',
    async (token) => {
      const range = { since: new Date(0), until: new Date(1) };
      expect(await query({ ...range, page_token: token })).toMatchObject({ reason: 'INVALID_PAGE_TOKEN' });
      expect(await list({ page_token: token })).toMatchObject({ reason: 'INVALID_PAGE_TOKEN' });
    },
  );

  it('calculates another price exactly, and adjusts unpriced attempts once', async () => {
    const since = new Date('2023-07-01T00:00:00Z');
    const until = new Date('2023-07-02T00:00:00Z');
    const filter = { agents: ['forecaster'] };
    await record(
      ...[1000, 2000].map((input_tokens) =>
        usageRecord({
          agent_id: 90,
          agent: 'forecaster',
          attempt: { started_at: new Date('2023-07-01T12:30:00Z'), usage: { input_tokens, output_tokens: 10 } },
        }),
      ),
    );
    const price = { input_micro_usd_per_million: 2_000_000n, output_micro_usd_per_million: 8_000_000n, source: 'test' };
    const { response } = await whatIf({ since, until, filter, price });
    expect(response.totals).toMatchObject({ cost_nano_usd: 3000n * 2000n + 20n * 8000n, unpriced_attempts: 0n });
    expect(response.approximate_attempts).toBe(0n);
    expect(response.models.map(({ model_name }) => model_name)).toEqual(['gpt-4']);
    const dry = await reprice({ since, until, filter, reason: 'a test', validate_only: true });
    const done = await reprice({ since, until, filter, reason: 'a test' });
    const again = await reprice({ since, until, filter, reason: 'a test' });
    expect({ ...dry.response, revision: 0n }).toEqual({ ...done.response, revision: 0n });
    expect(again.response).toMatchObject({ adjusted_attempts: 0n, adjustment_nano_usd: 0n });
    const { response: after } = await query({ since, until, filter });
    const { response: listed } = await list({ since, until, filter });
    const cost = listed.attempts.reduce((sum, one) => sum + (one.cost_nano_usd ?? 0n) + one.adjustment_nano_usd, 0n);
    expect(after.totals?.cost_nano_usd).toBe(cost);
    // The range within an hour is read from the attempts.
    const part = await query({
      since: new Date('2023-07-01T12:15:00Z'),
      until: new Date('2023-07-01T12:45:00Z'),
      filter,
    });
    expect(part.response.totals).toEqual(after.totals);
  });
});
