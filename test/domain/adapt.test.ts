import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Dialect } from '../../gen/ts/agentllm/v1/provider.js';
import { seedCatalogue } from '../../seeds/catalogue.js';
import { adapt, type SentParameter } from '../../src/domain/adapt.js';
import { newModel, newProvider } from '../../src/domain/catalogue.js';
import { defaultWireApi } from '../../src/domain/dialects.js';
import { PARAMETERS, type Parameter, type ParameterValue, type ParameterValues } from '../../src/domain/parameters.js';
import type { Model, ParameterRule, Provider } from '../../src/domain/rows.js';
import { accepts, ruleFor } from '../../src/domain/rules.js';
import { seeded } from './support.js';

const { state } = seeded(seedCatalogue);
const adapted = (provider: string, model: string, values: ParameterValues) =>
  adapt(state.provider(provider), state.model(provider, model), values);

/** The sent parameters, by wire name. */
const onWire = ({ sent }: ReturnType<typeof adapt>) =>
  Object.fromEntries(sent.map(({ wire_name, value }) => [wire_name, value]));
/** The adapted parameters with their reasons, without the prefix of the enum. */
const changes = ({ adaptations }: ReturnType<typeof adapt>) =>
  Object.fromEntries(
    adaptations.map(({ parameter, reason }) => [parameter, reason.replace('FINDING_REASON_PARAMETER_', '')]),
  );

