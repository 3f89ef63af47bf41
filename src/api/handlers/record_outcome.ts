import {
  type Outcome,
  OutcomeRejection,
  type OutcomeResult,
  OutcomeStatus,
} from '../../../gen/ts/agentllm/v1/experiment.js';
import type { RecordOutcomeRequest, RecordOutcomeResponse } from '../../../gen/ts/agentllm/v1/experiment_service.js';
import type { Principal } from '../../domain/access.js';
import { hasStarted } from '../../domain/experiments/experiment_index.js';
import { decimalOf, outcomeProblem } from '../../domain/experiments/outcome.js';
import type { State } from '../../domain/state.js';
import { limits } from '../../limits.js';
import type { NewOutcome, OutcomeResult as Stored } from '../../store/experiments/outcomes.js';
import { onDatabase } from '../../store/failure.js';
import { oldestAccepted } from '../../store/usage/retention.js';
import { catchUp } from '../../store/write/change_log.js';
import { timeSlice } from '../../time_slice.js';
import type { Call } from '../dispatch/method.js';
import type { Backend } from './backend.js';

/**
 * Records a batch of outcomes. Each outcome counts once. An invalid outcome is rejected without affecting other
 * outcomes.
 */
export async function recordOutcome(
  backend: Backend,
  call: Call<RecordOutcomeRequest, RecordOutcomeResponse>,
): Promise<RecordOutcomeResponse> {
  const state = await stateWith(backend, call.request.outcomes);
  const recording = new Recording(state, call.principal, backend.usageRetentionMs);
  for (const outcome of call.request.outcomes) {
    if (timeSlice.isSpent) await timeSlice.next();
    recording.add(outcome);
  }
  const batch = [...recording.outcomes.values()];
  const stored = batch.length > 0 ? await backend.outcomeWriter.add(batch, call.signal) : [];
  const results = recording.results(new Map(batch.map(({ outcome_id }, at) => [outcome_id, stored[at] as Stored])));
  const count = (status: OutcomeStatus) => results.filter((result) => result.status === status).length;
  return {
    results,
    revision: BigInt(state.revision),
    new_count: count(OutcomeStatus.NEW),
    known_count: count(OutcomeStatus.KNOWN),
    rejected_count: count(OutcomeStatus.REJECTED),
  };
}

/**
 * The state. If it does not have an experiment of the batch, the newest state is read first, because another replica
 * may have just started the experiment.
 */
async function stateWith({ store }: Backend, outcomes: readonly Outcome[]): Promise<State> {
  if (outcomes.some((outcome) => experimentsOf(store.state, outcome).length === 0))
    await onDatabase(store, () => catchUp(store));
  return store.state;
}

const iso = (ms: number) => new Date(ms).toISOString();

const rejected = (outcome_id: string, rejection: OutcomeRejection, message: string): OutcomeResult => ({
  outcome_id: outcome_id.slice(0, 36).toWellFormed(),
  status: OutcomeStatus.REJECTED,
  rejection,
  message,
  experiment: '',
  variant: '',
});

/** The reasons why the store rejects an outcome. */
const REJECTIONS: Readonly<Partial<Record<Stored['status'], readonly [OutcomeRejection, string]>>> = {
  'not seen': [
    OutcomeRejection.NOT_SEEN,
    'No call of the subject or the run is recorded in the experiment; send the outcome again later.',
  ],
  'several subjects': [
    OutcomeRejection.SEVERAL_SUBJECTS,
    'The run had calls of several subjects; name the subject of the outcome.',
  ],
  'too many names': [
    OutcomeRejection.TOO_MANY_NAMES,
    `The experiment already has ${limits.outcomeNames.others} other names of outcomes.`,
  ],
};

/** The valid outcomes of a batch, and the rejections of the invalid outcomes. */
class Recording {
  /** By id. If several outcomes have the same id, the first one counts. */
  readonly outcomes = new Map<string, NewOutcome>();
  private readonly reported: (readonly [reported: string, id: string] | OutcomeResult)[] = [];
  private readonly now = Date.now();
  private readonly oldest: number;

