import { z } from 'zod';
import { limits } from '../limits.js';
import { FaultError, type ParsedFault, parseFault } from './faults/fault.js';
import { jsonOr } from './json_text.js';
import { PROVIDERS, WIRE_APIS } from './providers.js';

/*
 * A script says how the fake provider responds: rules that apply faults or responses to some requests, the default
 * response, what models reject, and the keys that are valid. It is a JSON file, or the body of PUT /_fake/faults.
 */

const { scriptEntries, holdMs, faultText } = limits.fakeProvider;

const count = z.int().min(0).max(limits.maxInt32);
const name = z.string().min(1).max(1000);
const milliseconds = z.int().min(0).max(holdMs);

/** Model tokens of a response; absent: counted from the texts. `input_tokens` and `output_tokens` include the others. */
const usage = z.strictObject({
  input_tokens: count.optional(),
  cache_read_tokens: count.optional(),
  cache_write_tokens: count.optional(),
  output_tokens: count.optional(),
  reasoning_tokens: count.optional(),
});
export type UsageSpec = z.output<typeof usage>;

const FINISHES = ['stop', 'length', 'tool_calls', 'content_filter', 'refusal'] as const;

const response = z.strictObject({
  text: z.string().optional(),
  reasoning: z.string().optional(),
  /** The calls that the model makes, if the request has the tools; arguments of an object, or text that is sent as it is. */
  tool_calls: z
    .array(z.strictObject({ name, arguments: z.union([z.string(), z.record(z.string(), z.unknown())]).default({}) }))
    .max(scriptEntries)
    .optional(),
  /** When the model calls a tool without being forced to. */
  tools: z.enum(['once', 'never', 'always']).optional(),
  finish: z.enum(FINISHES).optional(),
  usage: usage.optional(),
  /** The name of the model that the response states. */
  model: name.optional(),
  /** The time until the headers, and between two tokens of a stream. */
  latency_ms: milliseconds.optional(),
  token_delay_ms: milliseconds.optional(),
});
export type ResponseSpec = z.output<typeof response>;

/** `3`, `2-5`, `2-` or `-3`. */
const ATTEMPTS = /^(\d{0,9})(-)?(\d{0,9})$/;

const attempts = z
  .union([z.int().min(1), z.string().regex(ATTEMPTS, 'must be a number or a range such as 2-5, 2- or -3')])
  .transform((written) => {
    const [, first = '', dash, last = ''] = ATTEMPTS.exec(String(written)) ?? [];
    if (!dash) return { first: Number(first), last: Number(first) };
    return { first: Number(first || 1), last: last === '' ? Number.POSITIVE_INFINITY : Number(last) };
  })
  .refine(({ first, last }) => first >= 1 && last >= first, 'must be a range of numbers from 1');

const match = z.strictObject({
  /** `*` stands for any characters, also in `path`. */
  model: name.optional(),
  path: name.optional(),
  provider: z.enum(PROVIDERS).optional(),
  api: z.enum([...WIRE_APIS, 'models', 'key']).optional(),
  /** A key, or the fingerprint of one, as in the request log. */
  key: name.optional(),
  stream: z.boolean().optional(),
  /** A text that the prompt contains. */
  prompt: name.optional(),
  /** Which of the requests that match all other conditions, counted from 1. */
  attempt: attempts.optional(),
  /** The time since the script was set, in ms. */
  after_ms: count.optional(),
  before_ms: count.optional(),
});
export type Match = z.output<typeof match>;

const fault = z
  .string()
  .max(faultText)
  .transform((text, context): ParsedFault => {
    try {
      return parseFault(text);
    } catch (error) {
      if (!(error instanceof FaultError)) throw error;
      context.addIssue({ code: 'custom', message: error.message });
      return z.NEVER;
    }
  });

const rule = z
  .strictObject({ match: match.default({}), fault: fault.optional(), response: response.optional() })
  .refine((one) => one.fault !== undefined || one.response !== undefined, 'must have a fault or a response');
export type Rule = z.output<typeof rule>;

const parameters = z.array(name).max(scriptEntries);

const model = z.strictObject({
  match: name,
  rejects: parameters.optional(),
  rejects_with_reasoning: parameters.optional(),
  exclusive: parameters.optional(),
  prefill: z.boolean().optional(),
  forced_tool_choice: z.boolean().optional(),
  images: z.boolean().optional(),
  context_window_tokens: count.optional(),
  max_output_tokens: count.optional(),
});

const script = z.strictObject({
  rules: z.array(rule).max(scriptEntries).default([]),
  response: response.default({}),
  models: z.array(model).max(scriptEntries).default([]),
  /** The names that GET /models lists. If it is set, requests for other models fail. */
  served_models: z.array(name).max(scriptEntries).optional(),
  /** The keys that are valid; absent: every request is accepted, with and without a key. */
  keys: z.array(name).max(scriptEntries).optional(),
});
export type Script = z.output<typeof script>;
/** A script as it is written. */
export type ScriptInput = z.input<typeof script>;

/** An invalid script; each problem names its field. */
export class ScriptError extends Error {
  constructor(readonly problems: readonly string[]) {
    super(problems.join('\n'));
  }
}

const LISTED_PROBLEMS = 20;

/** Reads a script. Throws a ScriptError with all problems. */
export function readScript(value: unknown): Script {
  const read = script.safeParse(value);
  if (read.success) return read.data;
  const problems = read.error.issues.map(({ path, message }) => {
    const field = path.map((step) => (typeof step === 'number' ? `[${step}]` : `.${String(step)}`)).join('');
    return `${field.replace(/^\./, '') || 'the script'}: ${message}`;
  });
  const more = problems.length - LISTED_PROBLEMS;
  throw new ScriptError(more > 0 ? [...problems.slice(0, LISTED_PROBLEMS), `and ${more} more`] : problems);
}

/** Reads the text of a script. Throws a ScriptError, which never repeats the text. */
export function parseScript(text: string): Script {
  const value = jsonOr(text);
  if (value === undefined) throw new ScriptError(['the script: is not valid JSON']);
  return readScript(value);
}
