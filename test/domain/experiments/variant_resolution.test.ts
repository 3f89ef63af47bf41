import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { CoveringBudget } from '../../../src/domain/budget_effect.js';
import { newCredential } from '../../../src/domain/credential.js';
import {
  ActiveExperiment,
  type ExperimentSettings,
  type VariantSettings,
} from '../../../src/domain/experiments/active_experiment.js';
import { type ResolveOptions, resolve } from '../../../src/domain/resolve.js';
import type { Agent, Config } from '../../../src/domain/rows.js';
import { agentRow, configRow, NOW, seededCatalogue } from '../support.js';
import { experimentOf, subjectOf } from './support.js';

/* The resolution of an agent with an experiment. */

const world = seededCatalogue();
const { state } = world;
const desk = world.write((_, draft) =>
  draft.create('credential', { ...newCredential(), name: 'desk', provider: 'claude', key_id: 'k', key_revision: 1 }),
);

const primary = configRow({ id: 7, fallback_provider: 'claude', fallback_model: 'claude-sonnet-4-5' });
const second = configRow({ id: 8, priority: 1, provider: 'deepseek', model_name: 'deepseek-chat' });

interface Setup extends Omit<ResolveOptions, 'chosen'> {
  readonly configs?: readonly Config[];
  readonly agent?: Partial<Agent>;
  readonly fields?: Partial<ExperimentSettings>;
}

/** Resolves for a subject of the second variant; undefined: without a subject. */
function resolveVariant(
  variant: Partial<VariantSettings>,
  { configs = [primary, second], agent = {}, fields = {}, ...options }: Setup = {},
  control: Partial<VariantSettings> = {},
) {
  const active = ActiveExperiment.among([experimentOf([control, variant], fields)]) as ActiveExperiment;
  const subject = subjectOf((one) => active.choose(one).variant.name, fields.state ? 'control' : 'v1');
  return resolve(state, agentRow(agent), configs, NOW, { ...options, chosen: active.choose(subject) });
}
const chain = ({ hops, skipped }: ReturnType<typeof resolve>) => [
  ...hops.map(({ index, provider, model_name }) => `${index} ${provider}/${model_name}`),
  ...skipped.map(({ index, model_name, reason }) => `${index} ${model_name} ${reason.replace('SKIP_REASON_', '')}`),
];
const plain = (configs: readonly Config[] = [primary, second]) => resolve(state, agentRow(), configs, NOW);

