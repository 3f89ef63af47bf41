import { beforeAll, describe, expect, it, vi } from 'vitest';
import type { Experiment } from '../../../src/domain/rows.js';
import { pauseViolated } from '../../../src/store/experiments/guardrails.js';
import type { Store } from '../../../src/store/store.js';
import type { UsageWriter } from '../../../src/store/usage/usage_writer.js';
import type { TestStore } from '../../support/store.js';
import { attemptOf, countingWriter, createExperiment, current, record, useStore, variant, write } from './support.js';

const guardrails = [
  {
    metric: {
      kind: 'EXPERIMENT_METRIC_KIND_ERROR_RATE',
      outcome: '',
      direction: 'METRIC_DIRECTION_LOWER_IS_BETTER',
    },
    relative_margin_basis_points: null,
    absolute_margin: 0.05,
  },
] as const;

/** Calls of different subjects, of which the first ones fail. */
const calls = (experiment: Experiment, name: string, count: number, failures: number) =>
  Array.from({ length: count }, (_, at) =>
    attemptOf(experiment, {
      variant: name,
      subject: `${name}${at}`,
      call: {
        outcome: at < failures ? 'RECEIPT_OUTCOME_FAILED' : 'RECEIPT_OUTCOME_COMPLETED',
        duration_ms: 10,
        hop_index: 0,
        last_attempt: true,
      },
    }),
  );

describe.each(['embedded', 'postgres'] as const)('pauseViolated on %s', (engine) => {
  const opening = useStore(engine);
  let opened: TestStore;
  let writer: UsageWriter;
  beforeAll(() => {
    opened = opening();
    writer = countingWriter(opened);
  });

  it('pauses an experiment once, on any number of replicas, when a guardrail is violated', async () => {
    const experiment = await createExperiment(opened, { guardrails });
    await record(writer, [...calls(experiment, 'a', 300, 3), ...calls(experiment, 'b', 300, 15)]);
    expect(await pauseViolated(opened.store, never)).toEqual([]);
    await record(
      writer,
      calls(experiment, 'b', 600, 500).map((one) => ({ ...one, subject: `more ${one.subject}` })),
    );
    const paused = await Promise.all(Array.from({ length: 4 }, () => pauseViolated(opened.store, never)));
    expect(paused.flat()).toEqual([experiment.name]);
    const after = current(opened, experiment.id);
    expect(after).toMatchObject({ state: 'EXPERIMENT_STATE_PAUSED', running_since: null });
    expect(after.state_reason).toMatch(
      /^Guardrail ERROR_RATE: variant "b" is worse than the control by 0\.\d+, at least/,
    );
    const log = await opened.database
      .knex('config_revisions')
      .where({ entity: 'experiment', entity_id: experiment.id })
      .orderBy('revision');
    expect(log.map(({ method }) => method)).toEqual(['test/Write', 'guardrail/pause']);
    expect(log[1]).toMatchObject({ actor: 'agentllm', reason: after.state_reason });
  });

  it('does not pause an experiment because of a variant that has no weight any more', async () => {
    const experiment = await createExperiment(opened, { guardrails });
    await record(writer, [...calls(experiment, 'a', 300, 3), ...calls(experiment, 'b', 300, 250)]);
    const variants = [variant('a', 10_000, true), variant('b', 0)];
    await write(opened, (draft) => draft.update('experiment', experiment, { ...experiment, variants }).id);
    expect(await pauseViolated(opened.store, never)).toEqual([]);
    expect(current(opened, experiment.id).state).toBe('EXPERIMENT_STATE_RUNNING');
  });

  it('checks the other experiments when one of them cannot be checked', async () => {
    const withoutControl = [variant('a', 5000), variant('b', 5000)];
    const broken = await createExperiment(opened, { guardrails, variants: withoutControl });
    const experiment = await createExperiment(opened, { guardrails });
    await record(writer, [...calls(experiment, 'a', 300, 3), ...calls(experiment, 'b', 300, 250)]);
    const failures: unknown[] = [];
    expect(await pauseViolated(opened.store, (error) => failures.push(error))).toEqual([experiment.name]);
    expect(failures).toEqual([expect.any(TypeError)]);
    expect(current(opened, broken.id).state).toBe('EXPERIMENT_STATE_RUNNING');
    await write(opened, (draft) => {
      draft.remove('experiment', broken);
      return 0;
    });
  });

  it('ends during an outage after the first experiment', async () => {
    const experiments = [
      await createExperiment(opened, { guardrails }),
      await createExperiment(opened, { guardrails }),
    ];
    const transaction = vi.fn(() => Promise.reject(Object.assign(new Error('no connection'), { code: '08006' })));
    const outage = { state: opened.store.state, database: { knex: { transaction } } } as unknown as Store;
    const failures: unknown[] = [];
    expect(await pauseViolated(outage, (error) => failures.push(error))).toEqual([]);
    expect(failures).toMatchObject([{ reason: 'DATABASE_UNAVAILABLE' }]);
    expect(transaction).toHaveBeenCalledTimes(1);
    expect(experiments.map(({ state }) => state)).toEqual(['EXPERIMENT_STATE_RUNNING', 'EXPERIMENT_STATE_RUNNING']);
  });
});

function never(error: unknown): never {
  throw error;
}
