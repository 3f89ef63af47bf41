import { concerns, type Ground } from './ground.js';
import type { ClientHistory, Event, History, Item, Stream } from './history.js';

/*
 * Validators of the six guarantees of the watch over recorded histories, as in etcd's robustness tests, and of two that
 * they depend on: no acknowledged write is lost, and a delivered resource has the content of its revision.
 */

type Find = (stream: Stream, client: ClientHistory, ground: Ground) => Iterable<string>;

/** The guarantees are those of the proto comment, word by word; a test compares them. */
const ofStreams = {
  'Ordered: changes are delivered in the order of their revisions': disorder,
  'Unique: a change is never delivered twice on a stream, nor again on a stream that resumes it': repetitions,
  'Reliable: every change to a watched resource is delivered': omissions,
  'Atomic: a client that applies the changes of a revision when the last message of that revision has arrived never holds a part of a revision':
    halves,
  'Resumable: a broken stream can be continued, on any replica, from its last resume token': badResumptions,
  'Bookmarkable: a bookmark at revision R guarantees that everything up to R has been delivered on this stream':
    badBookmarks,
  'a delivered resource is the resource at that revision': wrongMaterial,
} satisfies Record<string, Find>;

const ACKNOWLEDGED = 'no acknowledged write is lost';

export type Sentence = keyof typeof ofStreams | typeof ACKNOWLEDGED;
export const sentences: readonly Sentence[] = [...(Object.keys(ofStreams) as (keyof typeof ofStreams)[]), ACKNOWLEDGED];

/** Where a sentence was broken. */
export function broken(sentence: Sentence, { writes, clients }: History, ground: Ground): string[] {
  if (sentence === ACKNOWLEDGED)
    return writes
      .filter(({ revision, key }) => !ground.revisions.get(revision)?.some((touched) => touched.key === key))
      .map(({ revision, key }) => `${key} was acknowledged as revision ${revision}, which the log has not`);
  return clients.flatMap((client) =>
    client.streams.flatMap((stream, at) =>
      [...ofStreams[sentence](stream, client, ground)].map((what) => `${client.name}, stream ${at + 1}: ${what}`),
    ),
  );
}

/** Throws with the sentence that was broken and where; says nothing when all were kept. */
export function validate(history: History, ground: Ground): void {
  for (const sentence of sentences) {
    const where = broken(sentence, history, ground);
    if (where.length === 0) continue;
    const more = where.length > 5 ? `\n  and ${where.length - 5} more` : '';
    throw new Error(`${sentence}:\n  ${where.slice(0, 5).join('\n  ')}${more}`);
  }
}

const isNews = ({ kind }: Event) => kind === 'changes' || kind === 'bookmark';

/** Behind which revision a stream has to deliver; undefined while its snapshot is not whole. */
const startOf = ({ resumedAt, events }: Stream): number | undefined =>
  resumedAt ?? events.find(({ kind }) => kind === 'end')?.revision;

/** The revisions with something for a client behind one and up to another, with what. */
function* wanted(
  client: ClientHistory,
  ground: Ground,
  behind: number,
  upTo: number,
): Generator<[number, Set<string>]> {
  for (let revision = behind + 1; revision <= upTo; revision++) {
    const touched = (ground.revisions.get(revision) ?? []).filter((one) => concerns(client.watched, one));
    if (touched.length > 0) yield [revision, new Set(touched.map(({ key }) => key))];
  }
}

function* disorder({ events }: Stream): Generator<string> {
  let last = 0;
  for (const { kind, revision } of events) {
    if (kind === 'started') continue;
    if (revision < last) yield `${kind} of ${revision} came behind ${last}`;
    last = Math.max(last, revision);
  }
}

function* repetitions(stream: Stream): Generator<string> {
  const floor = startOf(stream) ?? Number.POSITIVE_INFINITY;
  const seen = new Set<string>();
  const closed = new Set<number>();
  for (const { kind, revision, items, complete } of stream.events) {
    if (kind !== 'changes') continue;
    if (revision <= floor) yield `changes of ${revision} came, which it had up to ${floor}`;
    if (closed.has(revision)) yield `changes of ${revision} came although it was complete`;
    for (const { key } of items) {
      if (seen.has(`${revision} ${key}`)) yield `${key} of ${revision} came twice`;
      seen.add(`${revision} ${key}`);
    }
    if (complete) closed.add(revision);
  }
}

