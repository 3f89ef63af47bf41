import type { BlockList } from 'node:net';
import type { CheckStatus } from '../../gen/ts/agentllm/v1/check.js';
import { onAbort } from '../abort.js';
import type { Provider } from '../domain/rows.js';
import { nearest, printable } from '../domain/text.js';
import { limits } from '../limits.js';
import { type CheckOutcome, type CheckResult, messageOf, statusOf } from './check_outcomes.js';
import { isModelMissing, jsonOf, problemOf } from './classify.js';
import { type DialectAdapter, dialectAdapters, isModel, modelPath, namesIn } from './dialect.js';
import { coded, type Egress, get, type ProviderResponse, TIMED_OUT } from './egress.js';
import { type KeyEndpoint, keyEndpointOf } from './key_endpoints.js';
import { networkResult } from './network_errors.js';

/** The result of checking a key, or a model with that key. */
export interface ModelCheck {
  readonly status: CheckStatus;
  /** One sentence with the remedy. It never contains the key or text of the provider. */
  readonly message: string;
  /** The time until the result was known, in ms; undefined: the provider was not contacted. */
  readonly latencyMs: number | undefined;
}

export interface CheckOptions {
  /** Addresses that PROVIDER_ALLOW_CIDRS allows. */
  readonly allowed: BlockList;
  /** The time limit of all requests together. */
  readonly timeoutMs: number;
  /** When it aborts, the check returns UNREACHABLE immediately. */
  readonly signal?: AbortSignal;
}

/** A check in progress. */
interface Check {
  readonly provider: Provider;
  readonly adapter: DialectAdapter;
  readonly key: string | undefined;
  readonly egress: Egress;
  readonly timeoutMs: number;
}

/** The result for one model, or for the key alone. */
interface Found extends CheckResult {
  readonly model?: string;
  /** The listed name that is nearest to that of a missing model. */
  readonly nearest?: string;
  /** When the result was known, by the clock of `performance`; undefined: the provider was not contacted. */
  readonly at: number | undefined;
}

/**
 * Checks a key and models against a provider, without using model tokens. Returns
 * one result for each model, in order; without models one result, for the key
 * alone. Never rejects.
 */
export async function checkProvider(
  provider: Provider,
  key: string | undefined,
  models: readonly string[],
  options: CheckOptions,
): Promise<readonly ModelCheck[]> {
  const started = performance.now();
  const quoted = (name = '') => name && JSON.stringify(printable(withoutKey(name, key), 80));
  const words = {
    provider: printable(provider.name, limits.provider),
    keyed: key !== undefined,
    variables: variablesOf(provider),
    builtIn: provider.built_in,
    timeoutMs: Math.round(options.timeoutMs),
  };
  const found = await findWithin(provider, key, models, options);
  return found.map(({ model, nearest, at, ...result }) => ({
    status: statusOf(result),
    message: messageOf(result, { ...words, model: quoted(model), nearest: quoted(nearest) }),
    latencyMs: at === undefined ? undefined : Math.round(at - started),
  }));
}

/** The key variables of a provider; only the first one if the list would make the message too long. */
function variablesOf({ api_key_env_vars: [first = '', ...more] }: Provider): string {
  const all = [first, ...more].join(' or ');
  return all.length <= 120 ? all : `${first} or another`;
}

/** Runs the check within its time limit. */
async function findWithin(
  provider: Provider,
  key: string | undefined,
  models: readonly string[],
  { allowed, timeoutMs, signal }: CheckOptions,
): Promise<readonly Found[]> {
  const adapter = dialectAdapters.get(provider.dialect);
  const outcome = outcomeWithoutContact(provider, key, signal);
  if (outcome || !adapter) return forEach(models, { outcome: outcome ?? 'NO_DIALECT', at: undefined });
  return await within(timeoutMs, signal, (ending) =>
    find({ provider, adapter, key, egress: { allowed, signal: ending }, timeoutMs }, models),
  );
}

