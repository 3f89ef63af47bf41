import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** Duration and number of the measurements. Tests use lower values. */
export interface Effort {
  readonly rounds: number;
  /** Duration of the load on one side in one round. */
  readonly seconds: number;
  /** Duration of unmeasured load before each measurement. */
  readonly warmUpSeconds: number;
}

export const fullEffort: Effort = { rounds: 5, seconds: 2, warmUpSeconds: 0.5 };

const KILL_AFTER_MS = 8000;
const MATCH_TIMEOUT_MS = 60_000;
export const root = fileURLToPath(new URL('..', import.meta.url));

/** A process of the benchmark, with its output so far. */
export interface Program {
  readonly process: ChildProcess;
  readonly output: () => string;
  /** Resolves with the first match in its output; rejects when it ends first, or after a minute without a match. */
  match(pattern: RegExp): Promise<RegExpMatchArray>;
  stop(signal?: NodeJS.Signals): Promise<void>;
}

/** The environment of a row. Stops and deletes everything that was started or created in it when it closes. */
export class Lab {
  private readonly cleanups: (() => Promise<unknown>)[] = [];
  private closing: Promise<void> | undefined;

  constructor(
    readonly effort: Effort = fullEffort,
    readonly log: (line: string) => void = () => {},
  ) {}

  onClose(step: () => Promise<unknown>): void {
    // While the lab closes, a new resource is cleaned up as soon as it is registered.
    if (this.closing) void step().catch(() => {});
    else this.cleanups.push(step);
  }

  async directory(): Promise<string> {
    const path = await mkdtemp(join(tmpdir(), 'agentllm-bench-'));
    this.onClose(() => rm(path, { recursive: true, force: true }));
    return path;
  }

  /** Starts a program, which is stopped when the lab closes. */
  start(command: string, args: readonly string[], options: SpawnOptions = {}): Program {
    const started = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], ...options });
    const program = programOf(started);
    this.onClose(() => program.stop());
    return program;
  }

  /** Starts a file of `bench/` in a separate Node process, with an IPC channel for jobs. */
  startScript(file: string, env: Readonly<Record<string, string>> = {}): Program {
    const stdio: SpawnOptions['stdio'] = ['ignore', 'pipe', 'pipe', 'ipc'];
    const args = ['--import', 'tsx', join(root, 'bench', file)];
    return this.start(process.execPath, args, { env: { ...process.env, ...env }, stdio });
  }

  /** Runs all cleanups in reverse order. A failure is logged and does not prevent the others. */
  close(): Promise<void> {
    this.closing ??= (async () => {
      for (let step = this.cleanups.pop(); step; step = this.cleanups.pop())
        await step().catch((error) => this.log(`could not be cleaned up: ${error}`));
    })();
    return this.closing;
  }
}

function programOf(started: ChildProcess): Program {
  let output = '';
  let failure: Error | undefined;
  const append = (chunk: unknown) => {
    output += chunk;
  };
  started.stdout?.on('data', append);
  started.stderr?.on('data', append);
  // A program that cannot be started emits no exit event.
  const ended = new Promise<void>((resolve) => {
    started.once('close', () => resolve());
    started.once('error', (error) => {
      failure = error;
      resolve();
    });
  });
  const isRunning = () => !failure && started.exitCode === null && started.signalCode === null;
  return {
    process: started,
    output: () => output,
    async match(pattern) {
      for (const deadline = performance.now() + MATCH_TIMEOUT_MS; performance.now() < deadline; ) {
        const found = output.match(pattern);
        if (found) return found;
        if (!isRunning()) throw failure ?? new Error(`${started.spawnfile} ended early:\n${output}`);
        // A short interval, because the duration of a start is one of the figures.
        await sleep(5);
      }
      throw new Error(`${started.spawnfile} did not print ${pattern}:\n${output}`);
    },
    async stop(signal = 'SIGTERM') {
      if (isRunning()) started.kill(signal);
      const timer = setTimeout(() => started.kill('SIGKILL'), KILL_AFTER_MS);
      await ended;
      clearTimeout(timer);
    },
  };
}

/** Sends a job to a script and returns its result: one message in each direction. */
export async function runJob<Result>(program: Program, job: object): Promise<Result> {
  const child = program.process;
  const listeners = new AbortController();
  try {
    const received = once(child, 'message', { signal: listeners.signal });
    const ended = once(child, 'exit', { signal: listeners.signal }).then(() => {
      throw new Error(`${child.spawnargs.at(-1)} ended early:\n${program.output()}`);
    });
    child.send(job);
    const [result] = (await Promise.race([received, ended])) as [Result & { error?: string }];
    if (result.error !== undefined) throw new Error(result.error);
    return result;
  } finally {
    listeners.abort();
  }
}
