import { createHmac, randomBytes } from 'node:crypto';
import { originOf } from '../../domain/origin.js';
import type { ResolutionHop } from '../resolution_types.js';
import type { Clock } from './clock.js';
import type { ClassBreaker } from './error_class.js';

/** Failures in a row within this time open the breaker of a provider's model, for the pause. */
const FAILURES = 5;
const WINDOW_MS = 30_000;
const PAUSE_MS = 10_000;
/** The pause of a rejected key, a used-up account, a missing model and a missing permission: they last longer. */
const LONG_PAUSE_MS = 300_000;
/** Breakers in memory; the oldest is dropped. */
const MAX_BREAKERS = 10_000;

/** What a breaker protects against. */
export type BreakerScope = 'credential' | 'model' | 'permission' | 'reachability';

/** The breakers of one hop, by scope. They are computed when a breaker may be affected, because the digest takes time. */
export type BreakerKeys = () => Readonly<Record<BreakerScope, string>>;

const SCOPE_NAMES: readonly BreakerScope[] = ['credential', 'model', 'permission', 'reachability'];
const SCOPES: Readonly<Record<ClassBreaker, BreakerScope | undefined>> = {
  NONE: undefined,
  CREDENTIAL: 'credential',
  MODEL: 'model',
  CREDENTIAL_AND_MODEL: 'permission',
  REACHABILITY: 'reachability',
};

interface Breaker {
  /** When the failures since the last success happened, while it is closed. */
  failures: number[];
  /** When it becomes half-open; undefined while it is closed. */
  openUntil: number | undefined;
  /** Whether an attempt tries a half-open breaker. */
  trial: boolean;
}

/** The permission to make one attempt at a hop. One of its methods must be called when the attempt ends. */
export interface Permit {
  /** Whether the attempt decides about a breaker that is not closed. */
  readonly isTrial: boolean;
  /** The hop responds. The response can still fail. */
  succeeded(): void;
  /** @param kind the breaker of the class of the failure. */
  failed(kind: ClassBreaker): void;
  /** The attempt ended without a result, for example because the caller aborted it. */
  released(): void;
}

/** Keys are compared by a digest that has no meaning outside this process. */
const secret = randomBytes(32);

/** The breakers of a hop that uses an API key. The same key of several configs has the same breaker. */
export function breakerKeys(hop: ResolutionHop, apiKey: string | undefined): BreakerKeys {
  let keys: ReturnType<BreakerKeys> | undefined;
  return () => {
    keys ??= computeKeys(hop, apiKey);
    return keys;
  };
}

function computeKeys({ base_url, model_name }: ResolutionHop, apiKey: string | undefined): ReturnType<BreakerKeys> {
  const digest = apiKey === undefined ? '' : createHmac('sha256', secret).update(apiKey).digest('base64url');
  const key = (scope: BreakerScope, ...parts: string[]) => [scope, ...parts].join('\n');
  return {
    credential: key('credential', originOf(base_url), digest),
    model: key('model', base_url, model_name),
    permission: key('permission', base_url, model_name, digest),
    reachability: key('reachability', base_url, model_name),
  };
}

/**
 * The circuit breakers of a client. A breaker is closed at first. A failure opens it, depending on its class; then its
 * hops are skipped. After a pause it is half-open: exactly one attempt tries the hop, and its result closes the breaker or
 * opens it again.
 */
export class CircuitBreakers {
  private readonly breakers = new Map<string, Breaker>();

  constructor(private readonly clock: Clock) {}

  /** The scope of the first breaker that does not permit an attempt now; undefined if all do. */
  openScope(keys: BreakerKeys): BreakerScope | undefined {
    if (this.breakers.size === 0) return undefined;
    return SCOPE_NAMES.find((scope) => {
      const breaker = this.breakers.get(keys()[scope]);
      if (breaker?.openUntil === undefined) return false;
      return breaker.trial || this.clock.now() < breaker.openUntil;
    });
  }

  /** Permits an attempt, whose result must be reported. Only an attempt without an open breaker may be permitted. */
  permit(keys: BreakerKeys): Permit {
    if (this.breakers.size === 0) return this.newPermit(keys, []);
    const trials = SCOPE_NAMES.filter((scope) => this.breakers.get(keys()[scope])?.openUntil !== undefined);
    for (const scope of trials) (this.breakers.get(keys()[scope]) as Breaker).trial = true;
    return this.newPermit(keys, trials);
  }

  /** Permits an attempt although a breaker is open, because every hop has one. */
  permitOpen(keys: BreakerKeys): Permit {
    return this.newPermit(keys, []);
  }

  private newPermit(keys: BreakerKeys, trials: readonly BreakerScope[]): Permit {
    const isForced = trials.length === 0 && this.openScope(keys) !== undefined;
    let state: 'pending' | 'succeeded' | 'ended' = 'pending';
    const end = (next: 'succeeded' | 'ended') => {
      if (state === 'pending') this.endTrials(keys, trials);
      state = next;
    };
    return {
      isTrial: trials.length > 0 || isForced,
      succeeded: () => {
        if (state !== 'pending') return;
        end('succeeded');
        this.close(keys, isForced ? SCOPE_NAMES : trials);
      },
      failed: (kind) => {
        if (state === 'ended') return;
        end('ended');
        this.fail(keys, SCOPES[kind]);
      },
      released: () => end('ended'),
    };
  }

  private endTrials(keys: BreakerKeys, trials: readonly BreakerScope[]): void {
    for (const scope of trials) {
      const breaker = this.breakers.get(keys()[scope]);
      if (breaker) breaker.trial = false;
    }
  }

  /** A success ends a row of failures. Only an attempt that tried an open breaker closes it. */
  private close(keys: BreakerKeys, tried: readonly BreakerScope[]): void {
    if (this.breakers.size === 0) return;
    for (const scope of SCOPE_NAMES)
      if (tried.includes(scope) || this.breakers.get(keys()[scope])?.openUntil === undefined)
        this.breakers.delete(keys()[scope]);
  }

  private fail(keys: BreakerKeys, scope: BreakerScope | undefined): void {
    if (scope === undefined) return;
    const breaker = this.breakers.get(keys()[scope]) ?? this.add(keys()[scope]);
    const now = this.clock.now();
    if (scope !== 'reachability') {
      breaker.openUntil = now + LONG_PAUSE_MS;
      return;
    }
    breaker.failures = [...breaker.failures.filter((at) => at > now - WINDOW_MS), now].slice(-FAILURES);
    if (breaker.openUntil !== undefined || breaker.failures.length >= FAILURES) breaker.openUntil = now + PAUSE_MS;
  }

  private add(key: string): Breaker {
    const [oldest] = this.breakers.keys();
    if (oldest !== undefined && this.breakers.size >= MAX_BREAKERS) this.breakers.delete(oldest);
    const breaker: Breaker = { failures: [], openUntil: undefined, trial: false };
    this.breakers.set(key, breaker);
    return breaker;
  }
}
