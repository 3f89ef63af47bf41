import { randomUUID } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { Agent } from '../../../gen/ts/agentllm/v1/agent.js';
import { bucketCount } from '../../../src/domain/experiments/allocation.js';
import { generateKey } from '../../../src/domain/fernet.js';
import { failure, unique, useService } from '../../support/service.js';
import {
  alreadyExists,
  configsOf,
  invalid,
  newAgent,
  newConfig,
  notFound,
  precondition,
  present,
  stale,
} from './support.js';

describe.each(['embedded', 'postgres'] as const)('ExperimentService on %s', (engine) => {
  const service = useService(engine, { ENCRYPTION_KEY: generateKey() });
  type Request = Parameters<ReturnType<typeof service>['experiments']['createExperiment']>[0];
  type Fields = NonNullable<Request['experiment']>;
  type VariantFields = NonNullable<Fields['variants']>[number];
  const A: VariantFields = { name: 'now', control: true, weight_basis_points: 5000 };
  const B: VariantFields = { name: 'cool', weight_basis_points: 5000, overrides: { temperature: 0.1 } };
  const fields = (more: Fields = {}): Fields => ({
    name: unique('experiment'),
    variants: [A, B],
    primary_metric: { kind: 'EXPERIMENT_METRIC_KIND_COST_PER_CALL' },
    ...more,
  });
  const agentWithConfig = async () => {
    const agent = await newAgent(service());
    await newConfig(service(), {}, agent);
    return agent;
  };
  const create = async (agent: Agent, more: Fields = {}) => {
    const { experiment } = await service().experiments.createExperiment({
      agent: { id: agent.id },
      experiment: fields(more),
    });
    return present(experiment);
  };
  const named = (agent: Agent, name: string) => ({ agent: { id: agent.id }, name });
  const running = async (agent: Agent, more: Fields = {}) => {
    const { name } = await create(agent, more);
    const { experiment } = await service().experiments.startExperiment(named(agent, name));
    return present(experiment);
  };

  it.each([
    ['with id and name', (agent: Agent) => ({ id: agent.id, name: agent.name })],
    ['without id and name', () => ({})],
    ['with an invalid id', () => ({ id: -1 })],
    ['that is absent', () => undefined],
  ])('rejects a reference to the agent %s, whether or not the experiment is valid', async (_, reference) => {
    const agent = await agentWithConfig();
    const ref = reference(agent);
    for (const experiment of [fields(), fields({ variants: [A] }), undefined]) {
      const { violations } = await failure(service().experiments.createExperiment({ agent: ref, experiment }));
      expect(violations.map(({ field }) => field)).toContainEqual(expect.stringMatching(/^agent(\.id)?$/));
    }
    const { experiments } = await service().experiments.listExperiments({ agent: { id: agent.id } });
    expect(experiments).toEqual([]);
  });

  it('creates, returns, lists, changes and deletes an experiment, with history', async () => {
    const { experiments, configs } = service();
    const agent = await agentWithConfig();
    const created = await create(agent, { hypothesis: 'cooler is better' });
    expect(created).toMatchObject({
      agent_id: agent.id,
      agent_name: agent.name,
      state: 'EXPERIMENT_STATE_DRAFT',
      subject_kind: 'run',
      alpha_basis_points: 500,
      smallest_effect_basis_points: 500,
      primary_metric: { direction: 'METRIC_DIRECTION_LOWER_IS_BETTER' },
    });
    expect(created.salt).toMatch(/^[0-9a-f]{32}$/);
    expect(created.variants.map(({ buckets }) => buckets)).toEqual([
      [{ start: 0, end: 5000 }],
      [{ start: 5000, end: 10_000 }],
    ]);
    expect((await experiments.getExperiment(named(agent, created.name))).experiment).toEqual(created);
    const { experiments: found } = await experiments.listExperiments({
      agent: { id: agent.id },
      states: ['EXPERIMENT_STATE_DRAFT'],
    });
    expect(found).toEqual([created]);
    const none = await experiments.listExperiments({ agent: { id: agent.id }, states: ['EXPERIMENT_STATE_RUNNING'] });
    expect(none.experiments).toEqual([]);
    const change = { name: created.name, hypothesis: 'warmer is better', etag: created.etag };
    const { experiment } = await experiments.updateExperiment({ agent: { id: agent.id }, experiment: change });
    expect(experiment).toMatchObject({ hypothesis: 'warmer is better', salt: created.salt });
    await stale(experiments.updateExperiment({ agent: { id: agent.id }, experiment: change }));
    await experiments.deleteExperiment(named(agent, created.name));
    await notFound(experiments.getExperiment(named(agent, created.name)), 'EXPERIMENT_NOT_FOUND');
    const kinds = ['RESOURCE_KIND_EXPERIMENT'] as const;
    const { entries } = await configs.listConfigRevisions({ agent: { id: agent.id }, kinds: [...kinds] });
    expect(entries.map(({ action }) => action)).toEqual([
      'CHANGE_ACTION_DELETE',
      'CHANGE_ACTION_UPDATE',
      'CHANGE_ACTION_CREATE',
    ]);
    expect(entries[1]?.changes.map(({ field }) => field)).toEqual(['hypothesis']);
  });

  it('names every invalid field of a new experiment', async () => {
    const agent = await agentWithConfig();
    const other = await newConfig(service());
    const experiment: Fields = {
      name: ' x',
      primary_metric: { kind: 'EXPERIMENT_METRIC_KIND_ERROR_RATE' },
      alpha_basis_points: 0,
      guardrails: [
        { metric: { kind: 'EXPERIMENT_METRIC_KIND_SUCCESS_RATE' }, absolute_margin: 1 },
        { metric: { kind: 'EXPERIMENT_METRIC_KIND_OUTCOME', outcome: '' } },
      ],
      variants: [
        { name: 'a', weight_basis_points: 4000, config_id: other.id },
        { name: 'a', weight_basis_points: 4000, overrides: { provider: 'missing', temperature: 3 } },
      ],
    };
    const { fields: found } = await invalid(
      service().experiments.createExperiment({ agent: { id: agent.id }, experiment }),
    );
    expect([...new Set(found)].sort()).toEqual([
      'experiment.alpha_basis_points',
      'experiment.guardrails[0].metric.kind',
      'experiment.guardrails[1]',
      'experiment.guardrails[1].metric.direction',
      'experiment.guardrails[1].metric.outcome',
      'experiment.name',
      'experiment.primary_metric.kind',
      'experiment.variants[1].overrides.temperature',
    ]);
    const valid = {
      ...fields(),
      variants: experiment.variants?.map((one) => ({ ...one, overrides: undefined })) ?? [],
    };
    const more = await invalid(service().experiments.createExperiment({ agent: { id: agent.id }, experiment: valid }));
    expect([...more.fields].sort()).toEqual([
      'experiment.variants',
      'experiment.variants',
      'experiment.variants[0].config_id',
      'experiment.variants[1].name',
    ]);
    const empty = await invalid(service().experiments.createExperiment({ agent: { id: agent.id } }));
    expect([...empty.fields].sort()).toEqual(['experiment.name', 'experiment.primary_metric', 'experiment.variants']);
  });

  it('checks the overrides of a variant like a config', async () => {
    const agent = await agentWithConfig();
    const variant = (overrides: VariantFields['overrides']) => ({ ...B, overrides });
    const create = (overrides: VariantFields['overrides'], allow_unknown_model = false) =>
      service().experiments.createExperiment({
        agent: { id: agent.id },
        experiment: fields({ variants: [A, variant(overrides)] }),
        allow_unknown_model,
      });
    await invalid(create({ provider: 'openai' }), 'experiment.variants[1].overrides.model_name');
    await invalid(create({ provider: 'missing', model_name: 'x' }), 'experiment.variants[1].overrides.provider');
    await invalid(create({ model_name: 'gpt-9000' }), 'experiment.variants[1].overrides.model_name');
    const { experiment } = await create({ provider: 'anthropic', model_name: 'claude-9000' }, true);
    expect(experiment?.variants[1]?.overrides).toMatchObject({ provider: 'claude', model_name: 'claude-9000' });
  });

  it('rejects a name that the agent already has, and more experiments than the limit', async () => {
    const agent = await agentWithConfig();
    const { name } = await create(agent);
    await alreadyExists(create(agent, { name }), 'EXPERIMENT_NAME_TAKEN');
    await create(await agentWithConfig(), { name });
    for (let count = 1; count < 100; count++) await create(agent);
    await precondition(create(agent), 'TOO_MANY_EXPERIMENTS');
  });

  it('starts, pauses and resumes an experiment', async () => {
    const { experiments } = service();
    const agent = await agentWithConfig();
    const { name } = await create(agent);
    const request = named(agent, name);
    await precondition(experiments.pauseExperiment(request), 'EXPERIMENT_STATE');
    const started = await experiments.startExperiment({ ...request, reason: 'go' });
    expect(started.experiment).toMatchObject({ state: 'EXPERIMENT_STATE_RUNNING', state_reason: 'go' });
    expect(started.experiment?.allocation_revision).toBe(started.revision);
    expect(started.experiment?.started_at).toBeInstanceOf(Date);
    await precondition(experiments.startExperiment(request), 'EXPERIMENT_STATE');
    await precondition(experiments.deleteExperiment(request), 'EXPERIMENT_STATE');
    const paused = await experiments.pauseExperiment({ ...request, reason: 'night' });
    expect(paused.experiment).toMatchObject({ state: 'EXPERIMENT_STATE_PAUSED', state_reason: 'night' });
    await precondition(experiments.deleteExperiment(request), 'EXPERIMENT_STATE');
    const resumed = await experiments.resumeExperiment(request);
    expect(resumed.experiment).toMatchObject({
      state: 'EXPERIMENT_STATE_RUNNING',
      started_at: started.experiment?.started_at,
      allocation_revision: started.experiment?.allocation_revision,
    });
  });

  it('permits one active experiment of an agent', async () => {
    const agent = await agentWithConfig();
    const first = await running(agent);
    const second = await create(agent);
    const start = () => service().experiments.startExperiment(named(agent, second.name));
    await precondition(start(), 'EXPERIMENT_ACTIVE');
    await service().experiments.pauseExperiment(named(agent, first.name));
    await precondition(start(), 'EXPERIMENT_ACTIVE');
    await service().experiments.concludeExperiment(named(agent, first.name));
    expect((await start()).experiment?.state).toBe('EXPERIMENT_STATE_RUNNING');
  });

  it('does not start without the configs that its variants use', async () => {
    const agent = await newAgent(service());
    const { name } = await create(agent);
    await notFound(service().experiments.startExperiment(named(agent, name)), 'NO_ENABLED_CONFIG');
    const config = await newConfig(service(), {}, agent);
    const base = await create(agent, { variants: [A, { ...B, config_id: config.id }] });
    await service().configs.deleteConfig({ id: config.id });
    await invalid(service().experiments.startExperiment(named(agent, base.name)), 'experiment.variants[1].config_id');
  });

  it('keeps the config of a variant from being deleted while it is active', async () => {
    const { configs, experiments } = service();
    const agent = await agentWithConfig();
    const config = await newConfig(service(), { enabled: false }, agent);
    const { name } = await running(agent, { variants: [A, { ...B, config_id: config.id }] });
    await precondition(configs.deleteConfig({ id: config.id }), 'CONFIG_IN_EXPERIMENT');
    await experiments.concludeExperiment(named(agent, name));
    await configs.deleteConfig({ id: config.id });
  });

  it('rejects changes of the variants, the metric, the subject and alpha after the start', async () => {
    const agent = await agentWithConfig();
    const { name } = await running(agent);
    const update = (more: Fields) =>
      service().experiments.updateExperiment({ agent: { id: agent.id }, experiment: { name, ...more } });
    await invalid(
      update({
        subject_kind: 'user',
        alpha_basis_points: 100,
        primary_metric: { kind: 'EXPERIMENT_METRIC_KIND_SUCCESS_RATE' },
        variants: [
          { ...A, control: false },
          { ...B, control: true, overrides: { temperature: 0.2 } },
        ],
      }),
      'experiment.subject_kind',
      'experiment.alpha_basis_points',
      'experiment.primary_metric',
      'experiment.variants[0].control',
      'experiment.variants[1].control',
      'experiment.variants[1].overrides',
    );
    await invalid(update({ variants: [A, { ...B, name: 'other' }] }), 'experiment.variants');
    const guardrails = [
      { metric: { kind: 'EXPERIMENT_METRIC_KIND_ERROR_RATE' as const }, relative_margin_basis_points: 1000 },
    ];
    const { experiment } = await update({ guardrails, hypothesis: 'new' });
    expect(experiment).toMatchObject({ hypothesis: 'new', guardrails: [{ relative_margin_basis_points: 1000 }] });
    await service().experiments.concludeExperiment(named(agent, name));
    await precondition(update({ hypothesis: 'late' }), 'EXPERIMENT_STATE');
  });

  it('moves the fewest buckets when weights change, and none otherwise', async () => {
    const agent = await agentWithConfig();
    const before = await running(agent);
    const update = async (variants: VariantFields[]) => {
      const request = { agent: { id: agent.id }, experiment: { name: before.name, variants } };
      return present((await service().experiments.updateExperiment(request)).experiment);
    };
    const described = await update([{ ...A, description: 'as it is' }, B]);
    expect(described.allocation_revision).toBe(before.allocation_revision);
    const third = { name: 'third', weight_basis_points: 1000 };
    const after = await update([{ ...A, weight_basis_points: 4000 }, B, third]);
    expect(after.variants[1]?.buckets).toEqual(before.variants[1]?.buckets);
    expect(after.variants.map(({ buckets }) => bucketCount(buckets))).toEqual([4000, 5000, 1000]);
    expect(after.allocation_revision).toBe(after.revision);
  });

  it('makes the settings of the winner those of the primary config', async () => {
    const { experiments, configs } = service();
    const agent = await agentWithConfig();
    const [primary] = await configsOf(service(), agent.id);
    const { name } = await running(agent);
    const request = { ...named(agent, name), winner: 'cool', reason: 'cooler' };
    const concluded = await experiments.concludeExperiment(request);
    expect(concluded.experiment).toMatchObject({
      state: 'EXPERIMENT_STATE_CONCLUDED',
      winner: 'cool',
      state_reason: 'cooler',
    });
    expect(concluded.config).toMatchObject({ id: primary?.id, temperature: 0.1, revision: concluded.revision });
    const { entries } = await configs.listConfigRevisions({ agent: { id: agent.id } });
    const made = entries.filter(({ revision }) => revision === concluded.revision);
    expect(made.map(({ kind }) => kind).sort()).toEqual(['RESOURCE_KIND_CONFIG', 'RESOURCE_KIND_EXPERIMENT']);
    await precondition(experiments.concludeExperiment(request), 'EXPERIMENT_STATE');
  });

  it('makes the fallback of a config its model, without a fallback, when a variant with this model wins', async () => {
    const { experiments, configs } = service();
    const agent = await newAgent(service());
    const fallback = { fallback_provider: 'openai', fallback_model: 'gpt-4o' };
    await newConfig(service(), { model_name: 'gpt-4', ...fallback }, agent);
    const { name } = await running(agent, { variants: [A, { ...B, overrides: { model_name: 'gpt-4o' } }] });
    const { config } = await experiments.concludeExperiment({ ...named(agent, name), winner: 'cool' });
    expect(config).toMatchObject({ model_name: 'gpt-4o', fallback_provider: undefined, fallback_model: undefined });
    const { config: primary } = await configs.getPrimaryConfig({ agent: { id: agent.id } });
    expect(primary).toEqual(config);
  });

  it('moves the config of the winner to the front and leaves that of the loser', async () => {
    const { experiments } = service();
    const agent = await agentWithConfig();
    const [primary] = await configsOf(service(), agent.id);
    const other = await newConfig(service(), { model_name: 'gpt-4o', enabled: false }, agent);
    const variants = [A, { ...B, config_id: other.id, overrides: { max_tokens: 100 } }];
    const { name } = await running(agent, { variants });
    await experiments.concludeExperiment({ ...named(agent, name), winner: 'cool' });
    const { config: first } = await service().configs.getPrimaryConfig({ agent: { id: agent.id } });
    expect(first).toMatchObject({ id: other.id, enabled: true, max_tokens: 100, model_name: 'gpt-4o' });
    expect(await configsOf(service(), agent.id)).toContainEqual(primary);
  });

  it('does not conclude with an unknown winner or with the API key of another provider', async () => {
    const { experiments, configs } = service();
    const agent = await agentWithConfig();
    const variants = [A, { ...B, overrides: { provider: 'claude', model_name: 'claude-3-haiku-20240307' } }];
    const { name } = await running(agent, { variants });
    await invalid(experiments.concludeExperiment({ ...named(agent, name), winner: 'missing' }), 'winner');
    const credential = unique('desk');
    await service().credentials.createCredential({
      credential: { name: credential, provider: 'openai' },
      api_key: 'sk-desk',
    });
    const [primary] = await configsOf(service(), agent.id);
    await configs.updateConfig({ config: { id: present(primary).id, credential_name: credential } });
    const request = { ...named(agent, name), winner: 'cool' };
    await precondition(experiments.concludeExperiment(request), 'KEY_PROVIDER_MISMATCH');
    const { experiment } = await experiments.getExperiment(named(agent, name));
    expect(experiment?.state).toBe('EXPERIMENT_STATE_RUNNING');
    const { config } = await experiments.concludeExperiment({ ...request, clear_api_key: true });
    expect(config).toMatchObject({ provider: 'claude', credential_name: undefined });
  });

  it('writes once when a request is retried, and nothing with validate_only', async () => {
    const { experiments } = service();
    const agent = await agentWithConfig();
    const request = { agent: { id: agent.id }, experiment: fields(), request_id: randomUUID() };
    const validated = await experiments.createExperiment({ ...request, request_id: '', validate_only: true });
    expect(validated.experiment).toMatchObject({ id: 0, state: 'EXPERIMENT_STATE_DRAFT' });
    const first = await experiments.createExperiment(request);
    expect(await experiments.createExperiment(request)).toEqual(first);
  });

  describe('RollbackRevision', () => {
    const rollback = (revision: bigint) => service().configs.rollbackRevision({ revision });
    const stateOf = async (agent: Agent, name: string) =>
      (await service().experiments.getExperiment(named(agent, name))).experiment;

    it('restores the definition, the state and the primary config', async () => {
      const { experiments } = service();
      const agent = await agentWithConfig();
      const before = await running(agent);
      const [primary] = await configsOf(service(), agent.id);
      const update = {
        name: before.name,
        variants: [
          { ...A, weight_basis_points: 9000 },
          { ...B, weight_basis_points: 1000 },
        ],
      };
      const changed = await experiments.updateExperiment({ agent: { id: agent.id }, experiment: update });
      await rollback(changed.revision);
      expect((await stateOf(agent, before.name))?.variants).toEqual(before.variants);
      const { revision } = await experiments.concludeExperiment({ ...named(agent, before.name), winner: 'cool' });
      const { entries } = await rollback(revision);
      expect(entries.map(({ kind }) => kind).sort()).toEqual(['RESOURCE_KIND_CONFIG', 'RESOURCE_KIND_EXPERIMENT']);
      expect(await stateOf(agent, before.name)).toMatchObject({
        state: 'EXPERIMENT_STATE_RUNNING',
        winner: '',
        started_at: before.started_at,
        ended_at: undefined,
      });
      expect((await configsOf(service(), agent.id))[0]).toMatchObject({ temperature: primary?.temperature });
    });

    it('deletes a created draft and creates a deleted one again', async () => {
      const { experiments } = service();
      const agent = await agentWithConfig();
      const created = await create(agent);
      await rollback(created.revision);
      await notFound(experiments.getExperiment(named(agent, created.name)), 'EXPERIMENT_NOT_FOUND');
      const second = await create(agent);
      const { revision } = await experiments.deleteExperiment(named(agent, second.name));
      await rollback(revision);
      expect(await stateOf(agent, second.name)).toMatchObject({ id: second.id, salt: second.salt });
    });

    it('lists the conflicts of a started, an active and a changed experiment', async () => {
      const { experiments, configs } = service();
      const agent = await agentWithConfig();
      const created = await create(agent);
      const started = await experiments.startExperiment(named(agent, created.name));
      const conflict = async (revision: bigint, text: string) => {
        const error = await precondition(rollback(revision), 'ROLLBACK_CONFLICT');
        expect(error.message).toContain(text);
      };
      await conflict(created.revision, 'was changed again at revision');
      await conflict(started.revision, 'has started and cannot become a draft again');
      const concluded = await experiments.concludeExperiment(named(agent, created.name));
      const base = await configs.createConfig({
        agent: { id: agent.id },
        config: { provider: 'openai', model_name: 'gpt-4o' },
      });
      const config_id = present(base.config).id;
      await running(agent, { variants: [A, { ...B, config_id }] });
      await conflict(concluded.revision, 'cannot be RUNNING');
      await conflict(base.revision, 'is used by experiment');
    });
  });

  it('is started and concluded once when several callers do it at the same time', async () => {
    const agent = await agentWithConfig();
    const drafts = [await create(agent), await create(agent), await create(agent)];
    const started = await Promise.allSettled(
      drafts.map(({ name }) => service().experiments.startExperiment(named(agent, name))),
    );
    expect(started.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    const { experiments: found } = await service().experiments.listExperiments({
      agent: { id: agent.id },
      states: ['EXPERIMENT_STATE_RUNNING'],
    });
    const [one] = found;
    const request = named(agent, present(one).name);
    const ended = await Promise.allSettled(
      ['now', 'cool', ''].map((winner) => service().experiments.concludeExperiment({ ...request, winner })),
    );
    expect(ended.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  });

  it('is deleted with its agent', async () => {
    const { agents, experiments } = service();
    const agent = await agentWithConfig();
    const { name } = await running(agent);
    await agents.deleteAgent({ agent: { id: agent.id }, cascade: true });
    await notFound(experiments.getExperiment(named(agent, name)), 'AGENT_NOT_FOUND');
  });
});
