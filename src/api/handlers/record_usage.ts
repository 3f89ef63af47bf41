import { createHash } from 'node:crypto';
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
import { onDatabase } from '../../store/failure.js';
import type { NewLoss } from '../../store/usage/losses.js';
import type { NewAttempt } from '../../store/usage/new_attempt.js';
import { oldestAccepted, oldestRetained } from '../../store/usage/retention.js';
import type { EndedReservation, StoredBatch } from '../../store/usage/usage_writer.js';
import { timeSlice } from '../../time_slice.js';
import type { Backend } from './backend.js';
import { UsagePricing } from './usage_pricing.js';

/** The components that record usage. */
export type UsageBackend = Pick<Backend, 'store' | 'feed' | 'usageWriter' | 'usageRetentionMs' | 'usageMetrics'>;

/** A batch of attempts that a caller reports. */
export interface ReportedUsage {
  readonly records: readonly UsageRecord[];
  readonly losses: readonly UsageLoss[];
  /** The reservation that is ended together with these attempts. */
  readonly ending?: EndedReservation;
}

export interface RecordedUsage {
  /** One result for each record, in their order. The cost of a known attempt is not set. */
  readonly results: UsageResult[];
  /** The attempts that were already stored; their stored costs can be read. */
  readonly known: readonly NewAttempt[];
  /** The revision at which the attempts were priced. */
  readonly revision: number;
  /** The amount that the end of the reservation released, in nano-USD. */
  readonly released: bigint;
}

/**
 * Records a batch. Each attempt is stored once, with its cost. An invalid attempt is rejected without affecting other
 * attempts.
 * @throws INVALID_FIELDS or AGENT_NOT_ALLOWED if a loss is invalid, and DATABASE_UNAVAILABLE. Nothing is stored then.
 */
export async function recordUsage(
  backend: UsageBackend,
  principal: Principal,
  { records, losses, ending }: ReportedUsage,
  signal: AbortSignal,
): Promise<RecordedUsage> {
  const newLosses = lossesOf(backend, principal, losses);
  const pricing = await UsagePricing.open(backend, records, signal);
  const recording = new Recording(principal, pricing, await oldestOf(backend, records));
  for (const record of records) {
    if (timeSlice.isSpent) await timeSlice.next();
    recording.add(record);
  }
  const { attempts, results } = recording;
  const stored =
    attempts.size > 0 || newLosses.length > 0 || ending
      ? await backend.usageWriter.add({ attempts: [...attempts.values()], losses: newLosses, ending }, signal)
      : { fresh: new Set<string>(), known: new Set<string>(), released: 0n };
  const known = recording.complete(stored);
  for (const { attempt_id, outcome, cost_nano_usd, unpriced_reason } of attempts.values())
    if (stored.fresh.has(attempt_id)) backend.usageMetrics.countStored(outcome, cost_nano_usd, unpriced_reason);
  for (const { rejection } of results)
    if (rejection !== UsageRejection.UNSPECIFIED) backend.usageMetrics.countRejected(rejection);
  return { results, known, revision: pricing.state.revision, released: stored.released };
}

const DAY_MS = 86_400_000;

/** The earliest start of an accepted attempt. Recent attempts are never deleted, so they need no query. */
async function oldestOf({ store, usageRetentionMs }: UsageBackend, records: readonly UsageRecord[]): Promise<number> {
  const now = Date.now();
  const kept = oldestAccepted(now, DAY_MS);
  const isOld = records.some(({ attempt }) => (attempt?.started_at?.getTime() ?? now) < kept);
  return isOld
    ? onDatabase(store, (db) => oldestRetained(db, now, usageRetentionMs))
    : oldestAccepted(now, usageRetentionMs);
}

const iso = (ms: number): string => new Date(ms).toISOString();

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

/** The valid records of a batch, and the results of the invalid records. */
class Recording {
  readonly results: UsageResult[] = [];
  /** By id. If several records have the same id, the first one counts. */
  readonly attempts = new Map<string, NewAttempt>();
  /** The valid records with their index. */
  private readonly reported: { readonly at: number; readonly attempt: NewAttempt; readonly isFirst: boolean }[] = [];
  private readonly now = Date.now();

  constructor(
    private readonly principal: Principal,
    private readonly pricing: UsagePricing,
    private readonly oldest: number,
  ) {}

  add(reportedRecord: UsageRecord): void {
    const record = this.canonical(reportedRecord);
    const attempt_id = record.attempt?.attempt_id ?? '';
    const refusal = this.refusalOf(record);
    if (refusal) {
      this.results.push(rejected(attempt_id, ...refusal));
      return;
    }
    const attempt = newAttempt(record, this.pricing);
    const first = this.attempts.get(attempt.attempt_id);
    if (!first) this.attempts.set(attempt.attempt_id, attempt);
    this.reported.push({ at: this.results.length, attempt: first ?? attempt, isFirst: !first });
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
    const again: NewAttempt[] = [];
    for (const { at, attempt, isFirst } of this.reported) {
      const { attempt_id, cost_nano_usd: cost } = attempt;
      const result = this.results[at] as UsageResult;
      if (isFirst && fresh.has(attempt_id)) {
        result.status = UsageStatus.NEW;
        result.cost_nano_usd = cost ?? undefined;
      } else if (fresh.has(attempt_id) || known.has(attempt_id)) {
        result.status = UsageStatus.KNOWN;
        again.push(attempt);
      } else this.results[at] = rejected(attempt_id, UsageRejection.INVALID, 'The database cannot store a value.');
    }
    return again;
  }

  private refusalOf(record: UsageRecord): readonly [UsageRejection, string] | undefined {
    const problem = recordProblem(record);
    if (problem) return [UsageRejection.INVALID, `${problem}.`];
    if (!this.mayReport(record))
      return [
        UsageRejection.AGENT_NOT_ALLOWED,
        'The token permits attempts only of certain agents, and this agent is not one of them.',
      ];
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

  /** The record with canonical names of the catalogue, so that reports do not show a model twice. */
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

  /** The reported name and the agent with the reported id must both be agents that the caller may report. */
  private mayReport({ agent, agent_id }: UsageRecord): boolean {
    const { agents } = this.principal;
    if (!agents) return true;
    const { state } = this.pricing;
    const current = state.agents.get(agent_id)?.name;
    return agents.has(state.storedAgentName(agent)) && (current === undefined || agents.has(current));
  }
}

/**
 * The stored id of an agent that the service does not know: a negative number that is derived from its name, so that
 * two unknown agents have separate sums.
 */
const unknownAgentId = (name: string): number =>
  -1 - (createHash('sha256').update(name).digest().readUInt32BE(0) % limits.maxInt32);

function newAttempt(record: UsageRecord, pricing: UsagePricing): NewAttempt {
  const attempt = record.attempt as NonNullable<UsageRecord['attempt']>;
  const { usage } = attempt;
  const { cost, price_revision, price_from_config } = pricing.price(record);
  const bytes = RecordMessage.encode(record).finish();
  return {
    attempt_id: attempt.attempt_id.toLowerCase(),
    started_at: attempt.started_at as Date,
    agent_id: record.agent_id || unknownAgentId(record.agent),
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
    price_revision,
    price_from_config,
    record: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
  };
}

/** Checks the losses of a batch. The response has no results for losses. */
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
