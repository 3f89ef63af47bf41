import { subjectProblem } from '../../domain/experiments/subject.js';
import { limits } from '../../limits.js';
import type { Fetch } from './fetch.js';

/** Options of the calls of an agent's model. */
export interface ModelOptions {
  /**
   * How a stream is emitted. `live`: parts are emitted as they arrive; a fault after the first part is a TornStreamError
   * with the text received so far. `whole`: parts are held until the response is complete, so a fault at any point moves
   * the call to the next hop. Calls without a stream are always whole. Default: `live`.
   */
  readonly mode?: 'live' | 'whole' | undefined;
  /** Maximum duration of a call with all its attempts and waits, 1 to 3 600 000 ms. Default: 300 000. */
  readonly deadlineMs?: number | undefined;
  /**
   * How long to wait for the first content of a stream, per attempt, in ms, from before the request is sent. Comments,
   * pings and empty events do not count as content. Default: 10 000 while another hop can be tried; 60 000 for the last hop
   * and for a model that reasons.
   */
  readonly firstTokenMs?: number | undefined;
  /** How long a stream that has begun may be without content, in ms. Default: 15 000; 60 000 for a model that reasons. */
  readonly idleMs?: number | undefined;
  /**
   * Maximum duration of one attempt in ms. Default: the `request_timeout_ms` of the config. If it is not set: 120 000 for a
   * call without a stream while another hop can be tried, else the rest of the deadline.
   */
  readonly attemptMs?: number | undefined;
  /** Maximum number of attempts of a call, at all hops together, 1 to 100. Default: 10. */
  readonly maxAttempts?: number | undefined;
  /**
   * Whether a call moves to the next hop when a provider refuses the content. Default: false: the caller gets the
   * refusal, because another provider might respond to content that the first provider refuses.
   */
  readonly contentPolicyFallback?: boolean | undefined;
  /**
   * The id of the run in the receipt, at most 100 characters. Default: the id of the run to which the agent belongs.
   */
  readonly runId?: string | undefined;
  /**
   * The subject that a running experiment of the agent assigns to a variant, for example the id of a run or a user, 1
   * to 255 characters. The receipts and the recorded usage of counted calls contain the subject. It is an option of a
   * model and not of a call: create a model for each subject. Default: none; calls then have the settings of the
   * control and do not count.
   */
  readonly subject?: string | undefined;
  /** Sends the requests, for example through a proxy. Default: `globalThis.fetch`. */
  readonly fetch?: Fetch | undefined;
}

/** The options of one call with their defaults. */
export interface CallSettings {
  readonly mode: 'live' | 'whole';
  readonly deadlineMs: number;
  readonly firstTokenMs: number | undefined;
  readonly idleMs: number | undefined;
  readonly attemptMs: number | undefined;
  readonly maxAttempts: number;
  readonly contentPolicyFallback: boolean;
  readonly runId: string;
  readonly subject: string | undefined;
  readonly fetch: Fetch | undefined;
}

const { modelCallMs, modelCallAttempts } = limits;

type Check = (value: never) => string | undefined;
const integer =
  ({ min, max }: { readonly min: number; readonly max: number }) =>
  (value: unknown) =>
    Number.isInteger(value) && Number(value) >= min && Number(value) <= max
      ? undefined
      : `must be a whole number from ${min} to ${max}`;

const CHECKS: Readonly<Record<keyof ModelOptions, Check>> = {
  mode: (value: unknown) => (value === 'live' || value === 'whole' ? undefined : 'must be live or whole'),
  deadlineMs: integer(modelCallMs),
  firstTokenMs: integer(modelCallMs),
  idleMs: integer(modelCallMs),
  attemptMs: integer(modelCallMs),
  maxAttempts: integer(modelCallAttempts),
  contentPolicyFallback: (value: unknown) => (typeof value === 'boolean' ? undefined : 'must be true or false'),
  runId: (value: unknown) =>
    typeof value === 'string' && value.length <= limits.runId
      ? undefined
      : `must be a text of at most ${limits.runId} characters`,
  subject: (value: unknown) => (typeof value === 'string' ? subjectProblem(value) : 'must be a text'),
  fetch: (value: unknown) => (typeof value === 'function' ? undefined : 'must be a function'),
};

/** Throws a TypeError for an option that does not exist or has no valid value. */
export function checkOptions(options: ModelOptions): void {
  for (const [name, value] of Object.entries(options)) {
    const check = CHECKS[name as keyof ModelOptions];
    if (!check) throw new TypeError(`There is no option ${JSON.stringify(name)} for the calls of a model`);
    const problem = value === undefined ? undefined : check(value as never);
    if (problem) throw new TypeError(`${name} ${problem}`);
  }
}

/**
 * Throws a TypeError for invalid options of a call. The subject cannot be an option of a call: it determines the hops,
 * but the AI SDK reads the supported URLs of a model before it knows the options of a call.
 */
export function checkCallOptions(options: ModelOptions): void {
  checkOptions(options);
  if (options.subject !== undefined)
    throw new TypeError('subject is an option of the model, not of one call: create a model for each subject');
}

/** The settings of a call. An option in a later list has precedence. @param options checked options. */
export function callSettings(...options: readonly ModelOptions[]): CallSettings {
  const last = <K extends keyof ModelOptions>(name: K): ModelOptions[K] =>
    options.map((one) => one[name]).findLast((value) => value !== undefined);
  return {
    mode: last('mode') ?? 'live',
    deadlineMs: last('deadlineMs') ?? limits.defaultModelCallMs,
    firstTokenMs: last('firstTokenMs'),
    idleMs: last('idleMs'),
    attemptMs: last('attemptMs'),
    maxAttempts: last('maxAttempts') ?? limits.defaultModelCallAttempts,
    contentPolicyFallback: last('contentPolicyFallback') ?? false,
    runId: last('runId') ?? '',
    subject: last('subject'),
    fetch: last('fetch'),
  };
}
