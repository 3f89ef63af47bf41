import { randomUUID } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { Agent } from '../../../gen/ts/agentllm/v1/agent.js';
import type { Experiment } from '../../../gen/ts/agentllm/v1/experiment.js';
import { bucketOf } from '../../../src/domain/experiments/assignment.js';
import { generateKey } from '../../../src/domain/fernet.js';
import { makeLeaseKeyPair } from '../../../src/domain/lease.js';
import { unique, useService } from '../../support/service.js';
import { type ConfigFields, invalid, newAgent, newConfig, present, reasonsOf } from './support.js';

/* The effect of an experiment on resolutions, leases and reservations of the service. */

const service = useService('embedded', { ENCRYPTION_KEY: generateKey() }, [{ role: 'ROLE_ADMIN' }]);
type Fields = NonNullable<Parameters<ReturnType<typeof service>['experiments']['createExperiment']>[0]['experiment']>;
type Variant = NonNullable<Fields['variants']>[number];

const GPT: ConfigFields = { provider: 'openai', model_name: 'gpt-4', temperature: 0.7 };
const agentWith = async (...configs: readonly ConfigFields[]) => {
  const agent = await newAgent(service());
  const rows = [];
  for (const config of configs) rows.push(await newConfig(service(), config, agent));
  return { agent, configs: rows };
};
async function running(agent: Agent, variant: Partial<Variant>, control: Partial<Variant> = {}): Promise<Experiment> {
  const { experiments } = service();
  const name = unique('experiment');
  const variants = [
    { name: 'control', control: true, weight_basis_points: 5000, ...control },
    { name: 'other', weight_basis_points: 5000, ...variant },
  ];
  const metric = { kind: 'EXPERIMENT_METRIC_KIND_COST_PER_CALL' } as const;
  const ref = { agent: { id: agent.id } };
  await experiments.createExperiment({ ...ref, experiment: { name, variants, primary_metric: metric } });
  return present((await experiments.startExperiment({ ...ref, name })).experiment);
}
/** A subject that an experiment with equal weights assigns to one of its two variants. */
function subjectOf({ salt }: Experiment, variant: 'control' | 'other'): string {
  for (let at = 0; ; at++) if (bucketOf(salt, `s${at}`) < 5000 === (variant === 'control')) return `s${at}`;
}
const resolve = async (agent: Agent, more: object = {}) =>
  present((await service().configs.resolveConfig({ agent: { id: agent.id }, ...more })).resolved);
const temperatureIn = ({ hops }: Awaited<ReturnType<typeof resolve>>) =>
  hops[0]?.parameters.find(({ name }) => name === 'temperature')?.value_json;

describe('ResolveConfig', () => {
  it('returns the settings of the assigned variant, with its provenance and the bucket', async () => {
    const { agent } = await agentWith(GPT);
    const experiment = await running(agent, { overrides: { temperature: 0.1 } });
    const subject = subjectOf(experiment, 'other');
    const resolved = await resolve(agent, { subject });
    expect(resolved.experiment).toEqual({
      experiment: experiment.name,
      variant: 'other',
      subject,
      state: 'EXPERIMENT_STATE_RUNNING',
      counted: true,
      bucket: bucketOf(experiment.salt, subject),
    });
    expect(temperatureIn(resolved)).toBe('0.1');
    expect(resolved.hops[0]?.provenance).toContainEqual({
      field: 'parameters.temperature',
      source: 'VALUE_SOURCE_EXPERIMENT',
      resource: `${experiment.name}/other`,
      path: 'overrides.temperature',
      revision: experiment.revision,
    });
    expect(temperatureIn(await resolve(agent, { subject: subjectOf(experiment, 'control') }))).toBe('0.7');
    expect(await resolve(agent, { subject, provider_down: ['claude'] })).toEqual(resolved);
  });

  it('returns the control without a subject and while the experiment is paused, and does not count', async () => {
    const { agent } = await agentWith(GPT);
    const experiment = await running(agent, {}, { overrides: { temperature: 0.2 } });
    const subject = subjectOf(experiment, 'other');
    const none = { experiment: experiment.name, variant: 'control', subject: '', counted: false, bucket: undefined };
    const without = await resolve(agent);
    expect([without.experiment, temperatureIn(without)]).toEqual([
      { ...none, state: 'EXPERIMENT_STATE_RUNNING' },
      '0.2',
    ]);
    const ref = { agent: { id: agent.id }, name: experiment.name };
    await service().experiments.pauseExperiment(ref);
    const paused = await resolve(agent, { subject });
    expect([paused.experiment, temperatureIn(paused)]).toEqual([{ ...none, state: 'EXPERIMENT_STATE_PAUSED' }, '0.2']);
    await service().experiments.resumeExperiment(ref);
    expect((await resolve(agent, { subject })).experiment).toMatchObject({ variant: 'other', counted: true });
    await service().experiments.concludeExperiment(ref);
    expect((await resolve(agent, { subject })).experiment).toBeUndefined();
    expect(temperatureIn(await resolve(agent, { subject }))).toBe('0.7');
  });

  it('returns the agent without the experiment if a variant has lost its primary config', async () => {
    const { agent, configs } = await agentWith(GPT);
    const experiment = await running(agent, { overrides: { temperature: 0.1 } });
    await service().configs.updateConfig({ config: { id: present(configs[0]).id, enabled: false } });
    const resolved = await resolve(agent, { subject: subjectOf(experiment, 'other') });
    expect([resolved.experiment, reasonsOf(resolved.findings)]).toEqual([
      undefined,
      expect.arrayContaining(['VARIANT_UNUSABLE', 'NO_ENABLED_CONFIG']),
    ]);
  });

  it('resolves for a subject at a past revision', async () => {
    const { agent } = await agentWith(GPT);
    const experiment = await running(agent, { overrides: { temperature: 0.1 } });
    const subject = subjectOf(experiment, 'other');
    const then = await resolve(agent, { subject });
    const ref = { agent: { id: agent.id }, name: experiment.name };
    const { revision } = await service().experiments.pauseExperiment(ref);
    const at_revision = revision - 1n;
    expect(await resolve(agent, { subject, at_revision })).toEqual(then);
    const before = await resolve(agent, { subject, at_revision: experiment.revision - 1n });
    expect(before.experiment).toBeUndefined();
  });

  it('rejects an invalid subject, together with other problems', async () => {
    const { configs } = service();
    await invalid(configs.resolveConfig({ agent: { name: 'trader' }, subject: '' }), 'subject');
    await invalid(configs.resolveConfig({ agent: { id: 0 }, subject: 'x'.repeat(256) }), 'agent.id', 'subject');
    const down = { provider_down: ['opnai'], subject: '' };
    await invalid(configs.resolveConfig({ agent: { name: 'trader' }, ...down }), 'provider_down[0]', 'subject');
    await invalid(configs.batchResolveConfigs({ agents: [{ name: 'trader' }], subject: '' }), 'subject');
  });
});

