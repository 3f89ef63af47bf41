import { isFields, providerError } from './error_body.js';
import {
  END_MARKER,
  type EventResult,
  failed,
  fieldsOf,
  invalid,
  isCompleteJson,
  isText,
  listOf,
  type Problem,
  type ResponseFacts,
  truncatedCall,
  type WireReader,
} from './wire_reader.js';

const FINISH_REASONS: Readonly<Record<string, ResponseFacts['finishReason']>> = {
  stop: 'stop',
  length: 'length',
  tool_calls: 'tool-calls',
  function_call: 'tool-calls',
  content_filter: 'content-filter',
};

/** Reads chat completions. A stream is complete with its `finish_reason`; usage and `[DONE]` may follow. */
export function chatCompletions(facts: ResponseFacts): WireReader {
  return new ChatCompletions(facts);
}

interface ToolCall {
  name: unknown;
  input: string;
}

class ChatCompletions implements WireReader {
  /** The tool calls of a stream, by their index. */
  private readonly calls = new Map<unknown, ToolCall>();
  private hasContent = false;

  constructor(private readonly facts: ResponseFacts) {}

  event(data: unknown): EventResult {
    if (data === END_MARKER) return this.end();
    const error = providerError(data);
    if (error) return failed({ kind: 'error', error });
    if (!isFields(data)) return failed(invalid('An event of the stream is not a JSON object'));
    this.readCommon(data);
    const choice = fieldsOf(listOf(data['choices'])[0]);
    const content = this.delta(fieldsOf(choice['delta']));
    this.readRefusal(choice['delta']);
    this.hasContent ||= content;
    return { content, problem: this.finish(choice['finish_reason']) };
  }

  body(json: unknown): Problem | undefined {
    const error = providerError(json);
    if (error) return { kind: 'error', error };
    if (!isFields(json)) return invalid('The response is not a JSON object');
    this.readCommon(json);
    const choice = listOf(json['choices'])[0];
    if (!isFields(choice) || !isFields(choice['message'])) return invalid('The response has no choices');
    this.readRefusal(choice['message']);
    for (const call of listOf(choice['message']['tool_calls'])) {
      const { name, arguments: input } = fieldsOf(fieldsOf(call)['function']);
      if (typeof input === 'string') this.calls.set(this.calls.size, { name, input });
    }
    return this.finish(choice['finish_reason'] ?? 'stop');
  }

  private readCommon({ model, usage }: Readonly<Record<string, unknown>>): void {
    if (isText(model)) this.facts.model = model;
    if (isFields(usage)) this.facts.usage = usage;
  }

  /** A refusal has a separate field; its finish reason is the same as for other responses. */
  private readRefusal(part: unknown): void {
    if (isText(fieldsOf(part)['refusal'])) this.facts.finishReason = 'content-filter';
  }

  /** Whether a delta has content. A delta with the role alone has none. */
  private delta(delta: Readonly<Record<string, unknown>>): boolean {
    for (const part of listOf(delta['tool_calls'])) this.callDelta(fieldsOf(part));
    const { content, reasoning_content, reasoning, refusal, audio, function_call } = delta;
    return (
      isText(content) ||
      isText(reasoning_content) ||
      isText(reasoning) ||
      isText(refusal) ||
      listOf(content).length > 0 ||
      listOf(delta['tool_calls']).length > 0 ||
      isFields(audio) ||
      isFields(function_call)
    );
  }

  private callDelta({ index, function: change }: Readonly<Record<string, unknown>>): void {
    const { name, arguments: input } = fieldsOf(change);
    const key = index ?? this.calls.size;
    const call = this.calls.get(key) ?? { name: undefined, input: '' };
    if (isText(name)) call.name = name;
    if (typeof input === 'string') call.input += input;
    this.calls.set(key, call);
  }

  private finish(reason: unknown): Problem | undefined {
    if (!isText(reason)) return undefined;
    // OpenRouter ends a stream with this reason when the provider that it calls has failed.
    if (reason === 'error') return { kind: 'error', error: { message: 'The finish reason is error' } };
    if (this.facts.finishReason === '') this.facts.finishReason = FINISH_REASONS[reason] ?? 'other';
    this.facts.terminal = 'finished';
    return this.incompleteCall();
  }

  /**
   * Some servers send no finish reason; the end marker ends their streams. A stream without content is not a response.
   */
  private end(): EventResult {
    if (this.facts.terminal === 'none' && !this.hasContent) return failed(invalid('The stream has no choices'));
    const problem = this.facts.terminal === 'none' ? this.incompleteCall() : undefined;
    this.facts.terminal = 'ended';
    return { content: false, problem };
  }

  private incompleteCall(): Problem | undefined {
    const incomplete = [...this.calls.values()].find(({ input }) => !isCompleteJson(input));
    return incomplete && truncatedCall(incomplete.name);
  }
}
