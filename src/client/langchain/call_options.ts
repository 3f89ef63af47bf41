import type { BaseChatModelCallOptions, BindToolsInput } from '@langchain/core/language_models/chat_models';
import type { BaseMessage } from '@langchain/core/messages';
import type { ParameterValues } from '../../domain/parameters.js';
import type { CallNeeds } from '../runtime/capabilities.js';

/** A schema for the response, in the form that every hop can send. */
export interface ResponseSchema {
  readonly name: string;
  readonly description: string | undefined;
  /** The JSON schema. */
  readonly schema: Readonly<Record<string, unknown>>;
}

/** Options of one call, for example with `model.withConfig({ temperature: 0 })`. They replace those of the config. */
export type AgentCallOptions = BaseChatModelCallOptions & {
  tools?: BindToolsInput[] | undefined;
  /** Set by `withStructuredOutput`. */
  responseSchema?: ResponseSchema | undefined;
  temperature?: number | undefined;
  topP?: number | undefined;
  /** The most model tokens of the response. */
  maxTokens?: number | undefined;
  seed?: number | undefined;
};

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** The parameters that the options of a call set for every hop. */
export function overridesOf({ temperature, topP, maxTokens, stop, seed }: AgentCallOptions): ParameterValues {
  const values: Mutable<ParameterValues> = {};
  if (temperature !== undefined) values.temperature = temperature;
  if (topP !== undefined) values.top_p = topP;
  if (maxTokens !== undefined) values.max_tokens = maxTokens;
  if (stop?.length) values.stop_sequences = stop;
  if (seed !== undefined) values.seed = seed;
  return values;
}

/** What a call needs from a model. */
export function needsOf(messages: readonly BaseMessage[], options: AgentCallOptions): CallNeeds {
  const { tools = [], tool_choice: choice, responseSchema } = options;
  const usesTools = tools.length > 0 && choice !== 'none';
  return {
    functions: usesTools,
    forcedToolChoice: usesTools && choice !== undefined && choice !== 'auto',
    vision: messages.some(hasImage),
    structuredOutput: responseSchema !== undefined,
    prefill: messages.at(-1)?.getType() === 'ai',
  };
}

const IMAGES = new Set(['image', 'image_url', 'input_image']);

const hasImage = ({ content }: BaseMessage): boolean =>
  Array.isArray(content) && content.some(({ type }) => IMAGES.has(String(type)));
