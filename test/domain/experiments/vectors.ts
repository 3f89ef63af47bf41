import { readFileSync } from 'node:fs';
import type { BucketRange } from '../../../src/domain/experiments/assignment.js';
import { packageFile } from '../../../src/package.js';

interface Vector {
  readonly salt: string;
  readonly hash: number;
  readonly bucket: number;
}
interface Vectors {
  readonly buckets: readonly (Vector & { readonly subject: string; readonly times?: number })[];
  readonly lone_surrogates: readonly (Vector & { readonly utf16: readonly number[] })[];
  readonly assignments: readonly {
    readonly salt: string;
    readonly variants: readonly RangesOf[];
    readonly subjects: readonly { readonly subject: string; readonly variant: string }[];
    readonly buckets: readonly { readonly bucket: number; readonly variant: string }[];
  }[];
  readonly allocations: readonly {
    readonly about: string;
    readonly steps: readonly {
      readonly variants: readonly (RangesOf & { readonly weight: number })[];
      readonly moved: number;
    }[];
  }[];
}
interface RangesOf {
  readonly name: string;
  readonly ranges: readonly (readonly [start: number, end: number])[];
}

/** The file that clients of other languages check their assignment with. */
export const vectors = JSON.parse(readFileSync(packageFile('conformance/assignment.json'), 'utf8')) as Vectors;

/** All subjects of the file with their hashes. */
export const subjectVectors: readonly (Vector & { readonly subject: string })[] = [
  ...vectors.buckets.map(({ subject, times = 1, ...one }) => ({ ...one, subject: subject.repeat(times) })),
  ...vectors.lone_surrogates.map(({ utf16, ...one }) => ({ ...one, subject: String.fromCharCode(...utf16) })),
];

export const rangesOf = ({ ranges }: RangesOf): BucketRange[] => ranges.map(([start, end]) => ({ start, end }));
