import type { Dialect, WireApi } from '../../gen/ts/agentllm/v1/provider.js';
import type { Parameter } from './parameters.js';
import type { ParameterRule } from './rows.js';

/*
 * The wire APIs of each dialect, and the rule of each for each parameter. Rules of providers and models take precedence.
 * This file is data from the API references of the providers; docs/parameters.md shows it as a table.
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

const RESPONSES: DialectRules = {
  temperature: { support: accepted, minimum: 0, maximum: 2 },
  top_p: { support: accepted, minimum: 0, maximum: 1 },
  max_tokens: { support: accepted, wire_name: 'max_output_tokens' },
  reasoning_effort: { support: accepted, wire_name: 'reasoning.effort' },
  thinking_budget_tokens: absent,
  stop_sequences: absent,
  seed: absent,
};

const MESSAGES: DialectRules = {
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
};

const EFFORTS = ['none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max'];

/** A wire API in one dialect. */
interface DialectApi {
  /** Its name in messages. */
  readonly name: string;
  readonly rules: DialectRules;
}

const OPENAI_CHAT: DialectApi = {
  name: "OpenAI's chat completions",
  rules: {
    ...CHAT_COMPLETIONS,
    max_tokens: { support: accepted, wire_name: 'max_completion_tokens' },
    reasoning_effort: { support: accepted, allowed_values: EFFORTS },
    stop_sequences: { support: accepted, wire_name: 'stop', maximum: 4 },
  },
};

const OPENAI_RESPONSES: DialectApi = {
  name: "OpenAI's Responses",
  rules: {
    ...RESPONSES,
    max_tokens: { support: accepted, wire_name: 'max_output_tokens', minimum: 16 },
    reasoning_effort: { support: accepted, wire_name: 'reasoning.effort', allowed_values: EFFORTS },
  },
};

/** The wire APIs of each dialect; the first one is its default. */
const DIALECTS: Partial<Record<Dialect, Partial<Record<WireApi, DialectApi>>>> = {
  DIALECT_OPENAI: { WIRE_API_CHAT_COMPLETIONS: OPENAI_CHAT, WIRE_API_RESPONSES: OPENAI_RESPONSES },
  // Endpoints have different limits and effort values, so any value is sent.
  DIALECT_OPENAI_COMPATIBLE: {
    WIRE_API_CHAT_COMPLETIONS: { name: 'chat completions', rules: CHAT_COMPLETIONS },
    WIRE_API_RESPONSES: { name: 'Responses', rules: RESPONSES },
  },
  DIALECT_OPENAI_RESPONSES: { WIRE_API_RESPONSES: OPENAI_RESPONSES },
  DIALECT_ANTHROPIC: { WIRE_API_MESSAGES: { name: "Anthropic's Messages", rules: MESSAGES } },
};

/** The fields of a provider that determine the form of its requests. */
export interface ApiOfProvider {
  readonly dialect: Dialect;
  readonly wire_api: WireApi;
}

/** The wire APIs that a provider of a dialect can have; empty for a dialect that this release does not know. */
export const wireApisOf = (dialect: Dialect): readonly WireApi[] => Object.keys(DIALECTS[dialect] ?? {}) as WireApi[];

/** The wire API of a dialect that is used unless the provider names another one. */
export const defaultWireApi = (dialect: Dialect): WireApi => wireApisOf(dialect)[0] ?? 'WIRE_API_UNSPECIFIED';

const apiOf = ({ dialect, wire_api }: ApiOfProvider): DialectApi | undefined => DIALECTS[dialect]?.[wire_api];

/** The rule of a provider's wire API for a parameter; undefined for an API that this release does not know. */
export const dialectRule = (provider: ApiOfProvider, parameter: Parameter): DialectRule | undefined =>
  apiOf(provider)?.rules[parameter];

/** The name of a provider's wire API, for messages; undefined for one that this release does not know. */
export const apiName = (provider: ApiOfProvider): string | undefined => apiOf(provider)?.name;
