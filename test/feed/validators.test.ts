import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { packageFile } from '../../src/package.js';
import type { Ground, Touched } from './ground.js';
import type { Event, History, Item, Stream, Watched } from './history.js';
import { broken, type Sentence, sentences, validate } from './validators.js';

/*
 * Negative controls: each validator that all tests of the watch rely on finds its sentence broken when it is. A sound
 * history is corrupted in one place, and that sentence is named.
 */

const agent = (id: number, value: string): Touched => ({ key: `agent ${id}`, value, agent: { id, name: `a${id}` } });
const provider = (value: string): Touched => ({ key: 'provider openai', value, agent: undefined });
const missing: Item = { key: 'none a3', value: '' };

/** Two agents of which `a1` is watched, and the catalogue; revision 4 touches both agents at once. */
const ground: Ground = {
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

const plain = ({ key, value }: Touched): Item => ({ key, value });
const event = (kind: Event['kind'], revision: number, complete: boolean, ...items: Touched[]): Event => ({
  kind,
  revision,
  complete,
  items: items.map(plain),
});
const started = (revision: number, resumed: boolean): Event => ({ ...event('started', revision, false), resumed });
const changes = (revision: number, ...items: Touched[]) => event('changes', revision, true, ...items);
const part = (revision: number, ...items: Touched[]) => event('changes', revision, false, ...items);
const bookmark = (revision: number) => event('bookmark', revision, true);

const fresh: readonly Event[] = [
  started(2, false),
  event('begin', 2, false),
  { ...event('snapshot', 2, false, agent(1, 'v1')), items: [{ key: 'agent 1', value: 'v1' }, missing] },
  event('end', 2, true),
  changes(3, agent(1, 'v3')),
  part(4, provider('p4')),
  changes(4, agent(1, 'v4')),
  bookmark(5),
  // Cut off in the middle of nothing: the next stream goes on behind 5.
];
const resumed: readonly Event[] = [started(6, true), bookmark(5), changes(6, agent(1, 'v6')), bookmark(6)];

const historyOf = (...streams: Stream[]): History => ({
  writes: [{ revision: 3, key: 'agent 1' }],
  clients: [{ name: 'client', watched: { names: ['a1', 'a3'] }, streams }],
});
const sound = historyOf({ resumedAt: undefined, events: fresh }, { resumedAt: 5, events: resumed });
const first = (events: readonly Event[]) => historyOf({ resumedAt: undefined, events });
const second = (events: readonly Event[], resumedAt = 5) => historyOf({ resumedAt, events });
const swap = (at: number) => fresh.with(at, fresh[at + 1] as Event).with(at + 1, fresh[at] as Event);

const ORDERED = 'Ordered: changes are delivered in the order of their revisions';
const UNIQUE = 'Unique: a change is never delivered twice on a stream, nor again on a stream that resumes it';
const RELIABLE = 'Reliable: every change to a watched resource is delivered';
const ATOMIC =
  'Atomic: a client that applies the changes of a revision when the last message of that revision has arrived never holds a part of a revision';
const RESUMABLE = 'Resumable: a broken stream can be continued, on any replica, from its last resume token';
const BOOKMARKABLE =
  'Bookmarkable: a bookmark at revision R guarantees that everything up to R has been delivered on this stream';
const MATERIAL = 'a delivered resource is the resource at that revision';
const ACKNOWLEDGED = 'no acknowledged write is lost';

const corrupted: readonly [Sentence, string, History][] = [
  [ORDERED, 'two revisions have changed places', first(swap(4))],
  [ORDERED, 'a change is older than the snapshot', first([...fresh.slice(0, 4), changes(1, agent(1, 'v1'))])],
  [ORDERED, 'a bookmark goes back', second([...resumed, bookmark(5)])],
  [UNIQUE, 'a change comes twice', first([...fresh.slice(0, 5), ...fresh.slice(4)])],
  [
    UNIQUE,
    'a change comes again after resuming',
    second([started(5, true), changes(4, agent(1, 'v4'), provider('p4'))]),
  ],
  [UNIQUE, 'the revision of the token comes again', second([started(5, true), changes(5), ...resumed.slice(1)])],
  [UNIQUE, 'a change of the snapshot comes again', first([...fresh.slice(0, 4), changes(2, agent(2, 'w2'))])],
  [
    UNIQUE,
    'one thing comes twice in a revision',
    second([...resumed.slice(0, 2), changes(6, agent(1, 'v6'), agent(1, 'v6'))]),
  ],
  [RELIABLE, 'a change is dropped', first(fresh.toSpliced(4, 1))],
  [RELIABLE, 'the last change before a bookmark is dropped', second(resumed.toSpliced(2, 1))],
  [RELIABLE, 'a revision is dropped with all its parts', first(fresh.toSpliced(5, 2))],
  [RELIABLE, 'the gap lies between token and stream', second(resumed.with(0, started(2, true)), 2)],
  [ATOMIC, 'a part is dropped', first(fresh.toSpliced(5, 1))],
  [ATOMIC, 'a revision is split by another', first(fresh.toSpliced(6, 0, changes(5)))],
  [ATOMIC, 'a bookmark stands in the middle', first(fresh.toSpliced(6, 0, bookmark(3)))],
  [ATOMIC, 'the token stands on the first part', first(fresh.with(5, changes(4, provider('p4'))))],
  [RESUMABLE, 'a snapshot follows', second([started(6, false), event('begin', 6, false), event('end', 6, true)])],
  [RESUMABLE, 'it goes on where the revision is not known', second([started(4, true), bookmark(5)])],
  [RESUMABLE, 'nothing says that it began', second(resumed.slice(1))],
  [RESUMABLE, 'it goes on without a token', first([started(5, true), bookmark(5)])],
  [BOOKMARKABLE, 'a bookmark comes too early', second([started(5, true), bookmark(6), changes(6, agent(1, 'v6'))])],
  [BOOKMARKABLE, 'it is of what never came', second([started(5, true), bookmark(6)])],
  [BOOKMARKABLE, 'it has no token', second(resumed.with(3, { ...bookmark(6), complete: false }))],
  [MATERIAL, 'a change has the material of before', first(fresh.with(4, changes(3, agent(1, 'v1'))))],
  [MATERIAL, 'a change is of what was not touched', first(fresh.with(4, changes(3, agent(1, 'v3'), provider('p4'))))],
  [MATERIAL, 'a change is of nobody’s', first(fresh.with(4, changes(3, agent(1, 'v3'), agent(9, 'v'))))],
  [MATERIAL, 'a change was never written', second([...resumed, changes(7, agent(1, 'v7'))])],
  [MATERIAL, 'another agent’s change comes', first([...fresh.slice(0, 7), changes(5, agent(2, 'w5'))])],
  [MATERIAL, 'a snapshot lacks something', first(fresh.with(2, event('snapshot', 2, false, agent(1, 'v1'))))],
  [MATERIAL, 'a snapshot is newer than it says', first(fresh.with(2, event('snapshot', 2, false, agent(1, 'v3'))))],
  [
    MATERIAL,
    'a snapshot has what is not watched',
    first(fresh.with(2, { ...(fresh[2] as Event), items: [...(fresh[2] as Event).items, plain(agent(2, 'w2'))] })),
  ],
  [ACKNOWLEDGED, 'a write has no entry', { ...sound, writes: [{ revision: 7, key: 'agent 1' }] }],
  [ACKNOWLEDGED, 'its revision holds another', { ...sound, writes: [{ revision: 5, key: 'agent 1' }] }],
];

describe('the validators of the watch', () => {
  it('find nothing in a sound history', () => {
    expect(() => validate(sound, ground)).not.toThrow();
    for (const sentence of sentences) expect(broken(sentence, sound, ground)).toEqual([]);
  });

  it('let a stream end anywhere', () => {
    for (let length = 0; length <= fresh.length; length++)
      expect(() => validate(first(fresh.slice(0, length)), ground), `${length}`).not.toThrow();
    for (let length = 0; length <= resumed.length; length++)
      expect(() => validate(second(resumed.slice(0, length)), ground), `${length}`).not.toThrow();
  });

  it.each(corrupted)('"%s" is broken when %s', (sentence, _, history) => {
    expect(broken(sentence, history, ground)).not.toEqual([]);
    expect(() => validate(history, ground)).toThrow(/:\n {2}/);
  });

  it('each have a history that breaks them', () => {
    expect([...new Set(corrupted.map(([sentence]) => sentence))].sort()).toEqual([...sentences].sort());
  });

  it('have the six guarantees of the proto comment, word by word', () => {
    const file = packageFile('proto/agentllm/v1/agent_llm_config_watch_service.proto');
    const text = readFileSync(file, 'utf8').replace(/\n\/\/ +/g, ' ');
    const six = sentences.filter((sentence) => /^\w+able:|^(Ordered|Unique|Atomic):/.test(sentence));
    expect(six).toHaveLength(6);
    for (const sentence of six) expect(text).toContain(sentence);
  });
});