// reference/providers.md, 6.1 and 6.2.
describe('adapt with a built-in model', () => {
  const sampling = { temperature: 0.7, top_p: 0.9, max_tokens: 1000 };

  it.each(['gpt-4o', 'gpt-4o-mini', 'gpt-4-turbo', 'gpt-4', 'gpt-3.5-turbo'])(
    'keeps sampling parameters for openai/%s',
    (model) => {
      const result = adapted('openai', model, { ...sampling, stop_sequences: ['END'], seed: 7 });
      expect(onWire(result)).toEqual({ ...sampling, stop: ['END'], seed: 7 });
      expect(changes(result)).toEqual({});
    },
  );

  it.each(['o4-mini', 'gpt-5', 'gpt-5.1', 'gpt-6-unheard-of'])(
    'omits sampling parameters and sends max_completion_tokens for openai/%s',
    (model) => {
      const result = adapted('openai', model, { ...sampling, reasoning_effort: 'high' });
      expect(onWire(result)).toEqual({ max_completion_tokens: 1000, reasoning_effort: 'high' });
      expect(changes(result)).toEqual({ temperature: 'REJECTED', top_p: 'REJECTED' });
    },
  );

  it('keeps sampling parameters for openai/gpt-5.1 only with effort none, and never for gpt-5 and o4-mini', () => {
    const noReasoning = { ...sampling, reasoning_effort: 'none' };
    const result = adapted('openai', 'gpt-5.1', noReasoning);
    expect(onWire(result)).toEqual({
      temperature: 0.7,
      top_p: 0.9,
      max_completion_tokens: 1000,
      reasoning_effort: 'none',
    });
    expect(changes(result)).toEqual({});
    for (const model of ['gpt-5', 'o4-mini'])
      expect(changes(adapted('openai', model, noReasoning))).toEqual({
        temperature: 'REJECTED',
        top_p: 'REJECTED',
        reasoning_effort: 'CLAMPED',
      });
  });

  it('omits sampling parameters for deepseek-reasoner and keeps them for the other deepseek models', () => {
    const reasoner = adapted('deepseek', 'deepseek-reasoner', sampling);
    expect(onWire(reasoner)).toEqual({ max_tokens: 1000 });
    expect(changes(reasoner)).toEqual({ temperature: 'IGNORED', top_p: 'IGNORED' });
    for (const model of ['deepseek-chat', 'deepseek-coder'])
      expect(onWire(adapted('deepseek', model, sampling))).toEqual(sampling);
  });

  it('sends max_completion_tokens for grok, and no stop sequences when the model reasons', () => {
    const values = { ...sampling, stop_sequences: ['END'], reasoning_effort: 'low' };
    const sent = { temperature: 0.7, top_p: 0.9, max_completion_tokens: 1000 };
    const reasoning = adapted('grok', 'grok-4.20-reasoning', values);
    expect(onWire(reasoning)).toEqual(sent);
    expect(changes(reasoning)).toEqual({ stop_sequences: 'REJECTED', reasoning_effort: 'REJECTED' });
    const nonReasoning = adapted('grok', 'grok-4.20-non-reasoning', values);
    expect(onWire(nonReasoning)).toEqual({ ...sent, stop: ['END'] });
    expect(changes(nonReasoning)).toEqual({ reasoning_effort: 'REJECTED' });
  });

  it.each([
    'claude-opus-5',
    'claude-opus-4-8',
    'claude-opus-4-7',
    'claude-sonnet-5',
    'claude-fable-5',
    'claude-next-9',
  ])('omits sampling parameters for claude/%s', (model) => {
    const result = adapted('claude', model, sampling);
    expect(onWire(result)).toEqual({ max_tokens: 1000 });
    expect(changes(result)).toEqual({ temperature: 'REJECTED', top_p: 'REJECTED' });
  });

  it.each(['claude-opus-4-6', 'claude-sonnet-4-5', 'claude-opus-4-1', 'claude-sonnet-4-0', 'claude-3-haiku-20240307'])(
    'limits temperature to 1 for claude/%s and sends top_p only without temperature',
    (model) => {
      const both = adapted('claude', model, sampling);
      expect(onWire(both)).toEqual({ temperature: 0.7, max_tokens: 1000 });
      expect(changes(both)).toEqual({ top_p: 'CONFLICT' });
      expect(onWire(adapted('claude', model, { top_p: 0.9, max_tokens: 5 }))).toEqual({ top_p: 0.9, max_tokens: 5 });
      const tooHigh = adapted('claude', model, { temperature: 1.5, max_tokens: 5 });
      expect(onWire(tooHigh)).toEqual({ temperature: 1, max_tokens: 5 });
      expect(changes(tooHigh)).toEqual({ temperature: 'CLAMPED' });
    },
  );

  it('omits temperature and top_p for claude with a thinking budget, and disables thinking for a budget of 0', () => {
    const budget = { ...sampling, max_tokens: 4000, thinking_budget_tokens: 2048 };
    const thinking = adapted('claude', 'claude-opus-4-1', budget);
    expect(onWire(thinking)).toEqual({ max_tokens: 4000, thinking: { type: 'enabled', budget_tokens: 2048 } });
    expect(changes(thinking)).toEqual({ temperature: 'CONFLICT', top_p: 'CONFLICT' });
    const disabled = adapted('claude', 'claude-opus-4-1', { temperature: 0, max_tokens: 5, thinking_budget_tokens: 0 });
    expect(onWire(disabled)).toEqual({ temperature: 0, max_tokens: 5, thinking: { type: 'disabled' } });
    expect(changes(disabled)).toEqual({});
  });

  it.each([
    ['claude-opus-5', 128_000],
    ['claude-sonnet-4-6', 128_000],
    ['claude-haiku-4-5', 64_000],
    ['claude-sonnet-4-0', 64_000],
    ['claude-opus-4-1', 32_000],
    ['claude-3-opus-20240229', 4096],
  ])('limits max_tokens for claude/%s to %i and always sends max_tokens', (model, most) => {
    const tooLarge = adapted('claude', model, { max_tokens: 1_000_000 });
    expect(onWire(tooLarge)).toEqual({ max_tokens: most });
    expect(tooLarge.adaptations).toMatchObject([
      { parameter: 'max_tokens', configured: 1_000_000, effective: most, reason: 'FINDING_REASON_PARAMETER_CLAMPED' },
    ]);
    const unset = adapted('claude', model, {});
    expect(onWire(unset)).toEqual({ max_tokens: 4096 });
    expect(changes(unset)).toEqual({ max_tokens: 'REQUIRED' });
  });

  it.each(PARAMETERS)('sends %s as 0 when it is 0 and the model accepts it', (parameter) => {
    for (const model of state.modelsInOrder.after()) {
      const provider = state.provider(model.provider);
      const rule = ruleFor(provider, model, parameter);
      if (rule && (rule.support !== 'PARAMETER_SUPPORT_ACCEPTED' || (rule.minimum ?? 0) > 0)) continue;
      const { sent } = adapt(provider, model, { [parameter]: 0 });
      const zero = rule?.object?.zero ?? 0;
      expect(sent.find(({ name }) => name === parameter)?.value, model.name).toEqual(zero);
    }
  });

  it('sends temperature 0 as 0 to every model that accepts a temperature', () => {
    const accepting = [...state.modelsInOrder.after()].filter(
      (model) =>
        ruleFor(state.provider(model.provider), model, 'temperature')?.support === 'PARAMETER_SUPPORT_ACCEPTED',
    );
    expect(accepting.length).toBeGreaterThan(20);
    for (const { provider, name } of accepting)
      expect(onWire(adapted(provider, name, { temperature: 0 })), name).toMatchObject({ temperature: 0 });
  });

  it('sends every parameter unchanged when the provider is unknown', () => {
    const values = { ...sampling, seed: 0, reasoning_effort: 'high', stop_sequences: ['a'] };
    expect(onWire(adapt(undefined, undefined, values))).toEqual(values);
  });
});

