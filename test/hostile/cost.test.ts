import { randomUUID } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { invalid, newAgent, newConfig, newModel, present } from '../api/handlers/support.js';
import { failure, unique, useService } from '../support/service.js';
import { usageRecord } from '../support/usage.js';

/* Hostile inputs of usage, budgets and prices: each is refused by name or counted exactly, and none is an internal error. */

const MAX_INT64 = 2n ** 63n - 1n;
const HOUR_MS = 3_600_000;
type Record = Parameters<typeof usageRecord>[0];

describe.each(['embedded', 'postgres'] as const)('hostile usage on %s', (engine) => {
  const service = useService(engine);
  const send = async (...records: ReturnType<typeof usageRecord>[]) =>
    (await service().usage.recordUsage({ records, losses: [] })).results;
  const record = (attempt: NonNullable<Record>['attempt'], more: Record = {}) => usageRecord({ ...more, attempt });

  it('is refused attempt by attempt, and valid attempts beside it are stored', async () => {
    const now = Date.now();
    const bad: [ReturnType<typeof usageRecord>, string][] = [
      [record({ usage: { input_tokens: 100_000_001, output_tokens: 1 } }), 'input_tokens'],
      [record({ usage: { input_tokens: -1, output_tokens: 1 } }), 'input_tokens'],
      [record({ usage: { input_tokens: -(2 ** 31), output_tokens: 2 ** 31 - 1 } }), 'input_tokens'],
      [
        record({
          usage: { input_tokens: 5, input_cache_read_tokens: 3, input_cache_write_tokens: 3, output_tokens: 1 },
        }),
        'kinds',
      ],
      [record({ usage: { input_cache_write_tokens: 1, input_cache_write_long_tokens: 2 } }), 'kinds'],
      [record({ usage: { output_tokens: 1, output_reasoning_tokens: 2 } }), 'kinds'],
      [record({ usage: { raw_json: 'x'.repeat(4097) } }), 'raw_json'],
      [record({ usage: { raw_json: 'NaN\0' } }), 'raw_json'],
      [record({ attempt_id: 'NaN' }), 'attempt_id'],
      [record({ attempt_id: `${randomUUID()} ` }), 'attempt_id'],
      [record({ attempt_id: `{${randomUUID()}}` }), 'attempt_id'],
      [record({ reservation_id: 'x' }), 'reservation_id'],
      [record({ provider: '' }), 'provider'],
      [record({ provider: 'p'.repeat(51) }), 'provider'],
      [record({ model_name: 'm\0' }), 'model_name'],
      [record({ model_name: 'm'.repeat(101) }), 'model_name'],
      [record({ config_id: 0 }), 'config_id'],
      [record({ config_id: -5 }), 'config_id'],
      [record({ hop_index: -1 }), 'hop_index'],
      [record({ started_at: new Date('0001-01-01T00:00:00Z') }), 'started_at'],
      [record({ started_at: new Date(-1) }), 'started_at'],
      [record({}, { revision: -1n }), 'revision'],
      [record({}, { agent_id: -1 }), 'agent_id'],
      [record({}, { agent: '' }), 'agent'],
      [record({}, { agent: 'a'.repeat(256) }), 'agent'],
      [record({}, { run_id: 'r'.repeat(101) }), 'run_id'],
      [record({}, { experiment: '\0' }), 'experiment'],
      [record({}, { receipt_id: 'none' }), 'receipt_id'],
      [record({ started_at: new Date(now + 6 * 60_000) }), 'future'],
      [record({ started_at: new Date('9999-12-31T23:59:59.999Z') }), 'future'],
      [record({ started_at: new Date(1) }), 'no longer retained'],
    ];
    const good = record({ started_at: new Date(now + 4 * 60_000) }, { revision: MAX_INT64 });
    const results = await send(...bad.map(([one]) => one), good);
    expect(results.slice(0, -1).map(({ status, message }, at) => [status, message, bad[at]?.[1]])).toEqual(
      bad.map(([, named]) => ['USAGE_STATUS_REJECTED', expect.stringContaining(named), named]),
    );
    expect(results.at(-1)).toMatchObject({ status: 'USAGE_STATUS_NEW', message: '' });
  });

  it('counts an id once, in any spelling, within and across batches at the same time', async () => {
    const id = randomUUID();
    const agent = unique('agent');
    const same = (attempt_id: string, input_tokens: number) =>
      record({ attempt_id, usage: { input_tokens, output_tokens: 0 } }, { agent, agent_id: 0 });
    const batches = await Promise.all(
      Array.from({ length: 6 }, (_, n) => send(same(id.toUpperCase(), n), same(id, 50), same(id, 60))),
    );
    const statuses = batches.flat().map(({ status }) => status);
    expect(statuses.filter((status) => status === 'USAGE_STATUS_NEW')).toHaveLength(1);
    expect(statuses.filter((status) => status === 'USAGE_STATUS_KNOWN')).toHaveLength(17);
    const { attempts } = await service().usage.listUsage({ filter: { agents: [agent] } });
    expect(attempts).toHaveLength(1);
  });

  it('never uses the price of a config of another agent, of a deleted config or of a revision that does not exist', async () => {
    const free = { cost_per_1k_input_tokens: 0, cost_per_1k_output_tokens: 0 };
    const config = await newConfig(service(), free);
    const { id: agent_id, name: agent } = await newAgent(service());
    const at = { provider: config.provider, model_name: config.model_name, config_id: config.id };
    const [foreign] = await send(record(at, { agent_id, agent }));
    expect(foreign?.cost_nano_usd).toBeGreaterThan(0n);
    const own = { agent_id: config.agent_id, agent: config.agent_name };
    const revision = config.revision;
    await service().configs.deleteConfig({ id: config.id });
    const [before, after, never] = await send(
      record(at, { ...own, revision }),
      record(at, { ...own, revision: MAX_INT64 }),
      record({ ...at, config_id: 2 ** 31 - 1 }, { ...own, revision }),
    );
    expect(before?.cost_nano_usd).toBe(0n);
    expect(after?.cost_nano_usd).toBeGreaterThan(0n);
    expect(never?.cost_nano_usd).toBeGreaterThan(0n);
  });

  it('has an unknown cost where a price is absurd, and sums stay exact at the highest counts', async () => {
    const model = await newModel(service(), { provider: 'openai' });
    const price = { input_micro_usd_per_million: 1_000_000_000_000n, output_micro_usd_per_million: 1_000_000_000_000n };
    await service().providers.setPrice({ provider: 'openai', model_name: model.name, price, valid_from: new Date(1) });
    const agent = unique('agent');
    const of = (input_tokens: number) =>
      record(
        { provider: 'openai', model_name: model.name, usage: { input_tokens, output_tokens: 0 } },
        { agent, agent_id: 0 },
      );
    // One million USD, and one token more.
    const results = await send(of(1_000_000), of(1_000_001), of(1_000_000), of(100_000_000));
    expect(results.map(({ cost_nano_usd }) => cost_nano_usd)).toEqual([10n ** 15n, undefined, 10n ** 15n, undefined]);
    const full = Array.from({ length: 20 }, () => of(1_000_000));
    await send(...full);
    const since = new Date(Math.floor(Date.now() / HOUR_MS) * HOUR_MS - HOUR_MS);
    const until = new Date(since.getTime() + 3 * HOUR_MS);
    const { totals } = await service().usage.queryUsage({ since, until, filter: { agents: [agent] } });
    // More than 2^53.
    expect(totals).toMatchObject({ cost_nano_usd: 22n * 10n ** 15n, unpriced_attempts: 2n });
    const what = await service().usage.whatIf({ since, until, filter: { agents: [agent] }, cache_hit_percent: 0 });
    expect(what.totals).toMatchObject({ cost_nano_usd: 22n * 10n ** 15n, unpriced_attempts: 2n });
    // Sums beyond the range of int64 are its maximum.
    const many = Array.from({ length: 400 }, () => ({ ...of(999_999), agent: `${agent}_many` }));
    for (let sent = 0; sent < 24; sent++)
      await send(...many.map((one) => ({ ...one, attempt: { ...present(one.attempt), attempt_id: randomUUID() } })));
    const range = { since, until, filter: { agents: [`${agent}_many`] } };
    expect((await service().usage.queryUsage(range)).totals?.cost_nano_usd).toBe(MAX_INT64);
    const all = await service().usage.whatIf({ ...range, cache_hit_percent: 0 });
    expect(all.totals?.cost_nano_usd).toBe(MAX_INT64);
    await service().providers.setPrice({
      provider: 'openai',
      model_name: model.name,
      price: { input_micro_usd_per_million: 1n, output_micro_usd_per_million: 1n },
      valid_from: new Date(2),
    });
    const repriced = await service().usage.repriceUsage({ ...range, reason: 'the price was wrong' });
    expect(repriced).toMatchObject({ adjusted_attempts: 9600n, adjustment_nano_usd: -MAX_INT64, more: false });
    // A microUSD per million tokens: a nanoUSD for each attempt.
    expect((await service().usage.queryUsage(range)).totals?.cost_nano_usd).toBe(9600n * 1000n);
  });

  it('is summed by name for agents that are unknown', async () => {
    const [one, two] = [unique('agent'), unique('agent')];
    const of = (agent: string) => record({ usage: { input_tokens: 1, output_tokens: 0 } }, { agent, agent_id: 0 });
    await send(of(one), of(two), of(two));
    const since = new Date(Math.floor(Date.now() / HOUR_MS) * HOUR_MS - HOUR_MS);
    const until = new Date(since.getTime() + 3 * HOUR_MS);
    const report = async (...agents: string[]) => {
      const filter = { agents };
      const { groups } = await service().usage.queryUsage({
        since,
        until,
        group_by: ['USAGE_DIMENSION_AGENT'],
        filter,
      });
      return groups.map(({ agent, agent_id, totals }) => [agent, agent_id, totals?.attempts]);
    };
    expect(await report(one)).toEqual([[one, 0, 1n]]);
    expect((await report(one, two)).sort()).toEqual(
      [
        [one, 0, 1n],
        [two, 0, 2n],
      ].sort(),
    );
    const { attempts } = await service().usage.listUsage({ filter: { agents: [two] } });
    expect(attempts.map(({ record: stored }) => [stored?.agent, stored?.agent_id])).toEqual([
      [two, 0],
      [two, 0],
    ]);
  });

  it('is refused as a whole in losses, and absurd numbers of lost attempts do not overflow', async () => {
    const agent = unique('agent');
    const loss = {
      loss_id: randomUUID() as string,
      agent,
      attempts: MAX_INT64,
      first_at: new Date(),
      last_at: new Date(),
    };
    const lose = (...losses: (typeof loss)[]) => service().usage.recordUsage({ records: [], losses });
    await invalid(lose({ ...loss, attempts: 0n }), 'losses[0].attempts');
    await invalid(lose({ ...loss, attempts: -MAX_INT64 }), 'losses[0].attempts');
    await invalid(lose({ ...loss, loss_id: '' }, { ...loss, agent: '\0' }), 'losses[0].loss_id', 'losses[1].agent');
    await lose(loss, loss, { ...loss, loss_id: randomUUID() });
    const since = new Date(Math.floor(Date.now() / HOUR_MS) * HOUR_MS - HOUR_MS);
    const until = new Date(since.getTime() + 3 * HOUR_MS);
    const { lost_attempts } = await service().usage.queryUsage({ since, until, filter: { agents: [agent] } });
    expect(lost_attempts).toBe(MAX_INT64);
  });

  it('is refused in reports by field, and the widest report ends in bounded time', async () => {
    const { queryUsage, whatIf } = service().usage;
    const since = new Date('2026-01-01T00:00:00Z');
    const until = new Date('2026-02-01T00:00:00Z');
    await invalid(queryUsage({ since, until: since }), 'until');
    await invalid(queryUsage({ since: until, until: since }), 'until');
    await invalid(queryUsage({ since, until: new Date(since.getTime() + 3661 * 24 * HOUR_MS) }), 'until');
    await invalid(queryUsage({ since, until, group_by: ['USAGE_DIMENSION_UNSPECIFIED'] }), 'group_by[0]');
    await invalid(queryUsage({ since, until, group_by: ['USAGE_DIMENSION_HOUR', 'USAGE_DIMENSION_DAY'] }), 'group_by');
    for (const time_zone of ['Mars/Olympus', '+05:30', '../etc/passwd', 'UTC\0', "x'; drop table llm_budgets --", 'Ω'])
      await invalid(queryUsage({ since, until, time_zone }), 'time_zone');
    for (const percent of [-1, 101, 2 ** 31 - 1, -(2 ** 31)])
      await invalid(whatIf({ since, until, cache_hit_percent: percent }), 'cache_hit_percent');
    await invalid(whatIf({ since, until }), 'model_name');
    const far = { since: new Date('0001-01-01T00:00:00Z'), until: new Date('0002-01-01T00:00:00Z') };
    for (const group_by of [[], ['USAGE_DIMENSION_DAY'], ['USAGE_DIMENSION_MONTH']] as const)
      expect((await queryUsage({ ...far, group_by: [...group_by], time_zone: 'UTC' })).groups).toEqual([]);
    // Every hour is divided, and no attempt exists: ten years from now.
    const widest = { since: new Date('2027-01-01T00:00:00Z'), until: new Date('2037-01-01T00:00:00Z') };
    const started = performance.now();
    const { groups } = await queryUsage({ ...widest, group_by: ['USAGE_DIMENSION_HOUR'], time_zone: 'Asia/Kolkata' });
    expect(groups).toEqual([]);
    expect(performance.now() - started).toBeLessThan(20_000);
  });
});

