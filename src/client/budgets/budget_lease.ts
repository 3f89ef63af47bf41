import { performance } from 'node:perf_hooks';
import type { Reservation } from '../../../gen/ts/agentllm/v1/budget.js';
import type { UsageRecord } from '../../../gen/ts/agentllm/v1/usage.js';
import type { Admission } from './admission.js';

/** The terms of a granted reservation. */
export interface Grant {
  readonly reservation: Reservation;
  /** The index of the first hop that the reservation covers. */
  readonly start: number;
  /** The names of the budgets that had not enough left. */
  readonly exhausted: readonly string[];
  readonly revision: bigint;
}

/** A reservation of this process. It counts the remaining attempts and collects the usage of attempts. */
export class BudgetLease {
  readonly id: string;
  readonly records: UsageRecord[] = [];
  private unitsLeft: number;
  /** The attempts in progress. */
  private running = 0;
  private endsAt: number;
  private readonly lifetimeMs: number;
  /** Whether an attempt has begun since the last renewal. */
  wasUsed = false;

  constructor(
    readonly grant: Grant,
    /** Called when the last attempt of a used-up lease has ended. */
    private readonly onDone: () => void,
  ) {
    const { reservation_id, attempts, expires_in_ms } = grant.reservation;
    this.id = reservation_id;
    this.unitsLeft = attempts;
    this.lifetimeMs = Number(expires_in_ms);
    this.endsAt = performance.now() + this.lifetimeMs;
  }

  /** Whether another attempt may begin. The clock is monotonic, so setting the system time does not extend a lease. */
  get hasUnits(): boolean {
    return this.unitsLeft > 0 && this.remainingMs > 0;
  }

  /** Whether the next reservation should be requested. */
  get isLow(): boolean {
    return this.unitsLeft <= Math.ceil(this.grant.reservation.attempts / 4);
  }

  get isIdle(): boolean {
    return this.running === 0;
  }

  get remainingMs(): number {
    return this.endsAt - performance.now();
  }

  /** The time until the renewal of the lease, if it is used. */
  get renewalMs(): number {
    return this.remainingMs / 2;
  }

  take(): Admission {
    this.unitsLeft--;
    this.running++;
    this.wasUsed = true;
    let isOpen = true;
    const unused = () => {
      if (!isOpen) return;
      isOpen = false;
      this.unitsLeft++;
      this.end(1);
    };
    return { refused: undefined, reservationId: this.id, unused };
  }

  /** The attempts of a call have ended. */
  settle(records: readonly UsageRecord[]): void {
    this.records.push(...records);
    this.end(records.length);
  }

  renewed({ expires_in_ms }: Reservation): void {
    this.endsAt = performance.now() + Number(expires_in_ms);
    this.wasUsed = false;
  }

  /** No further attempt may begin. */
  close(): void {
    this.unitsLeft = 0;
  }

  private end(attempts: number): void {
    this.running -= attempts;
    if (this.running <= 0 && !this.hasUnits) this.onDone();
  }
}
