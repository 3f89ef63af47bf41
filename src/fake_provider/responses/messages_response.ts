import { jsonOr } from '../json_text.js';
import type { ModelRequest } from '../requests/model_request.js';
import type { ResponseContext } from './chat_response.js';
import { argumentPartsOf, type Completion, type Finish, tokensOf, type Usage } from './completion.js';
import { eventFrame, type FakeResponse, type Frame, jsonResponse, streamResponse } from './response.js';

const STOP_REASONS: Readonly<Record<Finish, string>> = {
  stop: 'end_turn',
  stop_sequence: 'stop_sequence',
  length: 'max_tokens',
  tool_calls: 'tool_use',
  content_filter: 'refusal',
  refusal: 'refusal',
};

/** A content block, with its deltas in a stream. */
interface Block {
  readonly opened: object;
  readonly finished: object;
  readonly deltas: readonly object[];
}

/** The response of the Messages API. */
export function messagesResponse(
  request: ModelRequest,
  completion: Completion,
  context: ResponseContext,
): FakeResponse {
  const blocks = context.omit === 'content' ? [] : blocksOf(request, completion, context);
  const end = { stop_reason: STOP_REASONS[completion.finish], stop_sequence: completion.stopSequence ?? null };
  const usage = messagesUsage(completion.usage);
  const message = {
    id: context.credential.id('msg_', context.number),
    type: 'message',
    role: 'assistant',
    model: completion.model,
  };
  if (!request.stream) {
    const body = { ...message, content: blocks.map(({ finished }) => finished), ...end, usage };
    return jsonResponse(200, body, completion.usage.output);
  }
  const started = { ...message, content: [], stop_reason: null, stop_sequence: null };
  return streamResponse([
    // The output that is counted at the start is a few tokens; the end states the whole number.
    eventFrame('start', event('message_start', { message: { ...started, usage: { ...usage, output_tokens: 1 } } })),
    eventFrame('start', event('ping', {})),
    ...blocks.flatMap((block, index) => blockFrames(block, index, index === blocks.length - 1)),
    eventFrame('usage', event('message_delta', { delta: end, usage: { output_tokens: completion.usage.output } })),
    eventFrame('done', event('message_stop', {})),
  ]);
}

const event = (type: string, fields: object) => ({ type, ...fields });

function blockFrames({ opened, deltas }: Block, index: number, isLast: boolean): Frame[] {
  return [
    eventFrame('start', event('content_block_start', { index, content_block: opened })),
    ...deltas.map((delta) => eventFrame('token', event('content_block_delta', { index, delta }))),
    // Only the end of the last block belongs to the end of the response.
    eventFrame(isLast ? 'finish' : 'start', event('content_block_stop', { index })),
  ];
}

function blocksOf(request: ModelRequest, completion: Completion, context: ResponseContext): Block[] {
  const { text, reasoning, toolCalls } = completion;
  return [
    ...(reasoning && request.showsReasoning ? [thinkingBlock(reasoning, context)] : []),
    ...(text || toolCalls.length === 0 ? [textBlock(text)] : []),
    ...toolCalls.map((call, index) => toolBlock(call, context.credential.id('toolu_', context.number, index))),
  ];
}

const textBlock = (text: string): Block => ({
  opened: { type: 'text', text: '' },
  finished: { type: 'text', text },
  deltas: tokensOf(text).map((token) => ({ type: 'text_delta', text: token })),
});

function thinkingBlock(thinking: string, { credential }: ResponseContext): Block {
  const signature = credential.sign(thinking);
  return {
    opened: { type: 'thinking', thinking: '', signature: '' },
    finished: { type: 'thinking', thinking, signature },
    deltas: [
      ...tokensOf(thinking).map((token) => ({ type: 'thinking_delta', thinking: token })),
      { type: 'signature_delta', signature },
    ],
  };
}

function toolBlock({ name, arguments: json }: Completion['toolCalls'][number], id: string): Block {
  return {
    opened: { type: 'tool_use', id, name, input: {} },
    finished: { type: 'tool_use', id, name, input: parsedInput(json) },
    deltas: argumentPartsOf(json).map((part) => ({ type: 'input_json_delta', partial_json: part })),
  };
}

/** The arguments as an object. Without a stream, the Messages API cannot express arguments that end in the middle. */
const parsedInput = (json: string): unknown => jsonOr(json) ?? {};

function messagesUsage({ input, cacheRead, cacheWrite, output, reasoning }: Usage): object {
  return {
    input_tokens: input - cacheRead - cacheWrite,
    cache_creation_input_tokens: cacheWrite,
    cache_read_input_tokens: cacheRead,
    output_tokens: output,
    ...(reasoning > 0 && { output_tokens_details: { thinking_tokens: reasoning } }),
    service_tier: 'standard',
  };
}
