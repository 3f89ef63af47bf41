import { randomUUID } from 'node:crypto';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { Attempt, Receipt } from '../../gen/ts/agentllm/v1/receipt.js';
import type { AgentHandle } from '../../src/client/agent.js';
import type { Admission } from '../../src/client/budgets/admission.js';
import { connectWith } from '../../src/client/connect.js';
import type { ResidentAgentLLM, ResidentOptions } from '../../src/client/index.js';
import { newAgent, newConfig, present } from '../api/handlers/support.js';
import { type Clients, startService, unique, useService } from '../support/service.js';
import { until } from '../support/until.js';

type Fields = NonNullable<Parameters<Clients['budgets']['createBudget']>[0]['budget']>;
const MILLION = 1_000_000n;
const PRICED = { cost_per_1k_input_tokens: 0, cost_per_1k_output_tokens: 0.01, max_tokens: 100 };

/** An agent whose first hop costs at most 1 000 000 nano-USD, with a budget. */
async function budgeted(service: Clients, fields: Fields) {
  const agent = await newAgent(service);
  await newConfig(service, PRICED, agent);
  await newConfig(service, { ...PRICED, model_name: 'gpt-4o-mini', cost_per_1k_output_tokens: 0.001 }, agent);
  const name = unique('budget');
  const budget: Fields = { name, scope: 'BUDGET_SCOPE_AGENT', period: 'BUDGET_PERIOD_TOTAL', ...fields };
  await service.budgets.createBudget({ agent: { id: agent.id }, budget });
  return { agent, budget: name };
}

/** A resident client with the function that delivers receipts. */
async function connectResident(port: number, agent: string, options: Partial<ResidentOptions> = {}) {
  let emit: (receipt: Receipt) => void = () => {};
  const channelOptions = { 'grpc.use_local_subchannel_pool': 1 };
  const settings = { address: `127.0.0.1:${port}`, agents: [agent], channelOptions, ...options };
  const client = connectWith(settings, (deliver) => {
    emit = deliver;
    return () => {};
  }) as ResidentAgentLLM;
  onTestFinished(() => client.close());
  await client.ready(20_000);
  const handle = client.agent(agent) as unknown as AgentHandle;
  const ask = (index = 0) => {
    const resolution = handle.resolve();
    const hop = present(resolution.hops.find((one) => one.index === index) ?? resolution.hops[0]);
    return handle.admit({ resolution, hop, runId: '', signal: undefined });
  };
  const settle = (reservation_id: string, output_tokens = 100, hopIndex = 0) => {
    const { agent: resolved, hops, revision } = handle.resolve();
    const { provider, model_name, config_id } = present(hops.find((one) => one.index === hopIndex) ?? hops[0]);
    const usage = { input_tokens: 0, output_tokens, raw_json: '' };
    const ids = { attempt_id: randomUUID(), reservation_id };
    const attempt = { ...ids, provider, model_name, config_id, started_at: new Date(), usage, stripped_parameters: [] };
    const receipt = { receipt_id: randomUUID(), agent_id: resolved.id, agent, revision, run_id: '' };
    emit({
      ...receipt,
      experiment: '',
      variant: '',
      subject: '',
      attempts: [attempt as unknown as Attempt],
    } as unknown as Receipt);
  };
  return { client, handle, ask, settle };
}

const reservationOf = (admission: Admission): string =>
  admission.refused === undefined ? admission.reservationId : `refused: ${admission.detail}`;