describe.each(['embedded', 'postgres'] as const)('hostile budgets on %s', (engine) => {
  const service = useService(engine);
  const fields = (more: object = {}) => ({
    name: unique('budget'),
    scope: 'BUDGET_SCOPE_AGENT' as const,
    period: 'BUDGET_PERIOD_TOTAL' as const,
    limit_nano_usd: 10n ** 18n,
    action: 'BUDGET_ACTION_BLOCK' as const,
    ...more,
  });
  const create = (id: number, more: object = {}) =>
    service().budgets.createBudget({ agent: { id }, budget: fields(more) });

  it('are refused by field', async () => {
    const { id } = await newAgent(service());
    const day = { period: 'BUDGET_PERIOD_DAY' };
    const rolling = { period: 'BUDGET_PERIOD_ROLLING_HOURS' };
    const cases: [object, string][] = [
      [{ limit_nano_usd: 10n ** 18n + 1n }, 'limit_nano_usd'],
      [{ limit_nano_usd: -1n }, 'limit_nano_usd'],
      [{ limit_nano_usd: MAX_INT64 }, 'limit_nano_usd'],
      [{ warn_percent: 0 }, 'warn_percent'],
      [{ warn_percent: -(2 ** 31) }, 'warn_percent'],
      [{ ...rolling }, 'rolling_hours'],
      [{ ...rolling, rolling_hours: 0 }, 'rolling_hours'],
      [{ ...rolling, rolling_hours: 745 }, 'rolling_hours'],
      [{ ...day, time_zone: '+01:00' }, 'time_zone'],
      [{ ...day, time_zone: 'Europe/Berlin\n' }, 'time_zone'],
      [{ name: 'a\0b' }, 'name'],
      [{ name: 'x'.repeat(101) }, 'name'],
      [{ action: 'BUDGET_ACTION_STEP_DOWN' }, 'step_down_model'],
    ];
    for (const [more, field] of cases)
      expect((await invalid(create(id, more))).fields, JSON.stringify(field)).toContain(`budget.${field}`);
  });

  it('reserve amounts beyond 2^53 exactly, and refuse absurd requests', async () => {
    const model = await newModel(service(), { provider: 'openai' });
    // 0.9 million USD for an attempt.
    const price = { input_micro_usd_per_million: 900_000_000_000n, output_micro_usd_per_million: 0n };
    await service().providers.setPrice({ provider: 'openai', model_name: model.name, price });
    const config = await newConfig(service(), { provider: 'openai', model_name: model.name });
    const agent = { id: config.agent_id };
    const { budget } = await create(agent.id);
    const { reserve, commit, release, renew } = service().budgets;
    const ids = () => ({ agent, reservation_id: randomUUID() });
    const big = await reserve({ ...ids(), input_tokens: 1_000_000, attempts: 100 });
    expect(big.reservation?.amount_nano_usd).toBe(900_000_000_000_000n * BigInt(big.reservation?.attempts ?? 0));
    expect(big.reservation?.amount_nano_usd).toBeGreaterThan(2n ** 53n);
    const { state } = await service().budgets.getBudgetState({ name: present(budget).name });
    expect(state?.reserved_nano_usd).toBe(big.reservation?.amount_nano_usd);
    for (const [more, field] of [
      [{ attempts: 0 }, 'attempts'],
      [{ attempts: -1 }, 'attempts'],
      [{ attempts: 1001 }, 'attempts'],
      [{ input_tokens: -1 }, 'input_tokens'],
      [{ input_tokens: 2 ** 31 - 1 }, 'input_tokens'],
      [{ output_tokens: 0 }, 'output_tokens'],
      [{ run_id: 'x'.repeat(101) }, 'run_id'],
      [{ run_id: '\0' }, 'run_id'],
      [{ lifetime: { seconds: MAX_INT64, nanos: 0 } }, 'lifetime'],
      [{ lifetime: { seconds: -1n, nanos: 0 } }, 'lifetime'],
      [{ lifetime: { seconds: 60n, nanos: -1 } }, 'lifetime'],
      [{ lifetime: { seconds: 0n, nanos: 999_999_999 } }, 'lifetime'],
      [{ reservation_id: 'NaN' }, 'reservation_id'],
    ] as const)
      await invalid(reserve({ ...ids(), ...more }), field);
    // The id in another spelling is the same reservation, and it belongs to its agent alone.
    const { reservation_id } = present(big.reservation);
    const again = await reserve({ agent, reservation_id: reservation_id.toUpperCase() });
    expect(again.reservation?.reservation_id).toBe(reservation_id);
    const other = { agent: { id: (await newAgent(service())).id }, reservation_id };
    for (const call of [() => renew(other), () => commit({ ...other, records: [] }), () => release(other)])
      expect((await failure(call())).reason).toBe('RESERVATION_NOT_FOUND');
    expect((await failure(reserve(other))).reason).toBe('RESERVATION_ENDED');
    const ended = await release({ agent, reservation_id: reservation_id.toUpperCase() });
    expect(ended.released_nano_usd).toBe(big.reservation?.amount_nano_usd);
  });

  it('count attempts of all scopes exactly, with clocks that differ, unknown agents and foreign reservations', async () => {
    const agent_type = unique('type').slice(0, 50);
    const one = await newAgent(service(), { agent_type });
    const two = await newAgent(service(), { agent_type });
    const price = { cost_per_1k_input_tokens: 0.001, cost_per_1k_output_tokens: 0 };
    const config = await newConfig(service(), price, one);
    const second = await newConfig(service(), price, two);
    const names = {
      agent: present((await create(one.id)).budget).name,
      day: present((await create(one.id, { period: 'BUDGET_PERIOD_DAY', time_zone: 'Pacific/Kiritimati' })).budget)
        .name,
      hours: present((await create(one.id, { period: 'BUDGET_PERIOD_ROLLING_HOURS', rolling_hours: 1 })).budget).name,
    };
    const shared = async (more: object) => {
      const { budget } = await service().budgets.createBudget({ budget: fields(more) });
      return present(budget).name;
    };
    const type = await shared({ scope: 'BUDGET_SCOPE_AGENT_TYPE', agent_type });
    const run = await shared({ scope: 'BUDGET_SCOPE_RUN' });
    const run_id = unique('run');
    const { reservation } = await service().budgets.reserve({
      agent: { id: two.id },
      reservation_id: randomUUID(),
      attempts: 1,
    });
    const of = ({ id, name }: typeof one, config_id: number, more: object = {}) =>
      usageRecord({
        agent_id: id,
        agent: name,
        run_id,
        attempt: {
          config_id,
          provider: 'openai',
          model_name: 'gpt-4',
          usage: { input_tokens: 1000, output_tokens: 0 },
          ...more,
        },
      });
    const now = Date.now();
    const { results } = await service().usage.recordUsage({
      records: [
        of(one, config.id),
        // The clock of a reporter is ahead and behind; an hour before, the rolling hour of an hour ago.
        of(one, config.id, { started_at: new Date(now + 4 * 60_000) }),
        of(one, config.id, { started_at: new Date(now - 24 * HOUR_MS - 60_000) }),
        // A reservation of another agent pays nothing.
        of(one, config.id, { reservation_id: reservation?.reservation_id }),
        of(two, second.id),
        { ...of(one, config.id), agent_id: 2 ** 31 - 1, agent: unique('stranger') },
      ],
      losses: [],
    });
    expect(results.map(({ status }) => status)).toEqual(new Array(6).fill('USAGE_STATUS_NEW'));
    const COST = 1_000_000n;
    const spent = async (name: string, more: object = {}) => {
      const { state } = await service().budgets.getBudgetState({ name, ...more });
      return [state?.spent_nano_usd, state?.unreserved_nano_usd];
    };
    expect(await spent(names.agent)).toEqual([4n * COST, 4n * COST]);
    expect(await spent(type)).toEqual([5n * COST, 5n * COST]);
    // The attempt of the unknown agent is priced by the price book.
    const stranger = results[5]?.cost_nano_usd ?? 0n;
    expect(await spent(run, { run_id })).toEqual([5n * COST + stranger, 5n * COST + stranger]);
    const [day = 0n] = await spent(names.day);
    const [dayBefore = 0n] = await spent(names.day, { periods_ago: 1 });
    expect(day + dayBefore).toBe(4n * COST);
    const [hours = 0n] = await spent(names.hours);
    expect([2n * COST, 3n * COST, 4n * COST, COST]).toContain(hours);
    const { state } = await service().budgets.getBudgetState({ name: type });
    expect(state?.reserved_nano_usd).toBe(reservation?.held_nano_usd);
  });
});

