import { beforeAll, describe, expect, it } from 'vitest';
import type { Experiment } from '../../../src/domain/rows.js';
import { limits } from '../../../src/limits.js';
import type { NewOutcome, OutcomeResult } from '../../../src/store/experiments/outcomes.js';
import { readSums } from '../../../src/store/experiments/read_sums.js';
import type { UsageWriter } from '../../../src/store/usage/usage_writer.js';
import type { TestStore } from '../../support/store.js';
import { attemptOf, countingWriter, createExperiment, outcomeOf, record, recordOutcomes, useStore } from './support.js';

describe.each(['embedded', 'postgres'] as const)('outcomes on %s', (engine) => {
  const opening = useStore(engine);
  let opened: TestStore;
  let writer: UsageWriter;
  beforeAll(() => {
    opened = opening();
    writer = countingWriter(opened);
  });

  const sums = (experiment: Experiment) => readSums(opened.store, experiment);
  const store = (...outcomes: NewOutcome[]): Promise<OutcomeResult[]> => recordOutcomes(opened, outcomes);
  const at = (minutes: number) => new Date(Date.UTC(2026, 5, 1, 0, minutes));
  const variantsOf = (results: readonly OutcomeResult[]) =>
    results.map((result) => ('variant' in result ? result.variant : result.status));

  it('count once, with their mean for each subject', async () => {
    const experiment = await createExperiment(opened);
    await record(writer, [
      attemptOf(experiment, { subject: 's' }),
      attemptOf(experiment, { subject: 't' }),
      attemptOf(experiment, { subject: 'u', variant: 'b' }),
    ]);
    const first = outcomeOf(experiment, { value: '1' });
    expect(await store(first, outcomeOf(experiment, { value: '2' }), outcomeOf(experiment, { subject: 't' }))).toEqual(
      Array.from({ length: 3 }, () => ({ status: 'new', experiment_id: experiment.id, variant: 'a' })),
    );
    expect(await store({ ...first, value: '9' })).toEqual([{ status: 'known' }]);
    await store(outcomeOf(experiment, { value: '4' }), outcomeOf(experiment, { subject: 'u', value: '-0.5' }));
    const found = await sums(experiment);
    const mean = (1 + 2 + 4) / 3;
    const [a, b] = [...found.outcomes].sort((x, y) => (x.variant < y.variant ? -1 : 1));
    expect(a).toMatchObject({ variant: 'a', name: 'score', subjects: 2 });
    expect(a?.means).toBeCloseTo(mean + 1, 9);
    expect(a?.means_squared).toBeCloseTo(mean ** 2 + 1, 9);
    expect(b).toMatchObject({ variant: 'b', subjects: 1, means: -0.5, means_squared: 0.25 });
  });

  it('count once when they arrive in several requests at the same time', async () => {
    const experiment = await createExperiment(opened);
    await record(writer, [attemptOf(experiment)]);
    const outcome = outcomeOf(experiment, { value: '5' });
    const results = await Promise.all(Array.from({ length: 6 }, () => store(outcome)));
    expect(results.flat().filter(({ status }) => status === 'new')).toHaveLength(1);
    expect((await sums(experiment)).outcomes).toMatchObject([{ subjects: 1, means: 5, means_squared: 25 }]);
  });

  it('belong to the variant of the latest call before them', async () => {
    const experiment = await createExperiment(opened);
    await record(writer, [
      attemptOf(experiment, { variant: 'a', started_at: at(10) }),
      attemptOf(experiment, { variant: 'b', started_at: at(20) }),
    ]);
    const results = await store(...[5, 15, 25].map((minutes) => outcomeOf(experiment, { observed_at: at(minutes) })));
    expect(variantsOf(results)).toEqual(['a', 'a', 'b']);
  });

  it('belong to the variant of the latest call of a subject that has returned to a variant', async () => {
    const experiment = await createExperiment(opened);
    await record(writer, [
      attemptOf(experiment, { variant: 'a', started_at: at(10) }),
      attemptOf(experiment, { variant: 'b', started_at: at(20) }),
      attemptOf(experiment, { variant: 'a', started_at: at(30) }),
    ]);
    const results = await store(
      ...[15, 25, 30, 35].map((minutes) => outcomeOf(experiment, { observed_at: at(minutes) })),
    );
    expect(variantsOf(results)).toEqual(['a', 'b', 'a', 'a']);
  });

  it('belong to the later variant when a process has used the earlier one a little longer', async () => {
    const experiment = await createExperiment(opened);
    const calls = [
      ['a', 1],
      ['b', 6],
      ['a', 7],
      ['b', 10],
    ] as const;
    await record(
      writer,
      calls.map(([variant, minutes]) => attemptOf(experiment, { variant, started_at: at(minutes) })),
    );
    const results = await store(...[3, 8, 12].map((minutes) => outcomeOf(experiment, { observed_at: at(minutes) })));
    expect(variantsOf(results)).toEqual(['a', 'b', 'b']);
  });

  it('of a run belong to the experiment and variant of its calls, whatever its subject did later', async () => {
    const [earlier, later] = [await createExperiment(opened), await createExperiment(opened)];
    const experiments = [earlier.id, later.id];
    await record(writer, [
      attemptOf(earlier, { run_id: 'r1', subject: 'AAPL', variant: 'a', started_at: at(1) }),
      attemptOf(earlier, { run_id: 'r2', subject: 'AAPL', variant: 'b', started_at: at(5) }),
      attemptOf(later, { run_id: 'r3', subject: 'AAPL', variant: 'b', started_at: at(9) }),
    ]);
    const ofRun = (run_id: string) => outcomeOf(earlier, { experiments, run_id, subject: '' });
    const results = await store(
      ofRun('r1'),
      ofRun('r2'),
      ofRun('r3'),
      outcomeOf(earlier, { experiments, subject: 'AAPL' }),
    );
    expect(results).toEqual([
      { status: 'new', experiment_id: earlier.id, variant: 'a' },
      { status: 'new', experiment_id: earlier.id, variant: 'b' },
      { status: 'new', experiment_id: later.id, variant: 'b' },
      { status: 'new', experiment_id: later.id, variant: 'b' },
    ]);
  });

  it('of a run belong to its subject, unless it has several', async () => {
    const experiment = await createExperiment(opened);
    await record(writer, [
      attemptOf(experiment, { run_id: 'one', subject: 'x', variant: 'b' }),
      attemptOf(experiment, { run_id: 'two', subject: 'x', variant: 'b' }),
      attemptOf(experiment, { run_id: 'two', subject: 'y' }),
      attemptOf(experiment, { run_id: 'two', subject: 'z' }),
    ]);
    const ofRun = (run_id: string) => outcomeOf(experiment, { run_id, subject: '' });
    expect(
      await store(ofRun('one'), ofRun('two'), ofRun('three'), outcomeOf(experiment, { subject: 'unseen' })),
    ).toEqual([
      { status: 'new', experiment_id: experiment.id, variant: 'b' },
      { status: 'several subjects' },
      { status: 'not seen' },
      { status: 'not seen' },
    ]);
  });

  it('have at most 20 names of outcomes', async () => {
    const experiment = await createExperiment(opened);
    await record(writer, [attemptOf(experiment)]);
    const names = Array.from({ length: 21 }, (_, at) => outcomeOf(experiment, { name: `n${at}` }));
    const results = await store(...names);
    expect(results.map(({ status }) => status)).toEqual([...Array.from({ length: 20 }, () => 'new'), 'too many names']);
    expect((await store(outcomeOf(experiment, { name: 'n3' })))[0]?.status).toBe('new');
    expect((await store(outcomeOf(experiment, { name: 'other' })))[0]?.status).toBe('too many names');
  });

  it('have places for the names of the metrics, which other names do not take', async () => {
    const experiment = await createExperiment(opened);
    await record(writer, [attemptOf(experiment)]);
    const named = (name: string) => outcomeOf(experiment, { name });
    const others = Array.from({ length: 20 }, (_, index) => named(`n${index}`));
    const ofMetrics = ['profit', 'loss'];
    const first = await recordOutcomes(opened, others, ofMetrics);
    expect(first.filter(({ status }) => status === 'new')).toHaveLength(18);
    expect(
      (await recordOutcomes(opened, [named('profit'), named('loss'), named('x')], ofMetrics)).map(statusOf),
    ).toEqual(['new', 'new', 'too many names']);
    // Names of metrics that are added later have a limit as well.
    const later = Array.from({ length: limits.outcomeNames.all }, (_, index) => `later ${index}`);
    const results = await recordOutcomes(opened, later.map(named), later);
    expect(results.filter(({ status }) => status === 'new')).toHaveLength(limits.outcomeNames.all - 20);
  });
});

const statusOf = ({ status }: OutcomeResult) => status;
