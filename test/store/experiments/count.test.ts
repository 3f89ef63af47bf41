import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { latencyBin } from '../../../src/domain/experiments/latency_histogram.js';
import type { Experiment } from '../../../src/domain/rows.js';
import { deleteOldExperimentRows } from '../../../src/store/experiments/cleanup.js';
import { pauseViolated } from '../../../src/store/experiments/guardrails.js';
import { type NewOutcome, type OutcomeResult, storeOutcomes } from '../../../src/store/experiments/outcomes.js';
import { readSums } from '../../../src/store/experiments/read_sums.js';
import type { NewAttempt } from '../../../src/store/usage/attempts.js';
import type { UsageWriter } from '../../../src/store/usage/usage_writer.js';
import { startPostgres } from '../../support/postgres.js';
import { openStore, type TestStore } from '../../support/store.js';
import { attemptOf, countingWriter, createExperiment, current, outcomeOf, record, write } from './support.js';

/** A generated attempt. */
const CHOICE = fc.record({
  variant: fc.constantFrom('a', 'b', 'gone'),
  subject: fc.constantFrom('s1', 's2', 'Über"\\{}', '東京'),
  last: fc.boolean(),
  outcome: fc.constantFrom('COMPLETED', 'FAILED', 'TORN', 'ABORTED'),
  hop: fc.option(fc.integer({ min: 0, max: 2 }), { nil: undefined }),
  ms: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
  cost: fc.option(fc.bigInt({ min: 0n, max: 10n ** 15n })),
  tokens: fc.option(fc.integer({ min: 0, max: 100_000_000 })),
  hasCall: fc.constantFrom(true, true, true, false),
});
type Choice = typeof CHOICE extends fc.Arbitrary<infer T> ? T : never;

const chosen = (experiment: Experiment, one: Choice): NewAttempt =>
  attemptOf(experiment, {
    variant: one.variant,
    subject: one.subject,
    cost_nano_usd: one.cost,
    unpriced_reason: one.cost === null ? 'UNPRICED_REASON_NO_PRICE' : null,
    input_tokens: one.tokens,
    output_tokens: one.tokens,
    call: one.hasCall
      ? {
          outcome: `RECEIPT_OUTCOME_${one.outcome}` as 'RECEIPT_OUTCOME_FAILED',
          duration_ms: one.ms,
          hop_index: one.hop,
          last_attempt: one.last,
        }
      : undefined,
  });

const QUANTITIES = ['successes', 'cost_nano_usd', 'latency_ms', 'tokens'] as const;
type Subject = Record<'calls' | (typeof QUANTITIES)[number], bigint>;
const nothing = (): Subject => ({ calls: 0n, successes: 0n, cost_nano_usd: 0n, latency_ms: 0n, tokens: 0n });

/** The sums of a variant as a model computes them from the raw attempts, without SQL. */
function modelOf(attempts: readonly NewAttempt[], variant: string) {
  const subjects = new Map<string, { all: Subject; served: Subject }>();
  const own = attempts.filter((one) => one.variant === variant && one.call !== undefined);
  for (const { subject, call, cost_nano_usd, input_tokens, output_tokens } of own) {
    const sums = subjects.get(subject) ?? { all: nothing(), served: nothing() };
    subjects.set(subject, sums);
    for (const view of [sums.all, ...((call?.hop_index ?? 0) > 0 ? [] : [sums.served])]) {
      view.cost_nano_usd += cost_nano_usd ?? 0n;
      view.tokens += BigInt((input_tokens ?? 0) + (output_tokens ?? 0));
      if (!call?.last_attempt) continue;
      view.calls++;
      view.latency_ms += BigInt(call.duration_ms);
      if (call.outcome === 'RECEIPT_OUTCOME_COMPLETED') view.successes++;
    }
  }
  const all = [...subjects.values()];
  const sumsOf = (view: 'all' | 'served') => {
    const total = (value: (one: Subject) => bigint) => all.reduce((sum, one) => sum + value(one[view]), 0n);
    const moments = QUANTITIES.map((name) => [
      name,
      {
        sum: Number(total((one) => one[name])),
        squared: Number(total((one) => one[name] * one[name])),
        by_calls: Number(total((one) => one[name] * one.calls)),
      },
    ]);
    const calls = { calls: Number(total((one) => one.calls)), calls_squared: Number(total((one) => one.calls ** 2n)) };
    return { ...calls, ...Object.fromEntries(moments) };
  };
  const ended = own.filter(({ call }) => call?.last_attempt);
  return {
    subjects: all.length,
    served_subjects: all.filter(({ served }) => served.calls > 0n).length,
    aborted_calls: ended.filter(({ call }) => call?.outcome === 'RECEIPT_OUTCOME_ABORTED').length,
    unpriced_attempts: own.filter(({ cost_nano_usd }) => cost_nano_usd === null).length,
    all: sumsOf('all'),
    served: sumsOf('served'),
  };
}