describe('BatchResolveConfigs', () => {
  it('returns the result of ResolveConfig for the subject', async () => {
    const { agent } = await agentWith(GPT);
    const experiment = await running(agent, { overrides: { model_name: 'gpt-4o' } });
    const agents = [{ id: agent.id }, { name: 'trader' }];
    for (const variant of ['control', 'other'] as const) {
      const subject = subjectOf(experiment, variant);
      const { results } = await service().configs.batchResolveConfigs({ agents, subject });
      for (const [at, ref] of agents.entries())
        expect(results[at]?.resolved).toEqual(
          present((await service().configs.resolveConfig({ agent: ref, subject })).resolved),
        );
    }
    const page = await service().configs.batchResolveConfigs({ page_size: 1, subject: 's1' });
    await expect(
      service().configs.batchResolveConfigs({ page_size: 1, subject: 's2', page_token: page.next_page_token }),
    ).rejects.toMatchObject({ reason: 'INVALID_PAGE_TOKEN' });
  });
});

describe('LeaseApiKeys', () => {
  it('leases the key of a disabled config while it is the base config of a variant', async () => {
    const { agent } = await agentWith(GPT);
    const config = { ...GPT, model_name: 'gpt-4o', enabled: false };
    const created = await service().configs.createConfig({ agent: { id: agent.id }, config, api_key: 'sk-base-1' });
    const id = present(created.config).id;
    const { publicKey } = await makeLeaseKeyPair();
    const leased = async () => {
      const request = { agent: { id: agent.id }, public_key: Buffer.from(publicKey) };
      return (await service().credentials.leaseApiKeys(request)).leases.map(({ config_id }) => config_id);
    };
    expect(await leased()).toEqual([]);
    const { name } = await running(agent, { config_id: id });
    expect(await leased()).toEqual([id]);
    await service().experiments.concludeExperiment({ agent: { id: agent.id }, name });
    expect(await leased()).toEqual([]);
  });
});

describe('Reserve', () => {
  const CHEAP = { ...GPT, max_tokens: 100, cost_per_1k_input_tokens: 0.001, cost_per_1k_output_tokens: 0.01 };
  const DEAR = { ...CHEAP, model_name: 'gpt-4o', cost_per_1k_output_tokens: 1, enabled: false };
  const reserve = (agent: Agent) =>
    service().budgets.reserve({ agent: { id: agent.id }, reservation_id: randomUUID(), attempts: 1 });
  const budget = (agent: Agent, more: object = {}) =>
    service().budgets.createBudget({
      agent: { id: agent.id },
      budget: {
        name: unique('budget'),
        scope: 'BUDGET_SCOPE_AGENT',
        period: 'BUDGET_PERIOD_TOTAL',
        action: 'BUDGET_ACTION_BLOCK',
        limit_nano_usd: 1_000_000_000n,
        ...more,
      },
    });

  it('holds enough for the variant with the highest cost', async () => {
    const { agent, configs } = await agentWith(CHEAP, DEAR);
    await budget(agent);
    const amount = async () => present((await reserve(agent)).reservation).amount_nano_usd;
    const cheap = await amount();
    await running(agent, { config_id: present(configs[1]).id });
    expect(await amount()).toBe(cheap * 100n);
  });
});
