import type { Lab } from './lab.js';

/** The target of a figure. A figure without a goal is only for information. */
export type Goal =
  | { readonly kind: 'ratio at least' | 'ratio at most' | 'ratio above'; readonly value: number }
  | { readonly kind: 'difference at most'; readonly value: number };

/** One line of the table: the service and its reference, both measured in the same run. */
export interface Figure {
  readonly what: string;
  readonly unit: string;
  /** Medians over the rounds; undefined when the row could not be measured. */
  readonly ours?: number;
  readonly reference?: number;
  /** Median of the ratios (or differences) of each round, so that a slow phase of the machine affects both sides. */
  readonly compared?: number;
  readonly goal?: Goal;
  /** Additional information: the load generator, or why there are no figures. */
  readonly note?: string;
}

/** One row of the benchmark. A file in `bench/rows` exports it as `row` and needs no registration. */
export interface Row {
  /** The name for `npm run bench -- <name>`. */
  readonly name: string;
  readonly about: string;
  /** The target as text. */
  readonly target: string;
  run(lab: Lab): Promise<Figure[]>;
}

/** Whether a figure reaches its goal; undefined when it has none or was not measured. */
export function isMet({ compared, goal }: Figure): boolean | undefined {
  if (!goal || compared === undefined) return undefined;
  if (goal.kind === 'ratio at least') return compared >= goal.value;
  if (goal.kind === 'ratio above') return compared > goal.value;
  return compared <= goal.value;
}
