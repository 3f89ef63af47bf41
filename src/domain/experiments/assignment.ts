import { murmur3 } from './murmur3.js';

/** Subjects are assigned by bucket; a basis point of weight is one bucket. */
export const BUCKETS = 10_000;

/** The buckets from `start` to before `end`. */
export interface BucketRange {
  readonly start: number;
  readonly end: number;
}

/** No variant has the bucket. */
export const UNASSIGNED = -1;

const HASHES = 2 ** 32;

/** The bucket of a subject: the hash of `salt:subject`, scaled to the buckets. The product is exact in a double. */
const bucketAfter = (prefix: string, subject: string): number =>
  Math.floor(((murmur3(prefix, subject) >>> 0) * BUCKETS) / HASHES);

export const bucketOf = (salt: string, subject: string): number => bucketAfter(`${salt}:`, subject);

/** The assignment of subjects to the variants of one revision of an experiment. Its methods allocate no memory. */
export class Assignment {
  private readonly prefix: string;
  /** The ranges of all variants, in ascending order. */
  private readonly starts: Uint16Array;
  private readonly ends: Uint16Array;
  private readonly owners: Uint8Array;

  /** @param variants disjoint ranges of each variant; a bucket outside of all ranges is UNASSIGNED. */
  constructor(salt: string, variants: readonly { readonly ranges: readonly BucketRange[] }[]) {
    this.prefix = `${salt}:`;
    const sorted = variants
      .flatMap(({ ranges }, owner) => ranges.map((range) => ({ ...range, owner })))
      .sort((a, b) => a.start - b.start);
    this.starts = Uint16Array.from(sorted, ({ start }) => start);
    this.ends = Uint16Array.from(sorted, ({ end }) => end);
    this.owners = Uint8Array.from(sorted, ({ owner }) => owner);
  }

  bucketOf(subject: string): number {
    return bucketAfter(this.prefix, subject);
  }

  /** The index of the variant of a subject, or UNASSIGNED. */
  variantOf(subject: string): number {
    return this.ownerOf(bucketAfter(this.prefix, subject));
  }

  /** The index of the variant that has a bucket, or UNASSIGNED. */
  ownerOf(bucket: number): number {
    const { starts, ends, owners } = this;
    let low = 0;
    let high = ends.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((ends[middle] as number) <= bucket) low = middle + 1;
      else high = middle;
    }
    return low < ends.length && (starts[low] as number) <= bucket ? (owners[low] as number) : UNASSIGNED;
  }
}
