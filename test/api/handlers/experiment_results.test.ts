import { randomUUID } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { Agent } from '../../../gen/ts/agentllm/v1/agent.js';
import type { ResultView, VariantResults } from '../../../gen/ts/agentllm/v1/experiment.js';
import { bucketOf } from '../../../src/domain/experiments/assignment.js';
import { failure, startService, unique, useService } from '../../support/service.js';
import { usageRecord } from '../../support/usage.js';
import { newAgent, newConfig, notFound, present } from './support.js';

describe.each(['embedded', 'postgres'] as const)('the results of an experiment on %s', (engine) => {
  const service = useService(engine);
  type Request = Parameters<ReturnType<typeof service>['experiments']['createExperiment']>[0];
  type Fields = NonNullable<Request['experiment']>;

  const start = async (more: Fields = {}) => {
    const agent = await newAgent(service());
    await newConfig(service(), { cost_per_1k_input_tokens: 1, cost_per_1k_output_tokens: 1 }, agent);
    const name = unique('experiment');
    const { experiments } = service();
    await experiments.createExperiment({
      agent: { id: agent.id },
      experiment: {
        name,
        variants: [
          { name: 'now', control: true, weight_basis_points: 5000 },
          { name: 'cool', weight_basis_points: 5000, overrides: { temperature: 0.1 } },
        ],
        primary_metric: {
          kind: 'EXPERIMENT_METRIC_KIND_OUTCOME',
          outcome: 'profit',
          direction: 'METRIC_DIRECTION_HIGHER_IS_BETTER',
        },
        guardrails: [{ metric: { kind: 'EXPERIMENT_METRIC_KIND_COST_PER_CALL' }, relative_margin_basis_points: 5000 }],
        ...more,
      },
    });
    const { experiment } = await experiments.startExperiment({ agent: { id: agent.id }, name });
    return { agent, experiment: present(experiment) };
  };
  type Started = Awaited<ReturnType<typeof start>>;
  type Call = { subject: string; variant: string; ms?: number; hop?: number; failed?: boolean; run_id?: string };

  const usage = ({ agent, experiment }: Started, { subject, variant, ms = 1000, hop = 0, failed, run_id }: Call) =>
    usageRecord({
      agent_id: agent.id,
      agent: agent.name,
      revision: experiment.revision,
      experiment: experiment.name,
      variant,
      subject,
      run_id: run_id ?? '',
      call: {
        outcome: failed ? 'RECEIPT_OUTCOME_FAILED' : 'RECEIPT_OUTCOME_COMPLETED',
        duration_ms: ms,
        hop_index: hop,
        last_attempt: true,
      },
      attempt: { hop_index: hop },
    });
  const report = async (started: Started, calls: readonly Call[]) => {
    for (let at = 0; at < calls.length; at += 400) {
      const records = calls.slice(at, at + 400).map((call) => usage(started, call));
      const { rejected_count } = await service().usage.recordUsage({ records });
      expect(rejected_count).toBe(0);
    }
  };
  const resultsOf = ({ agent, experiment }: Started) =>
    service().experiments.getResults({ agent: { id: agent.id }, name: experiment.name });
  const outcome = (agent: Agent, subject: string, value: number) => ({
    outcome_id: randomUUID(),
    agent: agent.name,
    subject,
    name: 'profit',
    number: value,
  });
  const metricOf = (
    variant: VariantResults | undefined,
    kind: string,
    view: ResultView = 'RESULT_VIEW_INTENTION_TO_TREAT',
  ) =>
    present(
      present(variant).metrics.find(
        (one) => one.metric?.kind === `EXPERIMENT_METRIC_KIND_${kind}` && one.view === view,
      ),
    );

  it('compare the variants by intention to treat and as served', async () => {
    const started = await start();
    const calls = Array.from({ length: 300 }, (_, at): Call[] => [
      { subject: `n${at}`, variant: 'now', ms: 1000 + at },
      { subject: `c${at}`, variant: 'cool', ms: 500 + at, hop: at % 3 === 0 ? 1 : 0, failed: at % 10 === 1 },
    ]).flat();
    await report(started, calls);
    const outcomes = Array.from({ length: 200 }, (_, at) => [
      outcome(started.agent, `n${at}`, at % 5),
      outcome(started.agent, `c${at}`, 3 + (at % 5)),
    ]).flat();
    const recorded = await service().experiments.recordOutcome({ outcomes });
    expect(recorded).toMatchObject({ new_count: 400, known_count: 0, rejected_count: 0 });
    expect(recorded.results[1]).toMatchObject({ experiment: started.experiment.name, variant: 'cool' });
    const again = await service().experiments.recordOutcome({ outcomes: outcomes.slice(0, 10) });
    expect(again).toMatchObject({ new_count: 0, known_count: 10 });

    const results = await resultsOf(started);
    const [now, cool] = results.variants;
    expect(now).toMatchObject({ variant: 'now', control: true, subjects: 300n, calls: 300n, contamination_rate: 0 });
    expect(cool).toMatchObject({ subjects: 300n, calls: 300n, fallback_calls: 100n });
    expect(cool?.contamination_rate).toBeCloseTo(1 / 3, 9);
    expect(metricOf(cool, 'SUCCESS_RATE').value).toBeCloseTo(0.9, 9);
    expect(metricOf(cool, 'SUCCESS_RATE', 'RESULT_VIEW_AS_SERVED').value).toBeCloseTo(1 - 20 / 200, 9);
    expect(metricOf(cool, 'SUCCESS_RATE')).toMatchObject({ difference: { worse: true, better: false } });
    expect(metricOf(cool, 'LATENCY_MEAN').difference).toMatchObject({ better: true, absolute: -500 });
    expect(metricOf(now, 'LATENCY_MEAN')).toMatchObject({ value: 1149.5, difference: undefined });
    const profit = metricOf(cool, 'OUTCOME');
    expect(profit).toMatchObject({ subjects: 200n, value: 5, difference: { absolute: 3, better: true } });
    const interval = present(profit.difference?.interval);
    expect(interval.low).toBeLessThan(3);
    expect(interval.high).toBeGreaterThan(3);
    expect(now?.latency?.p50_ms).toBeGreaterThan(1000);
    expect(results).toMatchObject({
      verdict: 'EXPERIMENT_VERDICT_VARIANT_BETTER',
      better_variants: ['cool'],
      best_variant: 'cool',
      min_subjects: 100n,
    });
    expect(results.sample_ratio).toMatchObject({ mismatch: false, counts: [{ subjects: 300n }, { subjects: 300n }] });
    expect(results.power).toMatchObject([{ variant: 'cool', subjects: 400n, subjects_per_day: undefined }]);
    expect(results.guardrails).toMatchObject([{ variant: 'cool', violated: false }]);
  });

  it('report a mismatch of the sample ratio, regardless of the metrics', async () => {
    const started = await start();
    await report(
      started,
      Array.from({ length: 400 }, (_, at) => ({ subject: `s${at}`, variant: at < 300 ? 'now' : 'cool' })),
    );
    const { sample_ratio, verdict } = await resultsOf(started);
    expect(sample_ratio?.mismatch).toBe(true);
    expect(sample_ratio?.p_value).toBeLessThan(0.01);
    expect(verdict).toBe('EXPERIMENT_VERDICT_SAMPLE_RATIO_MISMATCH');
  });

  it('are empty for a draft, and keep counting after the conclusion', async () => {
    const started = await start();
    const request = { agent: { id: started.agent.id }, name: started.experiment.name };
    const empty = await resultsOf(started);
    expect(empty).toMatchObject({ verdict: 'EXPERIMENT_VERDICT_TOO_FEW_SUBJECTS', best_variant: '' });
    expect(empty.variants.map(({ calls }) => calls)).toEqual([0n, 0n]);
    await service().experiments.concludeExperiment(request);
    await report(started, [{ subject: 'late', variant: 'cool', run_id: 'r1' }]);
    const { results } = await service().experiments.recordOutcome({
      outcomes: [{ ...outcome(started.agent, '', 1), run_id: 'r1' }],
    });
    expect(results).toMatchObject([{ status: 'OUTCOME_STATUS_NEW', variant: 'cool' }]);
    expect((await resultsOf(started)).variants[1]).toMatchObject({ calls: 1n });
    await notFound(service().experiments.getResults({ ...request, name: 'missing' }), 'EXPERIMENT_NOT_FOUND');
  });

  it('count a call whose attempts arrive in several requests once, with the cost of all', async () => {
    const started = await start();
    const first = usage(started, { subject: 'x', variant: 'cool', hop: 1 });
    const call = { ...present(first.call), last_attempt: false };
    const second = usage(started, { subject: 'x', variant: 'cool', hop: 1 });
    await service().usage.recordUsage({ records: [second] });
    await service().usage.recordUsage({ records: [{ ...first, call }] });
    await service().usage.recordUsage({ records: [{ ...first, call }, second] });
    const cool = (await resultsOf(started)).variants[1];
    expect(cool).toMatchObject({ calls: 1n, fallback_calls: 1n, subjects: 1n });
    expect(metricOf(cool, 'TOKENS_PER_CALL').value).toBe(2 * 1100);
  });

  it('reject each invalid outcome with its reason', async () => {
    const started = await start();
    await report(started, [
      { subject: 'a', variant: 'now', run_id: 'two' },
      { subject: 'b', variant: 'now', run_id: 'two' },
    ]);
    const valid = outcome(started.agent, 'a', 1);
    const other = { ...valid, outcome_id: randomUUID() };
    const { results, rejected_count, new_count } = await service().experiments.recordOutcome({
      outcomes: [
        valid,
        valid,
        { ...other, outcome_id: 'x', name: '' },
        { ...other, number: Number.NaN },
        { ...other, number: undefined },
        { ...other, subject: '', run_id: '' },
        { ...other, observed_at: new Date(Date.now() + 3_600_000) },
        { ...other, experiment: 'nothing' },
        { ...other, agent: 'missing' },
        { ...other, subject: 'unseen' },
        { ...other, outcome_id: randomUUID(), subject: '', run_id: 'two' },
      ],
    });
    expect(results.map(({ status, rejection }) => [status, rejection].join(' ').replace(/OUTCOME_\w+?_/g, ''))).toEqual(
      [
        'NEW UNSPECIFIED',
        'KNOWN UNSPECIFIED',
        'REJECTED INVALID',
        'REJECTED INVALID',
        'REJECTED INVALID',
        'REJECTED INVALID',
        'REJECTED IN_FUTURE',
        'REJECTED UNKNOWN_EXPERIMENT',
        'REJECTED UNKNOWN_EXPERIMENT',
        'REJECTED NOT_SEEN',
        'REJECTED SEVERAL_SUBJECTS',
      ],
    );
    expect(results[2]?.message).toContain('name');
    expect({ rejected_count, new_count }).toEqual({ rejected_count: 9, new_count: 1 });
  });

  it('reject a call with an invalid duration or outcome, and no other record', async () => {
    const started = await start();
    const good = usage(started, { subject: 'a', variant: 'now' });
    const bad = {
      ...usage(started, { subject: 'b', variant: 'now' }),
      call: { ...present(good.call), duration_ms: -1 },
    };
    const none = { ...usage(started, { subject: 'b', variant: 'now' }) };
    const unknown = { ...none, call: { ...present(good.call), outcome: 'RECEIPT_OUTCOME_UNSPECIFIED' as const } };
    const { results } = await service().usage.recordUsage({ records: [bad, good, unknown] });
    expect(results.map(({ status }) => status)).toEqual([
      'USAGE_STATUS_REJECTED',
      'USAGE_STATUS_NEW',
      'USAGE_STATUS_REJECTED',
    ]);
    expect(results[0]?.message).toContain('call.duration_ms');
  });
});

