import type { Lab } from './lab.js';
import { type LoadResult, loadGenerator, type Target } from './load.js';
import type { Figure } from './row.js';
import { type Certificates, caller } from './service.js';
import { compare, interleave, type Pair } from './statistics.js';

const LOAD = { connections: 4, streams: 16 };

/** A method with its request, and the response that both servers return. */
export interface ConstantCall {
  readonly path: string;
  readonly request: Uint8Array;
  readonly reply: Buffer;
}

/** Starts the reference server, over TLS if it gets certificates, and checks its response. Returns its port. */
export async function startBareServer(
  lab: Lab,
  { path, request, reply }: ConstantCall,
  certificates?: Certificates,
): Promise<number> {
  const program = lab.startScript('bare_server.ts', {
    BARE_PATH: path,
    BARE_REPLY: reply.toString('base64'),
    ...certificates?.settings,
  });
  const port = Number((await program.match(/listening on (\d+)/))[1]);
  const actual = await caller(lab, port, certificates && { ...certificates, token: '' })(path, request);
  if (!actual.equals(reply)) throw new Error('the bare server returns a different response');
  return port;
}

/** Loads the service and the reference in turn. */
export async function compareReads(
  lab: Lab,
  name: string,
  { ours, bare }: { readonly ours: Target; readonly bare: Target },
  goals: { readonly throughput: number; readonly p99?: number },
): Promise<Figure[]> {
  const { name: generator, generate } = await loadGenerator(lab);
  // A warm-up round, in which V8 compiles the code of both servers.
  for (const target of [ours, bare]) await generate(target, LOAD);
  const pairs = await interleave(
    lab.effort.rounds,
    () => generate(ours, LOAD),
    () => generate(bare, LOAD),
  );
  const note = `${ours.replyBytes} bytes, ${LOAD.connections} × ${LOAD.streams} in flight, ${generator}`;
  return figuresOf(name, pairs, goals, note);
}

function figuresOf(
  name: string,
  pairs: readonly Pair<LoadResult>[],
  { throughput, p99 }: { readonly throughput: number; readonly p99?: number },
  note: string,
): Figure[] {
  return [
    {
      what: `${name}, throughput`,
      unit: 'calls/s',
      ...compare(pairs, ({ perSecond }) => perSecond),
      goal: { kind: 'ratio at least', value: throughput },
      note,
    },
    {
      what: `${name}, p99`,
      unit: 'ms',
      ...compare(pairs, (result) => result.p99),
      ...(p99 !== undefined && { goal: { kind: 'ratio at most', value: p99 } as const }),
    },
    { what: `${name}, p50`, unit: 'ms', ...compare(pairs, ({ p50 }) => p50) },
  ];
}
