import { runJob } from '../lab.js';
import type { ModelJob, ModelResult, Sides } from '../model_calls.js';
import type { Figure, Row } from '../row.js';
import { compare, median } from '../statistics.js';

const CALLS = 1_000;
const PARTS = 500;

export const row: Row = {
  name: 'models',
  about: 'calls through languageModel(), against the model of the provider package at the same server',
  target: 'adds at most 0.1 ms at p50; p99 at most 1.1 times that of the package',
  async run(lab) {
    const program = lab.startScript('model_calls.ts');
    await program.match(/ready/);
    const job: ModelJob = { rounds: lab.effort.rounds, calls: CALLS, parts: PARTS };
    const { generate, stream, failing } = await runJob<ModelResult>(program, job);
    return [
      added('languageModel(), p50 added to a call', generate, 0.1),
      {
        what: 'languageModel(), p99 of a call',
        unit: 'ms',
        ...compare(generate, ({ p99 }) => p99),
        goal: { kind: 'ratio at most', value: 1.1 },
      },
      {
        what: 'languageModel(), a live stream of 500 parts',
        unit: 'parts/s',
        ...compare(stream, ({ p50 }) => (PARTS / p50) * 1000),
        goal: { kind: 'ratio at least', value: 0.9 },
      },
      {
        ...added('languageModel(), p50 of a chain whose first hop fails at once', failing),
        note: 'the reference is ai-retry with the same two models',
      },
    ];
  },
};

/** The median of the differences of single calls that were made one after the other. */
function added(what: string, sides: readonly Sides[], most?: number): Figure {
  return {
    what,
    unit: 'ms',
    ...compare(sides, ({ p50 }) => p50),
    compared: median(sides.map((one) => one.added)),
    ...(most !== undefined && { goal: { kind: 'difference at most', value: most } as const }),
  };
}
