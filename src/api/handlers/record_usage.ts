import {
  UsageRecord as RecordMessage,
  type UsageLoss,
  type UsageRecord,
  UsageRejection,
  type UsageResult,
  UsageStatus,
} from '../../../gen/ts/agentllm/v1/usage.js';
import type { Principal } from '../../domain/access.js';
import { textProblem, UUID } from '../../domain/text.js';
import { outcomeOf, recordProblem } from '../../domain/usage_record.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import { Problems } from '../../problems.js';
import type { NewAttempt } from '../../store/usage/attempts.js';
import type { NewLoss } from '../../store/usage/losses.js';
import { oldestAccepted } from '../../store/usage/retention.js';
import type { EndedReservation, StoredBatch } from '../../store/usage/usage_writer.js';
import { timeSlice } from '../../time_slice.js';
import type { Backend } from './backend.js';
import { UsagePricing } from './usage_pricing.js';

/** The components that record usage. */
export type UsageBackend = Pick<Backend, 'store' | 'feed' | 'usageWriter' | 'usageRetentionMs' | 'usageMetrics'>;

/** A batch of attempts as a caller reports it. */
export interface ReportedUsage {
  readonly records: readonly UsageRecord[];
  readonly losses: readonly UsageLoss[];
  /** The reservation that ends with these attempts. */
  readonly ends?: EndedReservation;
}

export interface RecordedUsage {
  /** One result for each record, in their order. The cost of a known attempt is not set. */
  readonly results: UsageResult[];
  /** The attempts that were known, for their costs. */
  readonly known: readonly NewAttempt[];
  /** The revision at which the attempts were priced. */
  readonly revision: number;
  /** The amount that the end of the reservation released, in nano-USD. */
  readonly released: bigint;
}

/**
 * Records a batch: each attempt is stored once, with its cost. An invalid attempt is rejected on its own.
 * @throws INVALID_FIELDS or AGENT_NOT_ALLOWED if a loss is invalid, and DATABASE_UNAVAILABLE; then nothing is stored.
 */
export async function recordUsage(
  backend: UsageBackend,
  principal: Principal,
  { records, losses, ends }: ReportedUsage,
  signal: AbortSignal,
): Promise<RecordedUsage> {
  const newLosses = lossesOf(backend, principal, losses);
  const pricing = await UsagePricing.open(backend, records, signal);
  const recording = new Recording(backend, principal, pricing);
  for (const record of records) {
    if (timeSlice.isSpent) await timeSlice.next();
    recording.add(record);
  }
  const { attempts, results } = recording;
  const stored =
    attempts.size > 0 || newLosses.length > 0 || ends
      ? await backend.usageWriter.add({ attempts: [...attempts.values()], losses: newLosses, ends }, signal)
      : { fresh: new Set<string>(), known: new Set<string>(), released: 0n };
  const known = recording.complete(stored);
  count(
    backend.usageMetrics,
    [...attempts.values()].filter(({ attempt_id }) => stored.fresh.has(attempt_id)),
  );
  for (const { rejection } of results)
    if (rejection !== UsageRejection.UNSPECIFIED) backend.usageMetrics.countRejected(rejection);
  return { results, known, revision: pricing.state.revision, released: stored.released };
}

function count(metrics: UsageBackend['usageMetrics'], attempts: readonly NewAttempt[]): void {
  for (const one of attempts) metrics.countStored(one.outcome, one.cost_nano_usd, one.unpriced_reason);
}

const iso = (ms: number): string => new Date(ms).toISOString();

const newResult = (result: UsageResult, { cost_nano_usd: cost }: NewAttempt): UsageResult => ({
  ...result,
  status: UsageStatus.NEW,
  cost_nano_usd: cost ?? undefined,
});

