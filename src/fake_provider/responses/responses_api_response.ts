import type { ModelRequest } from '../requests/model_request.js';
import type { ResponseContext } from './chat_response.js';
import { argumentPartsOf, type Completion, tokensOf, type Usage } from './completion.js';
import { eventFrame, type FakeResponse, type Frame, type FrameKind, jsonResponse, streamResponse } from './response.js';

/** An item of the output, with the events that describe its content in a stream. */
interface Item {
  readonly id: string;
  /** The item before and after its content. */
  readonly opened: object;
  readonly finished: object;
  readonly events: (base: { readonly item_id: string; readonly output_index: number }) => readonly Event[];
}

type Event = readonly [kind: FrameKind, type: string, fields: object];

export interface ResponseWithIds {
  readonly response: FakeResponse;
  readonly responseId: string;
  readonly itemIds: readonly string[];
}

/** The response of the Responses API. */
export function responsesResponse(
  request: ModelRequest,
  completion: Completion,
  context: ResponseContext,
): ResponseWithIds {
  const items = context.omit === 'content' ? [] : itemsOf(request, completion, context);
  const output = items.map(({ finished }) => finished);
  const envelope = envelopeOf(request, completion, context);
  const usage = context.omit === 'usage' ? null : responsesUsage(completion.usage);
  const response = { ...envelope, ...endOf(completion), output, usage };
  const sent = request.stream
    ? streamResponse(framesOf(envelope, response, items, completion))
    : jsonResponse(200, response, completion.usage.output);
  return { response: sent, responseId: envelope.id, itemIds: items.map(({ id }) => id) };
}

const isIncomplete = ({ finish }: Completion) => finish === 'length' || finish === 'content_filter';

function endOf(completion: Completion) {
  if (!isIncomplete(completion)) return { status: 'completed', incomplete_details: null };
  const reason = completion.finish === 'length' ? 'max_output_tokens' : 'content_filter';
  return { status: 'incomplete', incomplete_details: { reason } };
}

function envelopeOf(request: ModelRequest, { model }: Completion, { credential, number, now }: ResponseContext) {
  return {
    id: credential.id('resp_', number),
    object: 'response',
    created_at: Math.floor(now / 1000),
    status: 'in_progress',
    background: false,
    error: null as object | null,
    incomplete_details: null as object | null,
    instructions: null,
    max_output_tokens: request.maxTokens ?? null,
    model,
    output: [] as readonly object[],
    parallel_tool_calls: true,
    previous_response_id: null,
    reasoning: { effort: null, summary: null },
    service_tier: 'default',
    store: request.store,
    temperature: 1,
    text: { format: { type: 'text' } },
    tool_choice: 'auto',
    tools: [],
    top_p: 1,
    truncation: 'disabled',
    usage: null as object | null,
    metadata: {},
  };
}

function itemsOf(request: ModelRequest, completion: Completion, context: ResponseContext): Item[] {
  const { credential, number } = context;
  const reasoning = completion.reasoning
    ? [reasoningItem(credential.id('rs_', number), request, completion.reasoning, context)]
    : [];
  const message =
    completion.text || completion.toolCalls.length === 0
      ? [messageItem(credential.id('msg_', number), completion)]
      : [];
  const calls = completion.toolCalls.map((call, index) =>
    callItem(
      credential.id('fc_', number, index),
      credential.id('call_', number, index),
      call,
      isIncomplete(completion),
    ),
  );
  return [...reasoning, ...message, ...calls];
}

