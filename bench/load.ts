import { spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Lab, runJob } from './lab.js';
import { quantile } from './statistics.js';

/** One unary gRPC call as bytes, so that servers are compared without the cost of a client. */
export interface Target {
  readonly port: number;
  /** `/package.Service/Method` */
  readonly path: string;
  readonly request: Uint8Array;
  /** Size of the response message. Every response of a load must have it; a failed call has no message. */
  readonly replyBytes: number;
  /** Allowed difference from that size in bytes: the encoding of a revision grows. */
  readonly replyBytesVary?: number;
  /** Whether the server uses TLS. The load generators do not verify its certificate. */
  readonly tls?: boolean;
  /** The access token that every call sends. */
  readonly token?: string;
}

export interface Load {
  readonly connections: number;
  /** Calls in flight on each connection. */
  readonly streams: number;
}

export interface LoadResult {
  readonly perSecond: number;
  /** Milliseconds. */
  readonly p50: number;
  readonly p99: number;
}

export type LoadGenerator = (target: Target, load: Load) => Promise<LoadResult>;

/** A gRPC message in wire format: compression flag, length and bytes. */
export function frame(message: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

/** h2load if it is installed, else own_load.ts. Both run in a separate process. */
export async function loadGenerator(
  lab: Lab,
  { own = false } = {},
): Promise<{ name: string; generate: LoadGenerator }> {
  const version = spawnSync('h2load', ['--version'], { encoding: 'utf8' });
  if (version.status === 0 && !own) {
    const directory = await lab.directory();
    return { name: version.stdout.trim(), generate: (target, load) => h2load(lab, directory, target, load) };
  }
  const program = lab.startScript('own_load.ts');
  await program.match(/ready/);
  const generate = (target: Target, load: Load) =>
    runJob<LoadResult>(program, { ...target, ...load, ...lab.effort, request: [...target.request] });
  return { name: 'own_load.ts (h2load is not installed)', generate };
}

/**
 * Warms up in a separate run, because h2load counts the bytes of its own warm-up, and valid responses are counted in
 * bytes. Each run has its own log, because h2load appends to an existing one.
 */
async function h2load(lab: Lab, directory: string, target: Target, load: Load): Promise<LoadResult> {
  // Not checked: a server that has just started may respond to nothing within a short warm-up.
  await runH2load(lab.effort.warmUpSeconds, lab, directory, target, load);
  const { output, latencies } = await runH2load(lab.effort.seconds, lab, directory, target, load);
  const report = parseReport(output);
  refuseFailures(report, target, load);
  if (latencies.length !== report.done)
    throw new Error(`the log of h2load has ${latencies.length} calls, its report ${report.done}`);
  return { perSecond: report.perSecond, p50: quantile(latencies, 0.5) / 1000, p99: quantile(latencies, 0.99) / 1000 };
}

async function runH2load(seconds: number, lab: Lab, directory: string, target: Target, load: Load) {
  const [body, log] = [join(directory, 'body'), join(directory, `log-${randomUUID()}`)];
  await writeFile(body, frame(target.request));
  const args = [
    ...['-D', `${Math.round(seconds * 1000)}ms`, '-c', String(load.connections), '-m', String(load.streams), '-t', '1'],
    ...['-d', body, '-H', 'content-type: application/grpc', '-H', 'te: trailers'],
    ...(target.token === undefined ? [] : ['-H', `authorization: Bearer ${target.token}`]),
    `--log-file=${log}`,
    `${target.tls ? 'https' : 'http'}://127.0.0.1:${target.port}${target.path}`,
  ];
  const program = lab.start('h2load', args);
  await new Promise((resolve) => program.process.once('close', resolve));
  const latencies = parseLog(await readFile(log, 'utf8'));
  await rm(log);
  return { output: program.output(), latencies };
}

export interface Report {
  readonly perSecond: number;
  readonly done: number;
  readonly succeeded: number;
  readonly failed: number;
  readonly dataBytes: number;
}

/** Parses the summary of h2load. */
export function parseReport(text: string): Report {
  const perSecond = text.match(/finished in .*?, ([\d.]+) req\/s/);
  const requests = text.match(
    /requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored/,
  );
  const data = text.match(/\((\d+)\) data/);
  if (!perSecond || !requests || !data) throw new Error(`h2load printed an unexpected summary:\n${text}`);
  const [done, succeeded, failed, errored] = requests.slice(1).map(Number) as [number, number, number, number];
  return { perSecond: Number(perSecond[1]), done, succeeded, failed: failed + errored, dataBytes: Number(data[1]) };
}

/** The durations in h2load's log, in µs. A line has the start in µs, the HTTP status or -1, and the duration. */
export function parseLog(text: string): number[] {
  const rows = text.split('\n').flatMap((line) => (line === '' ? [] : [line.split('\t').map(Number)]));
  return rows.filter(([, status]) => status === 200).map(([, , duration]) => duration as number);
}

/**
 * Throws when calls failed, because their throughput must not be reported. h2load counts a call with a gRPC error as
 * successful, because its HTTP status is 200, but such a call has no message. So the received bytes must be those of
 * valid responses, except for calls that were in flight when the measurement began or ended.
 */
export function refuseFailures(report: Report, target: Target, load: Load): void {
  const { done, succeeded, failed, dataBytes } = report;
  const size = target.replyBytes + 5;
  const tolerance = 2 * load.connections * load.streams + (done * (target.replyBytesVary ?? 0)) / size;
  if (done === 0) throw new Error(`${target.path} returned no response`);
  if (failed > 0 || succeeded !== done) throw new Error(`${target.path}: ${done - succeeded + failed} calls failed`);
  const valid = dataBytes / size;
  if (Math.abs(valid - done) > tolerance)
    throw new Error(`${target.path}: about ${Math.round(valid)} of ${done} responses had the expected message`);
}