function* omissions(stream: Stream, client: ClientHistory, ground: Ground): Generator<string> {
  const start = startOf(stream);
  if (start === undefined) return;
  const upTo = stream.events.findLast(({ complete }) => complete)?.revision ?? start;
  const came = new Set(stream.events.filter(({ kind }) => kind === 'changes').map(({ revision }) => revision));
  for (const [revision] of wanted(client, ground, start, upTo))
    if (!came.has(revision)) yield `${revision} was left out between ${start} and ${upTo}`;
}

function* halves({ events }: Stream, client: ClientHistory, ground: Ground): Generator<string> {
  let open: { revision: number; keys: Set<string> } | undefined;
  for (const { kind, revision, items, complete } of events) {
    if (open && (kind !== 'changes' || revision !== open.revision)) {
      yield `${kind} of ${revision} came in the middle of ${open.revision}`;
      open = undefined;
    }
    if (kind !== 'changes') continue;
    open ??= { revision, keys: new Set() };
    for (const { key } of items) open.keys.add(key);
    if (!complete) continue;
    const { keys } = open;
    for (const [, all] of wanted(client, ground, revision - 1, revision))
      for (const key of all) if (!keys.has(key)) yield `${revision} was complete without ${key}`;
    open = undefined;
  }
}

function* badResumptions({ resumedAt, events }: Stream): Generator<string> {
  const [first, second] = events;
  if (!first) return;
  if (first.kind !== 'started') yield `it began with ${first.kind}`;
  if (resumedAt === undefined) {
    if (first.resumed) yield 'it went on although it had no token';
    if (second && second.kind !== 'begin') yield `it had no token and no snapshot, but ${second.kind}`;
    return;
  }
  // It says how far the replica is.
  if (!first.resumed || first.revision < resumedAt)
    yield `it resumed at ${resumedAt} and was told ${first.resumed ? first.revision : 'that a snapshot follows'}`;
  const other = events.slice(1).find((event) => !isNews(event));
  if (other) yield `it resumed at ${resumedAt} and got ${other.kind}`;
}

function* badBookmarks(stream: Stream, client: ClientHistory, ground: Ground): Generator<string> {
  const start = startOf(stream);
  if (start === undefined) return;
  const came = new Set<number>();
  let marked = start;
  for (const { kind, revision, complete } of stream.events) {
    if (kind === 'changes') {
      came.add(revision);
      if (revision <= marked && revision > start) yield `changes of ${revision} came behind the bookmark at ${marked}`;
    }
    if (kind !== 'bookmark') continue;
    if (!complete) yield `the bookmark at ${revision} has no token`;
    for (const [one] of wanted(client, ground, marked, revision))
      if (!came.has(one)) yield `the bookmark at ${revision} came without the changes of ${one}`;
    marked = Math.max(marked, revision);
  }
}

function* wrongMaterial({ events }: Stream, client: ClientHistory, ground: Ground): Generator<string> {
  const snapshot: Item[] = [];
  for (const { kind, revision, items } of events) {
    if (kind === 'changes') yield* wrongChanges(revision, items, client, ground);
    if (kind === 'snapshot') snapshot.push(...items);
    if (kind === 'end')
      yield* differences(`the snapshot of ${revision}`, snapshot, ground.at(revision, client.watched));
  }
}

function* wrongChanges(revision: number, items: readonly Item[], client: ClientHistory, ground: Ground) {
  const touched = ground.revisions.get(revision) ?? [];
  for (const { key, value } of items) {
    const stood = touched.find((one) => one.key === key);
    if (!stood) yield `${revision} did not touch ${key}`;
    else if (stood.value !== value) yield `${key} stood at ${revision} as ${stood.value}, and came as ${value}`;
    else if (!concerns(client.watched, stood)) yield `${key} of ${revision} is not watched`;
  }
}

function* differences(what: string, got: readonly Item[], all: readonly Item[]): Generator<string> {
  const came = new Map(got.map(({ key, value }) => [key, value]));
  if (came.size !== got.length) yield `${what} has something twice`;
  for (const { key, value } of all) {
    const one = came.get(key);
    if (one === undefined) yield `${what} lacks ${key}`;
    else if (one !== value) yield `${what} has ${key} as ${one}, where ${value} stood`;
    came.delete(key);
  }
  for (const key of came.keys()) yield `${what} has ${key}, which is not watched or was not there`;
}
