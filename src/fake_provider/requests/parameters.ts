import type { Wording } from '../providers.js';
import { missingField, outOfRange, type Range, unknownParameter, wrongType, wrongValue } from './wording.js';

/** The fields of a JSON object. */
export type Fields = Readonly<Record<string, unknown>>;

export const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The type and the range of a parameter of a wire API. */
export interface ParameterSpec extends Range {
  readonly type: 'string' | 'number' | 'integer' | 'boolean' | 'array' | 'object' | 'anything';
  readonly values?: readonly string[];
  readonly required?: boolean;
}

export type ParameterSpecs = Readonly<Record<string, ParameterSpec>>;

const string: ParameterSpec = { type: 'string' };
const boolean: ParameterSpec = { type: 'boolean' };
const array: ParameterSpec = { type: 'array' };
const object: ParameterSpec = { type: 'object' };
const anything: ParameterSpec = { type: 'anything' };
const numeric = (min: number, max: number): ParameterSpec => ({ type: 'number', min, max });
const integer = (min: number, max?: number): ParameterSpec => ({ type: 'integer', min, max, integer: true });
const required = (spec: ParameterSpec): ParameterSpec => ({ ...spec, required: true });

/** The parameters of chat completions, of OpenAI and of the providers that have a form of it. */
export const CHAT_PARAMETERS: ParameterSpecs = {
  model: required(string),
  messages: required(array),
  audio: object,
  deferred: boolean,
  frequency_penalty: numeric(-2, 2),
  function_call: anything,
  functions: array,
  logit_bias: object,
  logprobs: boolean,
  max_completion_tokens: integer(1),
  max_tokens: integer(1),
  metadata: object,
  modalities: array,
  n: integer(1, 128),
  parallel_tool_calls: boolean,
  prediction: object,
  presence_penalty: numeric(-2, 2),
  prompt_cache_key: string,
  prompt_cache_retention: string,
  reasoning_effort: string,
  response_format: object,
  safety_identifier: string,
  search_parameters: object,
  seed: { type: 'integer', integer: true },
  service_tier: string,
  stop: anything,
  store: boolean,
  stream: boolean,
  stream_options: object,
  temperature: numeric(0, 2),
  thinking: object,
  tool_choice: anything,
  tools: array,
  top_logprobs: integer(0, 20),
  top_p: numeric(0, 1),
  user: string,
  verbosity: { type: 'string', values: ['low', 'medium', 'high'] },
  web_search_options: object,
};

/** Parameters that DeepSeek and xAI add to chat completions, and OpenAI does not have. */
export const FOREIGN_CHAT_PARAMETERS: readonly string[] = ['deferred', 'search_parameters', 'thinking'];

export const RESPONSES_PARAMETERS: ParameterSpecs = {
  model: required(string),
  input: required(anything),
  background: boolean,
  context_management: array,
  conversation: anything,
  include: array,
  instructions: anything,
  max_output_tokens: integer(16),
  max_tool_calls: integer(1),
  metadata: object,
  parallel_tool_calls: boolean,
  previous_response_id: string,
  prompt: object,
  prompt_cache_key: string,
  prompt_cache_retention: string,
  reasoning: object,
  safety_identifier: string,
  service_tier: string,
  store: boolean,
  stream: boolean,
  stream_options: object,
  temperature: numeric(0, 2),
  text: object,
  tool_choice: anything,
  tools: array,
  top_logprobs: integer(0, 20),
  top_p: numeric(0, 1),
  truncation: { type: 'string', values: ['auto', 'disabled'] },
  user: string,
};

export const MESSAGES_PARAMETERS: ParameterSpecs = {
  model: required(string),
  messages: required(array),
  max_tokens: required(integer(1)),
  cache_control: object,
  container: anything,
  context_management: object,
  inference_geo: string,
  mcp_servers: array,
  metadata: object,
  output_config: object,
  output_format: object,
  service_tier: { type: 'string', values: ['auto', 'standard_only'] },
  speed: string,
  stop_sequences: array,
  stream: boolean,
  system: anything,
  temperature: numeric(0, 1),
  thinking: object,
  tool_choice: object,
  tools: array,
  top_k: integer(0),
  top_p: numeric(0, 1),
};

const MATCHES: Readonly<Record<ParameterSpec['type'], (value: unknown) => boolean>> = {
  string: (value) => typeof value === 'string',
  number: (value) => typeof value === 'number',
  integer: Number.isInteger,
  boolean: (value) => typeof value === 'boolean',
  array: Array.isArray,
  object: isFields,
  anything: () => true,
};

/** Rejects a body with a parameter that is absent, unknown, of another type or out of range. null counts as absent. */
export function checkParameters(body: Fields, specs: ParameterSpecs, wording: Wording, rejectsUnknown: boolean): void {
  for (const [name, spec] of Object.entries(specs))
    if (spec.required && (body[name] === undefined || body[name] === null)) throw missingField(wording, name);
  for (const [name, value] of Object.entries(body)) {
    if (value === null) continue;
    const spec = Object.hasOwn(specs, name) ? specs[name] : undefined;
    if (spec) checkParameter(name, value, spec, wording);
    else if (rejectsUnknown) throw unknownParameter(wording, name);
  }
}

/** Rejects a value that does not have the type, is out of the range, or is not one of the words of a parameter. */
export function checkParameter(name: string, value: unknown, spec: ParameterSpec, wording: Wording): void {
  const { type, min, max, values } = spec;
  if (!MATCHES[type](value))
    throw wrongType(wording, name, type === 'array' && wording === 'anthropic' ? 'list' : type, value);
  if (typeof value === 'number' && ((min !== undefined && value < min) || (max !== undefined && value > max)))
    throw outOfRange(wording, name, value, spec);
  if (values && !values.includes(value as string)) throw wrongValue(wording, name, value, values);
}
