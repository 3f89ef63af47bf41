import { describe, expect, it } from 'vitest';
import { type Attempt, type History, type Image, promises, validate } from './history.js';

/*
 * Negative controls of the validators that all fault tests rely on: each corrupted history breaks one promise, and the
 * validator of that promise must report it.
 */

const acknowledged = (revision: number, at: number, target = 'a'): Attempt => ({
  target,
  from: at,
  to: at + 1,
  outcome: { kind: 'acknowledged', revision, response: `response of ${revision}` },
});
const rejected = (at: number): Attempt => ({
  target: 'a',
  from: at,
  to: at + 1,
  outcome: { kind: 'rejected', error: 'no' },
});
const unknown = (at: number): Attempt => ({
  target: 'a',
  from: at,
  to: at + 1,
  outcome: { kind: 'unknown', error: '?' },
});
const write = (value: number, ...attempts: Attempt[]) => ({
  client: 'client 0',
  requestId: `request ${value}`,
  config: 1,
  value,
  attempts,
});
const read = (revision: number, configRevision: number, value: number, at: number, target = 'a') => ({
  client: 'client 0',
  target,
  from: at,
  to: at + 1,
  config: 1,
  seen: { revision, configRevision, value },
});
const entry = (revision: number, before: number | null, after: number | null, requestId: string | null = null) => ({
  revision,
  config: 1,
  before,
  after,
  requestId,
});
const revisionsAt = (...times: number[]) => times.map((time, index) => ({ revision: index + 1, at: time }));

/** Four writes: acknowledged and retried, rejected, retried after a lost response, and of unknown outcome. */
const valid: { history: History; image: Image } = {
  history: {
    writes: [
      write(100, acknowledged(2, 10), acknowledged(2, 12)),
      write(101, rejected(20)),
      write(102, unknown(30), acknowledged(3, 32)),
      write(103, unknown(40)),
    ],
    reads: [read(1, 1, -1, 5), read(2, 2, 100, 15), read(3, 3, 102, 35), read(1, 1, -1, 36, 'b')],
  },
  image: {
    head: 3,
    revisions: revisionsAt(0, 1, 1),
    faults: [],
    entries: [entry(1, null, null), entry(2, null, 100, 'request 100'), entry(3, 100, 102, 'request 102')],
    rows: new Map([[1, 102]]),
  },
};

const { history, image } = valid;
const withWrites = (...writes: History['writes']): History => ({ ...history, writes: [...history.writes, ...writes] });
const withReads = (...reads: History['reads']): History => ({ ...history, reads: [...history.reads, ...reads] });

const corrupted: readonly [keyof typeof promises, string, History, Image][] = [
  ['No acknowledged write is lost', 'a write has no log entry', withWrites(write(104, acknowledged(4, 50))), image],
  [
    'No acknowledged write is lost',
    'its revision contains another write',
    withWrites(write(104, acknowledged(2, 9))),
    image,
  ],
  ['No acknowledged write is lost', 'the row has the previous value', history, { ...image, rows: new Map([[1, 100]]) }],
  [
    'No rejected write becomes visible',
    'a rejected write is in the log',
    history,
    {
      ...image,
      head: 4,
      revisions: revisionsAt(0, 1, 1, 2),
      entries: [...image.entries, entry(4, 102, 101)],
      rows: new Map([[1, 101]]),
    },
  ],
  ['No rejected write becomes visible', 'a rejected write was read', withReads(read(3, 3, 101, 60)), image],
  [
    'Revisions are gapless and in commit order',
    'a revision is missing',
    history,
    { ...image, revisions: revisionsAt(0, 1, 1, 2).filter(({ revision }) => revision !== 1), head: 3 },
  ],
  ['Revisions are gapless and in commit order', 'the head is beyond the log', history, { ...image, head: 4 }],
  [
    'Revisions are gapless and in commit order',
    'a revision is older than the one before',
    history,
    { ...image, revisions: revisionsAt(0, 2, 1) },
  ],
  ['Revisions are gapless and in commit order', 'the log has gaps', history, { ...image, faults: ['4 follows 2'] }],
  [
    'Revisions are gapless and in commit order',
    'the previous value of a write is not the value of the write before',
    history,
    { ...image, entries: image.entries.map((one) => (one.revision === 3 ? { ...one, before: 99 } : one)) },
  ],
  [
    'Revisions are gapless and in commit order',
    'a later write has the lower revision',
    { ...history, writes: [write(102, acknowledged(3, 10)), write(100, acknowledged(2, 20))], reads: [] },
    image,
  ],
  [
    'One request_id causes one write',
    'a retry was executed again',
    history,
    {
      ...image,
      head: 4,
      revisions: revisionsAt(0, 1, 1, 2),
      entries: [...image.entries, entry(4, 102, 102, 'request 102')],
    },
  ],
  [
    'One request_id causes one write',
    'a retry returned another response',
    {
      ...history,
      writes: history.writes.map((one) =>
        one.value === 100
          ? write(100, acknowledged(2, 10), {
              ...acknowledged(2, 12),
              outcome: { kind: 'acknowledged', revision: 2, response: 'another' },
            })
          : one,
      ),
    },
    image,
  ],
  [
    'A caller on one replica reads its own writes',
    'a read is older than the response to a write',
    withReads(read(2, 2, 100, 60)),
    image,
  ],
  [
    'A caller on one replica reads its own writes',
    'a read is older than an earlier read',
    withReads(read(3, 3, 102, 60, 'c'), read(2, 2, 100, 70, 'c')),
    image,
  ],
  [
    'A read returns the configuration at its revision',
    'a read returns a value that was never written',
    withReads(read(3, 3, 103, 60)),
    image,
  ],
];

describe('the history validators', () => {
  it('report nothing for a history in which every promise was kept', () => {
    expect(() => validate(history, image)).not.toThrow();
  });

  it.each(corrupted)('report a violation of "%s" when %s', (promise, _, broken, stored) => {
    expect(() => validate(broken, stored)).toThrow(promise);
    expect(promises[promise](broken, stored)).not.toEqual([]);
  });

  it('have a negative control each', () => {
    expect([...new Set(corrupted.map(([promise]) => promise))].sort()).toEqual(Object.keys(promises).sort());
  });
});
