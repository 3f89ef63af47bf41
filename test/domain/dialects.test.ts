import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { Dialect, type Dialect as DialectName, WireApi } from '../../gen/ts/agentllm/v1/provider.js';
import { seedCatalogue } from '../../seeds/catalogue.js';
import { adapt } from '../../src/domain/adapt.js';
import { newModel, newProvider } from '../../src/domain/catalogue.js';
import { defaultWireApi, wireApisOf } from '../../src/domain/dialects.js';
import { PARAMETERS, type Parameter, type ParameterValues } from '../../src/domain/parameters.js';
import type { Model, ParameterRule, Provider } from '../../src/domain/rows.js';
import { seeded } from './support.js';

const { state } = seeded(seedCatalogue);

/** The sent parameters as the body of the request, with dotted names as nested objects. */
function bodyOf(provider: Provider | undefined, model: Model | undefined, values: ParameterValues) {
  const body: Record<string, unknown> = {};
  for (const { wire_name, value } of adapt(provider, model, values).sent) {
    const path = wire_name.split('.');
    const last = path.pop() as string;
    let target = body;
    for (const key of path) {
      target[key] ??= {};
      target = target[key] as Record<string, unknown>;
    }
    target[last] = value;
  }
  return body;
}

const reasons = (provider: Provider | undefined, model: Model | undefined, values: ParameterValues) =>
  Object.fromEntries(
    adapt(provider, model, values).adaptations.map(({ parameter, reason, because }) => [
      parameter,
      `${reason.replace('FINDING_REASON_PARAMETER_', '')}: ${because}`,
    ]),
  );

const ofDialect = (dialect: DialectName, ...parameter_rules: ParameterRule[]): Provider => ({
  ...newProvider(),
  name: 'mine',
  dialect,
  wire_api: defaultWireApi(dialect),
  parameter_rules,
});
const withResponses = (dialect: DialectName): Provider => ({ ...ofDialect(dialect), wire_api: 'WIRE_API_RESPONSES' });
const builtIn = (provider: string, model: string) => [state.provider(provider), state.model(provider, model)] as const;

/** A usual value of each parameter, and an extreme value that some providers do not accept. */
const USUAL: Required<ParameterValues> = {
  temperature: 0.5,
  top_p: 0.9,
  max_tokens: 8000,
  reasoning_effort: 'low',
  thinking_budget_tokens: 2048,
  stop_sequences: ['END'],
  seed: 7,
};
const EXTREME: Required<ParameterValues> = {
  temperature: 2,
  top_p: 0,
  max_tokens: 1,
  reasoning_effort: 'banana',
  thinking_budget_tokens: 0,
  stop_sequences: ['1', '2', '3', '4', '5'],
  seed: 0,
};

const OMITTED = undefined;
const thinking = { thinking: { type: 'enabled', budget_tokens: 2048 } };

/** For each single parameter, the body sent for the usual and the extreme value; undefined if it is omitted. */
type Row = Record<Parameter, readonly [usual: object | undefined, extreme: object | undefined]>;
type Target = readonly [Provider | undefined, Model | undefined];

