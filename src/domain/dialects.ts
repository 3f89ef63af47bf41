import type { Dialect } from '../../gen/ts/agentllm/v1/provider.js';
import type { Parameter } from './parameters.js';
import type { ParameterRule } from './rows.js';

/*
 * The rule of each wire API for each parameter. Rules of providers and models take precedence. This file is data from
 * the API references of the providers; docs/parameters.md shows it as a table.
 */
export const DIALECTS_AS_OF = '2026-11-20';

/** A parameter that is sent as an object, with its value as one member and constants as the other ones. */
export interface WireObject {
  readonly member: string;
  readonly constants: Readonly<Record<string, string>>;
  /** The object for the value 0, which disables the parameter. */
  readonly zero: Readonly<Record<string, string>>;
}

/** The rule of a dialect. `object` and `less_than` cannot be set in rules of providers and models. */
export interface DialectRule extends Omit<ParameterRule, 'parameter'> {
  readonly object?: WireObject;
  /** The wire API requires a value below that of this parameter. */
  readonly less_than?: Parameter;
}

type DialectRules = { readonly [P in Parameter]: DialectRule };

const accepted = 'PARAMETER_SUPPORT_ACCEPTED';
const absent: DialectRule = { support: 'PARAMETER_SUPPORT_REJECTED' };

const CHAT_COMPLETIONS: DialectRules = {
  temperature: { support: accepted, minimum: 0, maximum: 2 },
  top_p: { support: accepted, minimum: 0, maximum: 1 },
  max_tokens: { support: accepted },
  reasoning_effort: { support: accepted },
  thinking_budget_tokens: absent,
  stop_sequences: { support: accepted, wire_name: 'stop' },
  seed: { support: accepted },
};

const EFFORTS = ['none', 'minimal', 'low', 'medium', 'high', 'xhigh'];

const DIALECTS: Partial<Record<Dialect, DialectRules>> = {
  DIALECT_OPENAI: {
    ...CHAT_COMPLETIONS,
    max_tokens: { support: accepted, wire_name: 'max_completion_tokens' },
    reasoning_effort: { support: accepted, allowed_values: EFFORTS },
    stop_sequences: { support: accepted, wire_name: 'stop', maximum: 4 },
  },
  // Endpoints accept different effort values, so any value is sent.
  DIALECT_OPENAI_COMPATIBLE: CHAT_COMPLETIONS,
  DIALECT_OPENAI_RESPONSES: {
    temperature: { support: accepted, minimum: 0, maximum: 2 },
    top_p: { support: accepted, minimum: 0, maximum: 1 },
    max_tokens: { support: accepted, wire_name: 'max_output_tokens', minimum: 16 },
    reasoning_effort: { support: accepted, wire_name: 'reasoning.effort', allowed_values: EFFORTS },
    thinking_budget_tokens: absent,
    stop_sequences: absent,
    seed: absent,
  },
  DIALECT_ANTHROPIC: {
    temperature: { support: accepted, minimum: 0, maximum: 1, not_with: ['thinking_budget_tokens'] },
    top_p: { support: accepted, minimum: 0, maximum: 1, not_with: ['temperature', 'thinking_budget_tokens'] },
    max_tokens: { support: accepted, required_default: 4096 },
    reasoning_effort: absent,
    thinking_budget_tokens: {
      support: accepted,
      minimum: 1024,
      wire_name: 'thinking',
      object: { member: 'budget_tokens', constants: { type: 'enabled' }, zero: { type: 'disabled' } },
      less_than: 'max_tokens',
    },
    stop_sequences: { support: accepted },
    seed: absent,
  },
};

/** The rule of a dialect for a parameter; undefined for a dialect that this release does not know. */
export const dialectRule = (dialect: Dialect, parameter: Parameter): DialectRule | undefined =>
  DIALECTS[dialect]?.[parameter];

/** The name of the wire API of a dialect, for messages. */
export const WIRE_APIS: Partial<Record<Dialect, string>> = {
  DIALECT_OPENAI: "OpenAI's chat completions",
  DIALECT_OPENAI_COMPATIBLE: 'chat completions',
  DIALECT_OPENAI_RESPONSES: "OpenAI's Responses",
  DIALECT_ANTHROPIC: "Anthropic's Messages",
};
