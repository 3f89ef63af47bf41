import type { ServiceError } from './errors.js';

export interface ConcurrencyLimits {
  /** Maximum number of concurrent entries; by default there is no limit. Called at every entry. */
  total?(): number;
  /** Maximum number of concurrent entries of one key; by default there is no limit. */
  perKey?(): number;
}

/** The limit that refuses an entry: of all entries, or of its key. */
export type Scope = 'total' | 'key';

/** Creates the error for an entry that is refused, from the number of entries that the limit covers. */
export type Refusal = (count: number, scope: Scope) => ServiceError;

/**
 * Bounds the number of concurrent entries, in total and for each key, and refuses further ones. Entries do not wait:
 * `Semaphore` in src/providers has a queue, and `TokenBucket` in src/api/dispatch limits rates. An entry allocates no
 * memory, because every call has one.
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
    if (this.tryEnter(key)) return;
    const isFull = this.limits.total !== undefined && this.total >= this.limits.total();
    throw isFull ? refusal(this.total, 'total') : refusal(this.countOf(key), 'key');
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