/** The result of a known attempt, with its stored cost. */
export function withCost(result: UsageResult, costs: ReadonlyMap<string, bigint | null>): UsageResult {
  const cost = result.status === UsageStatus.KNOWN ? costs.get(result.attempt_id.toLowerCase()) : undefined;
  return cost === undefined || cost === null ? result : { ...result, cost_nano_usd: cost };
}

export const rejected = (attempt_id: string, rejection: UsageRejection, message: string): UsageResult => ({
  attempt_id: attempt_id.slice(0, 36).toWellFormed(),
  status: UsageStatus.REJECTED,
  rejection,
  message,
  cost_nano_usd: undefined,
});

/** The records of one batch that are valid, and the results of the others. */
class Recording {
  readonly results: UsageResult[] = [];
  /** By id; of several records with one id, the first one counts. */
  readonly attempts = new Map<string, NewAttempt>();
  /** The valid records with their index. */
  readonly reported: (readonly [at: number, attempt: NewAttempt])[] = [];
  private readonly now = Date.now();
  private readonly oldest: number;

  constructor(
    { usageRetentionMs }: UsageBackend,
    private readonly principal: Principal,
    private readonly pricing: UsagePricing,
  ) {
    this.oldest = oldestAccepted(this.now, usageRetentionMs);
  }

  add(reportedRecord: UsageRecord): void {
    const record = this.canonical(reportedRecord);
    const attempt_id = record.attempt?.attempt_id ?? '';
    const refusal = this.refusalOf(record);
    if (refusal) {
      this.results.push(rejected(attempt_id, ...refusal));
      return;
    }
    const attempt = newAttempt(record, this.pricing);
    if (!this.attempts.has(attempt.attempt_id)) this.attempts.set(attempt.attempt_id, attempt);
    this.reported.push([this.results.length, this.attempts.get(attempt.attempt_id) as NewAttempt]);
    this.results.push({
      attempt_id,
      status: UsageStatus.UNSPECIFIED,
      rejection: UsageRejection.UNSPECIFIED,
      message: '',
      cost_nano_usd: undefined,
    });
  }

  /** Completes the results when the attempts are stored. @returns the attempts that were known. */
  complete({ fresh, known }: StoredBatch): NewAttempt[] {
    const seen = new Set<string>();
    const again: NewAttempt[] = [];
    for (const [at, attempt] of this.reported) {
      const { attempt_id } = attempt;
      const result = this.results[at] as UsageResult;
      if (fresh.has(attempt_id) && !seen.has(attempt_id)) this.results[at] = newResult(result, attempt);
      else if (fresh.has(attempt_id) || known.has(attempt_id)) {
        this.results[at] = { ...result, status: UsageStatus.KNOWN };
        again.push(attempt);
      } else this.results[at] = rejected(attempt_id, UsageRejection.INVALID, 'The database cannot store a value.');
      seen.add(attempt_id);
    }
    return again;
  }

  private refusalOf(record: UsageRecord): readonly [UsageRejection, string] | undefined {
    const problem = recordProblem(record);
    if (problem) return [UsageRejection.INVALID, `${problem}.`];
    if (!this.mayReport(record))
      return [UsageRejection.AGENT_NOT_ALLOWED, 'The caller may record only attempts of its own agents.'];
    const started = record.attempt?.started_at?.getTime() ?? 0;
    if (started > this.now + limits.usageSkewMs)
      return [
        UsageRejection.IN_FUTURE,
        `The attempt began in the future: the time of the service is ${iso(this.now)}.`,
      ];
    if (started < this.oldest)
      return [UsageRejection.TOO_OLD, `Attempts that began before ${iso(this.oldest)} are no longer retained.`];
    return undefined;
  }