/** Runs `work` with a signal that aborts when the time is over or when the other signal aborts. */
async function within<T>(
  timeoutMs: number,
  signal: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const ending = new AbortController();
  const timer = setTimeout(() => ending.abort(coded(TIMED_OUT)), Math.min(timeoutMs, limits.maxTimerMs));
  const release = onAbort(signal, () => ending.abort(coded('STOPPED')));
  try {
    return await work(ending.signal);
  } finally {
    clearTimeout(timer);
    release();
  }
}

/** The characters that a header can contain; a line break, for example, would end the header. */
const SENDABLE = /^[\x21-\x7e]+$/;

/** Why the provider must not be contacted, or undefined. */
function outcomeWithoutContact(
  provider: Provider,
  key: string | undefined,
  signal?: AbortSignal,
): CheckOutcome | undefined {
  if (signal?.aborted) return 'STOPPED';
  if (key === undefined) return provider.api_key_env_vars.length > 0 ? 'NO_KEY' : undefined;
  return SENDABLE.test(key) ? undefined : 'KEY_NOT_SENDABLE';
}

async function find(check: Check, models: readonly string[]): Promise<readonly Found[]> {
  const endpoint = keyEndpointOf(check.provider);
  const blocked = endpoint?.when === 'before' ? await queryKeyEndpoint(check, endpoint) : undefined;
  const list = blocked ?? (await readList(check, models));
  if ('outcome' in list) return forEach(models, withCurrentTime(list));
  const found = models.length > 0 ? await findModels(check, models, list) : [withCurrentTime({ outcome: 'KEY_OK' })];
  const isOk = (one: CheckResult) => statusOf(one) === 'CHECK_STATUS_OK';
  const failure = endpoint?.when === 'after' && found.some(isOk) && (await queryKeyEndpoint(check, endpoint));
  return failure ? found.map((one) => (isOk(one) ? withCurrentTime(failure) : one)) : found;
}

const forEach = (models: readonly string[], found: Found): Found[] =>
  models.length > 0 ? models.map((model) => ({ ...found, model })) : [found];

/** Adds the current time to a result, unless the address was refused or the request waited too long to be sent. */
const withCurrentTime = (result: CheckResult, model?: string): Found => ({
  ...result,
  model,
  at: statusOf(result) === 'CHECK_STATUS_ADDRESS_REFUSED' || result.outcome === 'BUSY' ? undefined : performance.now(),
});

/** What the key endpoint of a built-in provider reports against a key. On any other failure the model list decides. */
async function queryKeyEndpoint(check: Check, { at, read }: KeyEndpoint): Promise<CheckResult | undefined> {
  const { egress, timeoutMs, provider } = check;
  // Half of the time, so that an endpoint that hangs leaves the other half for the list.
  const { problem, json } = await within(timeoutMs / 2, egress.signal, (signal) =>
    query({ ...check, egress: { ...egress, signal } }, ...at(provider.base_url)),
  );
  const outcome = problem ? problem.outcome : read((json ?? {}) as Record<string, unknown>);
  return outcome && (!problem || ['KEY_REJECTED', 'NO_CREDIT'].includes(outcome)) ? { outcome } : undefined;
}

/** The names of a provider's models, read until every requested model is found; or the failure. */
async function readList(check: Check, models: readonly string[]): Promise<ReadonlySet<string> | CheckResult> {
  const names = new Set<string>();
  let path: string | undefined = check.adapter.list;
  for (let page = 0; path !== undefined && page < limits.providerListPages; page++) {
    const read: Page | CheckResult = await readPage(check, path, models, names);
    // The first page validates the key. Models on a later page that fails are queried individually.
    if ('outcome' in read) return page > 0 ? names : read;
    path = read.next;
  }
  return names;
}

interface Page {
  /** Path of the next page, when there is one and it is needed. */
  readonly next: string | undefined;
}

