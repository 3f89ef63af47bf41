import type { BlockList } from 'node:net';
import type { CheckStatus } from '../../gen/ts/agentllm/v1/check.js';
import { onAbort } from '../abort.js';
import type { Provider } from '../domain/rows.js';
import { nearest, printable } from '../domain/text.js';
import { limits } from '../limits.js';
import { type CheckOutcome, type Finding, messageOf, statusOf } from './check_outcomes.js';
import { jsonOf, problemOf, saysNoModel } from './classify.js';
import { type DialectAdapter, dialectAdapters, isModel, modelPath, namesIn } from './dialect.js';
import { coded, type Egress, get, type Reply, TIMED_OUT } from './egress.js';
import { type KeyEndpoint, keyEndpointOf } from './key_endpoints.js';
import { networkFinding } from './network_errors.js';

/** What a provider said of a key, or of a model with that key. */
export interface Answer {
  readonly status: CheckStatus;
  /** One sentence for people, with what to do; never the key, never the provider's own words. */
  readonly message: string;
  /** How long it took until the answer stood; undefined: nobody was asked. */
  readonly latencyMs: number | undefined;
}

export interface CheckOptions {
  /** Addresses that PROVIDER_ALLOW_CIDRS allows. */
  readonly allowed: BlockList;
  /** The whole of it, all requests together. */
  readonly timeoutMs: number;
  /** Aborted: answers UNREACHABLE at once. */
  readonly signal?: AbortSignal;
}

/** A provider that is being asked. */
interface Question {
  readonly provider: Provider;
  readonly speech: DialectAdapter;
  readonly key: string | undefined;
  readonly egress: Egress;
  readonly timeoutMs: number;
}

/** What was found of a model, or of the key alone. */
interface Found extends Finding {
  readonly model?: string;
  /** The name on the provider's list that is nearest to that of a missing model. */
  readonly nearest?: string;
  /** When it stood, by the clock of `performance`; undefined: nobody was asked. */
  readonly at: number | undefined;
}

/**
 * Asks a provider, at no token cost, whether a key and models are good. One
 * answer for each model, in order; with no models one answer, about the key
 * alone. Never rejects.
 */
export async function checkProvider(
  provider: Provider,
  key: string | undefined,
  models: readonly string[],
  options: CheckOptions,
): Promise<readonly Answer[]> {
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
  return found.map(({ model, nearest, at, ...finding }) => ({
    status: statusOf(finding),
    message: messageOf(finding, { ...words, model: quoted(model), nearest: quoted(nearest) }),
    latencyMs: at === undefined ? undefined : Math.round(at - started),
  }));
}

/** The key variables of a provider; of names that would push what to do out of the sentence only the first. */
function variablesOf({ api_key_env_vars: [first = '', ...more] }: Provider): string {
  const all = [first, ...more].join(' or ');
  return all.length <= 120 ? all : `${first} or another`;
}

/** Finds out what can be found out in the time given. */
async function findWithin(
  provider: Provider,
  key: string | undefined,
  models: readonly string[],
  { allowed, timeoutMs, signal }: CheckOptions,
): Promise<readonly Found[]> {
  const speech = dialectAdapters.get(provider.dialect);
  const unasked = whyNotAsked(provider, key, signal);
  if (unasked || !speech) return forEach(models, { verdict: unasked ?? 'NO_DIALECT', at: undefined });
  return await within(timeoutMs, signal, (ending) =>
    find({ provider, speech, key, egress: { allowed, signal: ending }, timeoutMs }, models),
  );
}

/** Works under a signal that aborts when the time is over, or with another signal. */
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

/** What a header can hold; anything else, a line break above all, would end it. */
const SENDABLE = /^[\x21-\x7e]+$/;

function whyNotAsked(provider: Provider, key: string | undefined, signal?: AbortSignal): CheckOutcome | undefined {
  if (signal?.aborted) return 'STOPPED';
  if (key === undefined) return provider.api_key_env_vars.length > 0 ? 'NO_KEY' : undefined;
  return SENDABLE.test(key) ? undefined : 'KEY_UNSENDABLE';
}

async function find(question: Question, models: readonly string[]): Promise<readonly Found[]> {
  const endpoint = keyEndpointOf(question.provider);
  const blocked = endpoint?.when === 'before' ? await askKeyEndpoint(question, endpoint) : undefined;
  const list = blocked ?? (await readList(question, models));
  if ('verdict' in list) return forEach(models, stood(list));
  const found = models.length > 0 ? await findModels(question, models, list) : [stood({ verdict: 'KEY_OK' })];
  const isGood = (one: Finding) => statusOf(one) === 'CHECK_STATUS_OK';
  const against = endpoint?.when === 'after' && found.some(isGood) && (await askKeyEndpoint(question, endpoint));
  return against ? found.map((one) => (isGood(one) ? stood(against) : one)) : found;
}

const forEach = (models: readonly string[], found: Found): Found[] =>
  models.length > 0 ? models.map((model) => ({ ...found, model })) : [found];

/** A finding as of now. Who was refused by address was not asked, nor, in earnest, was who had no turn in time. */
const stood = (finding: Finding, model?: string): Found => ({
  ...finding,
  model,
  at:
    statusOf(finding) === 'CHECK_STATUS_ADDRESS_REFUSED' || finding.verdict === 'BUSY' ? undefined : performance.now(),
});