function histogramOf(attempts: readonly NewAttempt[], variant: string): number[] {
  const histogram: number[] = [];
  for (const { call, variant: own } of attempts) {
    if (!call?.last_attempt || own !== variant) continue;
    const bin = latencyBin(call.duration_ms);
    while (histogram.length <= bin) histogram.push(0);
    histogram[bin] = (histogram[bin] ?? 0) + 1;
  }
  return histogram;
}

describe.each(['embedded', 'postgres'] as const)('the sums of experiments on %s', (engine) => {
  let opened: TestStore;
  let writer: UsageWriter;
  let stopDatabase = async () => {};

  beforeAll(async () => {
    let url: string | undefined;
    if (engine === 'postgres') {
      const postgres = await startPostgres();
      stopDatabase = () => postgres.stop();
      url = await postgres.createDatabase('migrated');
    }
    opened = await openStore({ url });
    writer = countingWriter(opened);
  });
  afterAll(async () => {
    await opened?.close();
    await stopDatabase();
  });

  const sums = (experiment: Experiment) => readSums(opened.store, experiment);
  const store = (...outcomes: NewOutcome[]): Promise<OutcomeResult[]> =>
    opened.database.knex.transaction((tx) => storeOutcomes(tx, outcomes));

  it('equal a recomputation from the raw attempts, however they are split and repeated', async () => {
    const batches = fc.array(fc.array(CHOICE, { minLength: 1, maxLength: 8 }), { minLength: 1, maxLength: 5 });
    await fc.assert(
      fc.asyncProperty(batches, async (choices) => {
        const experiment = await createExperiment(opened);
        const all = choices.map((batch) => batch.map((one) => chosen(experiment, one)));
        // Two batches at a time, each also a second time.
        for (let at = 0; at < all.length; at += 2)
          await Promise.all([...all.slice(at, at + 2), all[at] ?? []].map((batch) => record(writer, batch)));
        const found = await sums(experiment);
        const attempts = all.flat();
        for (const variant of ['a', 'b']) {
          const expected = modelOf(attempts, variant);
          if (expected.subjects === 0) expect(found.variants.has(variant)).toBe(false);
          else expect(found.variants.get(variant)).toEqual(expected);
          expect(found.histograms.get(variant) ?? []).toEqual(histogramOf(attempts, variant));
        }
        expect(found.variants.has('gone')).toBe(false);
      }),
      { numRuns: engine === 'embedded' ? 8 : 20, seed: 15 },
    );
  });

  it('are exact when several processes add calls of the same subjects at the same time', async () => {
    const experiment = await createExperiment(opened);
    const writers = [writer, countingWriter(opened), countingWriter(opened)];
    const attempts = Array.from({ length: 120 }, (_, at) =>
      attemptOf(experiment, {
        subject: `s${at % 7}`,
        variant: at % 2 ? 'a' : 'b',
        cost_nano_usd: BigInt(at),
        call: { outcome: 'RECEIPT_OUTCOME_FAILED', duration_ms: at, hop_index: at % 3, last_attempt: true },
      }),
    );
    await Promise.all(
      attempts.map((one, at) => record(writers[at % 3] as UsageWriter, [one, attempts[119 - at] as NewAttempt])),
    );
    const found = await sums(experiment);
    for (const variant of ['a', 'b']) expect(found.variants.get(variant)).toEqual(modelOf(attempts, variant));
  });

  it('count new subjects since the buckets changed, each in one variant', async () => {
    const experiment = await createExperiment(opened);
    const earlier = experiment.allocation_revision - 1;
    await record(writer, [
      attemptOf(experiment, { subject: 'x' }),
      attemptOf(experiment, { subject: 'x', variant: 'b', started_at: new Date(Date.now() + 1000) }),
      attemptOf(experiment, { subject: 'y', variant: 'b' }),
      attemptOf(experiment, { subject: 'old', revision: earlier }),
    ]);
    await record(writer, [attemptOf(experiment, { subject: 'y' }), attemptOf(experiment, { subject: 'z' })]);
    expect([...(await sums(experiment)).exposures].sort()).toEqual([
      ['a', 2],
      ['b', 1],
    ]);
  });

  it('ignore attempts of another agent, of an unknown experiment and of a draft', async () => {
    const experiment = await createExperiment(opened);
    const other = await createExperiment(opened);
    const draft = await createExperiment(opened);
    await write(opened, (plan) => {
      const row = { ...current(opened, draft.id), state: 'EXPERIMENT_STATE_DRAFT' } as const;
      return plan.update('experiment', draft, { ...row, started_at: null, running_since: null }).id;
    });
    await record(writer, [
      attemptOf(experiment, { agent_id: other.agent_id }),
      attemptOf(experiment, { experiment: 'nothing' }),
      attemptOf(experiment, { subject: '' }),
      attemptOf(draft),
    ]);
    for (const one of [experiment, other, draft]) expect((await sums(one)).variants.size).toBe(0);
  });

  it('have the mean of the outcomes of each subject, and each outcome once', async () => {
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

  it('count an outcome that arrives in several requests at the same time once', async () => {
    const experiment = await createExperiment(opened);
    await record(writer, [attemptOf(experiment)]);
    const outcome = outcomeOf(experiment, { value: '5' });
    const results = await Promise.all(Array.from({ length: 6 }, () => store(outcome)));
    expect(results.flat().filter(({ status }) => status === 'new')).toHaveLength(1);
    expect((await sums(experiment)).outcomes).toMatchObject([{ subjects: 1, means: 5, means_squared: 25 }]);
  });

  it('attribute an outcome to the variant of the latest call before it', async () => {
    const experiment = await createExperiment(opened);
    const at = (minutes: number) => new Date(Date.UTC(2026, 5, 1, 0, minutes));
    await record(writer, [
      attemptOf(experiment, { variant: 'a', started_at: at(10) }),
      attemptOf(experiment, { variant: 'b', started_at: at(20) }),
    ]);
    const results = await store(...[5, 15, 25].map((minutes) => outcomeOf(experiment, { observed_at: at(minutes) })));
    expect(results.map((result) => ('variant' in result ? result.variant : result.status))).toEqual(['a', 'a', 'b']);
  });

  it('attribute an outcome of a run to its subject, unless it has several', async () => {
    const experiment = await createExperiment(opened);
    await record(writer, [
      attemptOf(experiment, { run_id: 'one', subject: 'x', variant: 'b' }),
      attemptOf(experiment, { run_id: 'two', subject: 'x', variant: 'b' }),
      attemptOf(experiment, { run_id: 'two', subject: 'y' }),
    ]);
    const ofRun = (run_id: string) => outcomeOf(experiment, { run_id, subject: '' });
    expect(
      await store(ofRun('one'), ofRun('two'), ofRun('three'), outcomeOf(experiment, { subject: 'nobody' })),
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

  it('are deleted with their experiment, and old outcomes and runs before', async () => {
    const { knex } = opened.database;
    const [kept, gone] = [await createExperiment(opened), await createExperiment(opened)];
    const old = new Date(Date.now() - 100 * 86_400_000);
    for (const experiment of [kept, gone])
      await record(writer, [
        attemptOf(experiment, { run_id: 'now' }),
        attemptOf(experiment, { run_id: 'old', started_at: old, subject: 'o' }),
      ]);
    await store(outcomeOf(kept), outcomeOf(kept, { subject: 'o', observed_at: old }), outcomeOf(gone));
    const before = await sums(kept);
    await write(opened, (draft) => {
      draft.remove('experiment', gone);
      return 0;
    });
    await deleteOldExperimentRows(opened, 30 * 86_400_000);
    const rows = async (table: string, id: number) => (await knex(table).where({ experiment_id: id })).length;
    expect(await rows('llm_experiment_outcomes', kept.id)).toBe(1);
    expect(await rows('llm_experiment_runs', kept.id)).toBe(1);
    expect(await sums(kept)).toEqual(before);
    for (const table of ['assignments', 'variants', 'latency', 'exposures', 'runs', 'outcomes', 'outcome_sums'])
      expect(await rows(`llm_experiment_${table}`, gone.id), table).toBe(0);
  });

  it('pause an experiment once, on any number of replicas, when a guardrail is violated', async () => {
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
    const experiment = await createExperiment(opened, { guardrails });
    const calls = (variant: string, count: number, failures: number) =>
      Array.from({ length: count }, (_, at) =>
        attemptOf(experiment, {
          variant,
          subject: `${variant}${at}`,
          call: {
            outcome: at < failures ? 'RECEIPT_OUTCOME_FAILED' : 'RECEIPT_OUTCOME_COMPLETED',
            duration_ms: 10,
            hop_index: 0,
            last_attempt: true,
          },
        }),
      );
    await record(writer, [...calls('a', 300, 3), ...calls('b', 300, 15)]);
    expect(await pauseViolated(opened.store)).toEqual([]);
    await record(
      writer,
      calls('b', 600, 500).map((one) => ({ ...one, subject: `more ${one.subject}` })),
    );
    const paused = await Promise.all(Array.from({ length: 4 }, () => pauseViolated(opened.store)));
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
});