describe('the chain of a variant', () => {
  it('begins with the primary config and the overrides, followed by the fallbacks of the agent', () => {
    const resolved = resolveVariant({ overrides: { model_name: 'gpt-4o', temperature: 0.1 } });
    expect(chain(resolved)).toEqual(['0 openai/gpt-4o', '1 claude/claude-sonnet-4-5', '2 deepseek/deepseek-chat']);
    expect(resolved.hops[0]).toMatchObject({ source: 'HOP_SOURCE_CONFIG', config_id: 7 });
    expect(resolved.hops[0]?.parameters).toContainEqual({ name: 'temperature', wire_name: 'temperature', value: 0.1 });
    expect(resolved.hops.slice(1)).toEqual(plain().hops.slice(1));
    expect(resolved.experiment).toEqual({
      experiment: 'test',
      variant: 'v1',
      state: 'EXPERIMENT_STATE_RUNNING',
      counted: true,
    });
  });

  it('begins with the named base config, as if it were the primary config', () => {
    const resolved = resolveVariant({ config_id: 8, overrides: { temperature: 0.1 } });
    expect(chain(resolved)).toEqual(['0 deepseek/deepseek-chat', '1 openai/gpt-4', '2 claude/claude-sonnet-4-5']);
    const moved = plain([{ ...second, priority: -1, temperature: 0.1 }, primary]);
    expect(resolved.hops.map(({ provenance: _, ...hop }) => hop)).toEqual(
      moved.hops.map(({ provenance: _, ...hop }) => hop),
    );
  });

  it('begins with a base config that is disabled', () => {
    const off = { ...second, enabled: false };
    expect(chain(resolveVariant({ config_id: 8 }, { configs: [primary, off] }))[0]).toBe('0 deepseek/deepseek-chat');
    const alone = resolveVariant({ config_id: 8 }, { configs: [off] });
    expect([chain(alone), alone.findings.map(({ reason }) => reason)]).toEqual([
      ['0 deepseek/deepseek-chat'],
      expect.not.arrayContaining(['FINDING_REASON_NO_ENABLED_CONFIG']),
    ]);
  });

  it('drops a fallback that makes the same call as the variant', () => {
    const resolved = resolveVariant({ overrides: { provider: 'claude', model_name: 'claude-sonnet-4-5' } });
    expect(chain(resolved)).toEqual([
      '0 claude/claude-sonnet-4-5',
      '2 deepseek/deepseek-chat',
      '1 claude-sonnet-4-5 DUPLICATE',
    ]);
  });

  it('obeys the substitution policy of the agent relative to the variant', () => {
    const agent = { substitution_policy: 'SUBSTITUTION_POLICY_SAME_PROVIDER' } as const;
    const overrides = { provider: 'claude', model_name: 'claude-haiku-4-5' };
    expect(chain(resolveVariant({ overrides }, { agent }))).toEqual([
      '0 claude/claude-haiku-4-5',
      '1 claude/claude-sonnet-4-5',
      '2 deepseek-chat POLICY',
    ]);
  });

  it('has the settings of the control without a subject and while the experiment is paused', () => {
    const control = { overrides: { temperature: 0.2 } };
    const paused = resolveVariant({}, { fields: { state: 'EXPERIMENT_STATE_PAUSED' } }, control);
    expect(paused.hops[0]?.parameters).toContainEqual({ name: 'temperature', wire_name: 'temperature', value: 0.2 });
    expect(paused.experiment).toMatchObject({ variant: 'control', state: 'EXPERIMENT_STATE_PAUSED', counted: false });
    const active = ActiveExperiment.among([experimentOf([control, {}])]);
    const without = resolve(state, agentRow(), [primary], NOW, { chosen: active?.choose(undefined) });
    expect(without.hops[0]?.parameters).toContainEqual({ name: 'temperature', wire_name: 'temperature', value: 0.2 });
    expect(without.experiment).toMatchObject({ variant: 'control', counted: false });
  });

  it('is that of the agent without the experiment if the base config no longer exists', () => {
    const resolved = resolveVariant({ config_id: 99, overrides: { temperature: 0 } });
    const { findings, ...others } = plain();
    expect(resolved).toEqual({ ...others, findings: expect.arrayContaining([...findings]) });
    expect(resolved.findings).toContainEqual(
      expect.objectContaining({
        reason: 'FINDING_REASON_VARIANT_UNUSABLE',
        message: expect.stringContaining('config 99 no longer exists'),
      }),
    );
    const agent = { llm_provider: 'openai', llm_model: 'gpt-4' };
    const withoutPrimary = resolveVariant({}, { agent, configs: [{ ...primary, enabled: false }] });
    expect([chain(withoutPrimary), withoutPrimary.experiment]).toEqual([['0 openai/gpt-4'], undefined]);
  });
});

describe('the first hop of a variant', () => {
  it('names the variant in the provenance of its overrides only', () => {
    const [hop] = resolveVariant({
      overrides: { model_name: 'gpt-4o', temperature: 0.1, extra_params: { seed: 3, request_timeout_ms: 7 } },
    }).hops;
    const own = hop?.provenance.filter(({ source }) => source === 'VALUE_SOURCE_EXPERIMENT');
    expect(own?.map(({ field, path }) => [field, path])).toEqual([
      ['model_name', 'overrides.model_name'],
      ['parameters.temperature', 'overrides.temperature'],
      ['parameters.seed', 'overrides.extra_params.seed'],
      ['request_timeout_ms', 'overrides.extra_params.request_timeout_ms'],
    ]);
    for (const { resource, revision } of own ?? []) expect([resource, revision]).toEqual(['test/v1', 9]);
    expect(hop?.provenance.find(({ field }) => field === 'provider')).toMatchObject({
      source: 'VALUE_SOURCE_CONFIG',
      resource: '7',
    });
  });

  it('adapts the parameters of the config and of the overrides to the model of the variant', () => {
    const resolved = resolveVariant({ overrides: { model_name: 'gpt-5', top_p: 0.5 } });
    expect(resolved.hops[0]?.parameters.map(({ name }) => name)).toEqual([]);
    const about = resolved.findings.filter(({ hop, field }) => hop === 0 && /temperature|top_p/.test(field));
    expect(about.map(({ field }) => field)).toEqual(['config.temperature', 'overrides.top_p']);
  });

  it('uses the price of the config only for its own model', () => {
    const priced = { ...primary, price_given: true, cost_per_1k_input_tokens: 1, cost_per_1k_output_tokens: 1 };
    const priceOf = (overrides: VariantSettings['overrides']) =>
      resolveVariant({ overrides }, { configs: [priced] }).hops[0]?.price?.source;
    expect(priceOf({ temperature: 0 })).toBe('VALUE_SOURCE_CONFIG');
    expect(priceOf({ model_name: 'gpt-4o' })).toBe('VALUE_SOURCE_MODEL');
  });

  it('uses the key of the config only for its own provider', () => {
    const keyed = { ...primary, key_id: 'k', key_revision: 1, credential_id: desk.id };
    const keyOf = (overrides: VariantSettings['overrides']) =>
      resolveVariant({ overrides }, { configs: [keyed] }).hops.map(({ key }) => [key.source, key.name]);
    expect(keyOf({ model_name: 'gpt-4o' })).toEqual([
      ['KEY_SOURCE_CONFIG', ''],
      ['KEY_SOURCE_CREDENTIAL', 'desk'],
    ]);
    // The credential stays that of the fallback, for which the config names it.
    expect(keyOf({ provider: 'claude', model_name: 'claude-haiku-4-5' })).toEqual([
      ['KEY_SOURCE_ENVIRONMENT', ''],
      ['KEY_SOURCE_CREDENTIAL', 'desk'],
    ]);
  });

  it('names the override in the finding about an unknown model', () => {
    const { findings } = resolveVariant({ overrides: { model_name: 'gpt-99' } });
    expect(findings).toContainEqual(
      expect.objectContaining({ reason: 'FINDING_REASON_UNKNOWN_MODEL', hop: 0, field: 'overrides.model_name' }),
    );
  });
});

