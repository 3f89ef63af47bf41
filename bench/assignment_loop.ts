import { GrowthBook } from '@growthbook/growthbook';
import { allocate } from '../src/domain/experiments/allocation.js';
import { Assignment } from '../src/domain/experiments/assignment.js';
import { type Loop, rounds } from './call_loop.js';
import { serveJobs } from './script.js';

/* A process that assigns subjects to variants in a loop, and lets the experiment of a flag library do the same. */

export interface AssignmentJob {
  readonly rounds: number;
}
export interface AssignmentResult {
  readonly assignment: readonly Loop[];
  readonly flag: readonly Loop[];
  readonly empty: readonly Loop[];
}

const WEIGHTS = [
  { name: 'control', weight: 5000 },
  { name: 'a', weight: 3000 },
  { name: 'b', weight: 2000 },
];
/** The flag library takes a hundred times as long. */
const CALLS = { flag: 200_000 };

serveJobs(async (job: AssignmentJob): Promise<AssignmentResult> => {
  const moved = [
    { name: 'control', weight: 3000 },
    { name: 'a', weight: 3500 },
    { name: 'b', weight: 3500 },
  ];
  const assignment = new Assignment('9f86d081884c7d65', allocate(allocate([], WEIGHTS), moved));
  const subjects = Array.from({ length: 1024 }, (_, at) => `run-2026-11-29-${String(at).padStart(6, '0')}`);
  const flags = new GrowthBook();
  const experiment = { key: 'model', variations: ['control', 'a', 'b'] as [string, string, string] };
  let next = 0;
  const subject = () => subjects[next++ & 1023] as string;
  return await rounds(
    job.rounds,
    {
      assignment: () => assignment.variantOf(subject()),
      flag: () => {
        flags.setAttributes({ id: subject() });
        return flags.run({ ...experiment, weights: [0.3, 0.35, 0.35] }).variationId;
      },
      empty: () => undefined,
    },
    CALLS,
  );
});
