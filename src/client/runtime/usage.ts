import type { WireApi } from '../../../gen/ts/agentllm/v1/provider.js';
import type { ModelUsage } from '../../../gen/ts/agentllm/v1/receipt.js';
import { limits } from '../../limits.js';
import { fieldsOf, listOf } from './wire_reader.js';

type Fields = Readonly<Record<string, unknown>>;
type Counts = Omit<ModelUsage, 'raw_json'>;
type Kind = keyof Counts;

const KINDS: readonly Kind[] = [
  'input_tokens',
  'input_no_cache_tokens',
  'input_cache_read_tokens',
  'input_cache_write_tokens',
  'input_cache_write_long_tokens',
  'output_tokens',
  'output_text_tokens',
  'output_reasoning_tokens',
];

/** The maximum of bytes of the raw usage in a receipt; a larger raw usage is left out. */
const MAX_RAW_BYTES = 4096;

/** Converts the usage that a provider sent to the common form. An unknown kind stays undefined. */
export function normalizeUsage(wireApi: WireApi, provider: string, raw: Fields): ModelUsage {
  const counts = wireApi === 'WIRE_API_MESSAGES' ? ofMessages(raw) : ofOpenAI(wireApi, provider, raw);
  const raw_json = JSON.stringify(raw);
  return { ...counts, raw_json: Buffer.byteLength(raw_json) > MAX_RAW_BYTES ? '' : raw_json };
}

/** The sum of usages. A kind is undefined if no usage reports it. */
export function sumUsage(usages: readonly ModelUsage[]): ModelUsage | undefined {
  const [first] = usages;
  if (!first) return undefined;
  if (usages.length === 1) return { ...first, raw_json: '' };
  const total = (kind: Kind) => sum(...usages.map((usage) => usage[kind] ?? 0));
  const known = KINDS.filter((kind) => usages.some((usage) => usage[kind] !== undefined));
  const none = Object.fromEntries(KINDS.map((kind) => [kind, undefined])) as Counts;
  return { ...none, ...Object.fromEntries(known.map((kind) => [kind, total(kind)])), raw_json: '' };
}

/** Anthropic: the input tokens exclude those of the cache, the output tokens include thinking. */
function ofMessages(raw: Fields): Counts {
  const usages = billedUsages(raw);
  const noCache = totalOf(usages, ({ input_tokens }) => count(input_tokens));
  const read = totalOf(usages, (usage) => count(usage['cache_read_input_tokens']));
  const long = totalOf(usages, (usage) => count(fieldsOf(usage['cache_creation'])['ephemeral_1h_input_tokens']));
  const write = totalOf(usages, cacheWritesOf);
  const output = totalOf(usages, ({ output_tokens }) => count(output_tokens));
  const reasoning = count(fieldsOf(raw['output_tokens_details'])['thinking_tokens']);
  return {
    input_tokens: noCache === undefined ? undefined : count(noCache + (read ?? 0) + (write ?? 0)),
    input_no_cache_tokens: noCache,
    input_cache_read_tokens: read,
    input_cache_write_tokens: write,
    input_cache_write_long_tokens: within(long, write),
    ...outputOf(output, reasoning),
  };
}

/** Iterations that are billed at the rates of the requested model. */
const OWN_ITERATIONS: readonly unknown[] = ['message', 'compaction'];

/**
 * The usages whose sum was billed. The totals of a response exclude its compactions, so the usages of its iterations
 * are added instead. Iterations of an advisor, which is another model, are not included. If a fallback gave the
 * response, the totals are those of the fallback.
 */
function billedUsages(raw: Fields): readonly Fields[] {
  const iterations = listOf(raw['iterations']).map(fieldsOf);
  const own = iterations.filter(({ type }) => OWN_ITERATIONS.includes(type));
  if (own.length === 0 || iterations.some(({ type }) => type === 'fallback_message')) return [raw];
  return own.some(hasCacheCounts) ? own : [{ ...raw, input_tokens: undefined, output_tokens: undefined }, ...own];
}

