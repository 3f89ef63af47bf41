import type { AssignmentJob, AssignmentResult } from '../assignment_loop.js';
import type { Loop } from '../call_loop.js';
import { runJob } from '../lab.js';
import type { Figure, Row } from '../row.js';
import { compare, median, type Pair } from '../statistics.js';

export const row: Row = {
  name: 'assignment',
  about: 'the assignment of subjects to variants in one process, against the experiment of a flag library',
  target: 'p50 at most 1 µs, no garbage',
  async run(lab) {
    const program = lab.startScript('assignment_loop.ts');
    await program.match(/ready/);
    const job: AssignmentJob = { rounds: lab.effort.rounds };
    return figuresOf(await runJob<AssignmentResult>(program, job));
  },
};

function figuresOf({ assignment, flag, empty }: AssignmentResult): Figure[] {
  const pairs: Pair<Loop>[] = assignment.map((ours, round) => ({ ours, reference: flag[round] as Loop }));
  const p50 = median(assignment.map((one) => one.p50));
  const collections = median(assignment.map((one) => one.collections));
  const unavoidable = median(empty.map((one) => one.collections));
  return [
    {
      what: 'assignment, against an experiment of GrowthBook',
      unit: 'calls/s',
      ...compare(pairs, ({ perSecond }) => perSecond),
      goal: { kind: 'ratio above', value: 1 },
    },
    {
      what: 'assignment, p50',
      unit: 'µs',
      ours: p50,
      reference: 1,
      compared: p50,
      goal: { kind: 'ratio at most', value: 1 },
      note: 'the reference is the target',
    },
    {
      what: 'assignment, garbage collections in five million calls',
      unit: '',
      ours: collections,
      reference: unavoidable,
      compared: collections - unavoidable,
      goal: { kind: 'difference at most', value: 0 },
      note: 'the reference is an empty function',
    },
  ];
}