const CHAT: Row = {
  temperature: [{ temperature: 0.5 }, { temperature: 2 }],
  top_p: [{ top_p: 0.9 }, { top_p: 0 }],
  max_tokens: [{ max_tokens: 8000 }, { max_tokens: 1 }],
  reasoning_effort: [{ reasoning_effort: 'low' }, { reasoning_effort: 'banana' }],
  thinking_budget_tokens: [OMITTED, OMITTED],
  stop_sequences: [{ stop: ['END'] }, { stop: ['1', '2', '3', '4', '5'] }],
  seed: [{ seed: 7 }, { seed: 0 }],
};
const OPENAI: Row = {
  ...CHAT,
  max_tokens: [{ max_completion_tokens: 8000 }, { max_completion_tokens: 1 }],
  reasoning_effort: [{ reasoning_effort: 'low' }, OMITTED],
  stop_sequences: [{ stop: ['END'] }, { stop: ['1', '2', '3', '4'] }],
};
const RESPONSES: Row = {
  ...CHAT,
  max_tokens: [{ max_output_tokens: 8000 }, { max_output_tokens: 1 }],
  reasoning_effort: [{ reasoning: { effort: 'low' } }, { reasoning: { effort: 'banana' } }],
  stop_sequences: [OMITTED, OMITTED],
  seed: [OMITTED, OMITTED],
};
const OPENAI_RESPONSES: Row = {
  ...RESPONSES,
  max_tokens: [{ max_output_tokens: 8000 }, { max_output_tokens: 16 }],
  reasoning_effort: [{ reasoning: { effort: 'low' } }, OMITTED],
};
const OPENAI_REASONING: Row = { ...OPENAI, temperature: [OMITTED, OMITTED], top_p: [OMITTED, OMITTED] };
const OPENAI_CLASSIC: Row = {
  ...OPENAI,
  max_tokens: [{ max_tokens: 8000 }, { max_tokens: 1 }],
  reasoning_effort: [OMITTED, OMITTED],
};
const MESSAGES: Row = {
  temperature: [{ temperature: 0.5 }, { temperature: 1 }],
  top_p: [{ top_p: 0.9 }, { top_p: 0 }],
  max_tokens: [{ max_tokens: 8000 }, { max_tokens: 1 }],
  reasoning_effort: [OMITTED, OMITTED],
  thinking_budget_tokens: [thinking, { thinking: { type: 'disabled' } }],
  stop_sequences: [{ stop_sequences: ['END'] }, { stop_sequences: ['1', '2', '3', '4', '5'] }],
  seed: [OMITTED, OMITTED],
};
const CLAUDE: Row = { ...MESSAGES, temperature: [OMITTED, OMITTED], top_p: [OMITTED, OMITTED] };
const EFFORT = { reasoning_effort: [{ output_config: { effort: 'low' } }, OMITTED] } as const;
const NO_THINKING = { thinking_budget_tokens: [OMITTED, OMITTED] } as const;
const GROK: Row = {
  ...CHAT,
  max_tokens: OPENAI.max_tokens,
  reasoning_effort: [{ reasoning_effort: 'low' }, OMITTED],
  stop_sequences: [OMITTED, OMITTED],
};

