import { describe, expect, it, vi } from 'vitest';
import type { AgentMaterial, ChangeEvent } from '../../src/feed/change_event.js';
import { type ReadPage, Replay } from '../../src/feed/replay.js';
import { REVISIONS_PER_PAGE } from '../../src/store/write/change_log.js';
import { withLimits } from './support.js';

/** The newest revision of the log. */
const HEAD = 10_000;

const material = {} as AgentMaterial;
const eventAt = (revision: number, items = 1): ChangeEvent => ({
  revision,
  nonce: `${revision}`,
  cause: { actor: '', method: '', reason: '', created_at: new Date(0) },
  agents: Array.from({ length: items }, () => material),
  catalogue: [],
});

/** A replay of a log whose pages have at most `size` revisions. Each page takes a turn of the event loop to read. */
function start({ size = REVISIONS_PER_PAGE, items = 1 } = {}) {
  const read = vi.fn<ReadPage>(async (from) => {
    await new Promise((resolve) => setImmediate(resolve));
    const end = Math.min(from + size, HEAD + 1);
    return Array.from({ length: end - from }, (_, n) => eventAt(from + n, items));
  });
  const replay = new Replay(read);
  /** Reads revisions one after the other, as a watch does. */
  const follow = async (from: number, to: number) => {
    for (let revision = from; revision <= to; revision++) expect((await replay.at(revision)).revision).toBe(revision);
  };
  return { read, replay, follow, pages: () => read.mock.calls.map(([from]) => from) };
}

describe('the replay of the change log', () => {
  it('reads each page once when more watches wait for different pages than are kept', async () => {
    const { follow, pages } = start();
    const starts = Array.from({ length: 20 }, (_, n) => 1 + n * REVISIONS_PER_PAGE);
    await Promise.all(starts.map((from) => follow(from, from + REVISIONS_PER_PAGE - 1)));
    expect(pages()).toEqual(starts);
  });

  it('reads a page once for all watches that wait for one of its revisions', async () => {
    const { follow, pages } = start();
    await Promise.all([1, 50, 100, REVISIONS_PER_PAGE].map((from) => follow(from, REVISIONS_PER_PAGE)));
    expect(pages()).toEqual([1]);
  });

  it('reads the next page when a page ends before the revision that a watch waits for', async () => {
    const { follow, pages } = start({ size: 10 });
    await Promise.all([follow(1, 20), follow(15, 24)]);
    expect(pages()).toEqual([1, 15, 11]);
  });

  it('keeps the pages that were used last, up to the limit of their changed items', async () => {
    withLimits({ ringChanges: 1000 });
    const { replay, pages } = start({ size: 10, items: 40 });
    for (const from of [1, 11, 1, 21]) await replay.at(from);
    expect(pages()).toEqual([1, 11, 21]);
    await replay.at(5);
    expect(pages()).toEqual([1, 11, 21]);
    await replay.at(15);
    expect(pages()).toEqual([1, 11, 21, 15]);
  });

  it('keeps a single page that exceeds the limit of changed items', async () => {
    withLimits({ ringChanges: 10 });
    const { follow, pages } = start({ size: 5, items: 100 });
    await follow(1, 10);
    expect(pages()).toEqual([1, 6]);
  });

  it('keeps no page when it is cleared, also not one that is being read', async () => {
    const { replay, pages } = start();
    await replay.at(1);
    const reading = replay.at(1001);
    replay.clear();
    expect((await reading).revision).toBe(1001);
    await replay.at(2);
    await replay.at(1002);
    expect(pages()).toEqual([1, 1001, 2, 1002]);
  });

  it('reads a page again when it could not be read', async () => {
    const { read, replay, pages } = start();
    read.mockRejectedValueOnce(new Error('no connection'));
    const results = await Promise.allSettled([replay.at(1), replay.at(2)]);
    expect(results.map(({ status }) => status)).toEqual(['rejected', 'fulfilled']);
    expect((await replay.at(1)).revision).toBe(1);
    expect(pages()).toEqual([1, 2, 1]);
  });
});
