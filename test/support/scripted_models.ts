import { chatCompletion, chatStream, events, json, type Respond } from './scripted_provider.js';

/** Complete responses of the three wire APIs, as JSON and as a stream, by what the request asks for. */
const RESPONSE = {
  id: 'resp_1',
  object: 'response',
  created_at: 1,
  status: 'completed',
  error: null,
  incomplete_details: null,
  model: 'served',
  usage: {
    input_tokens: 3,
    input_tokens_details: { cached_tokens: 0 },
    output_tokens: 2,
    output_tokens_details: { reasoning_tokens: 0 },
  },
};
const message = (text: string) => ({
  type: 'message',
  id: 'msg_1',
  role: 'assistant',
  status: 'completed',
  content: [{ type: 'output_text', text, annotations: [] }],
});

const responses =
  (words: readonly string[]): Respond =>
  (response, request) => {
    const text = words.join('');
    if (!request.body.stream) return json({ ...RESPONSE, output: [message(text)] })(response, request);
    const item = { ...message(''), content: [] };
    return events([
      { type: 'response.created', response: { ...RESPONSE, status: 'in_progress', output: [], usage: null } },
      { type: 'response.output_item.added', output_index: 0, item },
      ...words.map((delta) => ({
        type: 'response.output_text.delta',
        item_id: 'msg_1',
        output_index: 0,
        content_index: 0,
        delta,
      })),
      { type: 'response.output_item.done', output_index: 0, item: message(text) },
      { type: 'response.completed', response: { ...RESPONSE, output: [message(text)] } },
    ])(response, request);
  };

const MESSAGE = {
  id: 'msg_1',
  type: 'message',
  role: 'assistant',
  model: 'served',
  stop_reason: 'end_turn',
  stop_sequence: null,
};

const messages =
  (words: readonly string[]): Respond =>
  (response, request) => {
    const usage = { input_tokens: 3, output_tokens: 2, cache_read_input_tokens: 0, cache_creation_input_tokens: 0 };
    if (!request.body.stream)
      return json({ ...MESSAGE, content: [{ type: 'text', text: words.join('') }], usage })(response, request);
    return events([
      {
        type: 'message_start',
        message: { ...MESSAGE, stop_reason: null, content: [], usage: { ...usage, output_tokens: 0 } },
      },
      { type: 'ping' },
      { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
      ...words.map((text) => ({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text } })),
      { type: 'content_block_stop', index: 0 },
      { type: 'message_delta', delta: { stop_reason: 'end_turn', stop_sequence: null }, usage: { output_tokens: 2 } },
      { type: 'message_stop' },
    ])(response, request);
  };

/** Responds with a text in the wire API of the request. */
export const speak =
  (...words: string[]): Respond =>
  (response, request) => {
    if (request.path.endsWith('/responses')) return responses(words)(response, request);
    if (request.path.endsWith('/messages')) return messages(words)(response, request);
    const chat = request.body.stream ? chatStream(...words) : chatCompletion(words.join(''));
    return chat(response, request);
  };
