import type { ServiceError } from './errors.js';

export interface ConcurrencyLimits {
  /** Most entries at once; by default any number. Read at every entry. */
  total?(): number;
  /** Most entries of one key at once; by default any number. */
  perKey?(): number;
}

/** Makes the error for an entry that is refused, from the number of entries of its key and of all. */
export type Refusal = (ofKey: number, total: number) => ServiceError;

/**
 * Bounds how many of something exist at once, in total and for each key, and refuses more. Nothing waits here: see
 * `Semaphore` in src/providers for that, and `TokenBucket` in src/api/dispatch for rates. It allocates nothing for an
 * entry, because every call makes one.
 */
export class ConcurrencyLimiter {
  private total = 0;
  private readonly counts = new Map<number, number>();

  constructor(private readonly limits: ConcurrencyLimits) {}

  get count(): number {
    return this.total;
  }

  /** Counts an entry until `leave` is called with the same key; throws the refusal when there is no room. */
  enter(key: number | undefined, refusal: Refusal): void {
    if (!this.tryEnter(key)) throw refusal(this.countOf(key), this.total);
  }

  /** Counts an entry like `enter`; false when there is no room. */
  tryEnter(key?: number): boolean {
    const { total, perKey } = this.limits;
    const ofKey = this.countOf(key);
    if ((total && this.total >= total()) || (perKey && ofKey >= perKey())) return false;
    this.total++;
    if (key !== undefined) this.counts.set(key, ofKey + 1);
    return true;
  }

  leave(key?: number): void {
    this.total--;
    if (key === undefined) return;
    const ofKey = this.countOf(key);
    if (ofKey > 1) this.counts.set(key, ofKey - 1);
    else this.counts.delete(key);
  }

  private countOf(key: number | undefined): number {
    return key === undefined ? 0 : (this.counts.get(key) ?? 0);
  }
}
