import {
  CreateExperimentRequest,
  ExperimentServiceService,
  StartExperimentRequest,
} from '../../gen/ts/agentllm/v1/experiment_service.js';
import type { AssignmentJob, AssignmentResult } from '../assignment_loop.js';
import type { Loop } from '../call_loop.js';
import { runJob } from '../lab.js';
import type { Figure, Row } from '../row.js';
import { type Caller, startService } from '../service.js';
import { compare, median, type Pair } from '../statistics.js';
import { AGENT } from '../watching.js';

export const row: Row = {
  name: 'assignment',
  about: 'the variant of a subject, alone and in resolve(), against the experiment of a flag library',
  target: 'p50 at most 1 µs, no garbage',
  async run(lab) {
    const service = await startService(lab);
    await startExperiment(service.client);
    const program = lab.startScript('assignment_loop.ts');
    await program.match(/ready/);
    const job: AssignmentJob = { port: service.port, agent: AGENT, rounds: lab.effort.rounds };
    return figuresOf(await runJob<AssignmentResult>(program, job));
  },
};

async function startExperiment(call: Caller): Promise<void> {
  const identity = { agent: { name: AGENT } };
  const experiment = {
    name: 'bench',
    variants: [
      { name: 'control', control: true, weight_basis_points: 5000 },
      {
        name: 'other',
        weight_basis_points: 5000,
        overrides: { provider: 'openai', model_name: 'gpt-5.4-mini' },
      },
    ],
    primary_metric: { kind: 'EXPERIMENT_METRIC_KIND_COST_PER_CALL' as const },
  };
  const create = CreateExperimentRequest.fromPartial({ ...identity, experiment });
  await call(ExperimentServiceService.createExperiment.path, CreateExperimentRequest.encode(create).finish());
  const start = StartExperimentRequest.fromPartial({ ...identity, name: experiment.name });
  await call(ExperimentServiceService.startExperiment.path, StartExperimentRequest.encode(start).finish());
}

function figuresOf({ assignment, resolve, flag, empty }: AssignmentResult): Figure[] {
  const pairs: Pair<Loop>[] = resolve.map((ours, round) => ({ ours, reference: flag[round] as Loop }));
  return [
    {
      what: 'resolve({ subject }), against an experiment of GrowthBook',
      unit: 'calls/s',
      ...compare(pairs, ({ perSecond }) => perSecond),
      goal: { kind: 'ratio above', value: 1 },
    },
    ...loopFigures('resolve({ subject })', resolve, empty),
    ...loopFigures('assignment alone', assignment, empty),
  ];
}

function loopFigures(name: string, loops: readonly Loop[], empty: readonly Loop[]): Figure[] {
  const p50 = median(loops.map((one) => one.p50));
  const collections = median(loops.map((one) => one.collections));
  const unavoidable = median(empty.map((one) => one.collections));
  return [
    {
      what: `${name}, p50`,
      unit: 'µs',
      ours: p50,
      reference: 1,
      compared: p50,
      goal: { kind: 'ratio at most', value: 1 },
      note: 'the reference is the target',
    },
    {
      what: `${name}, garbage collections in five million calls`,
      unit: '',
      ours: collections,
      reference: unavoidable,
      compared: collections - unavoidable,
      goal: { kind: 'difference at most', value: 0 },
      note: 'the reference is an empty function',
    },
  ];
}