/** The complete matrix: the request of each dialect and of each built-in provider, from reference/providers.md. */
const MATRIX: Record<string, readonly [Target, Row]> = {
  'the dialect openai': [[ofDialect('DIALECT_OPENAI'), undefined], OPENAI],
  'the dialect openai-compatible': [[ofDialect('DIALECT_OPENAI_COMPATIBLE'), undefined], CHAT],
  'the dialect openai-responses': [[ofDialect('DIALECT_OPENAI_RESPONSES'), undefined], OPENAI_RESPONSES],
  'the dialect anthropic': [[ofDialect('DIALECT_ANTHROPIC'), undefined], MESSAGES],
  'openai with responses': [[withResponses('DIALECT_OPENAI'), undefined], OPENAI_RESPONSES],
  'openai-compatible with responses': [[withResponses('DIALECT_OPENAI_COMPATIBLE'), undefined], RESPONSES],
  'openai/gpt-4o': [builtIn('openai', 'gpt-4o'), OPENAI_CLASSIC],
  'openai/gpt-5': [builtIn('openai', 'gpt-5'), OPENAI_REASONING],
  'openai/o4-mini': [builtIn('openai', 'o4-mini'), OPENAI_REASONING],
  'openai/unknown': [builtIn('openai', 'gpt-9'), OPENAI_REASONING],
  'deepseek/deepseek-chat': [
    builtIn('deepseek', 'deepseek-chat'),
    { ...CHAT, max_tokens: [{ max_tokens: 4096 }, { max_tokens: 1 }], reasoning_effort: [OMITTED, OMITTED] },
  ],
  'deepseek/deepseek-reasoner': [
    builtIn('deepseek', 'deepseek-reasoner'),
    {
      ...CHAT,
      temperature: [OMITTED, OMITTED],
      top_p: [OMITTED, OMITTED],
      reasoning_effort: [OMITTED, OMITTED],
    },
  ],
  'deepseek/deepseek-v4-flash': [
    builtIn('deepseek', 'deepseek-v4-flash'),
    {
      ...CHAT,
      temperature: [OMITTED, OMITTED],
      top_p: [OMITTED, OMITTED],
      reasoning_effort: [OMITTED, OMITTED],
    },
  ],
  'grok/unknown': [builtIn('grok', 'grok-9'), GROK],
  'grok/grok-4.20-reasoning': [
    builtIn('grok', 'grok-4.20-reasoning'),
    { ...GROK, reasoning_effort: [OMITTED, OMITTED] },
  ],
  'grok/grok-4.20-non-reasoning': [
    builtIn('grok', 'grok-4.20-non-reasoning'),
    { ...GROK, reasoning_effort: [OMITTED, OMITTED], stop_sequences: CHAT.stop_sequences },
  ],
  'claude/claude-opus-5': [builtIn('claude', 'claude-opus-5'), { ...CLAUDE, ...NO_THINKING, ...EFFORT }],
  'claude/unknown': [builtIn('claude', 'claude-9'), CLAUDE],
  'claude/claude-fable-5': [builtIn('claude', 'claude-fable-5'), { ...CLAUDE, ...NO_THINKING, ...EFFORT }],
  'claude/claude-sonnet-4-6': [builtIn('claude', 'claude-sonnet-4-6'), { ...MESSAGES, ...EFFORT }],
  'claude/claude-haiku-4-5': [builtIn('claude', 'claude-haiku-4-5'), MESSAGES],
  'claude/claude-3-haiku-20240307': [
    builtIn('claude', 'claude-3-haiku-20240307'),
    { ...MESSAGES, ...NO_THINKING, max_tokens: [{ max_tokens: 4096 }, { max_tokens: 1 }] },
  ],
};

const needsMaxTokens = (provider: Provider | undefined) => provider?.dialect === 'DIALECT_ANTHROPIC';
/** The body fields that are sent in addition to a single configured parameter. */
function additionalFields(provider: Provider | undefined, parameter: Parameter, body: object | undefined): object {
  if (!needsMaxTokens(provider) || parameter === 'max_tokens') return {};
  return { max_tokens: body && 'thinking' in body && body === thinking ? 4096 + 2048 : 4096 };
}

describe.each(Object.entries(MATRIX))('%s', (_, [[provider, model], row]) => {
  it.each(PARAMETERS)('receives %s with the name and form of its wire API, or not at all', (parameter) => {
    for (const [at, values] of [USUAL, EXTREME].entries()) {
      const expected = row[parameter][at];
      const configured = { [parameter]: values[parameter] };
      expect(bodyOf(provider, model, configured)).toEqual({
        ...additionalFields(provider, parameter, expected),
        ...expected,
      });
      const reason = reasons(provider, model, configured)[parameter];
      if (expected === undefined) expect(reason).toMatch(/^(REJECTED|IGNORED|CLAMPED): [a-zA-Z]/);
    }
  });

  it('receives a body that JSON serialization preserves', () => {
    const body = bodyOf(provider, model, USUAL);
    expect(JSON.parse(JSON.stringify(body))).toEqual(body);
  });
});

