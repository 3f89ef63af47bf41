import { runJob } from '../lab.js';
import type { ModelJob, ModelResult, Sides } from '../model_calls.js';
import type { Figure, Row } from '../row.js';
import { compare, median } from '../statistics.js';

const CALLS = 1_000;

export const row: Row = {
  name: 'models',
  about: 'calls through languageModel(), against the model of the provider package at the same server',
  target: 'adds at most 0.1 ms at p50; p99 at most 1.1 times that of the package',
  async run(lab) {
    const program = lab.startScript('model_calls.ts');
    await program.match(/ready/);
    const job: ModelJob = { rounds: lab.effort.rounds, calls: CALLS };
    const { generate, stream, failing } = await runJob<ModelResult>(program, job);
    return [
      added('languageModel(), p50 added to a call', generate, 0.1),
      {
        what: 'languageModel(), p99 of a call',
        unit: 'ms',
        ...compare(generate, ({ p99 }) => p99),
        goal: { kind: 'ratio at most', value: 1.1 },
      },
      { what: 'languageModel(), a stream of 500 parts, p50', unit: 'ms', ...compare(stream, ({ p50 }) => p50) },
      {
        ...added('languageModel(), p50 added by a first hop that fails at once', failing),
        note: 'one request more; the reference is the chain without that hop',
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
