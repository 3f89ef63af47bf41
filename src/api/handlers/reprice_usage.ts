import type { RepriceUsageRequest, RepriceUsageResponse } from '../../../gen/ts/agentllm/v1/usage_service.js';
import { int64Amount } from '../../domain/amount.js';
import { costOfAttempt, priceAt } from '../../domain/cost.js';
import type { State } from '../../domain/state.js';
import { textProblem } from '../../domain/text.js';
import { limits } from '../../limits.js';
import { Problems } from '../../problems.js';
import { onDatabase } from '../../store/failure.js';
import {
  insertAdjustments,
  lockAdjustments,
  type NewAdjustment,
  readVectors,
  type StoredVector,
} from '../../store/usage/vectors.js';
import { timeSlice } from '../../time_slice.js';
import type { Call } from '../dispatch/method.js';
import type { UsageBackend } from './record_usage.js';
import { checkFilter, checkRange, filterOf } from './usage_requests.js';
import { countsOf } from './what_if.js';

type RepriceCall = Call<RepriceUsageRequest, RepriceUsageResponse>;

/** Prices stored attempts again, and stores the differences as adjustments, chunk by chunk. */
export async function repriceUsage({ store }: UsageBackend, call: RepriceCall): Promise<RepriceUsageResponse> {
  const { request, signal } = call;
  checkRequest(request);
  const { state } = store;
  const [from, to] = [request.since as Date, request.until as Date];
  const repricing = new Repricing(state, request.unpriced_only);
  const filter = filterOf(state, request.filter, from, to);
  await onDatabase(store, async (db) => {
    for await (const chunk of readVectors(db, { from, to, filter })) {
      if (timeSlice.isSpent) await timeSlice.next();
      signal.throwIfAborted();
      if (request.validate_only) repricing.add(chunk);
      else
        await db.transaction(async (tx) => {
          const adjusted = await lockAdjustments(
            tx,
            chunk.map(({ attempt_id }) => attempt_id),
          );
          // The chunk was read without the lock, so its attempts are read again.
          const current = chunk.map((one) => ({
            ...one,
            adjustment: adjusted.get(one.attempt_id)?.toString() ?? null,
          }));
          call.recheckAccess();
          const adjustments = repricing.add(current);
          if (adjustments.length > 0)
            await insertAdjustments(tx, adjustments, { actor: call.caller, reason: request.reason });
        });
      if (repricing.more) break;
    }
  });
  return {
    adjusted_attempts: BigInt(repricing.adjusted),
    revision: BigInt(state.revision),
    adjustment_nano_usd: int64Amount(repricing.amount),
    unpriced_attempts: BigInt(repricing.unpriced),
    more: repricing.more,
  };
}

function checkRequest(request: RepriceUsageRequest): void {
  const problems = new Problems();
  checkRange(problems, request, limits.usageRangeDays);
  checkFilter(problems, request.filter);
  problems.add('reason', request.reason.trim() === '' ? 'is required' : textProblem(request.reason, limits.reason));
  problems.throwIfAny();
}

/** The adjustments of one request. */
class Repricing {
  adjusted = 0;
  amount = 0n;
  unpriced = 0;
  /** Whether the limit was reached before all attempts were priced. */
  more = false;

  constructor(
    private readonly state: State,
    private readonly unpricedOnly: boolean,
  ) {}

  add(vectors: readonly StoredVector[]): NewAdjustment[] {
    const adjustments: NewAdjustment[] = [];
    for (const vector of vectors) {
      const adjustment = this.adjustmentOf(vector);
      if (!adjustment) continue;
      if (this.adjusted === limits.repricedAttempts) {
        this.more = true;
        break;
      }
      adjustments.push(adjustment);
      this.adjusted++;
      this.amount += adjustment.nanoUsd;
    }
    return adjustments;
  }

  private adjustmentOf(vector: StoredVector): NewAdjustment | undefined {
    const { attempt_id, started_at, cost_nano_usd: cost, adjustment } = vector;
    const wasUnpriced = cost === null && adjustment === null;
    if (vector.price_from_config || (this.unpricedOnly && !wasUnpriced)) return undefined;
    const priced = this.price(vector);
    if (!priced && wasUnpriced) this.unpriced++;
    if (!priced) return undefined;
    const nanoUsd = priced.nanoUsd - BigInt(cost ?? 0) - BigInt(adjustment ?? 0);
    if (nanoUsd === 0n && !wasUnpriced) return undefined;
    return { attempt_id, started_at, nanoUsd, price_revision: priced.revision, wasUnpriced };
  }

  private price(vector: StoredVector): { readonly nanoUsd: bigint; readonly revision: number } | undefined {
    const { provider, model_name, started_at } = vector;
    const model = this.state.model(provider, model_name);
    const prices = model && this.state.pricesOf(model.id);
    const cost = costOfAttempt({
      provider,
      model_name,
      started_at,
      usage: countsOf(vector),
      config: undefined,
      prices,
    });
    if (cost.nanoUsd === undefined) return undefined;
    return { nanoUsd: cost.nanoUsd, revision: (prices && priceAt(prices, started_at)?.revision) ?? 0 };
  }
}
