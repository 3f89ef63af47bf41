import type { Credential } from '../credential.js';
import type { ProviderName } from '../providers.js';
import type { ModelRequest } from '../requests/model_request.js';
import { argumentPartsOf, type Completion, type Finish, tokensOf, type Usage } from './completion.js';
import { dataFrame, type FakeResponse, type Frame, frame, jsonResponse, streamResponse } from './response.js';

/** What a response contains besides what the model has generated. */
export interface ResponseContext {
  readonly credential: Credential;
  /** The number of the request; ids contain it. */
  readonly number: number;
  /** The time in ms since 1970. */
  readonly now: number;
  /** What a fault leaves out of the response. */
  readonly omit?: 'usage' | 'content';
}

const FINISH_REASONS: Readonly<Record<Finish, string>> = {
  stop: 'stop',
  stop_sequence: 'stop',
  length: 'length',
  tool_calls: 'tool_calls',
  content_filter: 'content_filter',
  refusal: 'stop',
};

/** The response of chat completions. */
export function chatResponse(request: ModelRequest, completion: Completion, context: ResponseContext): FakeResponse {
  const head = (object: string) => ({
    id: context.credential.id('chatcmpl-', context.number),
    object,
    created: Math.floor(context.now / 1000),
    model: completion.model,
    system_fingerprint: 'fp_fake',
  });
  const usage = chatUsage(request.provider, completion.usage);
  if (request.stream) return streamResponse(chunks(request, completion, context, head('chat.completion.chunk'), usage));
  const choice = {
    index: 0,
    message: message(request, completion, context),
    logprobs: null,
    finish_reason: FINISH_REASONS[completion.finish],
  };
  const choices = context.omit === 'content' ? [] : [choice];
  const body = { ...head('chat.completion'), choices, ...(context.omit !== 'usage' && { usage }) };
  return jsonResponse(200, body, completion.usage.output);
}

const isRefused = ({ finish }: Completion) => finish === 'refusal';

function message({ provider, showsReasoning }: ModelRequest, completion: Completion, context: ResponseContext): object {
  const { text, reasoning, toolCalls } = completion;
  const content = isRefused(completion) || (toolCalls.length > 0 && text === '') ? null : text;
  const calls = toolCalls.map((call, index) => ({
    id: callId(context, index),
    type: 'function',
    function: { name: call.name, arguments: call.arguments },
  }));
  return {
    role: 'assistant',
    content,
    ...(reasoning && showsReasoning && { reasoning_content: reasoning }),
    ...(provider !== 'deepseek' && { refusal: isRefused(completion) ? text : null }),
    ...(calls.length > 0 && { tool_calls: calls }),
  };
}

const callId = ({ credential, number }: ResponseContext, index: number) => credential.id('call_', number, index);

function chunks(
  request: ModelRequest,
  completion: Completion,
  context: ResponseContext,
  head: object,
  usage: object,
): Frame[] {
  const { omit } = context;
  const chunk = (kind: Frame['kind'], delta: object, finish: string | null = null) => {
    const choices = omit === 'content' ? [] : [{ index: 0, delta, logprobs: null, finish_reason: finish }];
    return dataFrame(kind, { ...head, choices, ...(request.includeUsage && { usage: null }) });
  };
  const { text, reasoning, toolCalls, finish } = completion;
  const field = isRefused(completion) ? 'refusal' : 'content';
  const shown = request.showsReasoning ? reasoning : '';
  const calls = toolCalls.flatMap((call, index) => {
    const head = { index, id: callId(context, index), type: 'function' };
    // xAI sends each tool call in one piece, and its clients rely on it.
    if (request.provider === 'xai') return [chunk('token', { tool_calls: [{ ...head, function: call }] })];
    const parts = argumentPartsOf(call.arguments).map((part) =>
      chunk('token', { tool_calls: [{ index, function: { arguments: part } }] }),
    );
    return [chunk('start', { tool_calls: [{ ...head, function: { name: call.name, arguments: '' } }] }), ...parts];
  });
  const opening = chunk('start', { role: 'assistant', content: toolCalls.length > 0 ? null : '' });
  const content = [
    ...tokensOf(shown).map((token) => chunk('token', { reasoning_content: token })),
    ...tokensOf(text).map((token) => chunk('token', { [field]: token })),
    ...calls,
  ];
  return [
    opening,
    ...(omit === 'content' ? [] : content),
    chunk('finish', {}, FINISH_REASONS[finish]),
    ...(request.includeUsage && omit !== 'usage' ? [dataFrame('usage', { ...head, choices: [], usage })] : []),
    frame('done', 'data: [DONE]\n\n'),
  ];
}

/** The usage of chat completions. xAI does not count the reasoning as completion tokens. */
function chatUsage(provider: ProviderName, { input, cacheRead, cacheWrite, output, reasoning }: Usage): object {
  const completion = provider === 'xai' ? output - reasoning : output;
  return {
    prompt_tokens: input,
    completion_tokens: completion,
    total_tokens: input + output,
    prompt_tokens_details: {
      cached_tokens: cacheRead,
      ...(provider === 'openai' && { audio_tokens: 0 }),
      ...(cacheWrite > 0 && { cache_write_tokens: cacheWrite }),
      ...(provider === 'xai' && { text_tokens: input, audio_tokens: 0, image_tokens: 0 }),
    },
    completion_tokens_details: {
      reasoning_tokens: reasoning,
      ...(provider !== 'deepseek' && {
        audio_tokens: 0,
        accepted_prediction_tokens: 0,
        rejected_prediction_tokens: 0,
      }),
    },
    ...(provider === 'deepseek' && { prompt_cache_hit_tokens: cacheRead, prompt_cache_miss_tokens: input - cacheRead }),
    ...(provider === 'xai' && { num_sources_used: 0 }),
  };
}