describe('the test matrix', () => {
  it('contains every dialect of the contract', () => {
    const dialects = Object.keys(Dialect).filter((name) => !['UNSPECIFIED', 'UNRECOGNIZED'].includes(name));
    const tested = Object.keys(MATRIX).filter((name) => name.startsWith('the dialect '));
    const names = dialects.map((name) => `the dialect ${name.toLowerCase().replaceAll('_', '-')}`);
    expect(tested.toSorted()).toEqual(names.toSorted());
  });

  it('has only parameters that docs/parameters.md documents', () => {
    const page = readFileSync(new URL('../../docs/parameters.md', import.meta.url), 'utf8');
    for (const parameter of PARAMETERS) expect(page).toMatch(new RegExp(`^\\| \`${parameter}\` \\|`, 'm'));
  });
});

describe('the wire APIs of a dialect', () => {
  it('are chat completions or Responses for OpenAI and compatible endpoints, and one fixed API otherwise', () => {
    const apis = Object.values(Dialect).map((dialect) => [dialect, wireApisOf(dialect).map(nameOf)]);
    expect(Object.fromEntries(apis)).toEqual({
      DIALECT_UNSPECIFIED: [],
      DIALECT_OPENAI: ['CHAT_COMPLETIONS', 'RESPONSES'],
      DIALECT_OPENAI_COMPATIBLE: ['CHAT_COMPLETIONS', 'RESPONSES'],
      DIALECT_ANTHROPIC: ['MESSAGES'],
      DIALECT_OPENAI_RESPONSES: ['RESPONSES'],
      UNRECOGNIZED: [],
    });
  });
  const nameOf = (api: string) => api.replace('WIRE_API_', '');

  it('begin with the default, and an unknown dialect has none', () => {
    expect(defaultWireApi('DIALECT_OPENAI')).toBe('WIRE_API_CHAT_COMPLETIONS');
    expect(defaultWireApi('UNRECOGNIZED')).toBe('WIRE_API_UNSPECIFIED');
  });

  it('are all used by a dialect', () => {
    const used = new Set(Object.values(Dialect).flatMap(wireApisOf));
    const all = Object.values(WireApi).filter((api) => api !== 'WIRE_API_UNSPECIFIED' && api !== 'UNRECOGNIZED');
    expect([...used].sort()).toEqual(all.sort());
  });

  it('are named in the reason for an omitted parameter', () => {
    const seed = (provider: Provider) => reasons(provider, undefined, { seed: 1 })['seed'];
    expect(seed(withResponses('DIALECT_OPENAI'))).toBe("REJECTED: OpenAI's Responses has no such parameter");
    expect(seed(withResponses('DIALECT_OPENAI_COMPATIBLE'))).toBe('REJECTED: Responses has no such parameter');
  });
});

