import type { CheckOutcome, CheckResult } from './check_outcomes.js';
import type { ProviderResponse } from './egress.js';

/** The parts of an error body that classify it. They are never passed on, because providers include parts of keys. */
interface ErrorBody {
  /** Codes and types, in lower case. */
  readonly codes: readonly string[];
  readonly words: string;
  /** The HTTP status that an error in a 200 response contains. */
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
/** xAI uses these with 403 and 429, without a code. */
const BILLING_WORDS = /\bcredits?\b|\bspend(ing)? limit|\binsufficient (balance|funds|quota)/i;
/** Anthropic uses these with 400, where the word "credit" alone can be a field name. */
const BILLING_WORDS_400 =
  /\b(credit|account) balance\b|\bbalance (is )?(too low|insufficient|exhausted)|\binsufficient (balance|credits?|funds|quota)\b|\bspend(ing)? limit|\bbilling\b/i;
/** OpenRouter's "Rate limit exceeded … Add 10 credits to unlock more" does not mean an empty account. */
const RATE_WORDS = /rate.?limit/i;
const KEY_CODES = ['invalid_api_key', 'authentication_error', 'api_key_invalid'];
/** "Incorrect API key provided" of xAI, which it also sends percent-encoded; "API key not valid" of Google. */
const KEY_WORDS = /api[ _-]?key/i;
/** OpenAI rejects a restricted key with 401 or 403. */
const SCOPE_WORDS = /missing scopes?|insufficient permissions?/i;
/** The HTTP status that corresponds to the code of an error in a 200 response. */
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

/** The failure that a response reports; undefined if it may be the requested content. */
export function problemOf(response: ProviderResponse, json: unknown): CheckResult | undefined {
  const http = response.status;
  if (http >= 300 && http < 400) return { outcome: 'REDIRECT', http };
  const isSuccess = http >= 200 && http < 300;
  if (isSuccess && response.unread) return { outcome: response.unread === 'compressed' ? 'COMPRESSED' : 'TOO_LARGE' };
  const body = errorBodyOf(json);
  if (!isSuccess) return { outcome: outcomeOf(http, body), http, waitMs: waitOf(response) };
  if (!isError(json)) return undefined;
  const status = body.status ?? body.codes.map((code) => CODE_STATUS.get(code)).find(Boolean) ?? 400;
  const outcome = outcomeOf(status, body);
  return { outcome: outcome === 'REQUEST_REJECTED' ? 'ERROR_INSIDE' : outcome, http: status, waitMs: waitOf(response) };
}

/** Whether a response reports that the model does not exist. OpenAI does so with 403 for a project without access. */
export const isModelMissing = (response: ProviderResponse, json: unknown): boolean =>
  [400, 404, 405, 410, 422, 501].includes(response.status) || errorBodyOf(json).codes.includes('model_not_found');

function outcomeOf(http: number, { codes, words }: ErrorBody): CheckOutcome {
  const has = (expected: readonly string[]) => codes.some((code) => expected.includes(code));
  if (http === 402 || has(BILLING_CODES)) return 'NO_CREDIT';
  if (http === 401) return SCOPE_WORDS.test(words) ? 'FORBIDDEN' : 'KEY_REJECTED';
  if (http === 400) {
    if (has(KEY_CODES)) return 'KEY_REJECTED';
    if (BILLING_WORDS_400.test(words)) return 'NO_CREDIT';
    return KEY_WORDS.test(words) ? 'KEY_REJECTED' : 'REQUEST_REJECTED';
  }
  if (http === 403) return BILLING_WORDS.test(words) ? 'NO_CREDIT' : 'FORBIDDEN';
  if (http === 429) {
    const isRate = [words, ...codes].some((text) => RATE_WORDS.test(text));
    return !isRate && BILLING_WORDS.test(words) ? 'NO_CREDIT' : 'RATE_LIMITED';
  }
  if (http === 404 || http === 405 || http === 501) return 'NO_LIST';
  return http === 408 || http >= 500 ? 'SERVER_ERROR' : 'REQUEST_REJECTED';
}

const recordOf = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};

/** The outermost object of an error. Google wraps it in an array. */
const outerOf = (json: unknown) => recordOf(Array.isArray(json) ? json[0] : json);

const isError = (json: unknown): boolean => {
  const { error, type, object } = outerOf(json);
  return Boolean(error) || type === 'error' || object === 'error';
};

/**
 * Reads `{error: {message, type, code, details}}` of OpenAI, DeepSeek and, with
 * additional fields, Anthropic; `{code, error: "…"}` and `{error: "…"}` of xAI;
 * and `{message}` and `{detail}` of compatible servers.
 */
function errorBodyOf(json: unknown): ErrorBody {
  const outer = outerOf(json);
  const inner = typeof outer['error'] === 'object' ? recordOf(outer['error']) : outer;
  const details = recordOf(inner['details']);
  const texts = (...values: unknown[]) => values.filter((value) => typeof value === 'string').map(String);
  const words = texts(outer['error'], inner['message'], inner['detail']).join(' ').slice(0, 2000);
  const code = inner['code'] ?? outer['code'];
  // Number() would throw for an object whose `toString` is not a function.
  const status = typeof code === 'object' ? 0 : Number(code);
  return {
    codes: texts(outer['code'], inner['code'], inner['type'], details['error_code']).map((code) => code.toLowerCase()),
    // URLs are removed, because they match any pattern: `…/account/api-keys`, `…/account/billing`.
    words: words.replaceAll('%20', ' ').replace(/https?:\S+/g, ''),
    status: status >= 400 && status < 600 ? status : undefined,
  };
}

/** A longer wait that a provider requests is ignored. */
const MAX_WAIT_MS = 24 * 3_600_000;

/** How long a provider requests to wait, in ms; undefined if it does not, or not in a valid form. */
function waitOf({ headers }: ProviderResponse): number | undefined {
  const ms = Number(headers['retry-after-ms'] ?? Number.NaN);
  const after = headers['retry-after'] ?? '';
  const waits = [ms, Number(after || Number.NaN) * 1000, Date.parse(after) - Date.now()];
  return waits.find((wait) => wait > 0 && wait <= MAX_WAIT_MS);
}
