import { beforeAll, describe, expect, it } from 'vitest';
import type { Experiment } from '../../../src/domain/rows.js';
import { deleteOldExperimentRows } from '../../../src/store/experiments/cleanup.js';
import { readSums } from '../../../src/store/experiments/read_sums.js';
import type { UsageWriter } from '../../../src/store/usage/usage_writer.js';
import type { TestStore } from '../../support/store.js';
import {
  attemptOf,
  countingWriter,
  createExperiment,
  outcomeOf,
  record,
  recordOutcomes,
  useStore,
  write,
} from './support.js';

describe.each(['embedded', 'postgres'] as const)('the rows of experiments on %s', (engine) => {
  const opening = useStore(engine);
  let opened: TestStore;
  let writer: UsageWriter;
  beforeAll(() => {
    opened = opening();
    writer = countingWriter(opened);
  });

  const sums = (experiment: Experiment) => readSums(opened.store, experiment);
  const remove = (experiment: Experiment) =>
    write(opened, (draft) => {
      draft.remove('experiment', experiment);
      return 0;
    });
  const rows = async (table: string, id: number) =>
    (await opened.database.knex(`llm_experiment_${table}`).where({ experiment_id: id })).length;

  it('are deleted with their experiment, and old outcomes and runs before', async () => {
    const [kept, gone] = [await createExperiment(opened), await createExperiment(opened)];
    const old = new Date(Date.now() - 100 * 86_400_000);
    for (const experiment of [kept, gone])
      await record(writer, [
        attemptOf(experiment, { run_id: 'now' }),
        attemptOf(experiment, { run_id: 'old', started_at: old, subject: 'o' }),
      ]);
    await recordOutcomes(opened, [
      outcomeOf(kept),
      outcomeOf(kept, { subject: 'o', observed_at: old }),
      outcomeOf(gone),
    ]);
    const before = await sums(kept);
    await remove(gone);
    await deleteOldExperimentRows(opened, 30 * 86_400_000);
    expect(await rows('outcomes', kept.id)).toBe(1);
    expect(await rows('runs', kept.id)).toBe(1);
    expect(await sums(kept)).toEqual(before);
    const tables = [
      'assignments',
      'variants',
      'latency',
      'exposures',
      'runs',
      'outcomes',
      'subject_outcomes',
      'outcome_sums',
    ];
    for (const table of tables) expect(await rows(table, gone.id), table).toBe(0);
  });

  it('have complete sums when a rollback restores the experiment during the deletion', async () => {
    const experiment = await createExperiment(opened);
    const subjects = ['s', 't', 'u'];
    await record(
      writer,
      subjects.map((subject) => attemptOf(experiment, { subject, run_id: `run of ${subject}` })),
    );
    await recordOutcomes(
      opened,
      subjects.map((subject) => outcomeOf(experiment, { subject })),
    );
    const before = await sums(experiment);
    await remove(experiment);
    const closing = new AbortController();
    const onQuery = ({ sql }: { sql: string }) => {
      if (sql.startsWith('delete from "llm_experiment_assignments"')) closing.abort();
    };
    opened.database.knex.on('query', onQuery);
    try {
      await deleteOldExperimentRows(opened, Number.POSITIVE_INFINITY, { rowsAtOnce: 1, signal: closing.signal });
    } finally {
      opened.database.knex.off('query', onQuery);
    }
    expect(closing.signal.aborted).toBe(true);
    await write(opened, (draft) => draft.restore('experiment', experiment).id);
    await deleteOldExperimentRows(opened, Number.POSITIVE_INFINITY);
    expect(await sums(experiment)).toEqual(before);
    expect(await rows('assignments', experiment.id)).toBe(subjects.length - 1);
  });
});
