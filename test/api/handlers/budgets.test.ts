import { randomUUID } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { Agent } from '../../../gen/ts/agentllm/v1/agent.js';
import { failure, unique, useService } from '../../support/service.js';
import { until } from '../../support/until.js';
import { alreadyExists, invalid, newAgent, newConfig, notFound, precondition, present, stale } from './support.js';

describe.each(['embedded', 'postgres'] as const)('BudgetService on %s', (engine) => {
  const service = useService(engine);
  type Fields = NonNullable<Parameters<ReturnType<typeof service>['budgets']['createBudget']>[0]['budget']>;
  const fields = (more: Fields = {}): Fields => ({
    name: unique('budget'),
    scope: 'BUDGET_SCOPE_AGENT',
    period: 'BUDGET_PERIOD_TOTAL',
    limit_nano_usd: 1_000_000_000n,
    action: 'BUDGET_ACTION_BLOCK',
    ...more,
  });
  const create = async (agent: Agent, more: Fields = {}) => {
    const { budget } = await service().budgets.createBudget({ agent: { id: agent.id }, budget: fields(more) });
    return present(budget);
  };
  const PRICED = { cost_per_1k_input_tokens: 0.001, cost_per_1k_output_tokens: 0.01, max_tokens: 100 };
  /** An agent whose first hop costs 0.001 USD for 100 output tokens, and whose second one costs a tenth of it. */
  const agentWithChain = async () => {
    const agent = await newAgent(service());
    await newConfig(service(), PRICED, agent);
    await newConfig(service(), { ...PRICED, model_name: 'gpt-4o-mini', cost_per_1k_output_tokens: 0.001 }, agent);
    return agent;
  };
  const reserve = (agent: Agent, more: object = {}) =>
    service().budgets.reserve({ agent: { id: agent.id }, reservation_id: randomUUID(), attempts: 1, ...more });
  const usage = (agent: Agent, output_tokens: number) => ({
    agent_id: agent.id,
    agent: agent.name,
    attempt: {
      attempt_id: randomUUID(),
      provider: 'openai',
      model_name: 'gpt-5.4-mini',
      started_at: new Date(),
      usage: { input_tokens: 0, output_tokens },
    },
  });
  const priced = async (agent: Agent, output_tokens: number) => {
    const { configs } = await service().configs.listConfigs({ agent: { id: agent.id } });
    const [config] = configs;
    const record = usage(agent, output_tokens);
    const { id: config_id, provider, model_name } = present(config);
    return { ...record, attempt: { ...record.attempt, config_id, provider, model_name } };
  };

  it('creates, returns, lists, changes and deletes a budget', async () => {
    const { budgets, configs } = service();
    const agent = await newAgent(service());
    const created = await create(agent, { description: 'the desk' });
    expect(created).toMatchObject({ agent_id: agent.id, agent_name: agent.name, warn_percent: 80, enabled: true });
    expect((await budgets.getBudget({ name: created.name })).budget).toEqual(created);
    const { budgets: found } = await budgets.listBudgets({ agent: { id: agent.id }, page_size: 1000 });
    expect(found).toContainEqual(created);
    const change = { name: created.name, limit_nano_usd: 5n, etag: created.etag };
    const { budget } = await budgets.updateBudget({ budget: change, reason: 'less' });
    expect(budget).toMatchObject({ limit_nano_usd: 5n, description: 'the desk' });
    await stale(budgets.updateBudget({ budget: change }));
    await budgets.deleteBudget({ name: created.name });
    await notFound(budgets.getBudget({ name: created.name }), 'BUDGET_NOT_FOUND');
    const { entries } = await configs.listConfigRevisions({ agent: { id: agent.id }, kinds: ['RESOURCE_KIND_BUDGET'] });
    expect(entries.map(({ action }) => action)).toEqual([
      'CHANGE_ACTION_DELETE',
      'CHANGE_ACTION_UPDATE',
      'CHANGE_ACTION_CREATE',
    ]);
    expect(entries[1]?.changes).toEqual([{ field: 'limit_nano_usd', before_json: '"1000000000"', after_json: '"5"' }]);
  });

  it('keeps the largest limit exactly', async () => {
    const agent = await newAgent(service());
    const { name } = await create(agent, { limit_nano_usd: 999_999_999_999_999_999n });
    expect((await service().budgets.getBudget({ name })).budget?.limit_nano_usd).toBe(999_999_999_999_999_999n);
  });

  it('names every invalid field of a new budget', async () => {
    const { budgets } = service();
    const budget = {
      name: ' desk',
      scope: 'BUDGET_SCOPE_ALL',
      agent_type: 'analyst',
      period: 'BUDGET_PERIOD_TOTAL',
      time_zone: 'Mars/Olympus',
      rolling_hours: 3,
      limit_nano_usd: 0n,
      action: 'BUDGET_ACTION_BLOCK',
      step_down_model: 'gpt-4',
      warn_percent: 101,
    } as const;
    const error = await invalid(budgets.createBudget({ budget }));
    expect([...error.fields].sort()).toEqual([
      'budget.agent_type',
      'budget.limit_nano_usd',
      'budget.name',
      'budget.rolling_hours',
      'budget.step_down_model',
      'budget.time_zone',
      'budget.warn_percent',
    ]);
    const empty = await invalid(budgets.createBudget({}));
    expect([...empty.fields].sort()).toEqual([
      'budget.action',
      'budget.limit_nano_usd',
      'budget.name',
      'budget.period',
      'budget.scope',
    ]);
    const withoutAgent = await invalid(budgets.createBudget({ budget: fields() }));
    expect(withoutAgent.fields).toEqual(['agent']);
  });

  it('rejects a change of an immutable field, and a name that is taken', async () => {
    const agent = await newAgent(service());
    const { name } = await create(agent);
    const change = { name, period: 'BUDGET_PERIOD_DAY', time_zone: 'UTC' } as const;
    const error = await invalid(service().budgets.updateBudget({ budget: change }));
    expect([...error.fields].sort()).toEqual(['budget.period', 'budget.time_zone']);
    await alreadyExists(create(agent, { name }), 'BUDGET_NAME_TAKEN');
  });

  it('deletes the budgets of an agent with the agent', async () => {
    const agent = await newAgent(service());
    const { name } = await create(agent);
    await service().agents.deleteAgent({ agent: { id: agent.id } });
    await notFound(service().budgets.getBudget({ name }), 'BUDGET_NOT_FOUND');
  });

  it('reserves the highest cost of an attempt, and returns the same reservation again', async () => {
    const agent = await agentWithChain();
    const budget = await create(agent);
    const reservation_id = randomUUID();
    const first = await reserve(agent, { reservation_id });
    expect(first).toMatchObject({ result: 'RESERVE_RESULT_GRANTED', exhausted: [] });
    expect(first.reservation).toMatchObject({ amount_nano_usd: 1_000_000n, attempts: 1, budgets: [budget.name] });
    const again = await reserve(agent, { reservation_id });
    expect(again.reservation?.amount_nano_usd).toBe(1_000_000n);
    expect(again.states).toMatchObject([{ reserved_nano_usd: 1_000_000n, open_reservations: 1 }]);
    await service().budgets.release({ agent: { id: agent.id }, reservation_id });
    await precondition(reserve(agent, { reservation_id }), 'RESERVATION_ENDED');
  });

  it('commits attempts with the end of their reservation', async () => {
    const { budgets } = service();
    const agent = await agentWithChain();
    const budget = await create(agent);
    const { reservation } = await reserve(agent);
    const { reservation_id } = present(reservation);
    const record = await priced(agent, 40);
    const foreign = { ...record, agent_id: agent.id + 1, attempt: { ...record.attempt, attempt_id: randomUUID() } };
    const request = { agent: { id: agent.id }, reservation_id, records: [foreign, record] };
    const committed = await budgets.commit(request);
    expect(committed.results).toMatchObject([
      { status: 'USAGE_STATUS_REJECTED' },
      { status: 'USAGE_STATUS_NEW', cost_nano_usd: 400_000n },
    ]);
    expect(committed.released_nano_usd).toBe(600_000n);
    expect(await budgets.commit(request)).toMatchObject({
      released_nano_usd: 0n,
      results: [{ status: 'USAGE_STATUS_REJECTED' }, { status: 'USAGE_STATUS_KNOWN', cost_nano_usd: 400_000n }],
    });
    const { state } = await budgets.getBudgetState({ name: budget.name });
    expect(state).toMatchObject({ spent_nano_usd: 400_000n, reserved_nano_usd: 0n, unreserved_nano_usd: 0n });
  });

  it('renews an open reservation only', async () => {
    const { budgets } = service();
    const agent = await agentWithChain();
    await create(agent);
    const { reservation } = await reserve(agent, { lifetime: { seconds: 10n, nanos: 0 } });
    const ref = { agent: { id: agent.id }, reservation_id: present(reservation).reservation_id };
    const renewed = await budgets.renew({ ...ref, lifetime: { seconds: 3600n, nanos: 0 } });
    expect(Number(renewed.reservation?.expires_in_ms)).toBeGreaterThan(3_500_000);
    await budgets.release(ref);
    await precondition(budgets.renew(ref), 'RESERVATION_ENDED');
    const other = await newAgent(service());
    await notFound(budgets.renew({ ...ref, agent: { id: other.id } }), 'RESERVATION_NOT_FOUND');
  });

  it('steps down to the named hop when a budget has not enough left', async () => {
    const agent = await agentWithChain();
    const hop = { step_down_provider: 'openai', step_down_model: 'gpt-4o-mini' };
    const budget = await create(agent, { ...hop, action: 'BUDGET_ACTION_STEP_DOWN', limit_nano_usd: 999_999n });
    const response = await reserve(agent);
    expect(response).toMatchObject({ result: 'RESERVE_RESULT_STEP_DOWN', step_down_hop: 1, exhausted: [budget.name] });
    expect(response.reservation?.budgets).toEqual([]);
  });

  it('blocks when a budget has not enough left, and when no hop has a price', async () => {
    const agent = await agentWithChain();
    const budget = await create(agent, { limit_nano_usd: 999_999n });
    expect(await reserve(agent)).toMatchObject({ result: 'RESERVE_RESULT_BLOCKED', exhausted: [budget.name] });
    const unpriced = await newAgent(service());
    const model = { model_name: unique('model'), max_tokens: 10 };
    await newConfig(service(), model, unpriced, true);
    await create(unpriced);
    expect(await reserve(unpriced)).toMatchObject({ result: 'RESERVE_RESULT_NO_PRICE', reservation: undefined });
  });

  it('counts usage without a reservation, and resolutions then apply the budget', async () => {
    const { budgets, configs } = service();
    const agent = await agentWithChain();
    const hop = { step_down_provider: 'openai', step_down_model: 'gpt-4o-mini' };
    const budget = await create(agent, { ...hop, action: 'BUDGET_ACTION_STEP_DOWN', limit_nano_usd: 1_000_000n });
    const simulated = await configs.resolveConfig({ agent: { id: agent.id }, budget_exhausted: [budget.name] });
    expect(simulated.resolved?.hops.map(({ index }) => index)).toEqual([1]);
    const other = await reserve(agent, { input_tokens: 0 });
    const { reservation_id } = present(other.reservation);
    await budgets.release({ agent: { id: agent.id }, reservation_id });
    // The attempts of a reservation that has ended count like those without one.
    await budgets.commit({ agent: { id: agent.id }, reservation_id, records: [await priced(agent, 100)] });
    const { state } = await budgets.getBudgetState({ name: budget.name });
    expect(state).toMatchObject({ spent_nano_usd: 1_000_000n, unreserved_nano_usd: 1_000_000n, exhausted: true });
    await until(async () => {
      const { resolved } = await configs.resolveConfig({ agent: { id: agent.id } });
      return present(resolved).skipped.some(({ reason }) => reason === 'SKIP_REASON_BUDGET_EXHAUSTED');
    });
    const { resolved } = await configs.resolveConfig({ agent: { id: agent.id } });
    expect(resolved).toMatchObject({ exhausted_budgets: [budget.name], hops: [{ index: 1 }] });
    const { states } = await budgets.listBudgets({ agent: { id: agent.id }, with_state: true });
    expect(states.find((one) => one.budget === budget.name)).toMatchObject({ exhausted: true });
  });

  it('rejects every invalid field of a reservation', async () => {
    const request = { run_id: 'x'.repeat(101), input_tokens: -1, output_tokens: 0, attempts: 1001 };
    const error = await failure(service().budgets.reserve({ ...request, lifetime: { seconds: 9n, nanos: 0 } }));
    expect([...error.fields].sort()).toEqual([
      'agent',
      'attempts',
      'input_tokens',
      'lifetime',
      'output_tokens',
      'reservation_id',
      'run_id',
    ]);
  });

  it('rejects a simulation of a budget that does not exist', async () => {
    const agent = await agentWithChain();
    const error = await invalid(
      service().configs.resolveConfig({ agent: { id: agent.id }, budget_exhausted: ['none'] }),
    );
    expect(error.fields).toEqual(['budget_exhausted[0]']);
  });
});
