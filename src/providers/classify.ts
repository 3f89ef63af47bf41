import type { CheckOutcome, Finding } from './check_outcomes.js';
import type { Reply } from './egress.js';

/** What of an error's body tells its kind. Read and compared, never passed on: providers put parts of keys into it. */
interface Complaint {
  /** Codes and types, in small letters. */
  readonly codes: readonly string[];
  readonly words: string;
  /** The status that an error in a 200 names. */
  readonly status: number | undefined;
}

const BILLING_CODES = [
  'insufficient_quota',
  'credit_balance_exhausted',
  'enforced_spend_limit_reached',
  'billing_error',
  'billing_not_active',
  'billing_hard_limit_reached',
];
/** xAI says it at 403 and 429, and without a code. */
const BILLING_WORDS = /\bcredits?\b|\bspend(ing)? limit|\binsufficient (balance|funds|quota)/i;
/** Anthropic says it at 400, where a bare "credit" can be the name of a field. */
const BILLING_WORDS_400 =
  /\b(credit|account) balance\b|\bbalance (is )?(too low|insufficient|exhausted)|\binsufficient (balance|credits?|funds|quota)\b|\bspend(ing)? limit|\bbilling\b/i;
/** OpenRouter's "Rate limit exceeded … Add 10 credits to unlock more" is no word of an empty account. */
const RATE_WORDS = /rate.?limit/i;
const KEY_CODES = ['invalid_api_key', 'authentication_error', 'api_key_invalid'];
/** "Incorrect API key provided" of xAI, which also sends it percent-encoded; "API key not valid" of Google. */
const KEY_WORDS = /api[ _-]?key/i;
/** OpenAI answers a restricted key with 401 as well as 403. */
const SCOPE_WORDS = /missing scopes?|insufficient permissions?/i;
/** The status that the code of an error in a 200 stands for. */
const CODE_STATUS: ReadonlyMap<string, number> = new Map([
  ['authentication_error', 401],
  ['invalid_api_key', 401],
  ['permission_error', 403],
  ['rate_limit_error', 429],
  ['rate_limit_exceeded', 429],
]);

/** The JSON of a body, or undefined. */
export function jsonOf(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}

/** What is wrong with an answer, or undefined: then it may be what was asked for. */
export function problemOf(reply: Reply, json: unknown): Finding | undefined {
  const http = reply.status;
  if (http >= 300 && http < 400) return { verdict: 'REDIRECT', http };
  const good = http >= 200 && http < 300;
  if (good && reply.unread) return { verdict: reply.unread === 'compressed' ? 'COMPRESSED' : 'TOO_LARGE' };
  const complaint = complaintOf(json);
  if (!good) return { verdict: verdictOf(http, complaint), http, waitMs: waitOf(reply) };
  if (!isError(json)) return undefined;
  const meant = complaint.status ?? complaint.codes.map((code) => CODE_STATUS.get(code)).find(Boolean) ?? 400;
  const verdict = verdictOf(meant, complaint);
  return { verdict: verdict === 'REQUEST_REFUSED' ? 'ERROR_INSIDE' : verdict, http: meant, waitMs: waitOf(reply) };
}

/** Whether an answer says that there is no such model. OpenAI says so at 403 too, of a project without access. */
export const saysNoModel = (reply: Reply, json: unknown): boolean =>
  [400, 404, 405, 410, 422, 501].includes(reply.status) || complaintOf(json).codes.includes('model_not_found');

function verdictOf(http: number, { codes, words }: Complaint): CheckOutcome {
  const has = (wanted: readonly string[]) => codes.some((code) => wanted.includes(code));
  if (http === 402 || has(BILLING_CODES)) return 'NO_CREDIT';
  if (http === 401) return SCOPE_WORDS.test(words) ? 'FORBIDDEN' : 'KEY_REFUSED';
  if (http === 400) {
    if (has(KEY_CODES)) return 'KEY_REFUSED';
    if (BILLING_WORDS_400.test(words)) return 'NO_CREDIT';
    return KEY_WORDS.test(words) ? 'KEY_REFUSED' : 'REQUEST_REFUSED';
  }
  if (http === 403) return BILLING_WORDS.test(words) ? 'NO_CREDIT' : 'FORBIDDEN';
  if (http === 429) {
    const isRate = [words, ...codes].some((text) => RATE_WORDS.test(text));
    return !isRate && BILLING_WORDS.test(words) ? 'NO_CREDIT' : 'RATE_LIMITED';
  }
  if (http === 404 || http === 405 || http === 501) return 'NO_LIST';
  return http === 408 || http >= 500 ? 'SERVER_ERROR' : 'REQUEST_REFUSED';
}

const recordOf = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};

/** The outermost object of an error. Google wraps its own into an array. */
const outerOf = (json: unknown) => recordOf(Array.isArray(json) ? json[0] : json);

const isError = (json: unknown): boolean => {
  const { error, type, object } = outerOf(json);
  return Boolean(error) || type === 'error' || object === 'error';
};

/**
 * Reads `{error: {message, type, code, details}}` of OpenAI, DeepSeek and, with
 * more around it, Anthropic; `{code, error: "…"}` and `{error: "…"}` of xAI; and
 * `{message}` and `{detail}` of what imitates them.
 */
function complaintOf(json: unknown): Complaint {
  const outer = outerOf(json);
  const inner = typeof outer['error'] === 'object' ? recordOf(outer['error']) : outer;
  const details = recordOf(inner['details']);
  const texts = (...values: unknown[]) => values.filter((value) => typeof value === 'string').map(String);
  const words = texts(outer['error'], inner['message'], inner['detail']).join(' ').slice(0, 2000);
  const code = inner['code'] ?? outer['code'];
  // An object could have a `toString` that is no function.
  const status = typeof code === 'object' ? 0 : Number(code);
  return {
    codes: texts(outer['code'], inner['code'], inner['type'], details['error_code']).map((code) => code.toLowerCase()),
    // The addresses in it are about everything: `…/account/api-keys`, `…/account/billing`.
    words: words.replaceAll('%20', ' ').replace(/https?:\S+/g, ''),
    status: status >= 400 && status < 600 ? status : undefined,
  };
}

/** Longest wait that a provider is believed. */
const SANE_WAIT_MS = 24 * 3_600_000;

/** How long a provider asks to wait, when it says so in a form that makes sense. */
function waitOf({ headers }: Reply): number | undefined {
  const ms = Number(headers['retry-after-ms'] ?? Number.NaN);
  const after = headers['retry-after'] ?? '';
  const waits = [ms, Number(after || Number.NaN) * 1000, Date.parse(after) - Date.now()];
  return waits.find((wait) => wait > 0 && wait <= SANE_WAIT_MS);
}