const hasCacheCounts = (usage: Fields) =>
  count(usage['cache_read_input_tokens']) !== undefined || cacheWritesOf(usage) !== undefined;

/** The input that was written to the cache, for any lifetime. */
function cacheWritesOf({ cache_creation_input_tokens: total, cache_creation }: Fields): number | undefined {
  const { ephemeral_5m_input_tokens: short, ephemeral_1h_input_tokens: long } = fieldsOf(cache_creation);
  const lifetimes = [count(short), count(long)].filter((known) => known !== undefined);
  return count(total) ?? (lifetimes.length > 0 ? sum(...lifetimes) : undefined);
}

/** The sum over those usages that report a kind; undefined if none does. */
function totalOf(usages: readonly Fields[], kind: (usage: Fields) => number | undefined): number | undefined {
  const known = usages.map(kind).filter((value) => value !== undefined);
  return known.length > 0 ? count(sum(...known)) : undefined;
}

/** OpenAI and compatible providers: the input tokens include those of the cache. */
function ofOpenAI(wireApi: WireApi, provider: string, raw: Fields): Counts {
  const isResponses = wireApi === 'WIRE_API_RESPONSES';
  const prompt = count(raw['prompt_tokens'] ?? raw['input_tokens']);
  const completion = count(raw['completion_tokens'] ?? raw['output_tokens']);
  const inputDetails = fieldsOf(raw['prompt_tokens_details'] ?? raw['input_tokens_details']);
  const outputDetails = fieldsOf(raw['completion_tokens_details'] ?? raw['output_tokens_details']);
  const read = count(raw['prompt_cache_hit_tokens'] ?? inputDetails['cached_tokens']);
  const reasoning = count(outputDetails['reasoning_tokens']);
  // xAI sometimes reports prompt tokens that exclude cached tokens.
  const input = prompt !== undefined && read !== undefined && read > prompt ? count(prompt + read) : prompt;
  const notRead = input === undefined ? undefined : input - (read ?? 0);
  const write = within(count(inputDetails['cache_write_tokens']), notRead);
  const separate = !isResponses && countsReasoningSeparately(provider, raw, prompt, completion, reasoning);
  const output = separate && completion !== undefined ? count(completion + (reasoning ?? 0)) : completion;
  return {
    input_tokens: input,
    input_no_cache_tokens: notRead === undefined || read === undefined ? undefined : notRead - (write ?? 0),
    input_cache_read_tokens: read,
    input_cache_write_tokens: write,
    // Only Anthropic has one-hour cache writes.
    input_cache_write_long_tokens: undefined,
    ...outputOf(output, reasoning),
  };
}

/** Whether the completion tokens exclude those of the reasoning, as in xAI's chat completions. The total shows it. */
function countsReasoningSeparately(
  provider: string,
  raw: Fields,
  prompt: number | undefined,
  completion: number | undefined,
  reasoning: number | undefined,
): boolean {
  if (!reasoning || prompt === undefined || completion === undefined) return false;
  const total = count(raw['total_tokens']);
  if (total === prompt + completion + reasoning) return true;
  return total === prompt + completion ? false : provider === 'grok' || reasoning > completion;
}

function outputOf(output: number | undefined, reported: number | undefined) {
  const reasoning = within(reported, output);
  const text = output === undefined || reasoning === undefined ? undefined : output - reasoning;
  return { output_tokens: output, output_text_tokens: text, output_reasoning_tokens: reasoning };
}

/**
 * A kind that exceeds its total is left out: one of the two numbers is wrong, and the service would reject the attempt.
 */
const within = (kind: number | undefined, total: number | undefined): number | undefined =>
  kind !== undefined && kind > (total ?? Number.POSITIVE_INFINITY) ? undefined : kind;

/** A number of tokens; undefined if the value is not a valid number. */
function count(value: unknown): number | undefined {
  const { min, max } = limits.attemptTokens;
  return Number.isInteger(value) && Number(value) >= min && Number(value) <= max ? Number(value) : undefined;
}

const sum = (...counts: readonly number[]): number =>
  Math.min(
    counts.reduce((total, one) => total + one, 0),
    limits.maxInt32,
  );
