import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { latencyBin } from '../../../src/domain/experiments/latency_histogram.js';
import type { Experiment } from '../../../src/domain/rows.js';
import { readSums } from '../../../src/store/experiments/read_sums.js';
import type { NewAttempt } from '../../../src/store/usage/new_attempt.js';
import type { UsageWriter } from '../../../src/store/usage/usage_writer.js';
import type { TestStore } from '../../support/store.js';
import { attemptOf, countingWriter, createExperiment, current, record, useStore, write } from './support.js';

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
  const store = useStore(engine);
  let opened: TestStore;
  let writer: UsageWriter;
  beforeAll(() => {
    opened = store();
    writer = countingWriter(opened);
  });

  const sums = (experiment: Experiment) => readSums(opened.store, experiment);

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
});
