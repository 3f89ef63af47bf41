import { GrowthBook } from '@growthbook/growthbook';
import { connect } from '../src/client/index.js';
import { allocate } from '../src/domain/experiments/allocation.js';
import { Assignment } from '../src/domain/experiments/assignment.js';
import { type Loop, rounds } from './call_loop.js';
import { serveJobs } from './script.js';

/*
 * A process that assigns subjects to variants in a loop: by the assignment function, by resolve() of an agent with a running
 * experiment, and by an experiment of a feature flag library.
 */

export interface AssignmentJob {
  readonly port: number;
  readonly agent: string;
  readonly rounds: number;
}
export interface AssignmentResult {
  readonly assignment: readonly Loop[];
  readonly resolve: readonly Loop[];
  readonly flag: readonly Loop[];
  readonly empty: readonly Loop[];
}

const WEIGHTS = [
  { name: 'control', weight: 5000 },
  { name: 'a', weight: 3000 },
  { name: 'b', weight: 2000 },
];
const LATER = [
  { name: 'control', weight: 3000 },
  { name: 'a', weight: 3500 },
  { name: 'b', weight: 3500 },
];
/** The flag library takes a hundred times as long. */
const CALLS = { flag: 100_000 };

serveJobs(async (job: AssignmentJob): Promise<AssignmentResult> => {
  const client = connect({ address: `127.0.0.1:${job.port}`, agents: [job.agent] });
  await client.ready();
  const agent = client.agent(job.agent);
  const assignment = new Assignment('9f86d081884c7d65', allocate(allocate([], WEIGHTS), LATER));
  const subjects = Array.from({ length: 1024 }, (_, at) => `run-2026-11-29-${String(at).padStart(6, '0')}`);
  const models = new Set(subjects.map((subject) => agent.resolve({ subject }).hops[0]?.model_name));
  if (models.size < 2) throw new Error('the experiment is not running');
  const flags = new GrowthBook();
  const experiment = { key: 'model', variations: ['control', 'a', 'b'] as [string, string, string] };
  let next = 0;
  const subject = () => subjects[next++ & 1023] as string;
  const results = await rounds(
    job.rounds,
    {
      assignment: () => assignment.variantOf(subject()),
      resolve: () => agent.resolve({ subject: subject() }),
      flag: () => {
        flags.setAttributes({ id: subject() });
        return flags.run({ ...experiment, weights: [0.3, 0.35, 0.35] }).variationId;
      },
      empty: () => undefined,
    },
    CALLS,
  );
  await client[Symbol.asyncDispose]();
  return results;
});