  constructor(
    private readonly state: State,
    private readonly principal: Principal,
    retentionMs: number,
  ) {
    this.oldest = oldestAccepted(this.now, retentionMs);
  }

  add(outcome: Outcome): void {
    const refusal = this.refusalOf(outcome);
    const experiments = refusal ? [] : experimentsOf(this.state, outcome);
    if (refusal || experiments.length === 0) {
      const unknown = [
        OutcomeRejection.UNKNOWN_EXPERIMENT,
        'The agent has no such experiment that has started.',
      ] as const;
      this.reported.push(rejected(outcome.outcome_id, ...(refusal ?? unknown)));
      return;
    }
    const outcome_id = outcome.outcome_id.toLowerCase();
    this.reported.push([outcome.outcome_id, outcome_id]);
    if (this.outcomes.has(outcome_id)) return;
    this.outcomes.set(outcome_id, {
      outcome_id,
      experiments,
      subject: outcome.subject,
      run_id: outcome.run_id,
      name: outcome.name,
      value: decimalOf(outcome),
      observed_at: outcome.observed_at ?? new Date(this.now),
      actor: this.principal.actor,
    });
  }

  /** The results in the order of the request. A repeated id within the request is reported as known. */
  results(stored: ReadonlyMap<string, Stored>): OutcomeResult[] {
    const seen = new Set<string>();
    return this.reported.map((one) => {
      if (!isPair(one)) return one;
      const [reported, id] = one;
      const result = stored.get(id) as Stored;
      const isRepeated = seen.has(id) && result.status === 'new';
      seen.add(id);
      return this.resultOf(reported, isRepeated ? { status: 'known' } : result);
    });
  }

  private resultOf(outcome_id: string, result: Stored): OutcomeResult {
    const rejection = REJECTIONS[result.status];
    if (rejection) return rejected(outcome_id, ...rejection);
    const known = { outcome_id, rejection: OutcomeRejection.UNSPECIFIED, message: '', experiment: '', variant: '' };
    if (result.status !== 'new') return { ...known, status: OutcomeStatus.KNOWN };
    const experiment = this.state.experiments.withId(result.experiment_id)?.name ?? '';
    return { ...known, status: OutcomeStatus.NEW, experiment, variant: result.variant };
  }

  private refusalOf(outcome: Outcome): readonly [OutcomeRejection, string] | undefined {
    const problem = outcomeProblem(outcome);
    if (problem) return [OutcomeRejection.INVALID, `${problem}.`];
    const { agents } = this.principal;
    if (agents && !agents.has(this.state.storedAgentName(outcome.agent)))
      return [
        OutcomeRejection.AGENT_NOT_ALLOWED,
        'The token permits outcomes only of certain agents, and this agent is not one of them.',
      ];
    const observed = outcome.observed_at?.getTime() ?? this.now;
    if (observed > this.now + limits.usageSkewMs)
      return [
        OutcomeRejection.IN_FUTURE,
        `The outcome was observed in the future: the time of the service is ${iso(this.now)}.`,
      ];
    if (observed < this.oldest)
      return [OutcomeRejection.TOO_OLD, `Outcomes that were observed before ${iso(this.oldest)} are not accepted.`];
    return undefined;
  }
}

/** The ids of the experiments that an outcome can belong to. */
function experimentsOf(state: State, { agent, experiment }: Outcome): number[] {
  const { experiments } = state;
  const id = state.agentNamed(agent)?.id;
  if (id === undefined) return [];
  if (experiment === '') return experiments.ofAgent(id).flatMap((one) => (hasStarted(one) ? one.id : []));
  const named = experiments.named(id, experiment);
  return named && hasStarted(named) ? [named.id] : [];
}

const isPair = (one: readonly [string, string] | OutcomeResult): one is readonly [string, string] => Array.isArray(one);
