import { concerns, type GroundTruth } from './ground_truth.js';
import type { ClientHistory, Event, History, Item, Stream } from './history.js';

/*
 * Validators of the six guarantees of the contract over recorded histories, and of two guarantees that they depend on:
 * acknowledged writes are in the log, and delivered material is the state at its revision.
 */

type Validator = (stream: Stream, client: ClientHistory, truth: GroundTruth) => Iterable<string>;

/** The sentences of the six guarantees are those of the proto comment; a test compares them. */
const streamValidators = {
  'Ordered: changes are delivered in the order of their revisions': disorder,
  'Unique: a change is never delivered twice on a stream, nor again on a stream that resumes it': duplicates,
  'Reliable: every change to a watched resource is delivered': omissions,
  'Atomic: a client that applies the changes of a revision when the last message of that revision has arrived never holds a part of a revision':
    partialRevisions,
  'Resumable: a broken stream can be continued, on any replica, from its last resume token': badResumptions,
  'Bookmarkable: a bookmark at revision R guarantees that everything up to R has been delivered on this stream':
    badBookmarks,
  'Delivered material is the state at its revision': wrongMaterial,
} satisfies Record<string, Validator>;

const ACKNOWLEDGED = 'No acknowledged write is lost';

export type Sentence = keyof typeof streamValidators | typeof ACKNOWLEDGED;
export const sentences: readonly Sentence[] = [
  ...(Object.keys(streamValidators) as (keyof typeof streamValidators)[]),
  ACKNOWLEDGED,
];

/** The violations of a guarantee. */
export function violationsOf(sentence: Sentence, { writes, clients }: History, truth: GroundTruth): string[] {
  if (sentence === ACKNOWLEDGED)
    return writes
      .filter(({ revision, key }) => !truth.revisions.get(revision)?.some((changed) => changed.key === key))
      .map(({ revision, key }) => `${key} was acknowledged as revision ${revision}, which is not in the log`);
  return clients.flatMap((client) =>
    client.streams.flatMap((stream, at) =>
      [...streamValidators[sentence](stream, client, truth)].map((what) => `${client.name}, stream ${at + 1}: ${what}`),
    ),
  );
}

/** Throws with the violated guarantee and its violations. */
export function validate(history: History, truth: GroundTruth): void {
  for (const sentence of sentences) {
    const violations = violationsOf(sentence, history, truth);
    if (violations.length === 0) continue;
    const more = violations.length > 5 ? `\n  and ${violations.length - 5} more` : '';
    throw new Error(`${sentence}:\n  ${violations.slice(0, 5).join('\n  ')}${more}`);
  }
}

const isChangeOrBookmark = ({ kind }: Event) => kind === 'changes' || kind === 'bookmark';

/** The revision after which a stream must deliver changes; undefined while its snapshot is incomplete. */
const startOf = ({ resumedAt, events }: Stream): number | undefined =>
  resumedAt ?? events.find(({ kind }) => kind === 'end')?.revision;

/** The revisions with changes for a client after one revision and up to another, with the changed keys. */
function* expectedRevisions(
  client: ClientHistory,
  truth: GroundTruth,
  after: number,
  upTo: number,
): Generator<[number, Set<string>]> {
  for (let revision = after + 1; revision <= upTo; revision++) {
    const changed = (truth.revisions.get(revision) ?? []).filter((one) => concerns(client.watched, one));
    if (changed.length > 0) yield [revision, new Set(changed.map(({ key }) => key))];
  }
}

function* disorder({ events }: Stream): Generator<string> {
  let last = 0;
  for (const { kind, revision } of events) {
    if (kind === 'started') continue;
    if (revision < last) yield `${kind} of ${revision} arrived after ${last}`;
    last = Math.max(last, revision);
  }
}

function* duplicates(stream: Stream): Generator<string> {
  const floor = startOf(stream) ?? Number.POSITIVE_INFINITY;
  const seen = new Set<string>();
  const closed = new Set<number>();
  for (const { kind, revision, items, complete } of stream.events) {
    if (kind !== 'changes') continue;
    if (revision <= floor)
      yield `changes of ${revision} arrived, although everything up to ${floor} had been delivered`;
    if (closed.has(revision)) yield `changes of ${revision} arrived although the revision was complete`;
    for (const { key } of items) {
      if (seen.has(`${revision} ${key}`)) yield `${key} of ${revision} arrived twice`;
      seen.add(`${revision} ${key}`);
    }
    if (complete) closed.add(revision);
  }
}

