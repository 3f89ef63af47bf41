import type { ParameterValues } from '../../domain/parameters.js';
import type { ResolutionHop } from '../resolution_types.js';
import type { CallNeeds } from '../runtime/capabilities.js';
import type { CallableAgent } from '../runtime/model_call.js';
import { dialectOf } from './built_in_dialects.js';
import type { CallOptions, Message, ProviderOptions } from './sdk_types.js';

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** The parameters that the options of a call set for every hop. */
export function overridesOf(options: CallOptions): ParameterValues {
  const { temperature, topP, maxOutputTokens, stopSequences, seed, reasoning } = options;
  const values: Mutable<ParameterValues> = {};
  if (isNumber(temperature)) values.temperature = temperature;
  if (isNumber(topP)) values.top_p = topP;
  if (isNumber(maxOutputTokens)) values.max_tokens = maxOutputTokens;
  if (stopSequences?.length) values.stop_sequences = stopSequences;
  if (isNumber(seed)) values.seed = seed;
  if (reasoning !== undefined && reasoning !== 'provider-default') values.reasoning_effort = reasoning;
  return values;
}

/** Options of a call that only models with sampling accept, and that no config has. */
const SAMPLING = ['topK', 'presencePenalty', 'frequencyPenalty'] as const;
export type SamplingOption = (typeof SAMPLING)[number];

/** The sampling options that a call sets. */
export const samplingOptionsOf = (options: CallOptions): SamplingOption[] =>
  SAMPLING.filter((name) => options[name] !== undefined);

/**
 * The indexes of the hops that accept sampling options: those whose model accepts a temperature. Rules exist only for the
 * parameters of configs, and the providers treat all sampling parameters of a model alike.
 */
export function samplingHops(agent: CallableAgent, overrides: ParameterValues, subject?: string): Set<number> {
  const { hops } = agent.resolve({ overrides: { temperature: 1, ...overrides }, subject });
  const accepts = ({ parameters }: ResolutionHop) => parameters.some(({ name }) => name === 'temperature');
  return new Set(hops.filter(accepts).map(({ index }) => index));
}

/** The parameters that `providerOptions` sets for the provider of a hop. */
export function hopOverridesOf(providerOptions: ProviderOptions | undefined, hop: ResolutionHop): ParameterValues {
  const own: Readonly<Record<string, unknown>> = providerOptions?.[dialectOf(hop).optionsKey] ?? {};
  const { reasoningEffort, maxCompletionTokens, thinking } = own;
  const values: Mutable<ParameterValues> = {};
  if (typeof reasoningEffort === 'string') values.reasoning_effort = reasoningEffort;
  if (isNumber(maxCompletionTokens)) values.max_tokens = maxCompletionTokens;
  const budget = thinkingBudget(thinking);
  if (budget !== undefined) values.thinking_budget_tokens = budget;
  return values;
}

/** The budget that the option `thinking` states; undefined for a form that no config has. */
function thinkingBudget(thinking: unknown): number | undefined {
  const { type, budgetTokens } = (thinking ?? {}) as { type?: unknown; budgetTokens?: unknown };
  if (type === 'disabled') return 0;
  return type === 'enabled' && isNumber(budgetTokens) ? budgetTokens : undefined;
}

const isNumber = (value: unknown): value is number => Number.isFinite(value);

/** The capabilities that a call requires of a model. */
export function needsOf({ prompt, tools, toolChoice, responseFormat, providerOptions }: CallOptions): CallNeeds {
  const usesTools = (tools?.length ?? 0) > 0 && toolChoice?.type !== 'none';
  const openai = providerOptions?.['openai'];
  return {
    functions: usesTools,
    forcedToolChoice: usesTools && (toolChoice?.type === 'required' || toolChoice?.type === 'tool'),
    vision: prompt.some(hasImage),
    structuredOutput: responseFormat?.type === 'json' && responseFormat.schema !== undefined,
    prefill: prompt.at(-1)?.role === 'assistant',
    storedConversation: openai?.['previousResponseId'] != null || openai?.['conversation'] != null,
  };
}

function hasImage({ role, content }: Message): boolean {
  if (role === 'system' || typeof content === 'string') return false;
  return content.some((part) => {
    if (part.type === 'file') return isImage(part.mediaType);
    if (part.type !== 'tool-result' || part.output.type !== 'content') return false;
    return part.output.value.some(
      (item) => item.type.startsWith('image-') || ('mediaType' in item && isImage(item.mediaType)),
    );
  });
}

/** `image/png`, `image/*` and, in version 4, `image`. */
const isImage = (mediaType: string | undefined): boolean =>
  mediaType === 'image' || (mediaType?.startsWith('image/') ?? false);
