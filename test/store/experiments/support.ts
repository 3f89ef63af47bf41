import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll } from 'vitest';
import { newAgent } from '../../../src/domain/agent.js';
import type { Draft } from '../../../src/domain/draft.js';
import { newExperiment, withBuckets } from '../../../src/domain/experiments/experiment.js';
import { inState } from '../../../src/domain/experiments/transition.js';
import type { Experiment, Variant } from '../../../src/domain/rows.js';
import { countAttempts } from '../../../src/store/experiments/count.js';
import { type NewOutcome, type OutcomeResult, storeOutcomes } from '../../../src/store/experiments/outcomes.js';
import type { NewAttempt } from '../../../src/store/usage/new_attempt.js';
import { UsageWriter } from '../../../src/store/usage/usage_writer.js';
import { transact } from '../../../src/store/write/transact.js';
import { startPostgres } from '../../support/postgres.js';
import { unique } from '../../support/service.js';
import { openStore, type TestStore } from '../../support/store.js';

type OpenedStore = Pick<TestStore, 'store'>;

/** A store for the tests of a suite. */
export function useStore(engine: 'embedded' | 'postgres'): () => TestStore {
  let opened: TestStore | undefined;
  let stopDatabase = async () => {};
  beforeAll(async () => {
    let url: string | undefined;
    if (engine === 'postgres') {
      const postgres = await startPostgres();
      stopDatabase = () => postgres.stop();
      url = await postgres.createDatabase('migrated');
    }
    opened = await openStore({ url });
  });
  afterAll(async () => {
    await opened?.close();
    await stopDatabase();
  });
  return () => {
    if (!opened) throw new Error('the store is not open');
    return opened;
  };
}

/** Executes a plan as one write. @returns the id that the plan returns. */
export async function write({ store }: OpenedStore, plan: (draft: Draft) => number): Promise<number> {
  const bytes = await transact(store, {
    actor: 'tester',
    method: 'test/Write',
    requestId: undefined,
    reason: undefined,
    plan: (_, draft) => plan(draft),
    encodeResponse: (id) => Buffer.from(String(id)),
    body: () => Buffer.alloc(0),
  });
  return Number(Buffer.from(bytes).toString());
}

export const variant = (name: string, weight: number, control = false): Variant => ({
  name,
  description: null,
  control,
  config_id: null,
  overrides: {},
  weight_basis_points: weight,
  buckets: [],
});

/** A running experiment with the variants `a` (the control) and `b` of a new agent. */
export async function createExperiment(opened: OpenedStore, fields: Partial<Experiment> = {}): Promise<Experiment> {
  const agentId = await write(
    opened,
    (draft) => draft.create('agent', { ...newAgent(), name: unique('agent'), agent_type: 'analyst' }).id,
  );
  const row: Experiment = {
    ...newExperiment(agentId, 'ab'.repeat(16)),
    name: unique('experiment'),
    variants: [variant('a', 5000, true), variant('b', 5000)],
    primary_metric: {
      kind: 'EXPERIMENT_METRIC_KIND_COST_PER_CALL',
      outcome: '',
      direction: 'METRIC_DIRECTION_LOWER_IS_BETTER',
    },
    ...fields,
  };
  const id = await write(opened, (draft) => {
    const started = inState(withBuckets(draft, undefined, row), 'EXPERIMENT_STATE_RUNNING', draft, { reason: '' });
    return draft.create('experiment', started).id;
  });
  return current(opened, id);
}

export const current = ({ store }: OpenedStore, id: number): Experiment => {
  const experiment = store.state.experiments.withId(id);
  if (!experiment) throw new Error(`no experiment ${id}`);
  return experiment;
};

/** An attempt that is a whole call of an experiment. */
export const attemptOf = (experiment: Experiment, fields: Partial<NewAttempt> = {}): NewAttempt => ({
  attempt_id: randomUUID(),
  reservation_id: '',
  started_at: new Date(),
  agent_id: experiment.agent_id,
  agent_name: 'agent',
  config_id: null,
  provider: 'openai',
  model_name: 'gpt-4',
  experiment: experiment.name,
  variant: 'a',
  subject: 's',
  run_id: '',
  call: { outcome: 'RECEIPT_OUTCOME_COMPLETED', duration_ms: 1000, hop_index: 0, last_attempt: true },
  revision: experiment.revision,
  outcome: 'ATTEMPT_OUTCOME_SUCCEEDED',
  fallback: false,
  input_tokens: 100,
  input_no_cache_tokens: null,
  input_cache_read_tokens: null,
  input_cache_write_tokens: null,
  input_cache_write_long_tokens: null,
  output_tokens: 10,
  output_reasoning_tokens: null,
  cost_nano_usd: 1000n,
  unpriced_reason: null,
  price_revision: 1,
  price_from_config: false,
  record: Buffer.from([1]),
  ...fields,
});

/** A writer of usage that counts experiments, as in the service. */
export const countingWriter = (opened: OpenedStore): UsageWriter =>
  new UsageWriter(opened.store, (tx, attempts) => countAttempts(tx, opened.store.state, attempts));

export const record = (writer: UsageWriter, attempts: readonly NewAttempt[]) =>
  writer.add({ attempts, losses: [] }, undefined);

export const outcomeOf = (experiment: Experiment, fields: Partial<NewOutcome> = {}): NewOutcome => ({
  outcome_id: randomUUID(),
  experiments: [experiment.id],
  subject: 's',
  run_id: '',
  name: 'score',
  value: '1',
  observed_at: new Date(),
  actor: 'tester',
  ...fields,
});

/** Stores outcomes in one transaction. */
export const recordOutcomes = (
  { database }: Pick<TestStore, 'database'>,
  outcomes: readonly NewOutcome[],
  ofMetrics: readonly string[] = [],
): Promise<OutcomeResult[]> => database.knex.transaction((tx) => storeOutcomes(tx, outcomes, () => new Set(ofMetrics)));
