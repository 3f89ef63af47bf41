import { afterEach, describe, expect, it, vi } from 'vitest';
import type { ServiceError } from '../../src/errors.js';
import { type IncomingRequest, RequestBudget } from '../../src/net/request_budget.js';

const KIB = 1024;
const budgets: RequestBudget[] = [];

afterEach(() => {
  for (const budget of budgets.splice(0)) budget.stop();
  vi.useRealTimers();
});

function budgetOf(): RequestBudget {
  const budget = new RequestBudget({
    request: 100 * KIB,
    connection: 200 * KIB,
    unfinished: 400 * KIB,
    unanswered: 150 * KIB,
  });
  budgets.push(budget);
  return budget;
}

interface Opened {
  readonly request: IncomingRequest;
  readonly errors: ServiceError[];
  complete: boolean;
}

function open(budget: RequestBudget, connection: object): Opened {
  const opened = { errors: [] as ServiceError[], complete: false };
  const request = budget.open(connection, {
    refuse: (error) => opened.errors.push(error),
    isComplete: () => opened.complete,
  });
  return Object.assign(opened, { request });
}

const isRefused = ({ errors }: Opened) => errors.length > 0;

describe('the budget of requests', () => {
  it('refuses a request that is too large', () => {
    const one = open(budgetOf(), {});
    one.request.add(101 * KIB);
    expect(one.errors.map(({ reason }) => reason)).toEqual(['TOO_MANY_REQUEST_BYTES']);
  });

  it('ends the oldest unfinished request of a connection that has too many bytes', () => {
    const budget = budgetOf();
    const here = {};
    const all = [open(budget, here), open(budget, here), open(budget, here)];
    for (const { request } of all) request.add(80 * KIB);
    expect(all.map(isRefused)).toEqual([true, false, false]);
  });

  it('ends requests of the connection with the most bytes when all have too many', () => {
    const budget = budgetOf();
    const small = open(budget, {});
    small.request.add(20 * KIB);
    const attack = Array.from({ length: 10 }, () => open(budget, {}));
    for (const { request } of attack) request.add(90 * KIB);
    expect(isRefused(small)).toBe(false);
    expect(attack.filter((one) => !isRefused(one))).toHaveLength(3);
  });

  it('counts the pieces of a request: single bytes cost more than their size', () => {
    const budget = budgetOf();
    const one = open(budget, {});
    for (let at = 0; at < 1_000; at++) one.request.add(1);
    expect(isRefused(one)).toBe(true);
  });

  it('never ends a complete request, and forgets a small one', () => {
    const budget = budgetOf();
    const here = {};
    const all = Array.from({ length: 100 }, () => {
      const one = open(budget, here);
      one.request.add(10 * KIB);
      one.complete = true;
      return one;
    });
    expect(all.filter(isRefused)).toEqual([]);
  });

  it('counts complete large requests until they are answered', () => {
    const budget = budgetOf();
    const first = open(budget, {});
    first.request.add(90 * KIB);
    budget.finish(first.request);
    const second = open(budget, {});
    second.request.add(90 * KIB);
    expect(isRefused(second)).toBe(true);
    first.request.close();
    const third = open(budget, {});
    third.request.add(90 * KIB);
    expect(isRefused(third)).toBe(false);
  });

  it('counts what a request becomes when it is decompressed', () => {
    const budget = budgetOf();
    const [one, other] = [open(budget, {}), open(budget, {})];
    expect(one.request.hold(100 * KIB)).toBe(true);
    expect(other.request.hold(100 * KIB)).toBe(false);
    one.request.close();
    expect(other.request.hold(100 * KIB)).toBe(true);
  });

  it('ends a request that does not arrive in time', () => {
    vi.useFakeTimers();
    const budget = budgetOf();
    const slow = open(budget, {});
    const done = open(budget, {});
    done.complete = true;
    vi.advanceTimersByTime(29_000);
    expect(isRefused(slow)).toBe(false);
    vi.advanceTimersByTime(3_000);
    expect(slow.errors.map(({ reason }) => reason)).toEqual(['DEADLINE_EXCEEDED']);
    expect(isRefused(done)).toBe(false);
  });
});