describe('experiments of two replicas', () => {
  it('are the same, and one of two concurrent conclusions succeeds', async () => {
    const { startPostgres } = await import('../../support/postgres.js');
    const postgres = await startPostgres();
    const DATABASE_URL = await postgres.createDatabase('migrated');
    const replicas = [await startService({ DATABASE_URL }), await startService({ DATABASE_URL })] as const;
    try {
      const [first, second] = replicas;
      const agent = await newAgent(first);
      await newConfig(first, {}, agent);
      const experiment = {
        name: 'x',
        variants: [
          { name: 'a', control: true, weight_basis_points: 5000 },
          { name: 'b', weight_basis_points: 5000 },
        ],
        primary_metric: { kind: 'EXPERIMENT_METRIC_KIND_SUCCESS_RATE' as const },
      };
      const request = { agent: { id: agent.id }, name: 'x' };
      await first.experiments.createExperiment({ agent: { id: agent.id }, experiment });
      const starts = await Promise.allSettled(replicas.map((one) => one.experiments.startExperiment(request)));
      expect(starts.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
      const min_revision = (await first.agents.listAgents({ page_size: 1 })).revision;
      const [one, two] = await Promise.all(
        [first, second].map((replica) => replica.experiments.getExperiment({ ...request, min_revision })),
      );
      expect(two?.experiment).toEqual(one?.experiment);
      expect(bucketOf(present(one?.experiment).salt, 's')).toBe(bucketOf(present(two?.experiment).salt, 's'));
      const conclude = (at: number, winner: string) =>
        replicas[at]?.experiments.concludeExperiment({ ...request, winner }) ?? Promise.reject();
      const [lost] = (await Promise.allSettled([conclude(0, 'a'), conclude(1, 'b')])).filter(
        ({ status }) => status === 'rejected',
      ) as PromiseRejectedResult[];
      const error = await failure(Promise.reject(lost?.reason));
      expect(error.reason).toBe('EXPERIMENT_STATE');
    } finally {
      await Promise.all(replicas.map((replica) => replica.stop()));
      await postgres.stop();
    }
  });
});

describe('the permissions of experiments', () => {
  const service = useService('embedded', {}, [
    { role: 'ROLE_ADMIN' },
    { role: 'ROLE_AGENT', agents: ['desk'] },
    { role: 'ROLE_VIEWER' },
  ]);

  it('let an agent record outcomes of its own agents only, and manage nothing', async () => {
    const { connect } = await import('../../support/service.js');
    await newAgent(service(), { name: 'desk' });
    await newAgent(service(), { name: 'other desk' });
    const [agent, viewer] = [1, 2].map((at) => connect(service().port, service().tokens[at]?.text));
    try {
      const outcomes = ['desk', 'other desk'].map((name) => outcomeFor(name));
      const { results } = await present(agent).experiments.recordOutcome({ outcomes });
      expect(results.map(({ rejection }) => rejection)).toEqual([
        'OUTCOME_REJECTION_UNKNOWN_EXPERIMENT',
        'OUTCOME_REJECTION_AGENT_NOT_ALLOWED',
      ]);
      const request = { agent: { name: 'desk' }, name: 'x' };
      for (const call of [
        present(agent).experiments.getExperiment(request),
        present(agent).experiments.startExperiment(request),
        present(viewer).experiments.pauseExperiment(request),
        present(viewer).experiments.recordOutcome({ outcomes }),
      ])
        expect((await failure(call)).reason).toBe('PERMISSION_DENIED');
      await notFound(present(viewer).experiments.getResults(request), 'EXPERIMENT_NOT_FOUND');
    } finally {
      agent?.close();
      viewer?.close();
    }
  });
});

const outcomeFor = (agent: string) => ({ outcome_id: randomUUID(), agent, subject: 's', name: 'x', number: 1 });
