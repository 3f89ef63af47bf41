import type { Lab } from './lab.js';

/** What a figure has to reach; none: it is there for orientation. */
export type Goal =
  | { readonly kind: 'ratio at least' | 'ratio at most' | 'ratio above'; readonly value: number }
  | { readonly kind: 'difference at most'; readonly value: number };

/** One line of the table: ours beside its reference, both measured in this run. */
export interface Figure {
  readonly what: string;
  readonly unit: string;
  /** The medians of the rounds; undefined where the row could not be measured. */
  readonly ours?: number;
  readonly reference?: number;
  /** The median of the rounds' own ratios (or differences), so that a slow minute of the machine hits both sides. */
  readonly compared?: number;
  readonly goal?: Goal;
  /** What the figures do not say: why there are none, what did the loading. */
  readonly note?: string;
}

/** One row of performance.md. A file in `bench/rows` exports it as `row`, and nothing else has to know of it. */
export interface Row {
  /** What `npm run bench -- <name>` runs it by. */
  readonly name: string;
  readonly about: string;
  /** The target as performance.md has it. */
  readonly target: string;
  run(lab: Lab): Promise<Figure[]>;
}

/** Whether a figure reaches its goal; undefined where it has none or was not measured. */
export function isMet({ compared, goal }: Figure): boolean | undefined {
  if (!goal || compared === undefined) return undefined;
  if (goal.kind === 'ratio at least') return compared >= goal.value;
  if (goal.kind === 'ratio above') return compared > goal.value;
  return compared <= goal.value;
}
