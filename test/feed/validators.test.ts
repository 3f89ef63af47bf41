import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { packageFile } from '../../src/package.js';
import type { ChangedItem, GroundTruth } from './ground_truth.js';
import type { Event, History, Item, Stream, Watched } from './history.js';
import { type Sentence, sentences, validate, violationsOf } from './validators.js';

/*
 * Negative controls of the validators that all watch tests rely on: a valid history is corrupted in one place, and the
 * validator of the violated guarantee must report it.
 */

const agent = (id: number, value: string): ChangedItem => ({
  key: `agent ${id}`,
  value,
  agent: { id, name: `a${id}` },
});
const provider = (value: string): ChangedItem => ({ key: 'provider openai', value, agent: undefined });
const missing: Item = { key: 'none a3', value: '' };

/** Two agents of which `a1` is watched, and the catalogue; revision 4 changes agent 1 and the catalogue. */
const truth: GroundTruth = {
  head: 6,
  revisions: new Map([
    [1, [agent(1, 'v1'), agent(2, 'w1')]],
    [2, [agent(2, 'w2')]],
    [3, [agent(1, 'v3')]],
    [4, [agent(1, 'v4'), provider('p4')]],
    [5, [agent(2, 'w5')]],
    [6, [agent(1, 'v6')]],
  ]),
  at: (revision: number, _: Watched) => [
    { key: 'agent 1', value: revision < 3 ? 'v1' : revision === 3 ? 'v3' : revision < 6 ? 'v4' : 'v6' },
    ...(revision < 4 ? [] : [{ key: 'provider openai', value: 'p4' }]),
    missing,
  ],
};

const itemOf = ({ key, value }: ChangedItem): Item => ({ key, value });
const event = (kind: Event['kind'], revision: number, complete: boolean, ...items: ChangedItem[]): Event => ({
  kind,
  revision,
  complete,
  items: items.map(itemOf),
});
const started = (revision: number, resumed: boolean): Event => ({ ...event('started', revision, false), resumed });
const changes = (revision: number, ...items: ChangedItem[]) => event('changes', revision, true, ...items);
const part = (revision: number, ...items: ChangedItem[]) => event('changes', revision, false, ...items);
const bookmark = (revision: number) => event('bookmark', revision, true);

const newStream: readonly Event[] = [
  started(2, false),
  event('begin', 2, false),
  { ...event('snapshot', 2, false, agent(1, 'v1')), items: [{ key: 'agent 1', value: 'v1' }, missing] },
  event('end', 2, true),
  changes(3, agent(1, 'v3')),
  part(4, provider('p4')),
  changes(4, agent(1, 'v4')),
  bookmark(5),
  // The stream breaks here, and the next one resumes after 5.
];
const resumed: readonly Event[] = [started(6, true), bookmark(5), changes(6, agent(1, 'v6')), bookmark(6)];

const historyOf = (...streams: Stream[]): History => ({
  writes: [{ revision: 3, key: 'agent 1' }],
  clients: [{ name: 'client', watched: { names: ['a1', 'a3'] }, streams }],
});
const valid = historyOf({ resumedAt: undefined, events: newStream }, { resumedAt: 5, events: resumed });
const withFirst = (events: readonly Event[]) => historyOf({ resumedAt: undefined, events });
const withSecond = (events: readonly Event[], resumedAt = 5) => historyOf({ resumedAt, events });
const swap = (at: number) => newStream.with(at, newStream[at + 1] as Event).with(at + 1, newStream[at] as Event);

const ORDERED = 'Ordered: changes are delivered in the order of their revisions';
const UNIQUE = 'Unique: a change is never delivered twice on a stream, nor again on a stream that resumes it';
const RELIABLE = 'Reliable: every change to a watched resource is delivered';
const ATOMIC =
  'Atomic: a client that applies the changes of a revision when the last message of that revision has arrived never holds a part of a revision';
const RESUMABLE = 'Resumable: a broken stream can be continued, on any replica, from its last resume token';
const BOOKMARKABLE =
  'Bookmarkable: a bookmark at revision R guarantees that everything up to R has been delivered on this stream';
const MATERIAL = 'Delivered material is the state at its revision';
const ACKNOWLEDGED = 'No acknowledged write is lost';