function* omissions(stream: Stream, client: ClientHistory, truth: GroundTruth): Generator<string> {
  const start = startOf(stream);
  if (start === undefined) return;
  const upTo = stream.events.findLast(({ complete }) => complete)?.revision ?? start;
  const received = new Set(stream.events.filter(({ kind }) => kind === 'changes').map(({ revision }) => revision));
  for (const [revision] of expectedRevisions(client, truth, start, upTo))
    if (!received.has(revision)) yield `${revision} is missing between ${start} and ${upTo}`;
}

function* partialRevisions({ events }: Stream, client: ClientHistory, truth: GroundTruth): Generator<string> {
  let open: { revision: number; keys: Set<string> } | undefined;
  for (const { kind, revision, items, complete } of events) {
    if (open && (kind !== 'changes' || revision !== open.revision)) {
      yield `${kind} of ${revision} arrived within revision ${open.revision}`;
      open = undefined;
    }
    if (kind !== 'changes') continue;
    open ??= { revision, keys: new Set() };
    for (const { key } of items) open.keys.add(key);
    if (!complete) continue;
    const { keys } = open;
    for (const [, all] of expectedRevisions(client, truth, revision - 1, revision))
      for (const key of all) if (!keys.has(key)) yield `${revision} was complete without ${key}`;
    open = undefined;
  }
}

function* badResumptions({ resumedAt, events }: Stream): Generator<string> {
  const [first, second] = events;
  if (!first) return;
  if (first.kind !== 'started') yield `it started with ${first.kind}`;
  if (resumedAt === undefined) {
    if (first.resumed) yield 'it resumed without a token';
    if (second && second.kind !== 'begin') yield `it had no token, and ${second.kind} arrived instead of a snapshot`;
    return;
  }
  // The started message contains the revision of the replica.
  if (!first.resumed || first.revision < resumedAt)
    yield `it resumed at ${resumedAt} and received ${first.resumed ? `revision ${first.revision}` : 'a snapshot'}`;
  const other = events.slice(1).find((event) => !isChangeOrBookmark(event));
  if (other) yield `it resumed at ${resumedAt} and received ${other.kind}`;
}

function* badBookmarks(stream: Stream, client: ClientHistory, truth: GroundTruth): Generator<string> {
  const start = startOf(stream);
  if (start === undefined) return;
  const received = new Set<number>();
  let marked = start;
  for (const { kind, revision, complete } of stream.events) {
    if (kind === 'changes') {
      received.add(revision);
      if (revision <= marked && revision > start)
        yield `changes of ${revision} arrived after the bookmark at ${marked}`;
    }
    if (kind !== 'bookmark') continue;
    if (!complete) yield `the bookmark at ${revision} has no token`;
    for (const [one] of expectedRevisions(client, truth, marked, revision))
      if (!received.has(one)) yield `the bookmark at ${revision} arrived without the changes of ${one}`;
    marked = Math.max(marked, revision);
  }
}

function* wrongMaterial({ events }: Stream, client: ClientHistory, truth: GroundTruth): Generator<string> {
  const snapshot: Item[] = [];
  for (const { kind, revision, items } of events) {
    if (kind === 'changes') yield* wrongChanges(revision, items, client, truth);
    if (kind === 'snapshot') snapshot.push(...items);
    if (kind === 'end') yield* differences(`the snapshot of ${revision}`, snapshot, truth.at(revision, client.watched));
  }
}

function* wrongChanges(revision: number, items: readonly Item[], client: ClientHistory, truth: GroundTruth) {
  const changed = truth.revisions.get(revision) ?? [];
  for (const { key, value } of items) {
    const expected = changed.find((one) => one.key === key);
    if (!expected) yield `${revision} did not change ${key}`;
    else if (expected.value !== value) yield `${key} was ${expected.value} at ${revision}, and arrived as ${value}`;
    else if (!concerns(client.watched, expected)) yield `${key} of ${revision} is not watched`;
  }
}

function* differences(what: string, actual: readonly Item[], expected: readonly Item[]): Generator<string> {
  const received = new Map(actual.map(({ key, value }) => [key, value]));
  if (received.size !== actual.length) yield `${what} contains an item twice`;
  for (const { key, value } of expected) {
    const one = received.get(key);
    if (one === undefined) yield `${what} lacks ${key}`;
    else if (one !== value) yield `${what} has ${key} as ${one} instead of ${value}`;
    received.delete(key);
  }
  for (const key of received.keys()) yield `${what} has ${key}, which is not watched or did not exist`;
}
