import { describe, expect, it } from 'vitest';
import { type BreakerKeys, breakerKeys, CircuitBreakers } from '../../../src/client/runtime/circuit_breaker.js';
import { chainAgent, ShiftedClock } from './support.js';

const hopAt = (url: string, model: string) => {
  const [hop] = chainAgent({ url, model }).resolve().hops;
  if (!hop) throw new Error('no hop');
  return hop;
};
const KEYS = breakerKeys(hopAt('https://llm.example.com/v1', 'm'), 'sk-1');

function breakers() {
  const clock = new ShiftedClock();
  const all = new CircuitBreakers(clock);
  const failTimes = (count: number, keys: BreakerKeys = KEYS) => {
    for (let at = 0; at < count; at++) all.permit(keys).failed('REACHABILITY');
  };
  return { all, clock, failTimes };
}

describe('breakerKeys', () => {
  const a = breakerKeys(hopAt('https://a.example.com/v1', 'm'), 'sk-1')();

  it('share the credential of the same key and origin between models, and nothing between origins', () => {
    const model = breakerKeys(hopAt('https://a.example.com/v1', 'other'), 'sk-1')();
    expect(model.credential).toBe(a.credential);
    expect(model.reachability).not.toBe(a.reachability);
    const origin = breakerKeys(hopAt('https://b.example.com/v1', 'm'), 'sk-1')();
    expect(Object.values(origin).filter((key) => Object.values(a).includes(key))).toEqual([]);
  });

  it('differ for another key, and do not contain the key', () => {
    const other = breakerKeys(hopAt('https://a.example.com/v1', 'm'), 'sk-2')();
    expect(other.credential).not.toBe(a.credential);
    expect(other.model).toBe(a.model);
    expect(JSON.stringify(a)).not.toContain('sk-1');
  });
});

describe('CircuitBreakers', () => {
  it.each([
    ['CREDENTIAL', 'credential'],
    ['MODEL', 'model'],
    ['CREDENTIAL_AND_MODEL', 'permission'],
  ] as const)('open %s at the first failure, for five minutes', (kind, scope) => {
    const { all, clock } = breakers();
    all.permit(KEYS).failed(kind);
    expect(all.openScope(KEYS)).toBe(scope);
    clock.advance(299_000);
    expect(all.openScope(KEYS)).toBe(scope);
    clock.advance(2_000);
    expect(all.openScope(KEYS)).toBeUndefined();
  });

  it('open the reachability after five failures in a row within 30 s', () => {
    const { all, clock, failTimes } = breakers();
    failTimes(4);
    all.permit(KEYS).succeeded();
    failTimes(4);
    clock.advance(31_000);
    failTimes(4);
    expect(all.openScope(KEYS)).toBeUndefined();
    failTimes(1);
    expect(all.openScope(KEYS)).toBe('reachability');
  });

  it('permit exactly one trial when half-open, whose success closes the breaker', () => {
    const { all, clock, failTimes } = breakers();
    failTimes(5);
    clock.advance(10_001);
    const trial = all.permit(KEYS);
    expect(trial.isTrial).toBe(true);
    expect(all.openScope(KEYS)).toBe('reachability');
    trial.succeeded();
    expect(all.openScope(KEYS)).toBeUndefined();
    failTimes(4);
    expect(all.openScope(KEYS)).toBeUndefined();
  });

  it('open again after a failed trial, for another pause', () => {
    const { all, clock, failTimes } = breakers();
    failTimes(5);
    clock.advance(10_001);
    all.permit(KEYS).failed('REACHABILITY');
    expect(all.openScope(KEYS)).toBe('reachability');
    clock.advance(10_001);
    expect(all.openScope(KEYS)).toBeUndefined();
  });

  it('stay half-open after a trial without a result, so that the next attempt is the trial', () => {
    const { all, clock, failTimes } = breakers();
    failTimes(5);
    clock.advance(10_001);
    all.permit(KEYS).released();
    const next = all.permit(KEYS);
    expect(next.isTrial).toBe(true);
    next.failed('NONE');
    expect(all.openScope(KEYS)).toBeUndefined();
    expect(all.permit(KEYS).isTrial).toBe(true);
  });

  it('are not closed by the success of an attempt that began before they opened', () => {
    const { all, failTimes } = breakers();
    const early = all.permit(KEYS);
    failTimes(5);
    early.succeeded();
    expect(all.openScope(KEYS)).toBe('reachability');
  });

  it('are closed by the success of an attempt that was made although all were open', () => {
    const { all, failTimes } = breakers();
    failTimes(5);
    const forced = all.permitOpen(KEYS);
    expect(forced.isTrial).toBe(true);
    forced.succeeded();
    expect(all.openScope(KEYS)).toBeUndefined();
  });

  it('count a failure after the first success of an attempt, and nothing after its end', () => {
    const { all, failTimes } = breakers();
    failTimes(4);
    const torn = all.permit(KEYS);
    torn.failed('REACHABILITY');
    torn.failed('CREDENTIAL');
    torn.succeeded();
    expect(all.openScope(KEYS)).toBe('reachability');
    const later = breakers();
    later.failTimes(3);
    const stalled = later.all.permit(KEYS);
    stalled.succeeded();
    stalled.failed('REACHABILITY');
    later.failTimes(3);
    expect(later.all.openScope(KEYS)).toBeUndefined();
    later.failTimes(1);
    expect(later.all.openScope(KEYS)).toBe('reachability');
  });

  it('hold a bounded number of breakers', () => {
    const { all } = breakers();
    const keysOf = (index: number) => () => ({ ...KEYS(), credential: `credential ${index}` });
    for (let index = 0; index <= 10_000; index++) all.permit(keysOf(index)).failed('CREDENTIAL');
    expect(all.openScope(keysOf(0))).toBeUndefined();
    expect(all.openScope(keysOf(10_000))).toBe('credential');
  });
});
