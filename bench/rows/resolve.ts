import type { Loop } from '../call_loop.js';
import { runJob } from '../lab.js';
import type { ResolveJob, ResolveResult } from '../resolve_loop.js';
import type { Figure, Row } from '../row.js';
import { startService } from '../service.js';
import { compare, median, type Pair } from '../statistics.js';
import { AGENT } from '../watching.js';

export const row: Row = {
  name: 'resolve',
  about:
    'client.agent(name).resolve() in one process, also with an experiment, against a flag library and an empty function',
  target: 'at least a million a second, p50 at most 1 µs, no garbage',
  async run(lab) {
    const service = await startService(lab);
    const program = lab.startScript('resolve_loop.ts');
    await program.match(/ready/);
    const job: ResolveJob = { port: service.port, agent: AGENT, rounds: lab.effort.rounds };
    return figuresOf(await runJob<ResolveResult>(program, job));
  },
};

function figuresOf({ resolve, assigned, flag, empty }: ResolveResult): Figure[] {
  const pairedWith = (others: readonly Loop[]): Pair<Loop>[] =>
    resolve.map((ours, round) => ({ ours, reference: others[round] as Loop }));
  const p50 = median(resolve.map((one) => one.p50));
  const collectionsOf = (loops: readonly Loop[]) => median(loops.map((one) => one.collections));
  const unavoidable = collectionsOf(empty);
  const garbage = (loops: readonly Loop[]) => ({
    unit: '',
    ours: collectionsOf(loops),
    reference: unavoidable,
    compared: collectionsOf(loops) - unavoidable,
    goal: { kind: 'difference at most', value: 0 } as const,
  });
  return [
    {
      what: 'resolve(), against a static flag (GrowthBook)',
      unit: 'calls/s',
      ...compare(pairedWith(flag), ({ perSecond }) => perSecond),
      goal: { kind: 'ratio above', value: 1 },
    },
    {
      what: 'resolve(), against a million a second',
      unit: 'calls/s',
      ...fixed(median(resolve.map(({ perSecond }) => perSecond)), 1e6),
      goal: { kind: 'ratio at least', value: 1 },
    },
    {
      what: 'resolve(), against an empty function',
      unit: 'calls/s',
      ...compare(pairedWith(empty), ({ perSecond }) => perSecond),
    },
    { what: 'resolve(), p50', unit: 'µs', ...fixed(p50, 1), goal: { kind: 'ratio at most', value: 1 } },
    {
      what: 'resolve(), garbage collections in five million calls',
      ...garbage(resolve),
      note: 'the references of the second and fourth line are the targets',
    },
    {
      what: 'resolve({ subject }) with an experiment, p50',
      unit: 'µs',
      ...fixed(median(assigned.map((one) => one.p50)), 1),
      goal: { kind: 'ratio at most', value: 1 },
      note: 'the reference is the target',
    },
    { what: 'resolve({ subject }), garbage collections in five million calls', ...garbage(assigned) },
  ];
}

const fixed = (ours: number, reference: number) => ({ ours, reference, compared: ours / reference });
