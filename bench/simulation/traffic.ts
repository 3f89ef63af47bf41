import { allocate, type VariantBuckets } from '../../src/domain/experiments/allocation.js';
import { Assignment } from '../../src/domain/experiments/assignment.js';
import type { MetricSums } from '../../src/domain/experiments/metric_sums.js';
import type { Random } from './random.js';

/** The value of one call of a subject with the trait `trait`, which is from the standard normal distribution. */
export type Draw = (random: Random, trait: number) => number;

/** An experiment and the traffic of its agent. */
export interface Scenario {
  readonly name: string;
  /** The values of the variants; the first one is the control. */
  readonly draws: readonly Draw[];
  /** The true means. */
  readonly means: readonly number[];
  /** Weights in basis points by variant, each from a number of calls on. */
  readonly weights: readonly { readonly fromCall: number; readonly weights: readonly number[] }[];
  readonly calls: number;
  /** The mean number of calls of a subject; the calls of several subjects are mixed. */
  readonly callsPerSubject: number;
  readonly isProportion: boolean;
  /** Whether the metric is the mean of the means of the subjects instead of the mean of the calls. */
  readonly isPerSubject?: boolean;
}

/** The sums of one subject in one variant. */
interface Row {
  calls: number;
  value: number;
}
type Sums = { -readonly [K in keyof MetricSums]: MetricSums[K] };

/** As many subjects are active at a time. */
const ACTIVE = 50;

/**
 * The calls of an experiment one by one, with the sums that the service keeps: a subject that changes its variant has a row
 * in both.
 */
export class Traffic {
  readonly sums: readonly Sums[];
  private readonly rows: Map<number, Row>[];
  private readonly active: { readonly id: number; readonly trait: number }[] = [];
  private variants: readonly VariantBuckets[] = [];
  private assignment = new Assignment('', []);
  private subjects = 0;
  private readonly salt: string;
  calls = 0;

  constructor(
    private readonly scenario: Scenario,
    private readonly random: Random,
  ) {
    this.salt = random.below(2 ** 32).toString(16);
    this.sums = scenario.draws.map(() => ({ subjects: 0, x: 0, xx: 0, y: 0, yy: 0, xy: 0 }));
    this.rows = scenario.draws.map(() => new Map());
  }

  /** Makes one call. Returns its variant and value. */
  next(): { readonly variant: number; readonly value: number; readonly row: Readonly<Row> } {
    const { scenario, random } = this;
    const change = scenario.weights.find(({ fromCall }) => fromCall === this.calls);
    if (change) this.setWeights(change.weights);
    this.calls++;
    const subject = this.subject();
    const variant = this.assignment.variantOf(`subject-${subject.id}`);
    const value = (scenario.draws[variant] as Draw)(random, subject.trait);
    return { variant, value, row: this.add(variant, subject.id, value) };
  }

  private setWeights(weights: readonly number[]): void {
    this.variants = allocate(
      this.variants,
      weights.map((weight, at) => ({ name: `${at}`, weight })),
    );
    this.assignment = new Assignment(this.salt, this.variants);
  }

  private subject() {
    const { random, active } = this;
    if (active.length > 0 && random.uniform() >= 1 / this.scenario.callsPerSubject)
      return active[random.below(active.length)] as (typeof active)[number];
    const subject = { id: this.subjects++, trait: random.normal() };
    if (active.length < ACTIVE) active.push(subject);
    else active[random.below(ACTIVE)] = subject;
    return subject;
  }

  private add(variant: number, id: number, value: number): Row {
    const [rows, sums] = [this.rows[variant] as Map<number, Row>, this.sums[variant] as Sums];
    const row = rows.get(id) ?? { calls: 0, value: 0 };
    if (row.calls === 0) {
      rows.set(id, row);
      sums.subjects++;
    } else this.count(sums, row, -1);
    row.calls++;
    row.value += value;
    this.count(sums, row, 1);
    return row;
  }

  private count(sums: Sums, { calls, value }: Row, sign: number): void {
    const [x, y] = this.scenario.isPerSubject ? [1, value / calls] : [calls, value];
    sums.x += sign * x;
    sums.xx += sign * x * x;
    sums.y += sign * y;
    sums.yy += sign * y * y;
    sums.xy += sign * x * y;
  }
}
