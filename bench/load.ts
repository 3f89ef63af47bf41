import { spawnSync } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ask, type Lab } from './lab.js';
import { quantile } from './statistics.js';

/** One unary gRPC call, as bytes: what is compared here is servers, and no client. */
export interface Target {
  readonly port: number;
  /** `/package.Service/Method` */
  readonly path: string;
  readonly request: Uint8Array;
  /** Bytes of the reply's message. Every reply of a load must have so many: a failed call has none. */
  readonly replyBytes: number;
  /** By how many bytes replies may differ from that: a revision gets longer as it grows. */
  readonly replyBytesVary?: number;
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

/** A gRPC message on the wire: not compressed, its length, its bytes. */
export function frame(message: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

/** h2load where it is installed, else a generator of our own; both in a process beside the server's. */
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
    ask<LoadResult>(program, { ...target, ...load, ...lab.effort, request: [...target.request] });
  return { name: 'our own load generator (h2load is not installed)', generate };
}

/** Warms up in a run before: h2load has a warm-up of its own, but counts its bytes, and bytes tell good replies. */
async function h2load(lab: Lab, directory: string, target: Target, load: Load): Promise<LoadResult> {
  await h2loadFor(lab.effort.warmUpSeconds, lab, directory, target, load);
  return await h2loadFor(lab.effort.seconds, lab, directory, target, load);
}

async function h2loadFor(seconds: number, lab: Lab, directory: string, target: Target, load: Load) {
  const [body, log] = [join(directory, 'body'), join(directory, 'log')];
  await writeFile(body, frame(target.request));
  const args = [
    ...['-D', `${Math.round(seconds * 1000)}ms`, '-c', String(load.connections), '-m', String(load.streams), '-t', '1'],
    ...['-d', body, '-H', 'content-type: application/grpc', '-H', 'te: trailers'],
    `--log-file=${log}`,
    `http://127.0.0.1:${target.port}${target.path}`,
  ];
  const program = lab.start('h2load', args);
  await new Promise((resolve) => program.process.once('close', resolve));
  const report = parseReport(program.said());
  refuseFailures(report, target, load);
  const { latencies } = parseLog(await readFile(log, 'utf8'));
  return { perSecond: report.perSecond, p50: quantile(latencies, 0.5) / 1000, p99: quantile(latencies, 0.99) / 1000 };
}

export interface Report {
  readonly perSecond: number;
  readonly done: number;
  readonly succeeded: number;
  readonly failed: number;
  readonly dataBytes: number;
}

/** Reads what h2load prints at its end. */
export function parseReport(text: string): Report {
  const perSecond = text.match(/finished in .*?, ([\d.]+) req\/s/);
  const requests = text.match(
    /requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored/,
  );
  const data = text.match(/\((\d+)\) data/);
  if (!perSecond || !requests || !data) throw new Error(`h2load has said something else than expected:\n${text}`);
  const [done, succeeded, failed, errored] = requests.slice(1).map(Number) as [number, number, number, number];
  return { perSecond: Number(perSecond[1]), done, succeeded, failed: failed + errored, dataBytes: Number(data[1]) };
}

/** Reads h2load's log: start in µs, HTTP status, µs until the end. Status 0 began in the warm-up. */
export function parseLog(text: string): { latencies: number[]; failed: number } {
  const rows = text.split('\n').flatMap((line) => (line === '' ? [] : [line.split('\t').map(Number)]));
  const of = (wanted: (status: number) => boolean) => rows.filter(([, status]) => wanted(status as number));
  const latencies = of((status) => status === 200).map(([, , took]) => took as number);
  return { latencies, failed: of((status) => status !== 200 && status !== 0).length };
}

/**
 * A load over errors would be a lie. To h2load a call that fails with a gRPC
 * status is a success as it has HTTP status 200, but it has no message: the
 * bytes that came must be those of good replies, but for the calls that were
 * in flight when the measuring began or ended.
 */
export function refuseFailures(report: Report, target: Target, load: Load): void {
  const { done, succeeded, failed, dataBytes } = report;
  const size = target.replyBytes + 5;
  const uncertain = 2 * load.connections * load.streams + (done * (target.replyBytesVary ?? 0)) / size;
  if (done === 0) throw new Error(`${target.path} has answered nothing`);
  if (failed > 0 || succeeded !== done) throw new Error(`${target.path}: ${done - succeeded + failed} calls failed`);
  const good = dataBytes / size;
  if (Math.abs(good - done) > uncertain)
    throw new Error(`${target.path}: of ${done} replies about ${Math.round(good)} had the message that was expected`);
}
