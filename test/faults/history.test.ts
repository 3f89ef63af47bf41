import { describe, expect, it } from 'vitest';
import { type Attempt, type History, type Image, promises, validate } from './history.js';

/*
 * Negative controls: the validators that all fault tests rely on find a promise broken when it is. Each doctored
 * history breaks one promise, and that is the one that is named.
 */

const acknowledged = (revision: number, at: number, target = 'a'): Attempt => ({
  target,
  from: at,
  to: at + 1,
  outcome: { kind: 'acknowledged', revision, answer: `answer of ${revision}` },
});
const refused = (at: number): Attempt => ({
  target: 'a',
  from: at,
  to: at + 1,
  outcome: { kind: 'refused', error: 'no' },
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
const at = (...times: number[]) => times.map((time, index) => ({ revision: index + 1, at: time }));

/** Three writes: one acknowledged at once, one refused, one whose first answer was lost. */
const sound: { history: History; image: Image } = {
  history: {
    writes: [
      write(100, acknowledged(2, 10), acknowledged(2, 12)),
      write(101, refused(20)),
      write(102, unknown(30), acknowledged(3, 32)),
      write(103, unknown(40)),
    ],
    reads: [read(1, 1, -1, 5), read(2, 2, 100, 15), read(3, 3, 102, 35), read(1, 1, -1, 36, 'b')],
  },
  image: {
    head: 3,
    revisions: at(0, 1, 1),
    faults: [],
    entries: [entry(1, null, null), entry(2, null, 100, 'request 100'), entry(3, 100, 102, 'request 102')],
    rows: new Map([[1, 102]]),
  },
};

const { history, image } = sound;
const withWrites = (...writes: History['writes']): History => ({ ...history, writes: [...history.writes, ...writes] });
const withReads = (...reads: History['reads']): History => ({ ...history, reads: [...history.reads, ...reads] });

const doctored: readonly [keyof typeof promises, string, History, Image][] = [
  ['no acknowledged write is lost', 'a write has no entry', withWrites(write(104, acknowledged(4, 50))), image],
  ['no acknowledged write is lost', 'its revision holds another', withWrites(write(104, acknowledged(2, 9))), image],
  ['no acknowledged write is lost', 'the row is of before', history, { ...image, rows: new Map([[1, 100]]) }],
  [
    'no refused write becomes visible',
    'a refused write is in the log',
    history,
    {
      ...image,
      head: 4,
      revisions: at(0, 1, 1, 2),
      entries: [...image.entries, entry(4, 102, 101)],
      rows: new Map([[1, 101]]),
    },
  ],
  ['no refused write becomes visible', 'a refused write was read', withReads(read(3, 3, 101, 60)), image],
  [
    'revisions are dense and in commit order',
    'a number is missing',
    history,
    { ...image, revisions: at(0, 1, 1, 2).filter(({ revision }) => revision !== 1), head: 3 },
  ],
  ['revisions are dense and in commit order', 'the head is beyond the log', history, { ...image, head: 4 }],
  ['revisions are dense and in commit order', 'times run backwards', history, { ...image, revisions: at(0, 2, 1) }],
  ['revisions are dense and in commit order', 'the log has gaps', history, { ...image, faults: ['4 follows 2'] }],
  [
    'revisions are dense and in commit order',
    'a write stood on something else than what was there',
    history,
    { ...image, entries: image.entries.map((one) => (one.revision === 3 ? { ...one, before: 99 } : one)) },
  ],
  [
    'revisions are dense and in commit order',
    'a later write has the smaller number',
    { ...history, writes: [write(102, acknowledged(3, 10)), write(100, acknowledged(2, 20))], reads: [] },
    image,
  ],
  [
    'one request_id makes one write',
    'a retry was written again',
    history,
    {
      ...image,
      head: 4,
      revisions: at(0, 1, 1, 2),
      entries: [...image.entries, entry(4, 102, 102, 'request 102')],
    },
  ],
  [
    'one request_id makes one write',
    'a retry got another answer',
    {
      ...history,
      writes: history.writes.map((one) =>
        one.value === 100
          ? write(100, acknowledged(2, 10), {
              ...acknowledged(2, 12),
              outcome: { kind: 'acknowledged', revision: 2, answer: 'another' },
            })
          : one,
      ),
    },
    image,
  ],
  [
    'a caller on one replica reads its own writes',
    'a read is older than an answer',
    withReads(read(2, 2, 100, 60)),
    image,
  ],
  [
    'a caller on one replica reads its own writes',
    'a read is older than a read',
    withReads(read(3, 3, 102, 60, 'c'), read(2, 2, 100, 70, 'c')),
    image,
  ],
  [
    'a read shows the configuration as it stood at its revision',
    'a read is of a write that never was',
    withReads(read(3, 3, 103, 60)),
    image,
  ],
];

describe('the validators', () => {
  it('have nothing to say of a history in which every promise was kept', () => {
    expect(() => validate(history, image)).not.toThrow();
  });

  it.each(doctored)('tell "%s" when %s', (promise, _, broken, stored) => {
    expect(() => validate(broken, stored)).toThrow(promise);
    expect(promises[promise](broken, stored)).not.toEqual([]);
  });

  it('have a negative control each', () => {
    expect([...new Set(doctored.map(([promise]) => promise))].sort()).toEqual(Object.keys(promises).sort());
  });
});
