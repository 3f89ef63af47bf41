import type { AttemptFailure } from './attempt_failure.js';
import { ruleOfClass } from './error_class.js';
import { retryDelay } from './retry_delay.js';

/** Retries of one hop while another one can be tried, and of the last one. */
const RETRIES = 1;
const LAST_HOP_RETRIES = 2;

/** What the chain does after a failed attempt. */
export type NextAction =
  | { readonly action: 'ATTEMPT_ACTION_RETRY'; readonly backoffMs: number }
  | { readonly action: 'ATTEMPT_ACTION_STRIP'; readonly omit: string }
  | { readonly action: 'ATTEMPT_ACTION_NEXT_HOP' | 'ATTEMPT_ACTION_LARGER_CONTEXT' | 'ATTEMPT_ACTION_STOP' };

/** A failed attempt, and what is left of the call. */
export interface FailedAttempt {
  readonly failure: AttemptFailure;
  /** Whether another hop may be tried, and whether one may have a larger context window. */
  readonly hasNext: boolean;
  readonly hasLarger: boolean;
  /** Whether the circuit breakers permit another attempt at this hop. */
  readonly mayRetry: boolean;
  /** Retries of this hop so far. */
  readonly retries: number;
  /** The rejected parameter, by its name in the body; undefined if it cannot be omitted or one was omitted before. */
  readonly omittable: string | undefined;
  /** The rest of the deadline in ms, and of the attempts. */
  readonly leftMs: number;
  readonly attemptsLeft: number;
  readonly contentPolicyFallback: boolean;
  readonly random: () => number;
}

/** The action after a failed attempt: that of its error class, as far as the rest of the call permits it. */
export function nextAction(failed: FailedAttempt): NextAction {
  const { failure, hasNext, hasLarger, omittable, leftMs, attemptsLeft, contentPolicyFallback } = failed;
  const stop = { action: 'ATTEMPT_ACTION_STOP' } as const;
  const moveOn = hasNext ? ({ action: 'ATTEMPT_ACTION_NEXT_HOP' } as const) : stop;
  if (leftMs <= 0 || attemptsLeft <= 0) return stop;
  switch (ruleOfClass(failure.errorClass).action) {
    case 'RETRY':
      return retry(failed) ?? moveOn;
    case 'NEXT_HOP':
      return moveOn;
    case 'LARGER_CONTEXT':
      return hasLarger ? { action: 'ATTEMPT_ACTION_LARGER_CONTEXT' } : stop;
    case 'STRIP':
      return omittable === undefined ? stop : { action: 'ATTEMPT_ACTION_STRIP', omit: omittable };
    default:
      return failure.errorClass === 'ERROR_CLASS_CONTENT_POLICY' && contentPolicyFallback ? moveOn : stop;
  }
}

/**
 * A retry of the same hop, or undefined if the chain moves on. A failure within a response of status 200 moves on if it
 * can: the provider had accepted the request, and may bill a second one too.
 */
function retry({ failure, hasNext, mayRetry, retries, leftMs, random }: FailedAttempt): NextAction | undefined {
  const { permanent, retryAfterMs } = failure.facts;
  if (permanent || !mayRetry || (failure.inResponse && hasNext)) return undefined;
  if (retries >= (hasNext ? RETRIES : LAST_HOP_RETRIES)) return undefined;
  const backoffMs = retryDelay(retries, retryAfterMs, random);
  return backoffMs < leftMs ? { action: 'ATTEMPT_ACTION_RETRY', backoffMs } : undefined;
}