describe('a resident client with budgets', () => {
  const service = useService('embedded');
  const stateOf = async (name: string) => present((await service().budgets.getBudgetState({ name })).state);

  it('uses one reservation for several attempts, without a request for each attempt', async () => {
    const { agent, budget } = await budgeted(service(), {
      limit_nano_usd: 1000n * MILLION,
      action: 'BUDGET_ACTION_BLOCK',
    });
    const { client, ask, settle } = await connectResident(service().port, agent.name, {
      reservation: { attempts: 10 },
    });
    const first = reservationOf(await ask());
    expect(first).toMatch(/^[0-9a-f-]{36}$/);
    for (let attempt = 2; attempt <= 5; attempt++) {
      const admission = ask();
      expect(admission).not.toBeInstanceOf(Promise);
      expect(reservationOf(admission as Admission)).toBe(first);
    }
    expect((await stateOf(budget)).reserved_nano_usd).toBe(10n * MILLION);
    for (let attempt = 1; attempt <= 5; attempt++) settle(first, 50);
    await client[Symbol.asyncDispose]();
    expect(await stateOf(budget)).toMatchObject({
      spent_nano_usd: (5n * MILLION) / 2n,
      unreserved_nano_usd: 0n,
      reserved_nano_usd: 0n,
      open_reservations: 0,
    });
  });

  it('reserves again before a reservation is used up', async () => {
    const { agent } = await budgeted(service(), { limit_nano_usd: 1000n * MILLION, action: 'BUDGET_ACTION_BLOCK' });
    const { ask } = await connectResident(service().port, agent.name, { reservation: { attempts: 4 } });
    const used = new Set<string>();
    for (let attempt = 0; attempt < 20; attempt++) used.add(reservationOf(await ask()));
    expect(used.size).toBe(5);
  });

  it('steps down when a budget has not enough left, and as soon as the watch reports it as exhausted', async () => {
    const hop = { step_down_provider: 'openai', step_down_model: 'gpt-4o-mini' };
    const action = 'BUDGET_ACTION_STEP_DOWN';
    const { agent, budget } = await budgeted(service(), { ...hop, limit_nano_usd: MILLION, action });
    const { handle, ask, settle } = await connectResident(service().port, agent.name, { reservation: { attempts: 1 } });
    const first = reservationOf(await ask(0));
    expect(await ask(0)).toMatchObject({ refused: 'SKIP_REASON_BUDGET_EXHAUSTED', budgets: [budget] });
    expect((await ask(1)).refused).toBeUndefined();
    settle(first);
    await until(() => handle.resolve().exhausted_budgets.length > 0);
    expect(handle.resolve().hops.map(({ index }) => index)).toEqual([1]);
    expect(await stateOf(budget)).toMatchObject({ spent_nano_usd: MILLION, unreserved_nano_usd: 0n });
  });

  it('simulates an exhausted budget', async () => {
    const { agent, budget } = await budgeted(service(), { limit_nano_usd: MILLION, action: 'BUDGET_ACTION_BLOCK' });
    const { handle } = await connectResident(service().port, agent.name);
    expect(handle.resolve({ budgetExhausted: [budget] }).hops).toEqual([]);
    expect(() => handle.resolve({ budgetExhausted: ['none'] })).toThrow('budgetExhausted[0]');
  });

  it('does not block an agent whose budgets only warn', async () => {
    const { agent } = await budgeted(service(), { limit_nano_usd: 1n, action: 'BUDGET_ACTION_WARN' });
    const { ask } = await connectResident(service().port, agent.name);
    expect(reservationOf((await ask()) as Admission)).toBe('');
  });
});

describe('a resident client whose service is unavailable', () => {
  it('uses its reservation, and then treats budgets as exhausted', async () => {
    const service = await startService({ DATA_DIR: 'memory:', HTTP_ADDRESS: 'off' });
    onTestFinished(() => service.stop().catch(() => {}));
    const { agent, budget } = await budgeted(service, {
      limit_nano_usd: 1000n * MILLION,
      action: 'BUDGET_ACTION_BLOCK',
    });
    const options = { reservation: { attempts: 8 } };
    const { ask } = await connectResident(service.port, agent.name, options);
    const first = reservationOf(await ask());
    await service.stop();
    for (let attempt = 2; attempt <= 5; attempt++) expect(reservationOf(await ask())).toBe(first);
    for (let attempt = 6; attempt <= 8; attempt++) expect((await ask()).refused).toBeUndefined();
    expect(await ask()).toMatchObject({
      refused: 'SKIP_REASON_BUDGET_EXHAUSTED',
      budgets: [budget],
      detail: expect.stringContaining('no amount can be reserved'),
    });
  });
});
