import { MISMATCH_LEVEL } from '../../src/domain/experiments/sample_ratio.js';
import { runJob } from '../lab.js';
import type { Figure, Row } from '../row.js';
import { ALPHA } from '../simulation/peeking.js';
import type { SimulationJob, SimulationResult } from '../simulation/simulate.js';

export const row: Row = {
  name: 'experiments',
  about: 'false results if an experiment is read after every call and stopped at the first result, by simulation',
  target: 'no more often than promised; every planted difference is found',
  async run(lab) {
    const program = lab.startScript('simulation/simulate.ts');
    await program.match(/ready/);
    const job: SimulationJob = { runs: 200 * lab.effort.rounds };
    const results = await runJob<SimulationResult>(program, job);
    return results.lines.flatMap(figuresOf);
  },
};

function figuresOf({ name, runs, wrong, level, naive, found }: SimulationResult['lines'][number]): Figure[] {
  const promised = level === 'mismatch' ? MISMATCH_LEVEL : ALPHA;
  const figures: Figure[] = [
    {
      what: `wrong at some time: ${name}`,
      unit: '',
      ours: wrong / runs,
      reference: promised,
      compared: wrong / runs / promised,
      goal: { kind: 'ratio at most', value: 1 },
      note:
        naive === undefined
          ? `${runs} runs`
          : `${runs} runs; an ordinary test, read in the same way, is wrong in ${naive} of them`,
    },
  ];
  if (found !== undefined)
    figures.push({
      what: `difference found: ${name}`,
      unit: '',
      ours: found / runs,
      reference: 1,
      compared: found / runs,
      goal: { kind: 'ratio at least', value: 0.99 },
    });
  return figures;
}
