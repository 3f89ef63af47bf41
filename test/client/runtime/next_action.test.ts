import { describe, expect, it } from 'vitest';
import type { ErrorClass } from '../../../gen/ts/agentllm/v1/receipt.js';
import { AttemptFailure } from '../../../src/client/runtime/attempt_failure.js';
import { type FailedAttempt, nextAction } from '../../../src/client/runtime/next_action.js';

type Facts = ConstructorParameters<typeof AttemptFailure>[2];

const failed = (name: string, facts: Facts = {}, more: Partial<FailedAttempt> = {}): FailedAttempt => ({
  failure: new AttemptFailure(`ERROR_CLASS_${name}` as ErrorClass, 'test', facts),
  hasNext: true,
  hasLarger: true,
  mayRetry: true,
  retries: 0,
  omittable: undefined,
  leftMs: 60_000,
  attemptsLeft: 5,
  contentPolicyFallback: false,
  random: () => 0.5,
  ...more,
});
const actionOf = (...input: Parameters<typeof failed>) =>
  nextAction(failed(...input)).action.replace('ATTEMPT_ACTION_', '');

describe('nextAction', () => {
  it.each([
    ['RATE_LIMIT', 'RETRY', 'RETRY'],
    ['QUOTA', 'NEXT_HOP', 'STOP'],
    ['AUTH', 'NEXT_HOP', 'STOP'],
    ['PERMISSION', 'NEXT_HOP', 'STOP'],
    ['MODEL_NOT_FOUND', 'NEXT_HOP', 'STOP'],
    ['OVERLOADED', 'RETRY', 'RETRY'],
    ['SERVER', 'RETRY', 'RETRY'],
    ['NETWORK', 'RETRY', 'RETRY'],
    ['TIMEOUT', 'NEXT_HOP', 'STOP'],
    ['TORN', 'RETRY', 'RETRY'],
    ['CONTEXT_OVERFLOW', 'LARGER_CONTEXT', 'STOP'],
    ['INVALID_PARAM', 'STOP', 'STOP'],
    ['INVALID_REQUEST', 'STOP', 'STOP'],
    ['CONTENT_POLICY', 'STOP', 'STOP'],
    ['CANCELLED', 'STOP', 'STOP'],
  ])('after %s is %s, and %s at the last hop', (name, action, atLast) => {
    expect(actionOf(name)).toBe(action);
    expect(actionOf(name, {}, { hasNext: false, hasLarger: false })).toBe(atLast);
  });

  it('retries a hop once while another one can be tried, and the last one twice', () => {
    expect(actionOf('SERVER', {}, { retries: 1 })).toBe('NEXT_HOP');
    expect(actionOf('SERVER', {}, { retries: 1, hasNext: false })).toBe('RETRY');
    expect(actionOf('SERVER', {}, { retries: 2, hasNext: false })).toBe('STOP');
  });

  it('moves on after a failure within a response of status 200, and retries at the last hop', () => {
    expect(actionOf('RATE_LIMIT', { status: 200 })).toBe('NEXT_HOP');
    expect(actionOf('TORN', { status: 200 }, { hasNext: false })).toBe('RETRY');
    expect(actionOf('TORN', { status: 200, permanent: true }, { hasNext: false })).toBe('STOP');
  });

  it('moves on when a circuit breaker does not permit a retry', () => {
    expect(actionOf('SERVER', {}, { mayRetry: false })).toBe('NEXT_HOP');
  });

  it('waits for Retry-After while it fits into the deadline, and moves on otherwise', () => {
    expect(nextAction(failed('RATE_LIMIT', { retryAfterMs: 2000 }))).toEqual({
      action: 'ATTEMPT_ACTION_RETRY',
      backoffMs: 2100,
    });
    expect(actionOf('RATE_LIMIT', { retryAfterMs: 600_000 })).toBe('NEXT_HOP');
    expect(actionOf('RATE_LIMIT', { retryAfterMs: 600_000 }, { hasNext: false })).toBe('STOP');
  });

  it('strips a parameter that can be omitted', () => {
    expect(nextAction(failed('INVALID_PARAM', {}, { omittable: 'top_p' }))).toEqual({
      action: 'ATTEMPT_ACTION_STRIP',
      omit: 'top_p',
    });
  });

  it('moves on after a content policy error only if the caller opted in', () => {
    expect(actionOf('CONTENT_POLICY', {}, { contentPolicyFallback: true })).toBe('NEXT_HOP');
    expect(actionOf('INVALID_REQUEST', {}, { contentPolicyFallback: true })).toBe('STOP');
  });

  it('stops when no time and no attempt is left', () => {
    expect(actionOf('SERVER', {}, { leftMs: 0 })).toBe('STOP');
    expect(actionOf('AUTH', {}, { attemptsLeft: 0 })).toBe('STOP');
  });
});
