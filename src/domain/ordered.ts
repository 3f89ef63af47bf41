/**
 * Values in key order, for keyset pagination in memory: a page starts with a
 * binary search, and its cost depends on its size, not on the number of values.
 */
export class Ordered<V> {
  private readonly values: V[] = [];

  constructor(private readonly compare: (a: V, b: V) => number) {}

  /** Inserts a value, replacing the one that compares equal. */
  put(value: V): void {
    const at = this.lowerBound((other) => this.compare(other, value));
    const found = this.values[at];
    const isEqual = found !== undefined && this.compare(found, value) === 0;
    this.values.splice(at, isEqual ? 1 : 0, value);
  }

  remove(value: V): void {
    const at = this.lowerBound((other) => this.compare(other, value));
    const found = this.values[at];
    if (found !== undefined && this.compare(found, value) === 0) this.values.splice(at, 1);
  }

  /**
   * The values after a cursor, in order; all values without a cursor.
   * @param position negative for a value at or before the cursor.
   */
  *after(position?: (value: V) => number): Generator<V> {
    const from = position ? this.lowerBound(position) : 0;
    for (let at = from; at < this.values.length; at++) yield this.values[at] as V;
  }

  get size(): number {
    return this.values.length;
  }

  private lowerBound(position: (value: V) => number): number {
    let low = 0;
    let high = this.values.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (position(this.values[middle] as V) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
