import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** How long and how often is measured; a test makes do with less. */
export interface Effort {
  readonly rounds: number;
  /** Of load on one side in one round. */
  readonly seconds: number;
  /** Of load that is not measured, before each. */
  readonly warmUpSeconds: number;
}

export const fullEffort: Effort = { rounds: 5, seconds: 2, warmUpSeconds: 0.5 };

const KILL_AFTER_MS = 8000;
const START_WITHIN_MS = 60_000;
export const root = fileURLToPath(new URL('..', import.meta.url));

/** A process of the bench, with what it has said so far. */
export interface Program {
  readonly process: ChildProcess;
  readonly said: () => string;
  /** Resolves with the first match of what it says; rejects when it ends before, or says nothing of it for a minute. */
  match(pattern: RegExp): Promise<RegExpMatchArray>;
  stop(signal?: NodeJS.Signals): Promise<void>;
}

/** Where a row is measured: everything that is started or made in it is gone when it closes. */
export class Lab {
  private readonly undo: (() => Promise<unknown>)[] = [];
  private closing: Promise<void> | undefined;

  constructor(
    readonly effort: Effort = fullEffort,
    readonly say: (line: string) => void = () => {},
  ) {}

  onClose(step: () => Promise<unknown>): void {
    // What a row that is being stopped still makes goes at once.
    if (this.closing) void step().catch(() => {});
    else this.undo.push(step);
  }

  async directory(): Promise<string> {
    const path = await mkdtemp(join(tmpdir(), 'agentllm-bench-'));
    this.onClose(() => rm(path, { recursive: true, force: true }));
    return path;
  }

  /** Starts a program that ends with the lab at the latest. */
  start(command: string, args: readonly string[], options: SpawnOptions = {}): Program {
    const started = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], ...options });
    const program = programOf(started);
    this.onClose(() => program.stop());
    return program;
  }

  /** Starts a file of the bench in a Node process of its own; `process.send` and messages connect the two. */
  startScript(file: string, env: Readonly<Record<string, string>> = {}): Program {
    const stdio: SpawnOptions['stdio'] = ['ignore', 'pipe', 'pipe', 'ipc'];
    const args = ['--import', 'tsx', join(root, 'bench', file)];
    return this.start(process.execPath, args, { env: { ...process.env, ...env }, stdio });
  }

  /** Undoes everything in reverse; what fails is said and does not keep the rest from being undone. */
  close(): Promise<void> {
    this.closing ??= (async () => {
      for (let step = this.undo.pop(); step; step = this.undo.pop())
        await step().catch((error) => this.say(`could not be cleaned up: ${error}`));
    })();
    return this.closing;
  }
}

function programOf(started: ChildProcess): Program {
  let said = '';
  let failure: Error | undefined;
  const hear = (chunk: unknown) => {
    said += chunk;
  };
  started.stdout?.on('data', hear);
  started.stderr?.on('data', hear);
  // A program that cannot be started has no exit.
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
    said: () => said,
    async match(pattern) {
      for (const late = performance.now() + START_WITHIN_MS; performance.now() < late; ) {
        const found = said.match(pattern);
        if (found) return found;
        if (!isRunning()) throw failure ?? new Error(`${started.spawnfile} ended early:\n${said}`);
        // Looked for often: how long a start takes is one of the figures.
        await sleep(5);
      }
      throw new Error(`${started.spawnfile} has not said ${pattern}:\n${said}`);
    },
    async stop(signal = 'SIGTERM') {
      if (isRunning()) started.kill(signal);
      const timer = setTimeout(() => started.kill('SIGKILL'), KILL_AFTER_MS);
      await ended;
      clearTimeout(timer);
    },
  };
}

/** A job for a script and what comes back: one message each way. */
export async function ask<Answer>(program: Program, job: object): Promise<Answer> {
  const child = program.process;
  const gone = new AbortController();
  try {
    const answered = once(child, 'message', { signal: gone.signal });
    const ended = once(child, 'exit', { signal: gone.signal }).then(() => {
      throw new Error(`${child.spawnargs.at(-1)} ended early:\n${program.said()}`);
    });
    child.send(job);
    const [answer] = (await Promise.race([answered, ended])) as [Answer & { error?: string }];
    if (answer.error !== undefined) throw new Error(answer.error);
    return answer;
  } finally {
    gone.abort();
  }
}

export async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  return port;
}