const values: fc.Arbitrary<ParameterValues> = fc.record(
  {
    temperature: fc.constantFrom(0, 0.7, 1, 1.5, 2),
    top_p: fc.constantFrom(0, 0.5, 1),
    max_tokens: fc.integer({ min: 1, max: 200_000 }),
    reasoning_effort: fc.constantFrom('none', 'low', 'high'),
    thinking_budget_tokens: fc.constantFrom(0, 1, 2048),
    stop_sequences: fc.uniqueArray(fc.constantFrom('a', 'b'), { minLength: 1 }),
    seed: fc.constantFrom(0, 1, -5),
  },
  { requiredKeys: [] },
);

/** Any rule that an operator can define. */
const rule: fc.Arbitrary<ParameterRule> = fc
  .record(
    {
      parameter: fc.constantFrom(...PARAMETERS),
      support: fc.constantFrom<ParameterRule['support'][]>(
        'PARAMETER_SUPPORT_ACCEPTED',
        'PARAMETER_SUPPORT_REJECTED',
        'PARAMETER_SUPPORT_IGNORED',
      ),
      range: fc.tuple(fc.constantFrom(0, 0.5, 1), fc.constantFrom(1, 2, 4096)),
      allowed_values: fc.subarray(['none', 'low', 'high']),
      wire_name: fc.constantFrom('', 'other_name'),
      not_with: fc.subarray([...PARAMETERS]),
      accepted_with_reasoning_effort: fc.subarray(['none', 'low']),
      required_default: fc.constantFrom(1, 4096),
    },
    { requiredKeys: ['parameter', 'support'] },
  )
  .map(({ range, ...fields }) => ({
    ...fields,
    // A separate test covers a thinking budget of 0 below a minimum.
    ...(range && { minimum: fields.parameter === 'thinking_budget_tokens' ? 0 : range[0], maximum: range[1] }),
  }));
const rules = fc.uniqueArray(rule, { selector: (rule) => rule.parameter, maxLength: 7 });

const dialects = fc.constantFrom<Dialect[]>(
  'DIALECT_UNSPECIFIED',
  'DIALECT_OPENAI',
  'DIALECT_OPENAI_COMPATIBLE',
  'DIALECT_OPENAI_RESPONSES',
  'DIALECT_ANTHROPIC',
);
const anyTarget: fc.Arbitrary<{ provider: Provider | undefined; model: Model | undefined }> = fc.oneof(
  fc.constantFrom(...state.modelsInOrder.after()).map((model) => ({ provider: state.provider(model.provider), model })),
  fc.constantFrom(...state.providersInOrder.after()).map((provider) => ({ provider, model: undefined })),
  fc
    .tuple(rules, rules, fc.option(fc.constantFrom(100, 100_000)), dialects)
    .map(([providerRules, modelRules, max_output_tokens, dialect]) => ({
      provider: {
        ...newProvider(),
        name: 'p',
        dialect,
        wire_api: defaultWireApi(dialect),
        parameter_rules: providerRules,
      },
      model: { ...newModel(), provider: 'p', name: 'm', parameter_rules: modelRules, max_output_tokens },
    })),
);

/** The configured value that a wire value represents. */
function plain(parameter: SentParameter | undefined): ParameterValue | undefined {
  const value = parameter?.value;
  if (typeof value !== 'object' || Array.isArray(value)) return value as ParameterValue | undefined;
  const { type, budget_tokens } = value as { type: string; budget_tokens?: number };
  return type === 'disabled' ? 0 : budget_tokens;
}