  /** The record with the names that the catalogue has, so that reports do not show a model twice. */
  private canonical(record: UsageRecord): UsageRecord {
    const { attempt } = record;
    const { state } = this.pricing;
    if (!attempt) return record;
    const provider = state.provider(attempt.provider)?.name ?? attempt.provider;
    const model_name = state.model(provider, attempt.model_name)?.name ?? attempt.model_name;
    const agent_id = record.agent_id || (state.agentNamed(record.agent)?.id ?? 0);
    if (provider === attempt.provider && model_name === attempt.model_name && agent_id === record.agent_id)
      return record;
    return { ...record, agent_id, attempt: { ...attempt, provider, model_name } };
  }

  /** Both the reported name and the agent that has the id must be agents of the caller. */
  private mayReport({ agent, agent_id }: UsageRecord): boolean {
    const { agents } = this.principal;
    if (!agents) return true;
    const { state } = this.pricing;
    const current = state.agents.get(agent_id)?.name;
    return agents.has(state.storedAgentName(agent)) && (current === undefined || agents.has(current));
  }
}

function newAttempt(record: UsageRecord, pricing: UsagePricing): NewAttempt {
  const attempt = record.attempt as NonNullable<UsageRecord['attempt']>;
  const { usage } = attempt;
  const { cost, ...price } = pricing.price(record);
  return {
    attempt_id: attempt.attempt_id.toLowerCase(),
    started_at: attempt.started_at as Date,
    agent_id: record.agent_id,
    agent_name: record.agent,
    config_id: attempt.config_id ?? null,
    provider: attempt.provider,
    model_name: attempt.model_name,
    experiment: record.experiment,
    variant: record.variant,
    run_id: record.run_id,
    outcome: outcomeOf(attempt.error_class),
    fallback: attempt.hop_index > 0,
    input_tokens: usage?.input_tokens ?? null,
    input_no_cache_tokens: usage?.input_no_cache_tokens ?? null,
    input_cache_read_tokens: usage?.input_cache_read_tokens ?? null,
    input_cache_write_tokens: usage?.input_cache_write_tokens ?? null,
    input_cache_write_long_tokens: usage?.input_cache_write_long_tokens ?? null,
    output_tokens: usage?.output_tokens ?? null,
    output_reasoning_tokens: usage?.output_reasoning_tokens ?? null,
    cost_nano_usd: cost.nanoUsd ?? null,
    unpriced_reason: cost.unpriced ?? null,
    reservation_id: attempt.reservation_id.toLowerCase(),
    subject: record.subject,
    call: record.call,
    revision: Number(record.revision),
    ...price,
    record: Buffer.from(RecordMessage.encode(record).finish()),
  };
}

/** Checks the losses of a batch; they have no results of their own. */
function lossesOf({ store }: UsageBackend, principal: Principal, losses: readonly UsageLoss[]): NewLoss[] {
  const problems = new Problems();
  for (const [at, loss] of losses.entries()) {
    const field = (name: string) => `losses[${at}].${name}`;
    problems.add(field('loss_id'), UUID.test(loss.loss_id) ? undefined : 'must be a UUID');
    problems.add(field('agent'), loss.agent === '' ? 'is required' : textProblem(loss.agent, limits.agentName));
    problems.add(field('attempts'), loss.attempts >= 1n ? undefined : `must be at least 1, not ${loss.attempts}`);
    problems.add(field('first_at'), loss.first_at ? undefined : 'is required');
    problems.add(field('last_at'), loss.last_at ? undefined : 'is required');
    if (loss.first_at && loss.last_at && loss.first_at > loss.last_at)
      problems.add(field('last_at'), 'must not be earlier than first_at');
  }
  problems.throwIfAny();
  const { actor, agents } = principal;
  if (agents && losses.some(({ agent }) => !agents.has(store.state.storedAgentName(agent))))
    throw ServiceError.of('AGENT_NOT_ALLOWED', { actor });
  return losses.map(({ loss_id, agent, attempts, first_at, last_at }) => ({
    loss_id: loss_id.toLowerCase(),
    agent_name: agent,
    attempts,
    first_at: first_at as Date,
    last_at: last_at as Date,
    actor,
  }));
}
