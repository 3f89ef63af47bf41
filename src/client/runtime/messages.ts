import { isFields, providerError } from './error_body.js';
import {
  CONTENT,
  END_MARKER,
  type EventResult,
  failed,
  fieldsOf,
  invalid,
  isCompleteJson,
  isText,
  NO_CONTENT,
  type Problem,
  type ResponseFacts,
  truncatedCall,
  type WireReader,
} from './wire_reader.js';

type Fields = Readonly<Record<string, unknown>>;

const FINISH_REASONS: Readonly<Record<string, ResponseFacts['finishReason']>> = {
  end_turn: 'stop',
  stop_sequence: 'stop',
  pause_turn: 'stop',
  max_tokens: 'length',
  model_context_window_exceeded: 'length',
  tool_use: 'tool-calls',
  refusal: 'content-filter',
};

/** Reads Anthropic's Messages. A stream is complete with its `stop_reason`; `message_stop` follows. */
export const messages = (facts: ResponseFacts): WireReader => new Messages(facts);

interface ToolCall {
  readonly name: unknown;
  input: string;
}

class Messages implements WireReader {
  readonly lastEvent = 'event: message_stop\ndata: {"type":"message_stop"}\n\n';
  /** The tool calls that have begun and are not complete, by the index of their content block. */
  private readonly open = new Map<unknown, ToolCall>();

  constructor(private readonly facts: ResponseFacts) {}

  event(data: unknown): EventResult {
    if (data === END_MARKER) return NO_CONTENT;
    const error = providerError(data);
    if (error) return failed({ kind: 'error', error });
    if (!isFields(data) || !isText(data['type'])) return failed(invalid('An event of the stream has no type'));
    switch (data['type']) {
      case 'message_start':
        this.readMessage(fieldsOf(data['message']));
        return NO_CONTENT;
      case 'content_block_start':
        return this.start(data['index'], fieldsOf(data['content_block']));
      case 'content_block_delta':
        return this.delta(data['index'], fieldsOf(data['delta']));
      case 'content_block_stop':
        return this.stop(data['index']);
      case 'message_delta':
        this.readUsage(data['usage']);
        this.readStopReason(fieldsOf(data['delta'])['stop_reason']);
        // An open content block means that more than the terminal event is missing.
        if (this.facts.finishReason !== '' && this.open.size === 0) this.facts.terminal = 'finished';
        return NO_CONTENT;
      case 'message_stop':
        return this.end();
      default:
        return NO_CONTENT;
    }
  }

  body(json: unknown): Problem | undefined {
    const error = providerError(json);
    if (error) return { kind: 'error', error };
    if (!isFields(json) || !Array.isArray(json['content'])) return invalid('The response has no content');
    this.readMessage(json);
    this.readStopReason(json['stop_reason']);
    this.facts.terminal = 'ended';
    const last = fieldsOf(json['content'].at(-1));
    // When the output limit is reached, the input of the last tool call is cut off without a marker.
    return json['stop_reason'] === 'max_tokens' && last['type'] === 'tool_use'
      ? truncatedCall(last['name'])
      : undefined;
  }

  private readMessage({ model, usage }: Fields): void {
    if (isText(model)) this.facts.model = model;
    this.readUsage(usage);
  }

  /** Input is counted at the start of a stream and output at its end, cumulatively. */
  private readUsage(usage: unknown): void {
    if (!isFields(usage)) return;
    // A null at the end of a stream does not replace the count of its start.
    const known = Object.entries(usage).filter(([, value]) => value !== null);
    this.facts.usage = { ...this.facts.usage, ...Object.fromEntries(known) };
  }

  private readStopReason(reason: unknown): void {
    if (isText(reason)) this.facts.finishReason = FINISH_REASONS[reason] ?? 'other';
  }

  private start(index: unknown, { type, name }: Fields): EventResult {
    if (type === 'tool_use') this.open.set(index, { name, input: '' });
    return type === 'text' || type === 'thinking' ? NO_CONTENT : CONTENT;
  }

  private delta(index: unknown, { text, thinking, partial_json, signature, citation }: Fields): EventResult {
    const call = this.open.get(index);
    if (call && typeof partial_json === 'string') call.input += partial_json;
    const hasText = isText(text) || isText(thinking) || isText(partial_json) || isText(signature);
    return hasText || isFields(citation) ? CONTENT : NO_CONTENT;
  }

  private stop(index: unknown): EventResult {
    const call = this.open.get(index);
    this.open.delete(index);
    return { content: false, problem: !call || isCompleteJson(call.input) ? undefined : truncatedCall(call.name) };
  }

  private end(): EventResult {
    this.facts.terminal = 'ended';
    const [incomplete] = this.open.values();
    return { content: false, problem: incomplete && truncatedCall(incomplete.name) };
  }
}