describe('a budget', () => {
  const budget = (fields: Partial<CoveringBudget['budget']>): CoveringBudget => ({
    budget: {
      name: 'daily',
      action: 'BUDGET_ACTION_STEP_DOWN',
      step_down_provider: 'deepseek',
      step_down_model: 'deepseek-chat',
      warn_percent: 80,
      ...fields,
    },
    exhausted: true,
    warning: true,
  });

  it('skips the first hop of a variant, whose calls still count', () => {
    const resolved = resolveVariant({ overrides: { model_name: 'gpt-4o' } }, { budgets: [budget({})] });
    expect(chain(resolved)[0]).toBe('2 deepseek/deepseek-chat');
    expect(resolved.experiment).toMatchObject({ variant: 'v1', counted: true });
  });

  it('steps down to the hop where the variant has it', () => {
    expect(chain(resolveVariant({ config_id: 8 }, { budgets: [budget({})] }))[0]).toBe('0 deepseek/deepseek-chat');
  });

  it('that blocks skips every hop of every variant', () => {
    const block = budget({ action: 'BUDGET_ACTION_BLOCK', step_down_provider: null, step_down_model: null });
    expect(resolveVariant({ overrides: { model_name: 'gpt-4o' } }, { budgets: [block] }).hops).toEqual([]);
    const open = { ...block, exhausted: false, warning: false };
    const unpriced = resolveVariant({ overrides: { model_name: 'gpt-99' } }, { budgets: [open] });
    expect(chain(unpriced)).toContain('0 gpt-99 NO_PRICE');
  });
});

describe('every variant', () => {
  const overrides = fc.record(
    {
      model: fc.constantFrom(['openai', 'gpt-4o'], ['claude', 'claude-haiku-4-5'], ['deepseek', 'deepseek-chat']),
      temperature: fc.double({ min: 0, max: 1, noNaN: true }),
      max_tokens: fc.integer({ min: 1, max: 5000 }),
    },
    { requiredKeys: [] },
  );

  it('resolves like an agent whose primary config is the base config with the overrides', () => {
    fc.assert(
      fc.property(overrides, fc.constantFrom(null, 7, 8), ({ model, ...values }, config_id) => {
        const own = { ...values, ...(model && { provider: model[0] as string, model_name: model[1] as string }) };
        const resolved = resolveVariant({ config_id, overrides: own });
        const base = config_id === 8 ? second : primary;
        const written = { ...base, ...own, priority: -1, fallback_provider: null, fallback_model: null };
        // The overrides do not apply to the fallback, so it is the one of another config here.
        const fallback = {
          ...base,
          id: 99,
          provider: base.fallback_provider,
          model_name: base.fallback_model,
        } as Config;
        const others = [primary, second].filter((one) => one !== base);
        const expected = plain([written, ...(base.fallback_model ? [fallback] : []), ...others]);
        const calls = (one: ReturnType<typeof resolve>) =>
          one.hops.map(({ provider, model_name, parameters, price }) => ({ provider, model_name, parameters, price }));
        expect(calls(resolved)).toEqual(calls(expected));
      }),
    );
  });
});
