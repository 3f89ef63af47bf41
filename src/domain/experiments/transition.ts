import type { ExperimentState } from '../../../gen/ts/agentllm/v1/experiment.js';
import type { Draft } from '../draft.js';
import type { Experiment } from '../rows.js';

/** The name of a state for people, for example `RUNNING`. */
export const stateName = (state: ExperimentState): string => state.replace('EXPERIMENT_STATE_', '');

interface Cause {
  readonly reason: string;
  readonly winner?: string;
}

/** An experiment in another state, with the times of this state. */
export function inState(
  before: Experiment,
  state: ExperimentState,
  { now }: Pick<Draft, 'now'>,
  { reason, winner = '' }: Cause,
): Experiment {
  const isRunning = state === 'EXPERIMENT_STATE_RUNNING';
  const ran = before.running_since ? Math.max(0, now.getTime() - before.running_since.getTime()) : 0;
  return {
    ...before,
    state,
    state_reason: reason,
    winner,
    started_at: before.started_at ?? now,
    ended_at: state === 'EXPERIMENT_STATE_CONCLUDED' ? now : null,
    running_since: isRunning ? now : null,
    ran_ms: before.ran_ms + ran,
  };
}

/** How long an experiment has run, in ms. */
export const ranMs = ({ ran_ms, running_since }: Experiment, now: number): number =>
  ran_ms + (running_since ? Math.max(0, now - running_since.getTime()) : 0);
