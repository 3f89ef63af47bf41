import type { ReservationOptions } from './budgets/budget_leases.js';
import type { CacheOptions } from './snapshot_cache.js';
import type { SpoolSettings } from './usage/usage_options.js';

/** The validated options of a resident client, with their defaults. */
export interface ResidentSettings {
  readonly agents: readonly string[] | 'all';
  readonly clientName: string;
  readonly clientVersion: string;
  readonly cache: CacheOptions | undefined;
  readonly leaseMs: number;
  /** Undefined: usage is not recorded. */
  readonly usage: SpoolSettings | undefined;
  readonly reservation: ReservationOptions;
}
