import { afterAll, beforeAll, expect, it } from 'vitest';
import type { ExperimentMetricKind, VariantResults } from '../../../gen/ts/agentllm/v1/experiment.js';
import type { UsageRecord } from '../../../gen/ts/agentllm/v1/usage.js';
import { differenceOf } from '../../../src/domain/experiments/difference.js';
import { sumsOf } from '../../domain/experiments/values.js';
import { startPostgres } from '../../support/postgres.js';
import { startService, type TestService } from '../../support/service.js';
import { usageRecord } from '../../support/usage.js';
import { newAgent, newConfig, present } from './support.js';

const SUBJECTS = 260;
const CALLS = 900;
const AT_ONCE = 8;
const REPEATED = 3;

let replicas: readonly TestService[] = [];
let stopDatabase = async () => {};
beforeAll(async () => {
  const postgres = await startPostgres();
  stopDatabase = () => postgres.stop();
  const DATABASE_URL = await postgres.createDatabase('migrated');
  replicas = [await startService({ DATABASE_URL }), await startService({ DATABASE_URL })];
});
afterAll(async () => {
  await Promise.all(replicas.map((replica) => replica.stop()));
  await stopDatabase();
});

/** Pseudo-random whole numbers below a bound (Numerical Recipes), the same in every run. */
function generator(seed: number) {
  let state = seed;
  return (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** What a model of one experiment counts, without SQL. */
interface ModelledSubject {
  calls: number;
  successes: number;
  cost: number;
  ms: number;
  tokens: number;
}
const nothing = (): ModelledSubject => ({ calls: 0, successes: 0, cost: 0, ms: 0, tokens: 0 });

class Model {
  private readonly all = new Map<string, ModelledSubject>();
  private readonly served = new Map<string, ModelledSubject>();
  aborted = 0;
  unpriced = 0;

  add({ subject, call, attempt }: UsageRecord): void {
    const { input_tokens = 0, output_tokens = 0 } = attempt?.usage ?? {};
    for (const view of [this.all, ...((call?.hop_index ?? 0) > 0 ? [] : [this.served])]) {
      const sums = view.get(subject) ?? nothing();
      view.set(subject, sums);
      sums.tokens += input_tokens + output_tokens;
      sums.cost += (input_tokens + output_tokens) * 1_000_000;
      if (!call?.last_attempt) continue;
      sums.calls++;
      sums.ms += call.duration_ms;
      if (call.outcome === 'RECEIPT_OUTCOME_COMPLETED') sums.successes++;
    }
    if (!attempt?.usage) this.unpriced++;
    if (call?.last_attempt && call.outcome === 'RECEIPT_OUTCOME_ABORTED') this.aborted++;
  }

  get counts() {
    const callsIn = (view: Map<string, ModelledSubject>) => [...view.values()].reduce((sum, one) => sum + one.calls, 0);
    return {
      subjects: BigInt(this.all.size),
      calls: BigInt(callsIn(this.all)),
      fallback_calls: BigInt(callsIn(this.all) - callsIn(this.served)),
      aborted_calls: BigInt(this.aborted),
      unpriced_attempts: BigInt(this.unpriced),
    };
  }

  sums(view: 'all' | 'served', value: keyof ModelledSubject) {
    // As served, a subject counts that has a call which no other hop served.
    const subjects = [...this[view].values()].filter(({ calls }) => view === 'all' || calls > 0);
    const rest = [...this[view].values()].filter(({ calls }) => view === 'served' && calls === 0);
    const sums = sumsOf([...subjects, ...rest].map((one) => [one[value], one.calls] as const));
    return { ...sums, subjects: subjects.length };
  }
}

async function startExperiment(service: TestService, name: string) {
  const agent = await newAgent(service, { name: `agent of ${name}` });
  const prices = { cost_per_1k_input_tokens: 1, cost_per_1k_output_tokens: 1 };
  const config = await newConfig(service, prices, agent);
  const request = { agent: { id: agent.id }, name };
  await service.experiments.createExperiment({
    agent: request.agent,
    experiment: {
      name,
      variants: [
        { name: 'a', control: true, weight_basis_points: 5000 },
        { name: 'b', weight_basis_points: 5000 },
      ],
      primary_metric: { kind: 'EXPERIMENT_METRIC_KIND_COST_PER_CALL' },
    },
  });
  const { revision } = await service.experiments.startExperiment(request);
  return { agent, config, request, revision };
}
type Started = Awaited<ReturnType<typeof startExperiment>>;

/** The attempts of random calls: one to three each, some served by a fallback, some without known usage. */
function attemptsOf({ agent, config, request, revision }: Started, random: (below: number) => number): UsageRecord[] {
  const outcomes = ['COMPLETED', 'COMPLETED', 'COMPLETED', 'FAILED', 'TORN', 'ABORTED'] as const;
  return Array.from({ length: CALLS }).flatMap(() => {
    const number = random(SUBJECTS);
    const attempts = 1 + random(3);
    const call = {
      outcome: `RECEIPT_OUTCOME_${outcomes[random(outcomes.length)] ?? 'FAILED'}` as const,
      duration_ms: random(20_000),
      hop_index: random(4) === 0 ? 1 : 0,
    };
    return Array.from({ length: attempts }, (_, at) =>
      usageRecord({
        agent_id: agent.id,
        agent: agent.name,
        revision,
        experiment: request.name,
        variant: number % 2 ? 'a' : 'b',
        subject: `s${number}`,
        run_id: `run ${random(40)}`,
        call: { ...call, last_attempt: at === attempts - 1 },
        attempt: {
          config_id: config.id,
          ...(random(10) === 0
            ? { usage: undefined }
            : { usage: { input_tokens: random(5000), output_tokens: random(500) } }),
        },
      }),
    );
  });
}

const shuffled = <T>(values: readonly T[], random: (below: number) => number): T[] =>
  values
    .map((value) => [random(2 ** 30), value] as const)
    .sort(([a], [b]) => a - b)
    .map(([, value]) => value);

/** Sends attempts in random batches to both replicas; some again at the same time, some after their caller gave up. */
async function send(records: readonly UsageRecord[], random: (below: number) => number): Promise<void> {
  const batches: UsageRecord[][] = [];
  for (let at = 0; at < records.length; ) {
    const size = 1 + random(40);
    batches.push(records.slice(at, at + size));
    at += size;
  }
  const report = (batch: UsageRecord[], signal?: AbortSignal) =>
    present(replicas[random(replicas.length)]).usage.recordUsage({ records: batch }, signal ? { signal } : {});
  const sendOne = async (batch: UsageRecord[]) => {
    const kind = random(REPEATED);
    if (kind === 1) await report(batch, AbortSignal.timeout(random(8))).catch(() => undefined);
    const responses = await Promise.all([report(batch), ...(kind === 2 ? [report(batch)] : [])]);
    for (const { rejected_count } of responses) expect(rejected_count).toBe(0);
  };
  const queue = [...batches];
  const worker = async () => {
    for (let batch = queue.pop(); batch; batch = queue.pop()) await sendOne(batch);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

const QUANTITIES = {
  SUCCESS_RATE: 'successes',
  COST_PER_CALL: 'cost',
  LATENCY_MEAN: 'ms',
  TOKENS_PER_CALL: 'tokens',
} as const;

/** The results of the variant `b` equal those that are computed from a model. */
function expectEqual(results: VariantResults, b: Model, a: Model): void {
  for (const [kind, quantity] of Object.entries(QUANTITIES))
    for (const view of ['all', 'served'] as const) {
      const name = `EXPERIMENT_METRIC_KIND_${kind}` as ExperimentMetricKind;
      const wanted = view === 'all' ? 'RESULT_VIEW_INTENTION_TO_TREAT' : 'RESULT_VIEW_AS_SERVED';
      const found = present(results.metrics.find((one) => one.metric?.kind === name && one.view === wanted));
      const [own, base] = [b.sums(view, quantity), a.sums(view, quantity)];
      const isProportion = kind === 'SUCCESS_RATE';
      const expected = present(differenceOf(own, base, { alpha: 0.05, comparisons: 1, isProportion }));
      const shown = `${kind} ${view}`;
      expect(Number(found.subjects), shown).toBe(own.subjects);
      const close = (value: number | undefined, wantedValue: number | undefined) => {
        const scale = Math.abs(present(wantedValue)) + 1e-9;
        expect(Math.abs(present(value) - present(wantedValue)) / scale, shown).toBeLessThan(1e-6);
      };
      close(found.value, own.y / own.x);
      close(found.difference?.absolute, expected.absolute);
      close(found.difference?.interval?.low, expected.interval?.low);
      close(found.difference?.interval?.high, expected.interval?.high);
    }
}

it('results equal a model when two replicas record the usage of two experiments under load', async () => {
  const random = generator(15);
  const [first] = replicas;
  const started = [await startExperiment(present(first), 'x'), await startExperiment(present(first), 'y')];
  const records = started.map((one) => attemptsOf(one, random));
  await send(shuffled(records.flat(), random), random);
  for (const [at, { request }] of started.entries()) {
    const [a, b] = [new Model(), new Model()];
    for (const record of records[at] ?? []) (record.variant === 'a' ? a : b).add(record);
    const results = await Promise.all(replicas.map((replica) => replica.experiments.getResults(request)));
    const [one, two] = results.map(({ computed_at: _, revision: __, ...rest }) => ({ ...rest, power: [] }));
    expect(two).toEqual(one);
    const [ofA, ofB] = present(one).variants;
    expect(ofA).toMatchObject(a.counts);
    expect(ofB).toMatchObject(b.counts);
    expectEqual(present(ofB), b, a);
    const counted = present(one).sample_ratio?.counts.map(({ subjects }) => subjects);
    expect(counted).toEqual([a.counts.subjects, b.counts.subjects]);
  }
}, 120_000);