/** What a built-in provider's own endpoint has against a key. When that fails in any other way, the list decides. */
async function askKeyEndpoint(question: Question, { at, read }: KeyEndpoint): Promise<Finding | undefined> {
  const { egress, timeoutMs, provider } = question;
  // Half of the time, so that one that hangs leaves the other half to the list.
  const { problem, json } = await within(timeoutMs / 2, egress.signal, (signal) =>
    ask({ ...question, egress: { ...egress, signal } }, ...at(provider.base_url)),
  );
  const verdict = problem ? problem.verdict : read((json ?? {}) as Record<string, unknown>);
  return verdict && (!problem || ['KEY_REFUSED', 'NO_CREDIT'].includes(verdict)) ? { verdict } : undefined;
}

/** The names of a provider's models, as far as they are needed; or what came in their place. */
async function readList(question: Question, models: readonly string[]): Promise<ReadonlySet<string> | Finding> {
  const names = new Set<string>();
  let path: string | undefined = question.speech.list;
  for (let page = 0; path !== undefined && page < limits.providerListPages; page++) {
    const read: Page | Finding = await readPage(question, path, models, names);
    // The first page answers for the key. What a later one would have shown, a second look at the model does.
    if ('verdict' in read) return page > 0 ? names : read;
    path = read.next;
  }
  return names;
}

interface Page {
  /** Path of the next page, when there is one and it is needed. */
  readonly next: string | undefined;
}

/** Reads one page; of its names it keeps those that are asked about, and as many more as a suggestion is looked for in. */
async function readPage(
  question: Question,
  path: string,
  models: readonly string[],
  names: Set<string>,
): Promise<Page | Finding> {
  const { problem, json } = await ask(question, question.provider.base_url, path);
  const here = problem ? undefined : namesIn(json);
  if (!here) return problem ?? { verdict: 'NOT_A_LIST' };
  const wanted = new Set(models);
  for (const name of here) {
    // One name too many is kept, so that nothing is suggested from a part of them; and none that no config could have.
    const hasRoom = names.size <= limits.maxSuggestionNames && name.length <= limits.modelName;
    if (hasRoom || wanted.has(name)) names.add(name);
  }
  return { next: models.every((model) => names.has(model)) ? undefined : question.speech.next?.(json) };
}

async function findModels(question: Question, models: readonly string[], list: ReadonlySet<string>): Promise<Found[]> {
  const found = new Map<string, Found>();
  for (const model of models) if (list.has(model)) found.set(model, stood({ verdict: 'MODEL_OK' }, model));
  let lost: Finding | undefined;
  for (const model of models) {
    if (found.has(model)) continue;
    const one: Found = lost ? stood(lost, model) : await lookFor(question, model, list);
    // Who asks to wait, or is gone, is not asked about the next model.
    if (['CHECK_STATUS_RATE_LIMITED', 'CHECK_STATUS_UNREACHABLE'].includes(statusOf(one))) lost = one;
    found.set(model, one);
  }
  return models.map((model) => found.get(model) as Found);
}

/** A second look at a model that is not on the list: providers take aliases that they do not list. */
async function lookFor(question: Question, model: string, list: ReadonlySet<string>): Promise<Found> {
  const path = modelPath(model);
  // A key that was put where the model belongs must not travel in an address: those are logged.
  const isSafe = withoutKey(model, question.key) === model;
  if (path !== undefined && isSafe) {
    const { reply, problem, json } = await ask(question, question.provider.base_url, path);
    if (problem && !(reply && saysNoModel(reply, json))) return stood(problem, model);
    if (!problem && isModel(json, model)) return stood({ verdict: 'MODEL_OK' }, model);
  }
  const near = nearest(model, list);
  // A name with the key in it is an echo, and no model.
  const isName = near !== undefined && withoutKey(near, question.key) === near;
  return { ...stood({ verdict: 'MODEL_MISSING' }, model), nearest: isName ? near : undefined };
}

/** What one GET brought. */
interface Heard {
  readonly reply?: Reply;
  readonly json?: unknown;
  readonly problem: Finding | undefined;
}

async function ask({ speech, key, egress }: Question, base: string, path: string): Promise<Heard> {
  try {
    const headers = { ...speech.headers, ...(key !== undefined && speech.auth(key)) };
    const reply = await get(base, path, headers, egress);
    const json = jsonOf(reply.body);
    const problem = problemOf(reply, json);
    const wantsKey = key === undefined && problem && ['KEY_REFUSED', 'FORBIDDEN'].includes(problem.verdict);
    return { reply, json, problem: wantsKey ? { verdict: 'KEY_WANTED' } : problem };
  } catch (error) {
    return { problem: networkFinding(error) };
  }
}

/** Shorter keys are no secrets but the `none` and `ollama` of local servers, which stand in names of models too. */
const LEAST_SECRET = 8;

/** A text in which the key does not stand, in small letters or capitals, whoever put it there. */
const withoutKey = (text: string, key = ''): string =>
  key.length < LEAST_SECRET
    ? text
    : text.replace(new RegExp(key.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&'), 'gi'), '[key]');
