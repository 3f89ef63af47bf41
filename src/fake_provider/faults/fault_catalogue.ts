import type { ProviderName } from '../providers.js';
import type { Situation } from '../responses/situations.js';

/*
 * Every fault that the fake provider can simulate, as data: `agentllm fake-provider --list-faults` prints it,
 * docs/rehearsal.md contains it, and a rehearsal iterates it.
 */

/** An option of a fault, as in `rate-limit,retry_after=2`. */
export interface FaultOption {
  readonly description: string;
  readonly kind: 'number' | 'word';
  readonly default?: number | string;
  readonly min?: number;
  readonly max?: number;
  /** The permitted words; absent: any word. */
  readonly choices?: readonly string[];
}

/** What a fault does. */
export type FaultEffect =
  /** An error response. With `only`, requests without that property succeed. */
  | { readonly kind: 'error'; readonly situation: Situation; readonly only?: 'with parameter' | 'with prefill' }
  /** No response. */
  | { readonly kind: 'connection'; readonly how: 'reset' | 'close' | 'silence' }
  /** A slow response. */
  | { readonly kind: 'slow'; readonly what: 'headers' | 'first token' | 'tokens' }
  /** Headers of a success, and then nothing but signs of life. */
  | { readonly kind: 'signs of life'; readonly form: 'comments' | 'pings' | 'blank lines' }
  /** The response is interrupted after some tokens. */
  | { readonly kind: 'interruption'; readonly how: 'end' | 'close' | 'reset' | 'stall' | 'error' }
  /** A success with another body. */
  | { readonly kind: 'body'; readonly body: 'html' | 'empty' | 'truncated gzip' | 'error' }
  /** A part of the response is wrong or missing. */
  | { readonly kind: 'frames'; readonly what: 'invalid event' | 'no done' | 'no usage' | 'no choices' }
  /** What the key endpoint reports about the key; its other requests fail. */
  | { readonly kind: 'key state'; readonly field: 'api_key_blocked' | 'api_key_disabled' | 'team_blocked' }
  /** A complete response whose content is not the requested one. */
  | { readonly kind: 'content'; readonly what: 'refusal' | 'content filter' | 'length' | 'truncated arguments' };

export interface FaultDefinition {
  readonly name: string;
  readonly group: string;
  /** What the provider does: a phrase without a full stop. */
  readonly description: string;
  /** The providers that respond in this way; absent: all. Others respond in the same way, but in their own form. */
  readonly providers?: readonly ProviderName[];
  /** The class of the error; absent: the call succeeds, or the class depends on the options and on the call. */
  readonly errorClass?: string;
  readonly options: Readonly<Record<string, FaultOption>>;
  readonly effect: FaultEffect;
}

const number = (description: string, min: number, max: number, preset?: number): FaultOption => ({
  description,
  kind: 'number',
  min,
  max,
  ...(preset !== undefined && { default: preset }),
});
const DAY_SECONDS = 86_400;
const HOLD_MS = 600_000;

/** Options of every fault: which requests it affects. */
export const COMMON_OPTIONS: Readonly<Record<string, FaultOption>> = {
  times: number('affects this many requests, then none', 1, 1_000_000),
  skip: number('does not affect this many requests at first', 0, 1_000_000),
  for_ms: number('affects requests during this time after the first one', 1, DAY_SECONDS * 1000),
};

/** Options of every error response. */
export const ERROR_OPTIONS: Readonly<Record<string, FaultOption>> = {
  status: number('another HTTP status', 400, 599),
  retry_after: number('the header Retry-After, in seconds', 0, DAY_SECONDS),
  retry_after_date: number('the header Retry-After as a date, this many seconds from now', 0, DAY_SECONDS),
  body: {
    description: "xAI's form of the body",
    kind: 'word',
    default: 'code',
    choices: ['code', 'text', 'object'],
  },
};
const PARAM: Readonly<Record<string, FaultOption>> = {
  param: { description: 'the rejected parameter; requests without it succeed', kind: 'word', default: 'temperature' },
};
const after = (preset: number) => ({ after: number('the number of tokens before the fault', 0, 1_000_000, preset) });
const delay = (preset: number) => ({ delay_ms: number('the delay', 0, HOLD_MS, preset) });

/** The entry for an error response. */
const error = (
  name: string,
  errorClass: string,
  situation: Situation,
  description: string,
  more: Partial<FaultDefinition> & { readonly only?: 'with parameter' | 'with prefill' } = {},
): FaultDefinition => ({
  name,
  group: 'error response',
  description,
  errorClass,
  ...(more.providers && { providers: more.providers }),
  options: { ...ERROR_OPTIONS, ...more.options },
  effect: { kind: 'error', situation, ...(more.only && { only: more.only }) },
});

