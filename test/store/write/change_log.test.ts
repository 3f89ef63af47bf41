import type { Knex } from 'knex';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { newAgent } from '../../../src/domain/agent.js';
import type { Draft } from '../../../src/domain/draft.js';
import type { State } from '../../../src/domain/state.js';
import { Store } from '../../../src/store/store.js';
import { advance, REVISIONS_PER_PAGE, readRevisions } from '../../../src/store/write/change_log.js';
import { readHead } from '../../../src/store/write/head.js';
import { transact } from '../../../src/store/write/transact.js';
import { withLimits } from '../../feed/support.js';
import { startPostgres } from '../../support/postgres.js';
import { unique } from '../../support/service.js';
import { contents, openStore, type TestStore } from '../../support/store.js';

const PROMPT_BYTES = 10_000;

describe.each(['embedded', 'postgres'] as const)('a page of the change log on %s', (engine) => {
  let opened: TestStore;
  let knex: Knex;
  let stopDatabase = async () => {};
  /** The first of the revisions that the tests read. */
  let first: number;
  /** The number of changes of each of them. */
  const sizes = [1, 1, 30, 1, 2, 1];

  beforeAll(async () => {
    let url: string | undefined;
    if (engine === 'postgres') {
      const postgres = await startPostgres();
      stopDatabase = () => postgres.stop();
      url = await postgres.createDatabase('migrated');
    }
    opened = await openStore({ url });
    knex = opened.database.knex;
    first = opened.store.state.revision + 1;
    for (const size of sizes) await createAgents(size);
  });
  afterAll(async () => {
    await opened.close();
    await stopDatabase();
  });

  const createAgents = (count: number) =>
    transact(opened.store, {
      actor: 'tester',
      method: 'test/Write',
      requestId: undefined,
      reason: undefined,
      plan: (_: State, draft: Draft) => {
        for (let n = 0; n < count; n++)
          draft.create('agent', {
            ...newAgent(),
            name: unique('agent'),
            agent_type: 'analyst',
            prompt_template: 'p'.repeat(PROMPT_BYTES),
          });
      },
      encodeResponse: () => new Uint8Array(),
      body: () => new Uint8Array(),
    });

  const sizesFrom = async (from: number) =>
    (await readRevisions(knex, from, opened.store.state.revision)).map(({ revision, changes }) => [
      revision,
      changes.length,
    ]);
  const expected = (from: number, to: number) =>
    sizes.slice(from, to).map((size, at) => [first + from + at, size] as const);

  it('ends with the revision that reaches the byte limit', async () => {
    withLimits({ readBytes: 2.5 * PROMPT_BYTES });
    expect(await sizesFrom(first)).toEqual(expected(0, 3));
    expect(await sizesFrom(first + 2)).toEqual(expected(2, 3));
    expect(await sizesFrom(first + 3)).toEqual(expected(3, 5));
  });

  it('contains every revision up to the last one when the log is short', async () => {
    expect(await sizesFrom(first)).toEqual(expected(0, sizes.length));
    expect(await readRevisions(knex, first, first + 1)).toHaveLength(2);
    expect(await readRevisions(knex, opened.store.state.revision + 1, opened.store.state.revision + 1)).toEqual([]);
  });

  it('brings a replica forward when a single revision exceeds the byte limit', async () => {
    withLimits({ readBytes: 1 });
    const replica = new Store(opened.database);
    let applied = 0;
    replica.subscribe({ applied: () => applied++ });
    await advance(replica, knex, await readHead(knex));
    expect(contents(replica.state)).toEqual(contents(opened.store.state));
    expect(applied).toBe(opened.store.state.revision);
  });

  it(`contains at most ${REVISIONS_PER_PAGE} revisions`, async () => {
    const from = opened.store.state.revision + 1;
    for (let at = 0; at < REVISIONS_PER_PAGE + 10; at += 30)
      await Promise.all(Array.from({ length: 30 }, () => createAgents(1)));
    expect(await sizesFrom(from)).toHaveLength(REVISIONS_PER_PAGE);
  });
});