describe('the parameter rules of dialect, provider and model', () => {
  const accepted = 'PARAMETER_SUPPORT_ACCEPTED';
  const values = { stop_sequences: ['a'], max_tokens: 10 };

  it('use the wire name of the dialect when a rule has none', () => {
    const provider = ofDialect('DIALECT_OPENAI_COMPATIBLE', { parameter: 'stop_sequences', support: accepted });
    expect(bodyOf(provider, undefined, values)).toEqual({ stop: ['a'], max_tokens: 10 });
    const model = { ...newModel(), parameter_rules: provider.parameter_rules };
    expect(bodyOf(ofDialect('DIALECT_OPENAI_COMPATIBLE'), model, values)).toEqual({ stop: ['a'], max_tokens: 10 });
  });

  it('use the wire name of the model, then of the provider, then of the dialect', () => {
    const named = (wire_name: string): ParameterRule => ({ parameter: 'max_tokens', support: accepted, wire_name });
    const provider = ofDialect('DIALECT_OPENAI', named('limit'));
    expect(bodyOf(provider, undefined, { max_tokens: 10 })).toEqual({ limit: 10 });
    const model = { ...newModel(), parameter_rules: [named('options.limit')] };
    expect(bodyOf(provider, model, { max_tokens: 10 })).toEqual({ options: { limit: 10 } });
  });

  it('send a value that the wire API requires, limited by the rules of the provider', () => {
    const capped: ParameterRule = { parameter: 'max_tokens', support: accepted, maximum: 100 };
    expect(bodyOf(ofDialect('DIALECT_ANTHROPIC', capped), undefined, {})).toEqual({ max_tokens: 100 });
  });

  // The catalogue of earlier releases uses this wire name for Claude.
  it('send the object of the dialect when the wire name is a field of that object', () => {
    const earlier: ParameterRule = {
      parameter: 'thinking_budget_tokens',
      support: accepted,
      wire_name: 'thinking.budget_tokens',
    };
    const configured = { max_tokens: 8000, thinking_budget_tokens: 2048 };
    const body = bodyOf(ofDialect('DIALECT_ANTHROPIC', earlier), undefined, configured);
    expect(body).toEqual({ max_tokens: 8000, ...thinking });
    const flat = { ...earlier, wire_name: 'thinking_budget' };
    const other = bodyOf(ofDialect('DIALECT_OPENAI_COMPATIBLE', flat), undefined, configured);
    expect(other).toEqual({ max_tokens: 8000, thinking_budget: 2048 });
  });

  it('omit a thinking budget that is not below the output limit, and add the budget to a default limit', () => {
    const provider = ofDialect('DIALECT_ANTHROPIC');
    expect(bodyOf(provider, undefined, { thinking_budget_tokens: 10_000 })).toEqual({
      max_tokens: 14_096,
      thinking: { type: 'enabled', budget_tokens: 10_000 },
    });
    const budgetAtLimit = { temperature: 0.5, max_tokens: 2048, thinking_budget_tokens: 2048 };
    expect(bodyOf(provider, undefined, budgetAtLimit)).toEqual({ temperature: 0.5, max_tokens: 2048 });
    expect(reasons(provider, undefined, budgetAtLimit)).toEqual({
      thinking_budget_tokens: 'CONFLICT: it must be less than max_tokens, which is 2048',
    });
  });

  it('apply a conflict only when the conflicting parameter is sent', () => {
    const [provider, model] = builtIn('claude', 'claude-sonnet-4-6');
    // The budget is out of bounds, so it excludes neither temperature nor top_p; the temperature excludes top_p.
    const first = { temperature: 0.5, top_p: 0.5, max_tokens: 1024, thinking_budget_tokens: 1024 };
    expect(Object.keys(reasons(provider, model, first))).toEqual(['top_p', 'thinking_budget_tokens']);
    const compatible = ofDialect(
      'DIALECT_OPENAI_COMPATIBLE',
      { parameter: 'top_p', support: accepted, not_with: ['temperature'] },
      { parameter: 'temperature', support: accepted, not_with: ['seed'] },
    );
    // The seed excludes the temperature, which therefore does not exclude top_p.
    expect(bodyOf(compatible, undefined, { temperature: 1, top_p: 0.5, seed: 1 })).toEqual({ top_p: 0.5, seed: 1 });
  });

  it('ignore accepted_with_reasoning_effort when the effort is not sent', () => {
    const [provider] = builtIn('openai', 'gpt-5');
    const noReasoning = { temperature: 0.5, reasoning_effort: 'none' };
    expect(bodyOf(provider, undefined, noReasoning)).toEqual(noReasoning);
    const [, gpt5] = builtIn('openai', 'gpt-5');
    expect(bodyOf(provider, gpt5, noReasoning)).toEqual({});
    const conflicting = ofDialect(
      'DIALECT_OPENAI',
      { parameter: 'reasoning_effort', support: accepted, not_with: ['seed'] },
      { parameter: 'temperature', support: 'PARAMETER_SUPPORT_REJECTED', accepted_with_reasoning_effort: ['none'] },
    );
    // The effort is evaluated first, because other parameters depend on it.
    expect(bodyOf(conflicting, undefined, { ...noReasoning, seed: 1 })).toEqual(noReasoning);
  });
});
