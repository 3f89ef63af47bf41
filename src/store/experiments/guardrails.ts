import { type GuardrailCheck, Results } from '../../domain/experiments/results.js';
import { inState } from '../../domain/experiments/transition.js';
import type { Experiment, Guardrail } from '../../domain/rows.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import type { Store } from '../store.js';
import { transact } from '../write/transact.js';
import { readSums } from './read_sums.js';

/** The name of the method of a pause by a guardrail, in the history. */
export const GUARDRAIL_METHOD = 'guardrail/pause';

/**
 * Pauses running experiments in which a variant violates a guardrail. Replicas may do this at the same time: the second
 * plan finds the experiment paused and writes nothing.
 * @param onFailure receives the error of one experiment; the check continues with the next one. An outage ends the check.
 * @returns the experiments that were paused.
 */
export async function pauseViolated(
  store: Store,
  onFailure: (error: unknown) => void,
  signal?: AbortSignal,
): Promise<string[]> {
  const paused: string[] = [];
  const running = [...store.state.experiments.inOrder.after()].filter(isGuarded);
  for (const experiment of running) {
    if (signal?.aborted) break;
    try {
      if (await pauseIfViolated(store, experiment)) paused.push(experiment.name);
    } catch (error) {
      onFailure(error);
      if (isOutage(error)) break;
    }
  }
  return paused;
}

const isOutage = (error: unknown): boolean => error instanceof ServiceError && error.reason === 'DATABASE_UNAVAILABLE';

/**
 * A variant whose weight is 0 gets no further calls, so its past calls are no reason for a pause.
 * @returns whether this call paused the experiment.
 */
async function pauseIfViolated(store: Store, experiment: Experiment): Promise<boolean> {
  const results = new Results(experiment, await readSums(store, experiment));
  const assigned = new Set(experiment.variants.flatMap((one) => (one.weight_basis_points > 0 ? [one.name] : [])));
  const violated = results.guardrails().find(({ variant, state }) => state?.violated && assigned.has(variant));
  return violated !== undefined && (await pause(store, experiment, reasonOf(violated)));
}

const isGuarded = ({ state, guardrails }: Experiment): boolean =>
  state === 'EXPERIMENT_STATE_RUNNING' && guardrails.length > 0;

/** @returns whether this call paused the experiment. */
async function pause(store: Store, { id, revision }: Experiment, reason: string): Promise<boolean> {
  let isPaused = false;
  await transact(store, {
    actor: 'agentllm',
    method: GUARDRAIL_METHOD,
    requestId: undefined,
    reason,
    plan(state, draft) {
      const before = state.experiments.withId(id);
      // If the experiment has changed since the sums were read, for example a guardrail, the next check decides.
      isPaused = before?.state === 'EXPERIMENT_STATE_RUNNING' && before.revision === revision;
      if (before && isPaused)
        draft.update('experiment', before, inState(before, 'EXPERIMENT_STATE_PAUSED', draft, { reason }));
    },
    encodeResponse: () => new Uint8Array(),
    body: () => new Uint8Array(),
  });
  return isPaused;
}

/** The reason for people, one sentence: the guardrail, the variant and the difference. */
function reasonOf({ guardrail, variant, state }: GuardrailCheck): string {
  const shown = (value: number | undefined) => (value === undefined ? 'unknown' : Number(value.toPrecision(4)));
  const bound = state?.interval && `, at least ${shown(state.interval.low)} with confidence`;
  const text =
    `Guardrail ${nameOf(guardrail)}: variant ${JSON.stringify(variant)} is worse than the control by ` +
    `${shown(state?.observed)}${bound ?? ''}; ${shown(state?.permitted)} is permitted`;
  return text.slice(0, limits.reason).toWellFormed();
}

const nameOf = ({ metric: { kind, outcome } }: Guardrail): string =>
  outcome === '' ? kind.replace('EXPERIMENT_METRIC_KIND_', '') : `OUTCOME ${JSON.stringify(outcome)}`;
