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
  listOf,
  NO_CONTENT,
  type Problem,
  type ResponseFacts,
  truncatedCall,
  type WireReader,
} from './wire_reader.js';

type Fields = Readonly<Record<string, unknown>>;

/** Events that announce content, but have none. */
const ANNOUNCEMENTS = new Set([
  'response.created',
  'response.queued',
  'response.in_progress',
  'response.content_part.added',
  'response.reasoning_summary_part.added',
  'keepalive',
]);
/** Items whose content follows in events of its own. */
const ANNOUNCED_ITEMS = new Set(['message', 'reasoning']);

/** Reads the Responses API. A stream is complete with `response.completed` or `response.incomplete`. */
export const responses = (facts: ResponseFacts): WireReader => new Responses(facts);

class Responses implements WireReader {
  /** The ids of function calls that have begun and are not complete, with their names. */
  private readonly open = new Map<unknown, unknown>();
  private hasCall = false;

  constructor(private readonly facts: ResponseFacts) {}

  event(data: unknown): EventResult {
    if (data === END_MARKER) return NO_CONTENT;
    const error = providerError(data);
    if (isFields(data)) this.readCommon(fieldsOf(data['response']));
    if (error) return failed({ kind: 'error', error });
    if (!isFields(data) || !isText(data['type'])) return failed(invalid('An event of the stream has no type'));
    const { type, item, response } = data;
    if (type === 'response.failed') return failed({ kind: 'error', error: {} });
    if (type === 'response.completed' || type === 'response.incomplete')
      return { content: false, problem: this.end(fieldsOf(response)) };
    if (type === 'response.output_item.added') return this.added(fieldsOf(item));
    if (type === 'response.output_item.done') return this.done(fieldsOf(item));
    if (type === 'response.refusal.delta' && isText(data['delta'])) this.facts.finishReason = 'content-filter';
    if (type.endsWith('.delta')) return isText(data['delta']) ? CONTENT : NO_CONTENT;
    return ANNOUNCEMENTS.has(type) || !type.startsWith('response.') ? NO_CONTENT : CONTENT;
  }

  body(json: unknown): Problem | undefined {
    if (isFields(json)) this.readCommon(json);
    const error = providerError(json);
    if (error) return { kind: 'error', error };
    if (!isFields(json) || !Array.isArray(json['output'])) return invalid('The response has no output');
    if (json['status'] === 'failed') return { kind: 'error', error: {} };
    for (const item of json['output']) {
      const parts = listOf(fieldsOf(item)['content']).map(fieldsOf);
      if (parts.some(({ type, refusal }) => type === 'refusal' && isText(refusal)))
        this.facts.finishReason = 'content-filter';
      const { problem } = this.done(fieldsOf(item));
      if (problem) return problem;
    }
    return this.end(json);
  }

  private readCommon({ model, usage }: Fields): void {
    if (isText(model)) this.facts.model = model;
    if (isFields(usage)) this.facts.usage = usage;
  }

  private added({ type, id, name }: Fields): EventResult {
    if (type === 'function_call') this.open.set(id, name);
    return isText(type) && !ANNOUNCED_ITEMS.has(type) ? CONTENT : NO_CONTENT;
  }

  private done({ type, id, name, status, arguments: input }: Fields): EventResult {
    if (type !== 'function_call') return CONTENT;
    this.hasCall = true;
    this.open.delete(id);
    const isComplete = status !== 'incomplete' && typeof input === 'string' && isCompleteJson(input);
    return { content: true, problem: isComplete ? undefined : truncatedCall(name) };
  }

  private end({ status, incomplete_details }: Fields): Problem | undefined {
    const { reason } = fieldsOf(incomplete_details);
    this.facts.terminal = 'ended';
    if (this.facts.finishReason === '') this.facts.finishReason = this.finishReason(status, reason);
    const [incomplete] = this.open.values();
    return this.open.size > 0 ? truncatedCall(incomplete) : undefined;
  }

  private finishReason(status: unknown, reason: unknown): ResponseFacts['finishReason'] {
    if (status !== 'incomplete') return this.hasCall ? 'tool-calls' : 'stop';
    if (reason === 'max_output_tokens') return 'length';
    return reason === 'content_filter' ? 'content-filter' : 'other';
  }
}
