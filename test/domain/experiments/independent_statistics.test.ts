import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Random } from '../../../bench/simulation/random.js';
import { alwaysValidP, boundary } from '../../../src/domain/experiments/confidence_sequence.js';
import { contrastOf, differenceOf, type Pair, pairOf } from '../../../src/domain/experiments/difference.js';
import { latencyBin } from '../../../src/domain/experiments/latency_histogram.js';
import { estimateOf } from '../../../src/domain/experiments/metric_sums.js';
import { neededSubjects } from '../../../src/domain/experiments/power.js';
import { quantileInterval } from '../../../src/domain/experiments/quantile_difference.js';
import { checkSampleRatio } from '../../../src/domain/experiments/sample_ratio.js';
import { packageFile } from '../../../src/package.js';
import { sumsOf, sumsOfSuccesses, sumsOfValues } from './values.js';

/* Compares the statistics of experiments with scipy and statsmodels, which compute them from the values of all calls. */

const run = promisify(execFile);
const FOLDER = packageFile('.cache/scipy');
const PYTHON = `${FOLDER}/bin/python`;

/** Installs the packages once; the reason if that is not possible. */
async function install(): Promise<string | undefined> {
  if (existsSync(`${FOLDER}/installed`)) return undefined;
  try {
    await run('python3', ['-m', 'venv', FOLDER]);
    await run(`${FOLDER}/bin/pip`, ['install', '--quiet', 'scipy==1.17.1', 'statsmodels==0.15.0']);
    await run('touch', [`${FOLDER}/installed`]);
    return undefined;
  } catch {
    return 'skipped: scipy and statsmodels, which check the statistics of experiments, need Python 3.11 or newer with pip';
  }
}

/** A Python process that computes one case for each line, because scipy takes seconds to load. */
class Python {
  private readonly script = packageFile('test/domain/experiments/independent_statistics.py');
  private readonly child = spawn(PYTHON, [this.script], { stdio: ['pipe', 'pipe', 'inherit'] });
  private readonly lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();

  async compute(cases: readonly object[]): Promise<Record<string, number>[]> {
    const results: Record<string, number>[] = [];
    for (const one of cases) {
      this.child.stdin.write(`${JSON.stringify(one)}\n`);
      const { value, done } = await this.lines.next();
      if (done) throw new Error('Python has ended');
      results.push(JSON.parse(value));
    }
    return results;
  }

  close(): void {
    this.child.stdin.end();
  }
}

const expectClose = (ours: number | undefined, theirs: number | undefined, tolerance = 1e-9) => {
  expect(ours).toBeDefined();
  expect(Math.abs((ours as number) - (theirs as number))).toBeLessThanOrEqual(tolerance * Math.abs(theirs as number));
};

