import { leadingObject } from '../json_text.js';
import type { ModelRequest, Tool } from '../requests/model_request.js';
import type { ResponseSpec, UsageSpec } from '../script.js';
import { valueFor } from './schema_value.js';

export interface ToolCall {
  readonly name: string;
  /** JSON, unless a fault truncates it. */
  readonly arguments: string;
}

/** Why a response ends. Each API has its own words for it. */
export type Finish = 'stop' | 'stop_sequence' | 'length' | 'tool_calls' | 'content_filter' | 'refusal';

/** Model tokens of one response. `input` and `output` include the other ones. */
export interface Usage {
  readonly input: number;
  readonly cacheRead: number;
  readonly cacheWrite: number;
  readonly output: number;
  readonly reasoning: number;
}

/** What the model has generated, in a form that does not depend on the wire API. */
export interface Completion {
  /** The name of the model that the response states. */
  readonly model: string;
  readonly reasoning: string;
  readonly text: string;
  readonly toolCalls: readonly ToolCall[];
  readonly finish: Finish;
  readonly stopSequence: string | undefined;
  readonly usage: Usage;
}

/** The text of a response when nothing else is configured: sixty tokens. */
export const DEFAULT_TEXT =
  'This text comes from the fake provider, which stands in for a real one in tests. It is the same in every response, ' +
  'costs nothing and needs no key. Sixty words are enough to interrupt a stream in its middle, to compare two responses ' +
  'word by word, and to see whether any part is missing, repeated or out of order.';

/** The tokens of a text: words, each with the space before it. A stream has one delta for each. */
export const tokensOf = (text: string): string[] => text.match(/\s*\S+(?:\s+$)?|\s+$/g) ?? [];

const ARGUMENT_CHARACTERS = 8;

/** The parts in which the arguments of a tool call are streamed. */
export const argumentPartsOf = (json: string): string[] =>
  json.match(new RegExp(`[\\s\\S]{1,${ARGUMENT_CHARACTERS}}`, 'gu')) ?? [];

/** Generates the response to a request. */
export function complete(request: ModelRequest, spec: ResponseSpec): Completion {
  const calls = chosenCalls(request, spec);
  const full = calls.length > 0 ? '' : textFor(request, spec);
  const stopped = cutAtStop(full, request.stop);
  const bounded = boundTo(request.maxTokens, stopped.text, calls);
  const reasoning = spec.reasoning ?? '';
  const natural: Finish = calls.length > 0 ? 'tool_calls' : stopped.sequence !== undefined ? 'stop_sequence' : 'stop';
  const finish = bounded.isCut ? 'length' : (spec.finish ?? natural);
  return {
    model: spec.model ?? request.model,
    reasoning,
    text: bounded.text,
    toolCalls: bounded.calls,
    finish,
    stopSequence: finish === 'stop_sequence' ? stopped.sequence : undefined,
    usage: usageOf(request, bounded, reasoning, spec.usage ?? {}),
  };
}

function textFor({ format, prompt }: ModelRequest, { text }: ResponseSpec): string {
  if (!format) return text ?? DEFAULT_TEXT;
  // A configured text is used as it is, so that a test can send an invalid one.
  if (text !== undefined) return text;
  const schema = format.type === 'json_schema' ? format.schema : schemaIn(prompt);
  return JSON.stringify(schema === undefined ? { response: DEFAULT_TEXT } : valueFor(schema));
}

/** The last JSON schema in a prompt: clients put it there if the API does not accept one. */
function schemaIn(prompt: string): unknown {
  const start = [...prompt.matchAll(/schema:\s*(?=\{)/gi)].at(-1);
  return start && leadingObject(prompt.slice(start.index + start[0].length));
}

/** The tool calls that the model chooses: by default one call of the first tool, unless it follows a result of a tool. */
function chosenCalls({ tools, toolChoice, followsToolResult }: ModelRequest, spec: ResponseSpec): ToolCall[] {
  if (tools.length === 0 || toolChoice === 'none') return [];
  if (typeof toolChoice === 'object') {
    const scripted = (spec.tool_calls ?? []).filter(({ name }) => name === toolChoice.name);
    const tool = tools.find(({ name }) => name === toolChoice.name) as Tool;
    return scripted.length > 0 ? scripted.map(scriptedCall) : [callOf(tool)];
  }
  const known = (spec.tool_calls ?? []).filter(({ name }) => tools.some((tool) => tool.name === name));
  const mode = spec.tools ?? 'once';
  const wants = toolChoice === 'required' || mode === 'always' || (mode === 'once' && !followsToolResult);
  if (!wants) return [];
  return known.length > 0 ? known.map(scriptedCall) : [callOf(tools[0] as Tool)];
}

const callOf = ({ name, schema }: Tool): ToolCall => ({ name, arguments: JSON.stringify(valueFor(schema)) });

const scriptedCall = ({ name, arguments: args }: { name: string; arguments: unknown }): ToolCall => ({
  name,
  arguments: typeof args === 'string' ? args : JSON.stringify(args),
});

function cutAtStop(text: string, stop: readonly string[]): { text: string; sequence?: string } {
  const found = stop
    .map((sequence) => ({ sequence, at: text.indexOf(sequence) }))
    .filter(({ at, sequence }) => at >= 0 && sequence !== '')
    .sort((a, b) => a.at - b.at)[0];
  return found ? { text: text.slice(0, found.at), sequence: found.sequence } : { text };
}

interface Bounded {
  readonly text: string;
  readonly calls: readonly ToolCall[];
  readonly tokens: number;
  readonly isCut: boolean;
}

/** Cuts the output after a number of tokens, in the middle of the arguments of a tool call if need be. */
function boundTo(maxTokens = Number.POSITIVE_INFINITY, text: string, calls: readonly ToolCall[]): Bounded {
  const words = tokensOf(text);
  let left = maxTokens - words.length;
  if (left < 0) return { text: words.slice(0, maxTokens).join(''), calls: [], tokens: maxTokens, isCut: true };
  const kept: ToolCall[] = [];
  for (const call of calls) {
    const parts = argumentPartsOf(call.arguments);
    kept.push(left >= parts.length ? call : { ...call, arguments: parts.slice(0, Math.max(left, 0)).join('') });
    left -= parts.length;
    if (left < 0) break;
  }
  const used = words.length + kept.reduce((sum, call) => sum + argumentPartsOf(call.arguments).length, 0);
  return { text, calls: kept, tokens: Math.max(used, 1), isCut: left < 0 };
}

function usageOf({ inputTokens }: ModelRequest, { tokens }: Bounded, reasoning: string, spec: UsageSpec): Usage {
  const reasoningTokens = spec.reasoning_tokens ?? tokensOf(reasoning).length;
  return {
    input: spec.input_tokens ?? inputTokens,
    cacheRead: spec.cache_read_tokens ?? 0,
    cacheWrite: spec.cache_write_tokens ?? 0,
    output: spec.output_tokens ?? tokens + reasoningTokens,
    reasoning: reasoningTokens,
  };
}
