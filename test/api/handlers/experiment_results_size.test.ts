import { randomUUID } from 'node:crypto';
import { expect, it } from 'vitest';
import { GetResultsResponse } from '../../../gen/ts/agentllm/v1/experiment_service.js';
import { useService } from '../../support/service.js';
import { usageRecord } from '../../support/usage.js';
import { newAgent, newConfig } from './support.js';

const service = useService('postgres');

/** A name of the maximum length, whose characters have 4 bytes. */
const long = (text: string) => `${'😀'.repeat(100 - text.length)}${text}`;

const VARIANTS = Array.from({ length: 10 }, (_, at) => long(`v${at}`));
/** Three sets of guardrails, one after the other, and names that no metric uses. */
const GUARDED = [0, 1, 2].map((set) => Array.from({ length: 10 }, (_, at) => long(`g${set}${at}`)));
const PRIMARY = long('primary');
const OTHERS = Array.from({ length: 12 }, (_, at) => long(`o${at}`));

it('the response of GetResults has at most 512 KiB for the largest experiment', async () => {
  const agent = await newAgent(service(), { name: '😀'.repeat(255) });
  await newConfig(service(), {}, agent);
  const name = long('x');
  const ref = { agent: { id: agent.id } };
  const guardrails = (names: readonly string[]) =>
    names.map((outcome) => ({
      metric: {
        kind: 'EXPERIMENT_METRIC_KIND_OUTCOME' as const,
        outcome,
        direction: 'METRIC_DIRECTION_LOWER_IS_BETTER' as const,
      },
      absolute_margin: 1,
    }));
  const { experiments, usage } = service();
  await experiments.createExperiment({
    ...ref,
    experiment: {
      name,
      hypothesis: '😀'.repeat(1000),
      variants: VARIANTS.map((variant, at) => ({
        name: variant,
        description: '😀'.repeat(1000),
        control: at === 0,
        weight_basis_points: 1000,
        overrides: { temperature: at / 10 },
      })),
      primary_metric: {
        kind: 'EXPERIMENT_METRIC_KIND_OUTCOME',
        outcome: PRIMARY,
        direction: 'METRIC_DIRECTION_HIGHER_IS_BETTER',
      },
      guardrails: guardrails(GUARDED[0] ?? []),
    },
  });
  const { revision } = await experiments.startExperiment({ ...ref, name });
  const records = VARIANTS.map((variant) =>
    usageRecord({
      agent_id: agent.id,
      agent: agent.name,
      revision,
      experiment: name,
      variant,
      subject: `of ${variant}`,
      call: { outcome: 'RECEIPT_OUTCOME_COMPLETED', duration_ms: 10, hop_index: 0, last_attempt: true },
    }),
  );
  expect((await usage.recordUsage({ records })).rejected_count).toBe(0);
  const record = (names: readonly string[]) =>
    experiments.recordOutcome({
      outcomes: names.flatMap((outcome) =>
        VARIANTS.map((variant) => ({
          outcome_id: randomUUID(),
          agent: agent.name,
          subject: `of ${variant}`,
          name: outcome,
          number: Math.PI,
        })),
      ),
    });
  // The metrics have 11 names, so 9 of the others are accepted.
  expect(await record([PRIMARY, ...OTHERS])).toMatchObject({ new_count: 100, rejected_count: 30 });
  expect(await record(GUARDED[0] ?? [])).toMatchObject({ new_count: 100 });
  for (const names of GUARDED.slice(1)) {
    await experiments.updateExperiment({ ...ref, experiment: { name, guardrails: guardrails(names) } });
    expect(await record(names)).toMatchObject({ new_count: 100 });
  }
  const unseen = Array.from({ length: 10 }, (_, at) => long(`u${at}`));
  await experiments.updateExperiment({ ...ref, experiment: { name, guardrails: guardrails(unseen) } });
  const response = await experiments.getResults({ ...ref, name });
  expect(response.guardrails).toHaveLength(90);
  // Four metrics of calls in two views, the quantile, 40 recorded outcomes, and 10 that no outcome was recorded for.
  for (const { metrics } of response.variants) expect(metrics).toHaveLength(59);
  expect(GetResultsResponse.encode(GetResultsResponse.fromPartial(response)).finish().length).toBeLessThan(512 * 1024);
});
