import { expect, it, onTestFinished } from 'vitest';
import { openStore } from '../support/store.js';

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
