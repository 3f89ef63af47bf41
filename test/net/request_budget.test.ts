import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { ServiceError } from '../../src/errors.js';
import { type IncomingRequest, RequestBudget } from '../../src/net/request_budget.js';

const KIB = 1024;
const budgets: RequestBudget[] = [];

afterEach(() => {
  for (const budget of budgets.splice(0)) budget.stop();
  vi.useRealTimers();
});

function createBudget(): RequestBudget {
  const budget = new RequestBudget({
    request: 100 * KIB,
    connection: 200 * KIB,
    unfinished: 400 * KIB,
    inProgress: 150 * KIB,
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

const isRejected = ({ errors }: Opened) => errors.length > 0;

describe('RequestBudget', () => {
  it('rejects a request that is too large', () => {
    const one = open(createBudget(), {});
    one.request.add(101 * KIB);
    expect(one.errors.map(({ reason }) => reason)).toEqual(['REQUEST_TOO_LARGE']);
  });

  it('creates no error for a request within the limits', () => {
    const create = vi.spyOn(ServiceError, 'of');
    onTestFinished(() => create.mockRestore());
    const budget = createBudget();
    const one = open(budget, {});
    for (let chunk = 0; chunk < 10; chunk++) one.request.add(KIB);
    one.complete = true;
    budget.finish(one.request);
    one.request.close();
    expect(create).not.toHaveBeenCalled();
    open(budget, {}).request.add(101 * KIB);
    expect(create).toHaveBeenCalledTimes(1);
  });

  it('ends the oldest unfinished request of a connection that has too many bytes', () => {
    const budget = createBudget();
    const connection = {};
    const all = [open(budget, connection), open(budget, connection), open(budget, connection)];
    for (const { request } of all) request.add(80 * KIB);
    expect(all.map(isRejected)).toEqual([true, false, false]);
  });

  it('ends requests of the connections with the most bytes when the total is too large', () => {
    const budget = createBudget();
    const small = open(budget, {});
    small.request.add(20 * KIB);
    const attack = Array.from({ length: 10 }, () => open(budget, {}));
    for (const { request } of attack) request.add(90 * KIB);
    expect(isRejected(small)).toBe(false);
    expect(attack.filter((one) => !isRejected(one))).toHaveLength(3);
  });

  it('ends none of many small requests that begin at the same time', () => {
    const budget = createBudget();
    const all = Array.from({ length: 300 }, () => open(budget, {}));
    for (const { request } of all) request.add(100);
    expect(all.filter(isRejected)).toEqual([]);
  });

  it('ends large requests first when many small ones begin at the same time', () => {
    const budget = createBudget();
    const connection = {};
    const small = Array.from({ length: 45 }, () => open(budget, connection));
    const large = Array.from({ length: 4 }, () => open(budget, {}));
    for (const { request } of large) request.add(90 * KIB);
    expect(small.filter(isRejected)).toEqual([]);
    expect(large.filter(isRejected)).toHaveLength(2);
  });

  it('ends small requests when they exceed four times the limit', () => {
    const budget = createBudget();
    const all = Array.from({ length: 500 }, () => open(budget, {}));
    expect(all.filter((one) => !isRejected(one))).toHaveLength(400);
  });

  it('ends small requests that exceed the limit when they are not complete after 5 s', () => {
    vi.useFakeTimers();
    const budget = createBudget();
    const all = Array.from({ length: 300 }, () => open(budget, {}));
    vi.advanceTimersByTime(4_000);
    expect(all.filter(isRejected)).toEqual([]);
    vi.advanceTimersByTime(2_100);
    expect(all.filter((one) => !isRejected(one))).toHaveLength(100);
  });

  it('counts an overhead for each piece of a request', () => {
    const budget = createBudget();
    const one = open(budget, {});
    for (let at = 0; at < 1_000; at++) one.request.add(1);
    expect(isRejected(one)).toBe(true);
  });

  it('does not end complete requests and does not count small ones', () => {
    const budget = createBudget();
    const connection = {};
    const all = Array.from({ length: 100 }, () => {
      const one = open(budget, connection);
      one.request.add(10 * KIB);
      one.complete = true;
      return one;
    });
    expect(all.filter(isRejected)).toEqual([]);
  });

  it('counts a large complete request until its response is sent', () => {
    const budget = createBudget();
    const first = open(budget, {});
    first.request.add(90 * KIB);
    budget.finish(first.request);
    const second = open(budget, {});
    second.request.add(90 * KIB);
    expect(isRejected(second)).toBe(true);
    first.request.close();
    const third = open(budget, {});
    third.request.add(90 * KIB);
    expect(isRejected(third)).toBe(false);
  });

  it('counts the decompressed size of a request', () => {
    const budget = createBudget();
    const [one, other] = [open(budget, {}), open(budget, {})];
    one.request.hold(100 * KIB);
    const hold = () => other.request.hold(100 * KIB);
    expect(hold).toThrow(expect.objectContaining({ reason: 'TOO_MANY_REQUEST_BYTES' }));
    one.request.close();
    expect(hold).not.toThrow();
  });

  it('ends a request that does not arrive within 30 s', () => {
    vi.useFakeTimers();
    const budget = createBudget();
    const slow = open(budget, {});
    const done = open(budget, {});
    done.complete = true;
    vi.advanceTimersByTime(29_000);
    expect(isRejected(slow)).toBe(false);
    vi.advanceTimersByTime(3_000);
    expect(slow.errors.map(({ reason }) => reason)).toEqual(['DEADLINE_EXCEEDED']);
    expect(isRejected(done)).toBe(false);
  });

  describe('with a stream of requests', () => {
    function openStream(budget: RequestBudget, connection: object): Opened {
      const opened = { errors: [] as ServiceError[], complete: false };
      const request = budget.openStream(connection, {
        refuse: (error) => opened.errors.push(error),
        isComplete: () => opened.complete,
      });
      return Object.assign(opened, { request });
    }

    it('counts only the messages that are not handled yet', () => {
      const budget = createBudget();
      const connection = {};
      const stream = openStream(budget, connection);
      for (let batch = 0; batch < 100; batch++) {
        stream.request.add(90 * KIB);
        stream.request.add(90 * KIB);
        stream.request.release(90 * KIB);
        stream.request.release(90 * KIB);
      }
      expect(isRejected(stream)).toBe(false);
      for (let batch = 0; batch < 3; batch++) stream.request.add(90 * KIB);
      expect(stream.errors.map(({ reason }) => reason)).toEqual(['TOO_MANY_REQUEST_BYTES']);
      // What a stream that has ended has sent does not count any more.
      const other = openStream(budget, connection);
      other.request.add(180 * KIB);
      expect(isRejected(other)).toBe(false);
    });

    it('counts the rest when one of several messages is handled, and the decompressed size of each', () => {
      const budget = createBudget();
      const stream = openStream(budget, {});
      stream.request.add(90 * KIB);
      stream.request.hold(140 * KIB);
      stream.request.add(90 * KIB);
      const other = open(budget, {});
      const hold = () => other.request.hold(100 * KIB);
      expect(hold).toThrow(expect.objectContaining({ reason: 'TOO_MANY_REQUEST_BYTES' }));
      stream.request.release(90 * KIB);
      expect(hold).not.toThrow();
      stream.request.add(150 * KIB);
      expect(isRejected(stream)).toBe(true);
    });

    it('does not end a quiet stream, and ends one with a message that is not handled for 30 s', () => {
      vi.useFakeTimers();
      const budget = createBudget();
      const [quiet, stuck] = [openStream(budget, {}), openStream(budget, {})];
      for (const { request } of [quiet, stuck]) request.add(KIB);
      quiet.request.release(KIB);
      vi.advanceTimersByTime(29_000);
      expect(isRejected(stuck)).toBe(false);
      vi.advanceTimersByTime(60_000);
      expect(stuck.errors.map(({ reason }) => reason)).toEqual(['DEADLINE_EXCEEDED']);
      expect(isRejected(quiet)).toBe(false);
      // A message after a long pause begins anew.
      quiet.request.add(KIB);
      vi.advanceTimersByTime(10_000);
      expect(isRejected(quiet)).toBe(false);
    });
  });
});
