import { randomUUID } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import { limits } from '../../../src/limits.js';
import { comments } from '../../support/proto_comments.js';
import { connect, failure, unique, useService } from '../../support/service.js';
import { newAgent, newConfig, present } from './support.js';

/* Every reason that the contract lists for a method of prices, usage and budgets is returned, and no other one. */

/** Reasons that many methods have; the service states them, or every method has them. */
const GENERAL = new Set(['DATABASE_UNAVAILABLE', 'INVALID_FIELDS']);
const listed = (method: string): string[] => {
  const [, errors = ''] = (comments.get(method) ?? '').split('Errors: ');
  const reasons = [...errors.matchAll(/\b[A-Z]+(?:_[A-Z]+)+\b/g)].map(([reason]) => reason);
  return [...new Set(reasons)].filter((reason) => !GENERAL.has(reason) && !CODES.has(reason)).sort();
};
const CODES = new Set(
  ['NOT_FOUND', 'ALREADY_EXISTS', 'OUT_OF_RANGE', 'PERMISSION_DENIED', 'INVALID_ARGUMENT'].concat([
    'FAILED_PRECONDITION',
    'RESOURCE_EXHAUSTED',
  ]),
);

describe('the errors of the methods for prices, usage and budgets', () => {
  const service = useService('postgres', {}, [{ role: 'ROLE_ADMIN' }, { role: 'ROLE_AGENT', agents: ['trader'] }]);
  const range = { since: new Date('2020-01-01T00:30:00Z'), until: new Date('2020-01-02T00:00:00Z') };
  const missing = { name: unique('missing') };
  let agent: { readonly id: number };
  let budget = '';
  let etag = '';
  const ref = () => ({ agent: { id: agent.id }, reservation_id: randomUUID() });

  beforeAll(async () => {
    agent = await newAgent(service());
    await newConfig(service(), {}, agent);
    const created = await service().budgets.createBudget({ budget: fields() });
    ({ name: budget, etag } = present(created.budget));
    const change = { name: budget, description: 'changed' };
    await service().budgets.updateBudget({ budget: change });
  });

  const fields = () => ({
    name: unique('budget'),
    scope: 'BUDGET_SCOPE_ALL' as const,
    period: 'BUDGET_PERIOD_TOTAL' as const,
    limit_nano_usd: 1n,
    action: 'BUDGET_ACTION_WARN' as const,
  });
  const unknownModel = { provider: 'openai', model_name: unique('model') };
  const unknownProvider = { provider: unique('prov').toLowerCase(), model_name: 'gpt-4' };
  const price = { input_micro_usd_per_million: 1n };
  const reserved = async () => {
    const request = ref();
    await service().budgets.reserve(request);
    return request;
  };
  const released = async () => {
    const request = await reserved();
    await service().budgets.release(request);
    return request;
  };
  const loss = () => ({
    loss_id: randomUUID(),
    agent: 'market_analyst',
    attempts: 1n,
    first_at: new Date(),
    last_at: new Date(),
  });
  const asAgent = <T>(call: (client: ReturnType<typeof connect>) => Promise<T>): Promise<T> => {
    const client = connect(service().port, service().tokens[1]?.text);
    return call(client).finally(() => client.close());
  };
  const inactive = async () => {
    const { id } = await newAgent(service(), { is_active: false });
    return { ...ref(), agent: { id } };
  };
  const withoutModel = async () => {
    const { id } = await newAgent(service(), { llm_provider: '', llm_model: '' });
    return { ...ref(), agent: { id } };
  };
  const tooMany = async () => {
    const { id } = await newAgent(service());
    await newConfig(service(), {}, { id });
    for (let made = 0; made < limits.reservationsPerAgent; made += 50)
      await Promise.all(
        Array.from({ length: 50 }, () => service().budgets.reserve({ ...ref(), agent: { id }, attempts: 1 })),
      );
    return { ...ref(), agent: { id } };
  };

  const CASES: Readonly<Record<string, readonly (() => Promise<unknown>)[]>> = {
    'ProviderService.ListPrices': [
      () => service().providers.listPrices({ ...unknownModel }),
      () => service().providers.listPrices({ ...unknownProvider }),
    ],
    'ProviderService.SetPrice': [
      () => service().providers.setPrice({ ...unknownModel, price }),
      () => service().providers.setPrice({ ...unknownProvider, price }),
      async () => {
        const request = {
          provider: 'openai',
          model_name: 'gpt-4',
          price,
          valid_from: new Date('2035-01-01T00:00:00Z'),
        };
        await service().providers.setPrice(request);
        await service().providers.setPrice(request);
      },
    ],
    'ProviderService.ImportModels': [() => service().providers.importModels({})],
    'UsageService.RecordUsage': [() => asAgent(({ usage }) => usage.recordUsage({ losses: [loss()] }))],
    'UsageService.QueryUsage': [() => service().usage.queryUsage(range)],
    'UsageService.ListUsage': [() => service().usage.listUsage({ page_size: -1 })],
    'UsageService.WhatIf': [
      () => service().usage.whatIf({ ...range, ...unknownModel, since: new Date('2020-01-01T00:00:00Z') }),
      () => service().usage.whatIf({ ...range, ...unknownProvider, since: new Date('2020-01-01T00:00:00Z') }),
      () => service().usage.whatIf({ ...range, cache_hit_percent: 1 }),
    ],
    'UsageService.RepriceUsage': [() => service().usage.repriceUsage({})],
    'BudgetService.CreateBudget': [
      () => service().budgets.createBudget({ budget: { ...fields(), name: budget } }),
      () => service().budgets.createBudget({ agent: missing, budget: { ...fields(), scope: 'BUDGET_SCOPE_AGENT' } }),
    ],
    'BudgetService.GetBudget': [() => service().budgets.getBudget(missing)],
    'BudgetService.ListBudgets': [() => service().budgets.listBudgets({ agent: missing })],
    'BudgetService.UpdateBudget': [
      () => service().budgets.updateBudget({ budget: { ...missing, description: 'x' } }),
      () => service().budgets.updateBudget({ budget: { name: budget, description: 'x', etag } }),
    ],
    'BudgetService.DeleteBudget': [
      () => service().budgets.deleteBudget(missing),
      () => service().budgets.deleteBudget({ name: budget, etag }),
    ],
    'BudgetService.GetBudgetState': [() => service().budgets.getBudgetState(missing)],
    'BudgetService.Reserve': [
      () => service().budgets.reserve({ ...ref(), agent: missing }),
      async () => service().budgets.reserve(await withoutModel()),
      async () => service().budgets.reserve(await inactive()),
      async () => service().budgets.reserve(await released()),
      async () => service().budgets.reserve(await tooMany()),
    ],
    'BudgetService.Renew': [
      () => service().budgets.renew({ ...ref(), agent: missing }),
      () => service().budgets.renew(ref()),
      async () => service().budgets.renew(await released()),
    ],
    'BudgetService.Commit': [
      () => service().budgets.commit({ ...ref(), agent: missing }),
      () => service().budgets.commit(ref()),
    ],
    'BudgetService.Release': [
      () => service().budgets.release({ ...ref(), agent: missing }),
      () => service().budgets.release(ref()),
    ],
  };

  it('has cases for every method', () => {
    const methods = [...comments.keys()].filter((name) => /^(UsageService|BudgetService|.*Prices?$)/.test(name));
    const ofServices = methods.filter((name) => /^(Usage|Budget|Provider)Service\.[A-Z]/.test(name));
    expect(ofServices.filter((name) => !(name in CASES) && name !== 'UsageService.StreamUsage')).toEqual([]);
  });

  it.each(Object.entries(CASES))(
    '%s returns the reasons that the contract lists',
    { timeout: 60_000 },
    async (name, cases) => {
      const reasons: string[] = [];
      for (const provoke of cases) reasons.push((await failure(provoke())).reason);
      expect(reasons.filter((reason) => !GENERAL.has(reason)).sort()).toEqual(listed(name));
    },
  );
});
