import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { Feed } from '../../src/feed/feed.js';
import { Store } from '../../src/store/store.js';
import { loadState } from '../../src/store/write/change_log.js';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { connectPg } from '../support/sql.js';
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

describe('a feed that polls only when a test asks', () => {
  const open = async () => {
    const opened = await openStore({ pollIntervalMs: 3_600_000 });
    onTestFinished(() => opened.close());
    const acquire = vi.spyOn(opened.database.knex.client, 'acquireConnection');
    onTestFinished(() => acquire.mockRestore());
    return { ...opened, acquire };
  };

  it('polls again after a poll during which another replica has notified it', async () => {
    const { feed, acquire } = await open();
    const { onNotification } = feed as unknown as { onNotification(writer: string): void };
    const polling = feed.poll();
    onNotification.call(feed, 'another replica');
    await polling;
    await vi.waitFor(() => expect(acquire).toHaveBeenCalledTimes(2), { timeout: 5_000 });
    const idle = feed.poll();
    await idle;
    expect(acquire).toHaveBeenCalledTimes(3);
  });

  it('reports each cause of an outage once, and again in the next outage', async () => {
    const { feed, acquire } = await open();
    const reported: unknown[] = [];
    feed.onWritable((writable, error) => {
      const { cause } = (error ?? {}) as { cause?: { code: string } };
      reported.push(writable ? 'writable' : cause?.code);
    });
    const failWith = (code: string) => acquire.mockRejectedValueOnce(Object.assign(new Error('lost'), { code }));
    for (let outage = 0; outage < 2; outage++) {
      for (const code of ['ECONNREFUSED', 'ECONNREFUSED', '57P03', 'ECONNREFUSED', '57P03']) {
        failWith(code);
        await feed.poll();
      }
      await feed.poll();
    }
    expect(reported).toEqual(Array(2).fill(['ECONNREFUSED', '57P03', 'writable']).flat());
  });

  it('ends a wait for a revision when the state is reloaded at a later one', async () => {
    const { feed, store, database } = await open();
    const reloaded = Object.assign(await loadState(database.knex), { revision: store.state.revision + 2 });
    const waiting = feed.reached(store.state.revision + 1, new AbortController().signal);
    store.replaceState(reloaded);
    await waiting;
  });

  it('forgets a caller that stops waiting for a revision', async () => {
    const { feed, store } = await open();
    const unsubscribed = vi.fn();
    const subscribe = store.subscribe.bind(store);
    vi.spyOn(store, 'subscribe').mockImplementation((subscriber) => {
      const unsubscribe = subscribe(subscriber);
      return () => {
        unsubscribed();
        unsubscribe();
      };
    });
    const controller = new AbortController();
    const waiting = feed.reached(store.state.revision + 1, controller.signal);
    controller.abort();
    await expect(waiting).rejects.toMatchObject({ reason: 'REVISION_NOT_REACHED' });
    expect(unsubscribed).toHaveBeenCalledTimes(1);
  });
});

describe('the feed', () => {
  let postgres: TestPostgres;
  beforeAll(async () => {
    postgres = await startPostgres();
  });
  afterAll(() => postgres.stop());

  it('reports a database that becomes read-only before a write fails, and when it accepts writes again', async () => {
    const url = await postgres.createDatabase('migrated');
    const admin = await connectPg(url);
    const { feed, close } = await openStore({ url, pollIntervalMs: 3_600_000 });
    const reported: boolean[] = [];
    feed.onWritable((writable) => reported.push(writable));
    /** Sets the default of the database; sessions that exist keep the earlier one. */
    const setReadOnly = async (value: 'on' | 'off') => {
      await admin.query(`alter database ${admin.database} set default_transaction_read_only = ${value}`);
      await admin.query(
        'select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()',
      );
    };
    await setReadOnly('on');
    // The first polls may find the connections that were ended.
    for (let polls = 0; polls < 10; polls++) await feed.poll();
    expect(feed.isWritable).toBe(false);
    await setReadOnly('off');
    for (let polls = 0; polls < 10; polls++) await feed.poll();
    expect(feed.isWritable).toBe(true);
    expect([...new Set(reported)]).toEqual([false, true]);
    await admin.end();
    await close();
  });
});