/**
 * Reads one page. Keeps the names of requested models, and a limited number of others, from which a suggestion is
 * chosen.
 */
async function readPage(
  check: Check,
  path: string,
  models: readonly string[],
  names: Set<string>,
): Promise<Page | CheckResult> {
  const { problem, json } = await query(check, check.provider.base_url, path);
  const listed = problem ? undefined : namesIn(json);
  if (!listed) return problem ?? { outcome: 'NOT_A_LIST' };
  const requested = new Set(models);
  for (const name of listed) {
    // One name more than the limit disables suggestions, because the nearest name may be missing from the names that
    // are kept. Names that are too long for a config are ignored.
    const hasRoom = names.size <= limits.maxSuggestionNames && name.length <= limits.modelName;
    if (hasRoom || requested.has(name)) names.add(name);
  }
  return { next: models.every((model) => names.has(model)) ? undefined : check.adapter.next?.(json) };
}

async function findModels(check: Check, models: readonly string[], list: ReadonlySet<string>): Promise<Found[]> {
  const found = new Map<string, Found>();
  for (const model of models) if (list.has(model)) found.set(model, withCurrentTime({ outcome: 'MODEL_OK' }, model));
  let unavailable: CheckResult | undefined;
  for (const model of models) {
    if (found.has(model)) continue;
    const one: Found = unavailable ? withCurrentTime(unavailable, model) : await queryModel(check, model, list);
    // A provider that limits the rate or is unreachable is not queried for the next model.
    if (['CHECK_STATUS_RATE_LIMITED', 'CHECK_STATUS_UNREACHABLE'].includes(statusOf(one))) unavailable = one;
    found.set(model, one);
  }
  return models.map((model) => found.get(model) as Found);
}

/** Queries a model that is not listed: providers accept aliases that they do not list. */
async function queryModel(check: Check, model: string, list: ReadonlySet<string>): Promise<Found> {
  const path = modelPath(model);
  // A key that was entered as model name must not be sent in a URL, because URLs are logged.
  const isSafe = withoutKey(model, check.key) === model;
  if (path !== undefined && isSafe) {
    const { response, problem, json } = await query(check, check.provider.base_url, path);
    if (problem && !(response && isModelMissing(response, json))) return withCurrentTime(problem, model);
    if (!problem && isModel(json, model)) return withCurrentTime({ outcome: 'MODEL_OK' }, model);
  }
  const near = nearest(model, list);
  // A name that contains the key is an echo of the request, not a model.
  const isName = near !== undefined && withoutKey(near, check.key) === near;
  return { ...withCurrentTime({ outcome: 'MODEL_MISSING' }, model), nearest: isName ? near : undefined };
}

/** The result of one GET request. */
interface QueryResult {
  readonly response?: ProviderResponse;
  readonly json?: unknown;
  readonly problem: CheckResult | undefined;
}

async function query({ adapter, key, egress }: Check, base: string, path: string): Promise<QueryResult> {
  try {
    const headers = { ...adapter.headers, ...(key !== undefined && adapter.auth(key)) };
    const response = await get(base, path, headers, egress);
    const json = jsonOf(response.body);
    const problem = problemOf(response, json);
    const requiresKey = key === undefined && problem && ['KEY_REJECTED', 'FORBIDDEN'].includes(problem.outcome);
    return { response, json, problem: requiresKey ? { outcome: 'KEY_REQUIRED' } : problem };
  } catch (error) {
    return { problem: networkResult(error) };
  }
}

/** Shorter keys are not secret: they are the `none` and `ollama` of local servers, and occur in model names. */
const MIN_SECRET_LENGTH = 8;

/** Replaces the key in a text, in upper or lower case. */
const withoutKey = (text: string, key = ''): string =>
  key.length < MIN_SECRET_LENGTH
    ? text
    : text.replace(new RegExp(key.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&'), 'gi'), '[key]');