describe('hostile prices', () => {
  const service = useService('postgres');

  it('are refused by field', async () => {
    const model = { provider: 'openai', model_name: (await newModel(service(), { provider: 'openai' })).name };
    const input = { input_micro_usd_per_million: 1n };
    const window = (start_minute: number, end_minute: number, more: object = {}) => ({
      start_minute,
      end_minute,
      rates: input,
      ...more,
    });
    const cases: [object, string][] = [
      [{ input_micro_usd_per_million: -1n }, 'price.input_micro_usd_per_million'],
      [{ input_micro_usd_per_million: MAX_INT64 }, 'price.input_micro_usd_per_million'],
      [{ source: 'x' }, 'price'],
      [{ ...input, source: 'x'.repeat(10_000) }, 'price.source'],
      [{ ...input, tiers: [{ above_input_tokens: 0, rates: input }] }, 'price.tiers'],
      [{ ...input, tiers: [{ above_input_tokens: -5, rates: input }] }, 'price.tiers'],
      [{ ...input, tiers: [{ above_input_tokens: 5, rates: {} }] }, 'price.tiers'],
      [{ ...input, tiers: [5, 5].map((above_input_tokens) => ({ above_input_tokens, rates: input })) }, 'price.tiers'],
      [{ ...input, windows: [window(-1, 5)] }, 'price.windows'],
      [{ ...input, windows: [window(1440, 5)] }, 'price.windows'],
      [{ ...input, windows: [window(0, 1441)] }, 'price.windows'],
      [{ ...input, windows: [window(0, 60), window(59, 61)] }, 'price.windows'],
      [{ ...input, windows: [window(0, 60, { weekdays: [0] })] }, 'price.windows'],
      [{ ...input, windows: [window(0, 60, { weekdays: [1, 1, 1, 1, 1, 1, 1] })] }, 'price.windows'],
      [{ ...input, windows: [window(0, 60, { weekdays: [8] })] }, 'price.windows'],
    ];
    for (const [price, field] of cases) {
      const error = await invalid(service().providers.setPrice({ ...model, price }));
      expect(
        error.fields.every((one) => one.startsWith(field)),
        `${error.fields}: ${field}`,
      ).toBe(true);
    }
    const set = (valid_from: Date) => service().providers.setPrice({ ...model, price: input, valid_from });
    await invalid(set(new Date('0001-01-01T00:00:00Z')), 'valid_from');
    await set(new Date('9999-12-31T23:59:59.999Z'));
    await set(new Date(0));
    const { prices } = await service().providers.listPrices(model);
    expect(prices.map(({ price }) => price?.valid_from?.toISOString())).toEqual([
      '9999-12-31T23:59:59.999Z',
      '1970-01-01T00:00:00.000Z',
    ]);
  });
});