function reasoningItem(id: string, request: ModelRequest, text: string, { credential }: ResponseContext): Item {
  const encrypted = request.encryptsReasoning ? { encrypted_content: credential.encrypt(text) } : {};
  const part = { type: 'summary_text', text };
  // At xAI a reasoning item has a status.
  const status = (value: string) => (request.provider === 'xai' ? { status: value } : {});
  return {
    id,
    opened: { id, type: 'reasoning', summary: [], ...encrypted, ...status('in_progress') },
    finished: { id, type: 'reasoning', summary: [part], ...encrypted, ...status('completed') },
    events: ({ item_id, output_index }) => {
      const base = { item_id, output_index, summary_index: 0 };
      return [
        ['start', 'response.reasoning_summary_part.added', { ...base, part: { ...part, text: '' } }],
        ...tokensOf(text).map((delta): Event => ['token', 'response.reasoning_summary_text.delta', { ...base, delta }]),
        ['start', 'response.reasoning_summary_text.done', { ...base, text }],
        ['start', 'response.reasoning_summary_part.done', { ...base, part }],
      ];
    },
  };
}

function messageItem(id: string, completion: Completion): Item {
  const { text, finish } = completion;
  const refused = finish === 'refusal';
  const part = refused
    ? { type: 'refusal', refusal: text }
    : { type: 'output_text', text, annotations: [], logprobs: [] };
  const empty = refused ? { type: 'refusal', refusal: '' } : { ...part, text: '' };
  const name = refused ? 'refusal' : 'output_text';
  const more = refused ? {} : { logprobs: [] };
  const status = isIncomplete(completion) ? 'incomplete' : 'completed';
  return {
    id,
    opened: { id, type: 'message', status: 'in_progress', role: 'assistant', content: [] },
    finished: { id, type: 'message', status, role: 'assistant', content: [part] },
    events: (base) => {
      const at = { ...base, content_index: 0 };
      return [
        ['start', 'response.content_part.added', { ...at, part: empty }],
        ...tokensOf(text).map((delta): Event => ['token', `response.${name}.delta`, { ...at, delta, ...more }]),
        ['finish', `response.${name}.done`, { ...at, [refused ? 'refusal' : 'text']: text, ...more }],
        ['finish', 'response.content_part.done', { ...at, part }],
      ];
    },
  };
}

function callItem(
  id: string,
  call_id: string,
  { name, arguments: json }: Completion['toolCalls'][number],
  incomplete: boolean,
): Item {
  const item = { id, type: 'function_call', call_id, name };
  return {
    id,
    opened: { ...item, status: 'in_progress', arguments: '' },
    finished: { ...item, status: incomplete ? 'incomplete' : 'completed', arguments: json },
    events: (base) => [
      ...argumentPartsOf(json).map(
        (delta): Event => ['token', 'response.function_call_arguments.delta', { ...base, delta }],
      ),
      ['finish', 'response.function_call_arguments.done', { ...base, arguments: json }],
    ],
  };
}

function framesOf(envelope: object, response: object, items: readonly Item[], completion: Completion): Frame[] {
  const events: Event[] = [
    ['start', 'response.created', { response: envelope }],
    ['start', 'response.in_progress', { response: envelope }],
  ];
  items.forEach((item, output_index) => {
    const isLast = output_index === items.length - 1;
    events.push(['start', 'response.output_item.added', { output_index, item: item.opened }]);
    // Only the end of the last item belongs to the end of the response.
    const ofItem = item.events({ item_id: item.id, output_index });
    events.push(...ofItem.map(([kind, ...rest]): Event => [kind === 'finish' && !isLast ? 'start' : kind, ...rest]));
    const kind = isLast ? 'finish' : 'start';
    events.push([kind, 'response.output_item.done', { output_index, item: item.finished }]);
  });
  const last = isIncomplete(completion) ? 'response.incomplete' : 'response.completed';
  events.push(['done', last, { response }]);
  return events.map(([kind, type, fields], sequence) => {
    const data = { type, sequence_number: sequence, ...fields };
    return eventFrame(kind, data);
  });
}

function responsesUsage({ input, cacheRead, output, reasoning }: Usage): object {
  return {
    input_tokens: input,
    input_tokens_details: { cached_tokens: cacheRead },
    output_tokens: output,
    output_tokens_details: { reasoning_tokens: reasoning },
    total_tokens: input + output,
  };
}
