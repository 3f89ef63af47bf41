import { expect, it, onTestFinished, vi } from 'vitest';
import { Feed } from '../../src/feed/feed.js';
import { Store } from '../../src/store/store.js';
import { openCopy, openStore } from '../support/store.js';

it.each([
  [0, 950],
  [1, 1_050],
])(
  'the feed polls the change log after the interval with its jitter of 5 %, after each poll (%d)',
  async (random, ms) => {
    const database = await openCopy('migrated');
    onTestFinished(() => database.close());
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    vi.spyOn(Math, 'random').mockReturnValue(random);
    onTestFinished(() => {
      vi.restoreAllMocks();
      vi.useRealTimers();
    });
    const feed = await Feed.start(new Store(database), 1_000);
    onTestFinished(() => feed.close());
    const poll = vi.spyOn(feed, 'poll');
    for (let polls = 0; polls < 3; polls++) {
      vi.advanceTimersByTime(ms - 1);
      expect(poll).toHaveBeenCalledTimes(polls);
      vi.advanceTimersByTime(1);
      expect(poll).toHaveBeenCalledTimes(polls + 1);
      await poll.mock.results[polls]?.value;
    }
  },
);

it('a feed starts no poll after it is closed, also when a notification has arrived during its last poll', async () => {
  const { feed, database } = await openStore({ pollIntervalMs: 60_000 });
  onTestFinished(() => database.close());
  let queries = 0;
  database.knex.on('query', () => queries++);
  const polling = feed.poll();
  const afterwards = polling.then(() => feed.poll());
  await feed.close();
  await polling;
  const before = queries;
  expect(before).toBeGreaterThan(0);
  await afterwards;
  await feed.poll();
  expect(queries).toBe(before);
});
