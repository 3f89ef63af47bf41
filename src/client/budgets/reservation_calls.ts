import { randomUUID } from 'node:crypto';
import {
  BudgetServiceService,
  CommitRequest,
  type CommitResponse,
  RenewRequest,
  type RenewResponse,
  ReserveRequest,
  type ReserveResponse,
} from '../../../gen/ts/agentllm/v1/budget_service.js';
import type { UsageRecord } from '../../../gen/ts/agentllm/v1/usage.js';
import { onAbort } from '../../abort.js';
import type { Connection, Method } from '../connection.js';

/** How long a call waits for a reservation. */
const RESERVE_MS = 5_000;
/** Timeout of renewals and commits, for which no caller waits. */
const BACKGROUND_MS = 10_000;

/** The content of a Reserve request. */
export interface ReservationParameters {
  readonly id: string;
  readonly agent: string;
  readonly runId: string;
  readonly inputTokens: number;
  readonly attempts: number | undefined;
}

export const newReservationId = (): string => randomUUID();

/** The requests of a client to BudgetService. */
export class ReservationCalls {
  private readonly ending = new AbortController();

  /**
   * @param calls the connection for requests for which a caller waits.
   * @param stream the connection for all other requests; it does not keep the process alive.
   */
  constructor(
    private readonly calls: Connection,
    private readonly stream: Connection,
  ) {}

  /** Cancels the requests for which no caller waits. */
  end(): void {
    this.ending.abort();
  }

  reserve(parameters: ReservationParameters, isAwaited: boolean): Promise<ReserveResponse> {
    const { id: reservation_id, agent, runId: run_id, inputTokens: input_tokens, attempts } = parameters;
    const request = ReserveRequest.fromPartial({
      agent: { name: agent },
      reservation_id,
      run_id,
      input_tokens,
      attempts,
    });
    const method = BudgetServiceService.reserve;
    const make = () => ({ bytes: method.requestSerialize(request) });
    if (!isAwaited) return this.inBackground(method, make);
    return this.calls.call(method, make, { deadlineMs: RESERVE_MS });
  }

  renew(agent: string, reservation_id: string): Promise<RenewResponse> {
    const method = BudgetServiceService.renew;
    const request = RenewRequest.fromPartial({ agent: { name: agent }, reservation_id });
    return this.inBackground(method, () => ({ bytes: method.requestSerialize(request) }));
  }

  /** Reports the attempts of a reservation and ends it. */
  commit(agent: string, reservation_id: string, records: readonly UsageRecord[]): Promise<CommitResponse> {
    const method = BudgetServiceService.commit;
    const request = CommitRequest.fromPartial({ agent: { name: agent }, reservation_id, records: [...records] });
    return this.inBackground(method, () => ({ bytes: method.requestSerialize(request) }));
  }

  /** The call has no grpc-js deadline, because its timer would keep the process alive. */
  private async inBackground<Response>(method: Method<Response>, make: () => { bytes: Buffer }): Promise<Response> {
    const call = new AbortController();
    const timer = setTimeout(() => call.abort(), BACKGROUND_MS).unref();
    const release = onAbort(this.ending.signal, () => call.abort());
    try {
      return await this.stream.call(method, make, { signal: call.signal, deadlineMs: Number.POSITIVE_INFINITY });
    } finally {
      clearTimeout(timer);
      release();
    }
  }
}