describe('adapt with generated rules', () => {
  const checkAll = (
    check: (target: { provider: Provider | undefined; model: Model | undefined }, v: ParameterValues) => void,
  ) =>
    fc.assert(
      fc.property(anyTarget, values, (target, configured) => check(target, configured)),
      { numRuns: 500 },
    );

  it('reports every change of a parameter exactly once', () => {
    checkAll(({ provider, model }, configured) => {
      const { sent, adaptations } = adapt(provider, model, configured);
      for (const parameter of PARAMETERS) {
        const effective = plain(sent.find(({ name }) => name === parameter));
        const reported = adaptations.filter((adaptation) => adaptation.parameter === parameter);
        expect(reported.length).toBeLessThanOrEqual(1);
        if (reported.length === 0) expect(effective).toEqual(configured[parameter]);
        else {
          expect(reported[0]).toMatchObject({ configured: configured[parameter], effective });
          expect(effective).not.toEqual(configured[parameter]);
        }
      }
    });
  });

  it('sends each parameter at most once, with the wire name of its rule', () => {
    checkAll(({ provider, model }, configured) => {
      const { sent } = adapt(provider, model, configured);
      expect(new Set(sent.map(({ name }) => name)).size).toBe(sent.length);
      for (const { name, wire_name } of sent) expect(wire_name).toBe(ruleFor(provider, model, name)?.wire_name || name);
    });
  });

  it('omits a configured parameter exactly when the model rejects or ignores it', () => {
    checkAll(({ provider, model }, configured) => {
      const { sent, adaptations } = adapt(provider, model, configured);
      const effort = sent.find(({ name }) => name === 'reasoning_effort')?.value as string | undefined;
      for (const parameter of PARAMETERS) {
        if (configured[parameter] === undefined) continue;
        // Whether the effort is accepted cannot depend on the effort.
        const accepted = accepts(
          ruleFor(provider, model, parameter),
          parameter === 'reasoning_effort' ? undefined : effort,
        );
        const omitted = adaptations.some(
          (adaptation) =>
            adaptation.parameter === parameter &&
            /_(REJECTED|IGNORED)$/.test(adaptation.reason) &&
            adaptation.effective === undefined,
        );
        expect(omitted).toBe(!accepted);
        if (!accepted) expect(sent.map(({ name }) => name)).not.toContain(parameter);
      }
    });
  });

  it('sends no number outside the range of its rule', () => {
    checkAll(({ provider, model }, configured) => {
      for (const { name, value } of adapt(provider, model, configured).sent) {
        const rule = ruleFor(provider, model, name);
        if (typeof value !== 'number' || rule === undefined) continue;
        expect(value).toBeGreaterThanOrEqual(rule.minimum ?? Number.NEGATIVE_INFINITY);
        expect(value).toBeLessThanOrEqual(rule.maximum ?? Number.POSITIVE_INFINITY);
      }
    });
  });

  it('sends no two parameters that conflict for the model', () => {
    checkAll(({ provider, model }, configured) => {
      const { sent } = adapt(provider, model, configured);
      const active = sent.filter((item) => plain(item) !== 0 || item.name !== 'thinking_budget_tokens');
      for (const { name } of active) {
        const conflicts = ruleFor(provider, model, name)?.not_with ?? [];
        for (const other of active)
          if (other.name !== name) expect(conflicts, `${name} with ${other.name}`).not.toContain(other.name);
      }
    });
  });

  it('omits no parameter because of a conflict with one that is not sent', () => {
    checkAll(({ provider, model }, configured) => {
      const { sent, adaptations } = adapt(provider, model, configured);
      for (const { reason, because } of adaptations) {
        if (reason !== 'FINDING_REASON_PARAMETER_CONFLICT') continue;
        const [, other] = / (?:with|than) (\w+)/.exec(because) ?? [];
        expect(sent.map(({ name }) => name)).toContain(other);
      }
    });
  });
});

describe('adapt with rules of an operator', () => {
  it('limits a required default to the output limit of the model', () => {
    const small = { ...newModel(), provider: 'claude', name: 'claude-small', max_output_tokens: 1000 };
    const { sent, adaptations } = adapt(state.provider('claude'), small, {});
    expect(sent).toMatchObject([{ name: 'max_tokens', value: 1000 }]);
    expect(adaptations).toMatchObject([{ reason: 'FINDING_REASON_PARAMETER_REQUIRED', effective: 1000 }]);
  });

  // proto, thinking_budget_tokens: "0 switches thinking off".
  it('never raises a thinking budget of 0 to the minimum budget', () => {
    const parameter_rules: ParameterRule[] = [
      { parameter: 'thinking_budget_tokens', support: 'PARAMETER_SUPPORT_ACCEPTED', minimum: 1024 },
    ];
    const { sent } = adapt({ ...newProvider(), parameter_rules }, undefined, { thinking_budget_tokens: 0 });
    expect(sent.map(({ value }) => value)).not.toContain(1024);
  });

  it('does not omit a parameter because of a conflict with one that is omitted', () => {
    // claude-3-haiku rejects a thinking budget, and accepts no temperature together with one.
    const parameters: readonly Parameter[] = ['temperature', 'thinking_budget_tokens'];
    const result = adapted('claude', 'claude-3-haiku-20240307', {
      temperature: 0.5,
      max_tokens: 100,
      thinking_budget_tokens: 2048,
    });
    expect(result.adaptations.filter(({ parameter }) => parameters.includes(parameter))).toMatchObject([
      { parameter: 'thinking_budget_tokens', reason: 'FINDING_REASON_PARAMETER_REJECTED' },
    ]);
    expect(onWire(result)).toEqual({ temperature: 0.5, max_tokens: 100 });
  });
});
