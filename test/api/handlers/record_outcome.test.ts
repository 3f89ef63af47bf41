import { randomUUID } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { startProxy } from '../../support/proxy.js';
import { connect, failure, unique, useService } from '../../support/service.js';
import { until } from '../../support/until.js';
import { usageRecord } from '../../support/usage.js';
import { newAgent, newConfig, present } from './support.js';

describe.each(['embedded', 'postgres'] as const)('RecordOutcome on %s', (engine) => {
  const service = useService(engine);

  /** A running experiment whose subjects have had a call. */
  async function start(subjects: readonly string[]) {
    const agent = await newAgent(service());
    await newConfig(service(), {}, agent);
    const request = { agent: { id: agent.id }, name: unique('experiment') };
    await service().experiments.createExperiment({
      agent: request.agent,
      experiment: {
        name: request.name,
        variants: [
          { name: 'now', control: true, weight_basis_points: 5000 },
          { name: 'cool', weight_basis_points: 5000, overrides: { temperature: 0.1 } },
        ],
        primary_metric: {
          kind: 'EXPERIMENT_METRIC_KIND_OUTCOME',
          outcome: 'profit',
          direction: 'METRIC_DIRECTION_HIGHER_IS_BETTER',
        },
      },
    });
    const { revision } = await service().experiments.startExperiment(request);
    const records = subjects.map((subject) =>
      usageRecord({
        agent_id: agent.id,
        agent: agent.name,
        revision,
        experiment: request.name,
        variant: 'now',
        subject,
        call: { outcome: 'RECEIPT_OUTCOME_COMPLETED', duration_ms: 10, hop_index: 0, last_attempt: true },
      }),
    );
    expect((await service().usage.recordUsage({ records })).rejected_count).toBe(0);
    const outcomes = subjects.map((subject, at) => ({
      outcome_id: randomUUID(),
      agent: agent.name,
      subject,
      name: 'profit',
      number: at,
    }));
    const profit = async () => {
      const { variants } = await service().experiments.getResults(request);
      const found = variants[0]?.metrics.find(({ metric }) => metric?.kind === 'EXPERIMENT_METRIC_KIND_OUTCOME');
      return { subjects: Number(found?.subjects ?? 0n), value: found?.value };
    };
    return { outcomes, profit, request };
  }
  const SUBJECTS = ['a', 'b', 'c', 'd', 'e'];
  const ONCE = { subjects: 5, value: 2 };

  it('counts outcomes once when its response is lost and the request is sent again', async () => {
    const { outcomes, profit, request } = await start(SUBJECTS);
    const proxy = await startProxy(service().port);
    const client = connect(proxy.port, service().tokens[0]?.text);
    try {
      await client.agents.listAgents({ page_size: 1 });
      for (const link of proxy.links) link.freeze('down');
      const lost = failure(client.experiments.recordOutcome({ outcomes }));
      await until(async () => (await profit()).subjects === SUBJECTS.length);
      for (const link of proxy.links) link.cut();
      await lost;
      const counts: unknown[] = [];
      await until(async () => {
        const again = await client.experiments.recordOutcome({ outcomes }).catch(() => undefined);
        if (again) counts.push([again.new_count, again.known_count, again.rejected_count]);
        return again !== undefined;
      });
      expect(counts).toEqual([[0, 5, 0]]);
    } finally {
      client.close();
    }
    expect(await profit()).toEqual(ONCE);
    // An id in another notation is the same one, and other content changes nothing, also after the conclusion.
    await service().experiments.concludeExperiment(request);
    const other = outcomes.map((one) => ({ ...one, outcome_id: one.outcome_id.toUpperCase(), number: 99 }));
    expect(await service().experiments.recordOutcome({ outcomes: other })).toMatchObject({ known_count: 5 });
    expect(await profit()).toEqual(ONCE);
  });

  it('counts outcomes once when its callers give up and repeat the request', async () => {
    const { outcomes, profit } = await start(SUBJECTS);
    await Promise.all(
      Array.from({ length: 12 }, async (_, at) => {
        const signal = AbortSignal.timeout(at);
        await service()
          .experiments.recordOutcome({ outcomes }, { signal })
          .catch(() => undefined);
      }),
    );
    const { new_count, known_count } = await service().experiments.recordOutcome({ outcomes });
    expect(new_count + known_count).toBe(5);
    expect(await profit()).toEqual(ONCE);
  });

  it('accepts the outcome of a metric when others have taken all other names', async () => {
    const { outcomes, profit } = await start(SUBJECTS);
    const others = Array.from({ length: 25 }, (_, at) => ({
      ...present(outcomes[0]),
      outcome_id: randomUUID(),
      name: `other ${at}`,
    }));
    const { results } = await service().experiments.recordOutcome({ outcomes: others });
    const rejected = results.filter(({ rejection }) => rejection === 'OUTCOME_REJECTION_TOO_MANY_NAMES');
    expect(rejected).toHaveLength(6);
    expect(rejected[0]?.message).toBe('The experiment already has 20 other names of outcomes.');
    expect(await service().experiments.recordOutcome({ outcomes })).toMatchObject({ new_count: 5 });
    expect(await profit()).toEqual(ONCE);
  });
});