const corrupted: readonly [Sentence, string, History][] = [
  [ORDERED, 'two revisions are swapped', withFirst(swap(4))],
  [ORDERED, 'a change is older than the snapshot', withFirst([...newStream.slice(0, 4), changes(1, agent(1, 'v1'))])],
  [ORDERED, 'a bookmark has a lower revision than the one before', withSecond([...resumed, bookmark(5)])],
  [UNIQUE, 'a change arrives twice', withFirst([...newStream.slice(0, 5), ...newStream.slice(4)])],
  [
    UNIQUE,
    'a change arrives again after the stream was resumed',
    withSecond([started(5, true), changes(4, agent(1, 'v4'), provider('p4'))]),
  ],
  [UNIQUE, 'the revision of the token arrives again', withSecond([started(5, true), changes(5), ...resumed.slice(1)])],
  [UNIQUE, 'a change of the snapshot arrives again', withFirst([...newStream.slice(0, 4), changes(2, agent(2, 'w2'))])],
  [
    UNIQUE,
    'an item arrives twice in a revision',
    withSecond([...resumed.slice(0, 2), changes(6, agent(1, 'v6'), agent(1, 'v6'))]),
  ],
  [RELIABLE, 'a change is missing', withFirst(newStream.toSpliced(4, 1))],
  [RELIABLE, 'the last change before a bookmark is missing', withSecond(resumed.toSpliced(2, 1))],
  [RELIABLE, 'all parts of a revision are missing', withFirst(newStream.toSpliced(5, 2))],
  [RELIABLE, 'changes between the token and the stream are missing', withSecond(resumed.with(0, started(2, true)), 2)],
  [ATOMIC, 'a part of a revision is missing', withFirst(newStream.toSpliced(5, 1))],
  [
    ATOMIC,
    'another revision arrives between the parts of a revision',
    withFirst(newStream.toSpliced(6, 0, changes(5))),
  ],
  [ATOMIC, 'a bookmark arrives between the parts of a revision', withFirst(newStream.toSpliced(6, 0, bookmark(3)))],
  [ATOMIC, 'the first part of a revision has the token', withFirst(newStream.with(5, changes(4, provider('p4'))))],
  [
    RESUMABLE,
    'a snapshot arrives instead of the missed changes',
    withSecond([started(6, false), event('begin', 6, false), event('end', 6, true)]),
  ],
  [
    RESUMABLE,
    'the stream resumes on a replica below the revision of the token',
    withSecond([started(4, true), bookmark(5)]),
  ],
  [RESUMABLE, 'the started message is missing', withSecond(resumed.slice(1))],
  [RESUMABLE, 'a stream without a token is resumed', withFirst([started(5, true), bookmark(5)])],
  [
    BOOKMARKABLE,
    'a bookmark arrives before a change that it covers',
    withSecond([started(5, true), bookmark(6), changes(6, agent(1, 'v6'))]),
  ],
  [BOOKMARKABLE, 'a bookmark covers a change that never arrives', withSecond([started(5, true), bookmark(6)])],
  [BOOKMARKABLE, 'a bookmark has no token', withSecond(resumed.with(3, { ...bookmark(6), complete: false }))],
  [MATERIAL, 'a change has the previous material', withFirst(newStream.with(4, changes(3, agent(1, 'v1'))))],
  [
    MATERIAL,
    'a change contains an item that its revision did not change',
    withFirst(newStream.with(4, changes(3, agent(1, 'v3'), provider('p4')))),
  ],
  [
    MATERIAL,
    'a change is of an unknown agent',
    withFirst(newStream.with(4, changes(3, agent(1, 'v3'), agent(9, 'v')))),
  ],
  [MATERIAL, 'a change was never written', withSecond([...resumed, changes(7, agent(1, 'v7'))])],
  [MATERIAL, 'a change of another agent arrives', withFirst([...newStream.slice(0, 7), changes(5, agent(2, 'w5'))])],
  [MATERIAL, 'a snapshot lacks an item', withFirst(newStream.with(2, event('snapshot', 2, false, agent(1, 'v1'))))],
  [
    MATERIAL,
    'a snapshot is newer than its revision',
    withFirst(newStream.with(2, event('snapshot', 2, false, agent(1, 'v3')))),
  ],
  [
    MATERIAL,
    'a snapshot contains an agent that is not watched',
    withFirst(
      newStream.with(2, {
        ...(newStream[2] as Event),
        items: [...(newStream[2] as Event).items, itemOf(agent(2, 'w2'))],
      }),
    ),
  ],
  [ACKNOWLEDGED, 'a write has no log entry', { ...valid, writes: [{ revision: 7, key: 'agent 1' }] }],
  [
    ACKNOWLEDGED,
    'the revision of a write contains another write',
    { ...valid, writes: [{ revision: 5, key: 'agent 1' }] },
  ],
];

describe('the watch validators', () => {
  it('report nothing for a valid history', () => {
    expect(() => validate(valid, truth)).not.toThrow();
    for (const sentence of sentences) expect(violationsOf(sentence, valid, truth)).toEqual([]);
  });

  it('report nothing when a stream ends after any message', () => {
    for (let length = 0; length <= newStream.length; length++)
      expect(() => validate(withFirst(newStream.slice(0, length)), truth), `${length}`).not.toThrow();
    for (let length = 0; length <= resumed.length; length++)
      expect(() => validate(withSecond(resumed.slice(0, length)), truth), `${length}`).not.toThrow();
  });

  it.each(corrupted)('report a violation of "%s" when %s', (sentence, _, history) => {
    expect(violationsOf(sentence, history, truth)).not.toEqual([]);
    expect(() => validate(history, truth)).toThrow(/:\n {2}/);
  });

  it('have a negative control each', () => {
    expect([...new Set(corrupted.map(([sentence]) => sentence))].sort()).toEqual([...sentences].sort());
  });

  it('contain the six guarantees of the proto comment', () => {
    const file = packageFile('proto/agentllm/v1/agent_llm_config_watch_service.proto');
    const text = readFileSync(file, 'utf8').replace(/\n\/\/ +/g, ' ');
    const six = sentences.filter((sentence) => /^\w+able:|^(Ordered|Unique|Atomic):/.test(sentence));
    expect(six).toHaveLength(6);
    for (const sentence of six) expect(text).toContain(sentence);
  });
});
