import { beforeAll, describe, expect, it, vi } from 'vitest';
import { OutcomeWriter } from '../../../src/store/experiments/outcome_writer.js';
import { readSums } from '../../../src/store/experiments/read_sums.js';
import type { Store } from '../../../src/store/store.js';
import type { TestStore } from '../../support/store.js';
import { attemptOf, countingWriter, createExperiment, outcomeOf, record, useStore } from './support.js';

describe.each(['embedded', 'postgres'] as const)('OutcomeWriter on %s', (engine) => {
  const opening = useStore(engine);
  let opened: TestStore;
  beforeAll(() => {
    opened = opening();
  });

  /** Counts the transactions while batches are added at the same time. */
  async function addTogether(writer: OutcomeWriter, batches: readonly Parameters<OutcomeWriter['add']>[0][]) {
    const transaction = vi.spyOn(opened.database.knex, 'transaction');
    try {
      const settled = await Promise.allSettled(batches.map((batch) => writer.add(batch, undefined)));
      return { settled, transactions: transaction.mock.calls.length };
    } finally {
      transaction.mockRestore();
    }
  }

  it('stores batches that arrive together in one transaction, an id in two of them once', async () => {
    const experiment = await createExperiment(opened);
    await record(countingWriter(opened), [attemptOf(experiment)]);
    const shared = outcomeOf(experiment, { value: '3' });
    const writer = new OutcomeWriter(opened.store);
    const { settled, transactions } = await addTogether(writer, [[shared], [outcomeOf(experiment), shared], [shared]]);
    expect(transactions).toBe(1);
    const statuses = settled.map((one) => (one.status === 'fulfilled' ? one.value.map(({ status }) => status) : one));
    expect(statuses).toEqual([['new'], ['new', 'known'], ['known']]);
    const { outcomes } = await readSums(opened.store, experiment);
    expect(outcomes).toMatchObject([{ subjects: 1, means: 2, means_squared: 4 }]);
  });

  it('stores the other batches when the database rejects a value of one of them', async () => {
    const experiment = await createExperiment(opened);
    await record(
      countingWriter(opened),
      ['s', 't', 'u'].map((subject) => attemptOf(experiment, { subject })),
    );
    const of = (subject: string, value = '1') => outcomeOf(experiment, { subject, value });
    const bad = [of('t'), of('t', 'no number')];
    const writer = new OutcomeWriter(opened.store);
    const { settled } = await addTogether(writer, [[of('s')], bad, [of('u', '5')]]);
    expect(settled.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    const { outcomes } = await readSums(opened.store, experiment);
    // Nothing of the rejected batch is stored.
    expect(outcomes).toMatchObject([{ subjects: 2, means: 6, means_squared: 26 }]);
    // The reporter corrects the value and sends the batch again, with the same ids.
    const again = bad.map((outcome) => ({ ...outcome, value: '1' }));
    expect((await writer.add(again, undefined)).map(({ status }) => status)).toEqual(['new', 'new']);
    expect((await readSums(opened.store, experiment)).outcomes).toMatchObject([{ subjects: 3, means: 7 }]);
  });
});

describe('OutcomeWriter during an outage', () => {
  it('fails all batches that wait after one transaction, so that their callers do not wait for each other', async () => {
    const transaction = vi.fn(() => Promise.reject(Object.assign(new Error('no connection'), { code: '08006' })));
    const store = { database: { knex: { transaction } } } as unknown as Store;
    const writer = new OutcomeWriter(store);
    const settled = await Promise.allSettled([1, 2, 3].map(() => writer.add([], undefined)));
    for (const one of settled)
      expect(one).toMatchObject({ status: 'rejected', reason: { reason: 'DATABASE_UNAVAILABLE' } });
    expect(transaction).toHaveBeenCalledTimes(1);
  });
});
