import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  confirmWatchers,
  listWatchers,
  removeWatchers,
  upsertWatchers,
  type WatcherRow,
} from '../../src/store/watchers.js';
import { openStore, type TestStore } from '../support/store.js';

describe('the row of a watcher that has moved to another replica', () => {
  let testStore: TestStore;
  beforeAll(async () => {
    testStore = await openStore();
  });
  afterAll(() => testStore?.close());

  const streamOn = (replica: string, client_id: string): WatcherRow => ({
    client_id,
    stream_id: randomUUID(),
    client_name: 'a process',
    client_version: '1',
    replica,
    agents: null,
    sent_revision: 5,
    applied_revision: 5,
    catching_up: false,
  });
  const rowOf = async (client_id: string) =>
    (await listWatchers(testStore.database.knex, { staleMs: 1_000, limit: 1_000, namedAgents: 1 })).rows.find(
      (row) => row.client_id === client_id,
    );

  /** The rows of a process that opened a stream on one replica and then on another. */
  async function moved() {
    const { knex } = testStore.database;
    const client_id = randomUUID();
    const [old, current] = [streamOn('old', client_id), streamOn('new', client_id)];
    await upsertWatchers(knex, [old], true);
    await upsertWatchers(knex, [current], true);
    return { knex, client_id, old, current };
  }

  it('remains when the old replica removes its stream later', async () => {
    const { knex, client_id, old, current } = await moved();
    await removeWatchers(knex, [old]);
    expect(await rowOf(client_id)).toMatchObject({ stream_id: current.stream_id, replica: 'new' });
    await removeWatchers(knex, [current]);
    expect(await rowOf(client_id)).toBeUndefined();
  });

  it('does not change when the old replica confirms its stream later', async () => {
    const { knex, client_id, old, current } = await moved();
    const confirmed = await confirmWatchers(knex, [{ ...old, sent_revision: 9, applied_revision: 9 }]);
    expect([...confirmed]).toEqual([]);
    expect(await rowOf(client_id)).toMatchObject({ ...current, sent_revision: 5, applied_revision: 5 });
    expect([...(await confirmWatchers(knex, [{ ...current, sent_revision: 6 }]))]).toEqual([current.stream_id]);
    expect(await rowOf(client_id)).toMatchObject({ replica: 'new', sent_revision: 6 });
  });

  it('keeps the new replica when the old replica inserts its stream again as lost', async () => {
    const { knex, client_id, old, current } = await moved();
    await upsertWatchers(knex, [old], false);
    expect(await rowOf(client_id)).toMatchObject({ stream_id: current.stream_id, replica: 'new' });
  });
});
