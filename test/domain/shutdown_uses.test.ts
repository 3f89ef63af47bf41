import { beforeEach, describe, expect, it } from 'vitest';
import { newExperiment } from '../../src/domain/experiments/experiment.js';
import type { Agent, Config, Experiment, Variant } from '../../src/domain/rows.js';
import { shutdownNotices, shutdownUses } from '../../src/domain/shutdown_uses.js';
import { agentRow, configRow, NOW, World } from './support.js';

const DAY = 86_400_000;
const inDays = (days: number) => new Date(NOW.getTime() + days * DAY);
const GONE = 'p/gone was shut down on 2026-07-31';

describe('shutdownUses', () => {
  let world: World;
  beforeEach(() => {
    world = new World();
    world.provider({ name: 'p', dialect: 'DIALECT_OPENAI', base_url: 'https://p.example.com' });
    world.model({ provider: 'p', name: 'new' });
    world.model({ provider: 'p', name: 'gone', retires_at: inDays(-1), replaced_by: 'new' });
    world.model({ provider: 'p', name: 'going', retires_at: inDays(10), replaced_by: 'new' });
    world.model({ provider: 'p', name: 'lost', retires_at: inDays(-2) });
  });

  function agent(name: string, fields: Partial<Agent> = {}, ...configs: Partial<Config>[]): Agent {
    const created = world.write((_, draft) =>
      draft.create('agent', agentRow({ name, llm_provider: 'p', llm_model: 'new', ...fields })),
    );
    for (const config of configs)
      world.write((_, draft) =>
        draft.create('config', configRow({ agent_id: created.id, provider: 'p', model_name: 'gone', ...config })),
      );
    return created;
  }
  const uses = (days = 90) => shutdownUses(world.state, days, NOW).map(({ text, command }) => [text, command]);

  it('is empty when no agent uses such a model', () => {
    agent('a', {}, { model_name: 'new' });
    expect(uses()).toEqual([]);
    expect(shutdownNotices(world.state, NOW)).toEqual([]);
  });

  it('names one command for all agents when the primary configs of all use the model', () => {
    for (const name of ['a', 'b', 'c']) agent(name, {}, {});
    expect(uses()).toEqual([[`${GONE}; 3 agents use it`, 'agentllm configs bulk --all --model p/new']]);
  });

  it('names the agents when other agents do not use the model', () => {
    for (const name of ['a', 'b']) agent(name, {}, {});
    agent('c', {}, { model_name: 'new' });
    expect(uses()).toEqual([[`${GONE}; 2 agents use it`, 'agentllm configs bulk a b --model p/new']]);
  });

  it('names no command when it would have to name too many agents, or uses of different kinds', () => {
    for (let count = 0; count < 21; count++) agent(`a${count}`, {}, {});
    agent('other', {}, { model_name: 'new' });
    expect(uses()).toEqual([[`${GONE}; 21 agents use it`, undefined]]);
    expect(shutdownNotices(world.state, NOW)).toEqual([`${GONE}; 21 agents use it: agentllm models retiring`]);
  });

  it.each<[string, Partial<Agent>, Partial<Config>[], string | undefined]>([
    ['a config', {}, [{}], 'agentllm configs update 1 --model p/new'],
    ['a second config', {}, [{ model_name: 'new' }, { priority: 1 }], 'agentllm configs update 2 --model p/new'],
    [
      'a fallback',
      {},
      [{ model_name: 'new', fallback_provider: 'p', fallback_model: 'gone' }],
      'agentllm configs update 1 --fallback p/new',
    ],
    ['a default model', { llm_model: 'gone' }, [], 'agentllm agents update a --model p/new'],
  ])('names the command for a single use by %s', (_, fields, configs, command) => {
    agent('a', fields, ...configs);
    expect(uses()).toEqual([[`${GONE}; agent a uses it`, command]]);
  });

  it('ignores what no call uses: disabled configs, inactive agents, unused default models, hops cut by policy', () => {
    agent('disabled', {}, { model_name: 'new' }, { enabled: false });
    agent('inactive', { is_active: false }, {});
    agent('default', { llm_model: 'gone' }, { model_name: 'new' });
    agent('policy', { substitution_policy: 'SUBSTITUTION_POLICY_NEVER' }, { model_name: 'new' }, { priority: 1 });
    expect(uses()).toEqual([]);
  });

  it('lists models that will be shut down within the days, the earliest first', () => {
    agent('a', {}, { model_name: 'going' });
    agent('b', {}, { model_name: 'lost' });
    expect(uses(9)).toEqual([['p/lost was shut down on 2026-07-30; agent b uses it', undefined]]);
    expect(uses(10)).toEqual([
      ['p/lost was shut down on 2026-07-30; agent b uses it', undefined],
      [
        'p/going will be shut down on 2026-08-11, in 10 days; agent a uses it',
        'agentllm configs update 1 --model p/new',
      ],
    ]);
  });

  it('finds uses of a provider by its alias', () => {
    world.provider({ name: 'q', aliases: ['kyu'], dialect: 'DIALECT_OPENAI', base_url: 'https://q.example.com' });
    world.model({ provider: 'q', name: 'gone', retires_at: NOW });
    agent('a', { llm_provider: 'kyu', llm_model: 'gone' });
    expect(uses(0)).toEqual([['q/gone was shut down on 2026-08-01; agent a uses it', undefined]]);
  });

  it('finds the models of variants of an experiment that has an effect, without a command for overrides', () => {
    const { id } = agent('a', {}, { model_name: 'new' }, { model_name: 'lost', enabled: false });
    const of = (name: string, more: Partial<Variant>): Variant => ({
      name,
      description: null,
      control: false,
      config_id: null,
      overrides: {},
      weight_basis_points: 2500,
      buckets: [],
      ...more,
    });
    const variants = [
      of('now', { control: true }),
      of('override', { overrides: { model_name: 'gone' } }),
      of('config', { config_id: 2 }),
      of('same', { overrides: { temperature: 0 } }),
    ];
    const experiment = world.write((_, draft) =>
      draft.create('experiment', { ...newExperiment(id, 'ab'.repeat(16)), name: 'x', variants }),
    );
    const put = (state: Experiment['state']) =>
      world.write((now, draft) =>
        draft.update('experiment', now.experiments.withId(experiment.id) as Experiment, { ...experiment, state }),
      );
    expect(uses()).toEqual([]);
    const found = [
      ['p/lost was shut down on 2026-07-30; agent a uses it', undefined],
      [`${GONE}; agent a uses it`, undefined],
    ];
    for (const state of ['EXPERIMENT_STATE_RUNNING', 'EXPERIMENT_STATE_PAUSED'] as const) {
      put(state);
      expect(uses()).toEqual(found);
    }
    put('EXPERIMENT_STATE_CONCLUDED');
    expect(uses()).toEqual([]);
  });

  it('gives at most four lines for the start of the service', () => {
    for (const name of ['m1', 'm2', 'm3', 'm4', 'm5']) {
      world.model({ provider: 'p', name, retires_at: NOW });
      agent(`agent-${name}`, {}, { model_name: name });
    }
    const notices = shutdownNotices(world.state, NOW);
    expect(notices).toHaveLength(4);
    expect(notices.at(-1)).toBe('2 more: agentllm models retiring');
  });
});