const other = (
  group: string,
  name: string,
  errorClass: string | undefined,
  effect: FaultEffect,
  description: string,
  options: Readonly<Record<string, FaultOption>> = {},
): FaultDefinition => ({ name, group, description, ...(errorClass && { errorClass }), options, effect });

const KEY = 'key';
const NETWORK = 'connection and time';
const STREAM = 'interrupted response';
const BODY = 'wrong body';
const CONTENT = 'content';

export const faultCatalogue: readonly FaultDefinition[] = [
  error('rate-limit', 'RATE_LIMIT', 'rate_limit', '429, too many requests; Retry-After only if it is set'),
  error('quota', 'QUOTA', 'quota', 'no quota or credit left: 429 insufficient_quota, 402, or 403 at xAI'),
  error('quota-without-code', 'RATE_LIMIT', 'quota_without_code', '429 "INSUFFICIENT QUOTA" without a code'),
  error('credit-exhausted', 'QUOTA', 'credit_exhausted', '429 with the code credit_balance_exhausted', {
    providers: ['openai'],
  }),
  error('credit-balance', 'QUOTA', 'credit_balance', '400 "Your credit balance is too low"', {
    providers: ['anthropic'],
  }),
  error('spend-limit', 'QUOTA', 'spend_limit', '400 "You have reached your specified API usage limits"', {
    providers: ['anthropic'],
  }),
  error('enforced-spend-limit', 'QUOTA', 'enforced_spend_limit', '429 with the detail enforced_spend_limit_reached', {
    providers: ['anthropic'],
  }),
  error('payment-required', 'QUOTA', 'payment_required', '402', { providers: ['anthropic', 'deepseek', 'compatible'] }),
  error('invalid-key', 'AUTH', 'invalid_key', '401 invalid key; 400 "Incorrect API key" at xAI'),
  error('unauthorized', 'AUTH', 'unauthorized', '401 at every provider'),
  error('permission', 'PERMISSION', 'permission', '403, the key may not use the model'),
  error('region', 'PERMISSION', 'region', '403, the region is not supported', { providers: ['openai', 'anthropic'] }),
  error('model-not-found', 'MODEL_NOT_FOUND', 'model_not_found', '404; 400 "Model Not Exist" at DeepSeek'),
  error('overloaded', 'OVERLOADED', 'overloaded', '503; 529 overloaded_error at Anthropic'),
  error('slow-down', 'OVERLOADED', 'slow_down', '503 with the code slow_down', { providers: ['openai'] }),
  error('server-error', 'SERVER', 'server_error', '500'),
  error('bad-gateway', 'SERVER', 'bad_gateway', '502 with the HTML page of a proxy'),
  error('gateway-timeout', 'SERVER', 'gateway_timeout', '504; timeout_error at Anthropic'),
  error('request-timeout', 'SERVER', 'request_timeout', '408'),
  error('conflict', 'SERVER', 'conflict', '409', { providers: ['openai', 'anthropic'] }),
  error('context-length', 'CONTEXT_OVERFLOW', 'context_length', '400, the prompt is longer than the context window'),
  error('request-too-large', 'CONTEXT_OVERFLOW', 'request_too_large', '413'),
  error('unsupported-parameter', 'INVALID_PARAM', 'unsupported_parameter', '400 (422 at DeepSeek) for one parameter', {
    options: PARAM,
    only: 'with parameter',
  }),
  error('unsupported-value', 'INVALID_PARAM', 'unsupported_value', '400 or 422 for the value of one parameter', {
    options: PARAM,
    only: 'with parameter',
  }),
  error('prefill-rejected', 'INVALID_REQUEST', 'prefill_rejected', '400 if the last message is of the assistant', {
    only: 'with prefill',
  }),
  error('invalid-request', 'INVALID_REQUEST', 'invalid_request', '400 for another reason'),
  error('unprocessable', 'INVALID_REQUEST', 'unprocessable', '422', { providers: ['deepseek', 'xai'] }),
  error('content-policy', 'CONTENT_POLICY', 'content_policy', '400 content_policy_violation; 403 at xAI'),
  error('content-filter', 'CONTENT_POLICY', 'content_filter', '400 with the code content_filter', {
    providers: ['openai', 'compatible'],
  }),

  other(NETWORK, 'reset', 'NETWORK', { kind: 'connection', how: 'reset' }, 'reset before the headers'),
  other(NETWORK, 'close', 'NETWORK', { kind: 'connection', how: 'close' }, 'closed before the headers'),
  other(
    NETWORK,
    'silence',
    'TIMEOUT',
    { kind: 'connection', how: 'silence' },
    'the request is read and never responded to',
  ),
  other(NETWORK, 'slow-headers', undefined, { kind: 'slow', what: 'headers' }, 'everything is late', delay(20_000)),
  other(
    NETWORK,
    'slow-first-token',
    undefined,
    { kind: 'slow', what: 'first token' },
    'headers at once, the first token is late',
    delay(20_000),
  ),
  other(NETWORK, 'slow-tokens', undefined, { kind: 'slow', what: 'tokens' }, 'every token is late', delay(500)),
  other(
    NETWORK,
    'comments-only',
    'TIMEOUT',
    { kind: 'signs of life', form: 'comments' },
    'headers, then only SSE comments (": keep-alive")',
    delay(1_000),
  ),
  other(
    NETWORK,
    'pings-only',
    'TIMEOUT',
    { kind: 'signs of life', form: 'pings' },
    'headers, then only ping events or empty deltas',
    delay(1_000),
  ),
  other(
    NETWORK,
    'blank-lines-only',
    'TIMEOUT',
    { kind: 'signs of life', form: 'blank lines' },
    'headers, then only blank lines, as DeepSeek sends while a request is queued',
    delay(1_000),
  ),

  other(STREAM, 'cut-stream', 'TORN', { kind: 'interruption', how: 'close' }, 'the connection is closed', after(40)),
  other(STREAM, 'reset-stream', 'TORN', { kind: 'interruption', how: 'reset' }, 'the connection is reset', after(40)),
  other(
    STREAM,
    'end-stream',
    'TORN',
    { kind: 'interruption', how: 'end' },
    'the response ends regularly, without its last events',
    after(2),
  ),
  other(STREAM, 'stall', 'TIMEOUT', { kind: 'interruption', how: 'stall' }, 'silence on an open connection', {
    ...after(20),
    keep_alive_ms: number('the interval of SSE comments during the silence', 10, HOLD_MS),
    resume_ms: number('continues after this time', 0, HOLD_MS),
    close_ms: number('closes the connection after this time', 0, HOLD_MS),
  }),
  other(STREAM, 'error-event', undefined, { kind: 'interruption', how: 'error' }, 'an error as an event in a 200', {
    ...after(0),
    error: {
      description: 'the error; its class is that of the fault with this name',
      kind: 'word',
      default: 'rate-limit',
      choices: ['rate-limit', 'overloaded', 'server-error', 'quota', 'content-policy', 'context-length'],
    },
  }),

  other(
    BODY,
    'invalid-event',
    undefined,
    { kind: 'frames', what: 'invalid event' },
    'one event is not valid JSON',
    after(10),
  ),
  other(
    BODY,
    'no-done',
    undefined,
    { kind: 'frames', what: 'no done' },
    'complete, without its last event: [DONE], message_stop or response.completed',
  ),
  other(BODY, 'no-usage', undefined, { kind: 'frames', what: 'no usage' }, 'complete, without usage'),
  other(
    BODY,
    'no-choices',
    'SERVER',
    { kind: 'frames', what: 'no choices' },
    'without any content: "choices": [], an error of chat completions; over the other APIs a complete, empty response',
  ),
  other(BODY, 'html', 'SERVER', { kind: 'body', body: 'html' }, '200 with an HTML page'),
  other(BODY, 'empty', 'SERVER', { kind: 'body', body: 'empty' }, '200 with an empty body'),
  other(BODY, 'truncated-gzip', 'TORN', { kind: 'body', body: 'truncated gzip' }, '200 with half of a gzip body'),
  other(BODY, 'error-in-200', undefined, { kind: 'body', body: 'error' }, '200 application/json with an error', {
    error: {
      description: 'the error; its class is that of the fault with this name',
      kind: 'word',
      default: 'rate-limit',
      choices: ['rate-limit', 'overloaded', 'server-error', 'quota', 'content-policy', 'context-length'],
    },
  }),

  other(CONTENT, 'refusal', undefined, { kind: 'content', what: 'refusal' }, 'complete, the model refuses'),
  other(
    CONTENT,
    'content-filter-finish',
    undefined,
    { kind: 'content', what: 'content filter' },
    'ends after some tokens with the finish reason content_filter',
    after(10),
  ),
  other(
    CONTENT,
    'length-finish',
    undefined,
    { kind: 'content', what: 'length' },
    'ends after some tokens because of the output limit',
    after(10),
  ),
  other(
    CONTENT,
    'truncated-arguments',
    'TORN',
    { kind: 'content', what: 'truncated arguments' },
    'the arguments of a tool call end in the middle',
    {
      finish: { description: 'the finish reason', kind: 'word', default: 'length', choices: ['length', 'tool_calls'] },
    },
  ),

  other(
    KEY,
    'key-blocked',
    'PERMISSION',
    { kind: 'key state', field: 'api_key_blocked' },
    'GET /api-key of xAI: blocked',
  ),
  other(KEY, 'key-disabled', 'PERMISSION', { kind: 'key state', field: 'api_key_disabled' }, 'the same: disabled'),
  other(
    KEY,
    'team-blocked',
    'PERMISSION',
    { kind: 'key state', field: 'team_blocked' },
    'the same: its team is blocked',
  ),
];
