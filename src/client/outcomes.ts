import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Outcome, OutcomeResult } from '../../gen/ts/agentllm/v1/experiment.js';
import { ExperimentServiceService, RecordOutcomeRequest } from '../../gen/ts/agentllm/v1/experiment_service.js';
import { type CallOptions, type Connection, checkDeadline } from './connection.js';
import { AgentLLMError, type Code } from './error.js';
import type { UsageSpool } from './usage/usage_spool.js';

/** An outcome that a program observed for a subject, for example whether a recommendation was right. */
export interface OutcomeInput {
  /** The name of the outcome, as in the metrics of the experiment, 1 to 100 characters. */
  readonly name: string;
  /** The value; a boolean counts as 1 or 0. */
  readonly value: number | boolean;
  /** The subject of the outcome. Required if the outcome has no run: neither `runId` nor an agent of a run. */
  readonly subject?: string | undefined;
  /** The run of the outcome. Default: the run of the agent, if the agent belongs to a run. */
  readonly runId?: string | undefined;
  /**
   * The name of the experiment. Default: the experiment of the agent in which the subject or the run had its latest call
   * before the outcome.
   */
  readonly experiment?: string | undefined;
  /** The time of the observation. Default: now. */
  readonly observedAt?: Date | undefined;
  /**
   * The id of the outcome, a UUID. An outcome that is reported again with the same id counts once. Set the id if
   * another process may report the same outcome. Default: a generated UUID.
   */
  readonly outcomeId?: string | undefined;
}

/** A stored outcome. */
export interface RecordedOutcome {
  readonly outcomeId: string;
  /** Whether an outcome with this id was already stored. */
  readonly isKnown: boolean;
  /** The experiment that the outcome counts for; empty if the outcome was already stored. */
  readonly experiment: string;
  /** The variant that the outcome counts for; empty if the outcome was already stored. */
  readonly variant: string;
}

const METHOD = ExperimentServiceService.recordOutcome;
const NAME = METHOD.path.slice(1);
/** The usage of another process can arrive a few seconds later. */
const RETRY_MS = [200, 500, 1000, 2000] as const;

const CODES: Partial<Record<OutcomeResult['rejection'], Code>> = {
  OUTCOME_REJECTION_INVALID: 'INVALID_ARGUMENT',
  OUTCOME_REJECTION_AGENT_NOT_ALLOWED: 'PERMISSION_DENIED',
  OUTCOME_REJECTION_UNKNOWN_EXPERIMENT: 'NOT_FOUND',
};

/** Reports outcomes to the service. It keeps no outcome: the promise states whether the outcome is stored. */
export class OutcomeReporter {
  constructor(
    private readonly calls: Connection,
    private readonly spool: UsageSpool,
  ) {}

  async record(agent: string, runId: string, input: OutcomeInput, options: CallOptions = {}): Promise<RecordedOutcome> {
    const outcome = messageOf(agent, runId, input);
    const endsAt = Date.now() + checkDeadline(options.deadlineMs ?? this.calls.deadlineMs);
    // The service attributes an outcome to a recorded call. This call may still be in the spool.
    if (this.spool.stats().inMemory > 0) await this.spool.flush(endsAt - Date.now());
    for (let attempt = 0; ; attempt++) {
      const result = await this.send(outcome, { ...options, deadlineMs: Math.max(1, endsAt - Date.now()) });
      if (result.status !== 'OUTCOME_STATUS_REJECTED') return recorded(result);
      const pause = RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)] as number;
      const isFinal = result.rejection !== 'OUTCOME_REJECTION_NOT_SEEN' || Date.now() + pause >= endsAt;
      if (isFinal || options.signal?.aborted) throw rejected(result);
      await sleep(pause, undefined, { signal: options.signal }).catch(() => {});
    }
  }

  private async send(outcome: Outcome, options: CallOptions): Promise<OutcomeResult> {
    const request = RecordOutcomeRequest.fromPartial({ outcomes: [outcome] });
    const { results } = await this.calls.call(METHOD, () => ({ bytes: METHOD.requestSerialize(request) }), options);
    const [result] = results;
    if (!result) throw AgentLLMError.here('The response has no result', { code: 'DATA_LOSS', method: NAME });
    return result;
  }
}

/** The id and the time are the same in every repetition, so that the outcome counts once. */
function messageOf(agent: string, runId: string, input: OutcomeInput): Outcome {
  const { name, value, subject = '', experiment = '', observedAt = new Date(), outcomeId = randomUUID() } = input;
  if (typeof value !== 'boolean' && !Number.isFinite(value))
    throw new TypeError(`value must be a finite number or a boolean, not ${String(value)}`);
  return {
    outcome_id: outcomeId,
    agent,
    experiment,
    subject,
    run_id: input.runId ?? runId,
    name,
    number: typeof value === 'number' ? value : undefined,
    boolean: typeof value === 'boolean' ? value : undefined,
    observed_at: observedAt,
  };
}

const recorded = ({ outcome_id, status, experiment, variant }: OutcomeResult): RecordedOutcome => ({
  outcomeId: outcome_id,
  isKnown: status === 'OUTCOME_STATUS_KNOWN',
  experiment,
  variant,
});

function rejected({ outcome_id, rejection, message }: OutcomeResult): AgentLLMError {
  const code = CODES[rejection] ?? 'FAILED_PRECONDITION';
  const name = rejection.replace('OUTCOME_REJECTION_', '');
  return AgentLLMError.here(`The outcome ${outcome_id} is not recorded (${name}): ${message}`, { code, method: NAME });
}