describe('scipy and statsmodels', () => {
  let missing: string | undefined;
  let python: Python | undefined;
  beforeAll(async () => {
    missing = await install();
    if (missing) console.log(missing);
    else python = new Python();
  }, 300_000);
  afterAll(() => python?.close());
  const compute = async (cases: readonly object[]) => (python as Python).compute(cases);

  it('have the values and errors of ratios, from a regression that is clustered by subject', async () => {
    if (missing) return;
    const random = new Random(7);
    const subject = (mean: number) => {
      const own = Math.exp(random.normal());
      return Array.from({ length: 1 + random.below(8) }, () => mean * own * Math.exp(0.5 * random.normal()));
    };
    const calls = [3, 2.4].map((mean) => Array.from({ length: 300 }, () => subject(mean)));
    const [theirs] = await compute([{ kind: 'difference', calls }]);
    const [control, variant] = calls.map((subjects) =>
      estimateOf(
        sumsOf(subjects.map((values) => [values.reduce((sum, value) => sum + value, 0), values.length] as const)),
      ),
    );
    if (!control || !variant) throw new Error('no estimate');
    expectClose(control.value, theirs?.['control']);
    expectClose(variant.value - control.value, theirs?.['difference']);
    const error = Math.sqrt(variant.squares / variant.subjects ** 2 + control.squares / control.subjects ** 2);
    expectClose(error, theirs?.['error']);
  });

  it('have the errors of means, from the test of Welch', async () => {
    if (missing) return;
    const random = new Random(8);
    const [variant, control] = [
      Array.from({ length: 400 }, () => 5 + 2 * random.normal()),
      Array.from({ length: 250 }, () => 4 + 3 * random.normal()),
    ];
    const [theirs] = await compute([{ kind: 'welch', variant, control }]);
    const pair = pairOf(sumsOfValues(variant), sumsOfValues(control), {
      alpha: 0.05,
      comparisons: 1,
      isProportion: false,
    }) as Pair;
    expectClose(contrastOf(pair, 1).value, theirs?.['difference']);
    // Welch divides by n - 1; ours adds a subject instead, and takes the variance of the control where it is larger.
    const plain = Math.sqrt(pair.variant.squares / 399 / 400 + pair.control.squares / 249 / 250);
    expectClose(plain, theirs?.['error']);
    expect(contrastOf(pair, 1).error).toBeGreaterThan(plain * 0.998);
  });

  it('have the boundary and the p-value, from an integral of likelihood ratios', async () => {
    if (missing) return;
    const cases = [0.05, 0.0125, 0.001].flatMap((alpha) =>
      [100, 1_000, 40_000].map((subjects) => ({ kind: 'boundary', alpha, subjects, tuned: 1_000, z: 3.3 })),
    );
    for (const [at, theirs] of (await compute(cases)).entries()) {
      const { alpha, subjects, z } = cases[at] as (typeof cases)[number];
      expectClose(boundary(subjects, alpha), theirs['boundary']);
      expectClose(alwaysValidP(z, subjects, alpha), theirs['p'], 1e-7);
      // At its optimum it is the lowest boundary, up to a thousandth.
      if (subjects === 1_000) expectClose(boundary(subjects, alpha), theirs['optimal'], 1e-3);
    }
  });

  it('have the relative interval, from a search for the ratios that are not excluded', async () => {
    if (missing) return;
    const options = { alpha: 0.05, comparisons: 2, isProportion: true };
    const sums = [sumsOfSuccesses(70, 400), sumsOfSuccesses(150, 1_100)] as const;
    const pair = pairOf(...sums, options) as Pair;
    const [theirs] = await compute([
      {
        kind: 'relative',
        variant: pair.variant.value,
        control: pair.control.value,
        variantError: Math.sqrt(pair.variances.variant / 400),
        controlError: Math.sqrt(pair.variances.control / 1_100),
        width: boundary(contrastOf(pair, 1).subjects, 0.025),
      },
    ]);
    const ours = differenceOf(...sums, options)?.relativeInterval;
    expectClose(ours?.low, theirs?.['low'], 1e-8);
    expectClose(ours?.high, theirs?.['high'], 1e-8);
  });

  it('have the p-value of the sample ratio, from the distributions of the counts', async () => {
    if (missing) return;
    const cases = [
      [
        [5_000, 5_000],
        [1_080, 920],
      ],
      [
        [9_000, 500, 500],
        [17_600, 1_100, 1_160],
      ],
      [
        [2_500, 2_500, 2_500, 2_500],
        [90, 100, 130, 60],
      ],
    ].map(([weights, counts]) => ({ kind: 'sample ratio', weights, counts, concentration: 100 }));
    for (const [at, { p }] of (await compute(cases)).entries()) {
      const { weights = [], counts = [] } = cases[at] ?? {};
      const check = checkSampleRatio(counts.map((subjects, index) => ({ subjects, weight: weights[index] as number })));
      expectClose(check.pValue, p, 1e-7);
    }
  });

  it('have the bounds of a quantile, from a search through all counts', async () => {
    if (missing) return;
    const cases = [0.5, 0.95, 0.99].map((share) => ({
      kind: 'quantile',
      share,
      calls: 2_000,
      concentration: 100,
      alpha: 0.05,
    }));
    for (const [at, theirs] of (await compute(cases)).entries()) {
      const { share, calls, alpha } = cases[at] as (typeof cases)[number];
      /** Whether the bin that begins at 100 ms may have the quantile if so many calls are shorter. */
      const isKept = (shorter: number) => {
        const histogram: number[] = new Array(222).fill(0);
        histogram[latencyBin(10)] = shorter;
        histogram[latencyBin(1_000)] = calls - shorter;
        const interval = quantileInterval({ histogram, subjects: calls, callsSquared: calls }, share, alpha);
        return interval !== undefined && interval.low < 100 && interval.high > 100;
      };
      const [least, most] = [theirs['least'] as number, theirs['most'] as number];
      expect([least - 1, least, most, most + 1].map(isKept)).toEqual([false, true, true, false]);
    }
  });

  it('have a power of 80 % with the subjects that are needed', async () => {
    if (missing) return;
    const pair = pairOf(sumsOfSuccesses(400, 500), sumsOfSuccesses(400, 500), {
      alpha: 0.05,
      comparisons: 1,
      isProportion: true,
    }) as Pair;
    for (const share of [0.5, 0.2]) {
      const needed = neededSubjects(pair, 0.04, share) as number;
      const ofOne = pair.variances.variant / share + pair.variances.control / (1 - share);
      const subjects = (needed * (pair.variances.variant + pair.variances.control)) / ofOne;
      const [theirs] = await compute([
        { kind: 'power', error: Math.sqrt(ofOne), needed, boundary: boundary(subjects, 0.05), effect: 0.04 },
      ]);
      expectClose(theirs?.['power'], 0.8, 1e-3);
    }
  });

  it('have the quantiles of chi-square that the tests of the assignment use', async () => {
    if (missing) return;
    const cases = [
      [0.001, 9_999, 9567.7],
      [0.999, 9_999, 10442.7],
      [0.999, 99, 148.23],
      [0.999, 3, 16.266],
    ] as const;
    const theirs = await compute(cases.map(([share, freedom]) => ({ kind: 'chi-square', share, freedom })));
    for (const [at, { quantile }] of theirs.entries()) expectClose(cases[at]?.[2], quantile, 1e-4);
  });
});
