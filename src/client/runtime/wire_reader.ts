import { isFields, type ProviderError } from './error_body.js';

/** Why a model stopped; empty until it has. */
export type FinishReason = '' | 'stop' | 'length' | 'content-filter' | 'tool-calls' | 'other';

/** What a response states about itself, collected while it is read. */
export interface ResponseFacts {
  /** The name of the model, as the response states it. */
  model: string;
  finishReason: FinishReason;
  /** The usage as the provider sent it. */
  usage: Readonly<Record<string, unknown>> | undefined;
  /**
   * Whether the terminal event of the wire API has arrived. After `finished` only usage and an end marker can follow;
   * after `ended` nothing follows.
   */
  terminal: 'none' | 'finished' | 'ended';
}

export const newFacts = (): ResponseFacts => ({ model: '', finishReason: '', usage: undefined, terminal: 'none' });

/** Why a response that arrived is not a success. */
export type Problem =
  /** It contains an error of the provider. */
  | { readonly kind: 'error'; readonly error: ProviderError }
  /** The data is not a response of the wire API, or not one of its events. */
  | { readonly kind: 'invalid'; readonly message: string }
  /** A tool call in it is incomplete, although the response is not. */
  | { readonly kind: 'truncated'; readonly message: string }
  /** The model or a filter of the provider refuses the content. */
  | { readonly kind: 'refused' };

/** What one event of a stream means. */
export interface EventResult {
  /** Whether the event has content: text, reasoning, a part of a tool call or the progress of a hosted tool. */
  readonly content: boolean;
  readonly problem?: Problem | undefined;
}

/** Reads the responses of one wire API and collects their facts. */
export interface WireReader {
  /** Reads the data of one event of a stream. */
  event(data: unknown): EventResult;
  /** Reads the body of a response that is not a stream. */
  body(json: unknown): Problem | undefined;
  /** The text of the last event, for a stream that is finished without it. Absent: packages do not need it. */
  readonly lastEvent?: string;
}

/** The end marker of a stream of chat completions, which is not JSON. Some servers send it for other wire APIs too. */
export const END_MARKER = '[DONE]';

export const NO_CONTENT: EventResult = { content: false };
export const CONTENT: EventResult = { content: true };

export const failed = (problem: Problem): EventResult => ({ content: false, problem });
export const invalid = (message: string): Problem => ({ kind: 'invalid', message });

export const truncatedCall = (name: unknown): Problem => ({
  kind: 'truncated',
  message: `The arguments of the tool call ${JSON.stringify(typeof name === 'string' ? name : '')} are incomplete`,
});

/** Whether a value is a text with at least one character. */
export const isText = (value: unknown): value is string => typeof value === 'string' && value !== '';

/** Whether the arguments of a tool call are complete. A tool without parameters may get an empty text. */
export function isCompleteJson(text: string): boolean {
  if (text === '') return true;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

export const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);
export const fieldsOf = (value: unknown): Readonly<Record<string, unknown>> => (isFields(value) ? value : {});
