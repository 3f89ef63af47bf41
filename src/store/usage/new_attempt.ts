import type { UsageCall } from '../../../gen/ts/agentllm/v1/usage.js';
import { USAGE_PARTITIONS } from '../../../migrations/0020_usage.js';

/**
 * An attempt to store: the columns of `llm_usage_attempts` except the time of storage, and values that are stored only
 * in `record`: the reservation, and the data that experiments count.
 */
export interface NewAttempt {
  readonly attempt_id: string;
  readonly started_at: Date;
  readonly agent_id: number;
  readonly agent_name: string;
  readonly config_id: number | null;
  readonly provider: string;
  readonly model_name: string;
  readonly experiment: string;
  readonly variant: string;
  readonly run_id: string;
  readonly outcome: string;
  readonly fallback: boolean;
  readonly input_tokens: number | null;
  readonly input_no_cache_tokens: number | null;
  readonly input_cache_read_tokens: number | null;
  readonly input_cache_write_tokens: number | null;
  readonly input_cache_write_long_tokens: number | null;
  readonly output_tokens: number | null;
  readonly output_reasoning_tokens: number | null;
  readonly cost_nano_usd: bigint | null;
  readonly unpriced_reason: string | null;
  readonly price_revision: number;
  readonly price_from_config: boolean;
  /** Empty: none. */
  readonly reservation_id: string;
  readonly subject: string;
  readonly call: UsageCall | undefined;
  /** The store revision that the call used. */
  readonly revision: number;
  /** The encoded UsageRecord. */
  readonly record: Buffer;
}

/** The partition of an attempt, by the month of its start. */
export const slotOf = (startedAt: Date): number =>
  (startedAt.getUTCFullYear() * 12 + startedAt.getUTCMonth() + 1) % USAGE_PARTITIONS;
