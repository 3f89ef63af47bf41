import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, inject } from 'vitest';
import { packageFile } from '../../src/package.js';
import { copyDirectory } from './copy_directory.js';

/** A command that ran to its end. */
export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command that runs: the built one, in a process of its own, as a person starts it. */
export interface RunningCommand {
  readonly child: ChildProcess;
  /** What it has written so far, both streams. */
  readonly output: () => string;
  /** Waits until it has written something. */
  readonly says: (pattern: RegExp) => Promise<RegExpExecArray>;
  readonly ended: Promise<Ended>;
}

const PROGRAM = packageFile('dist/src/cli/agentllm.js');
/**
 * Processes of tests are too short for V8 to gain from optimized WebAssembly. Without it, a command on an embedded
 * database takes 1.0 s of processor time instead of 1.7 s.
 */
const FLAGS = ['--liftoff-only'];
const running = new Set<ChildProcess>();

/** Starts `agentllm` with the settings given and no others; with a text on standard input, or nothing there. */
export function agentllm(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  { stdin }: { readonly stdin?: string } = {},
): RunningCommand {
  const child = spawn(process.execPath, [...FLAGS, PROGRAM, ...args], {
    env: { PATH: process.env['PATH'], HTTP_ADDRESS: 'off', GRPC_ADDRESS: '127.0.0.1:0', ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  // One that ends without reading what it gets breaks the pipe; that is its right.
  child.stdin.on('error', () => {});
  child.stdin.end(stdin);
  running.add(child);
  let stdout = '';
  let stderr = '';
  const listeners = new Set<() => void>();
  child.stdout.on('data', (chunk) => {
    stdout += chunk;
    for (const listener of listeners) listener();
  });
  child.stderr.on('data', (chunk) => {
    stderr += chunk;
    for (const listener of listeners) listener();
  });
  const ended = new Promise<Ended>((resolve) => {
    child.on('close', (code) => {
      running.delete(child);
      resolve({ code, stdout, stderr });
    });
  });
  const says = (pattern: RegExp) =>
    new Promise<RegExpExecArray>((resolve, reject) => {
      const look = () => {
        const match = pattern.exec(stdout + stderr);
        if (!match) return;
        listeners.delete(look);
        resolve(match);
      };
      listeners.add(look);
      void ended.then(() => {
        look();
        reject(new Error(`ended without saying ${pattern}:\n${stdout}${stderr}`));
      });
      look();
    });
  return { child, output: () => stdout + stderr, says, ended };
}

/** Starts the service and waits until it is ready; returns its gRPC port too. */
export async function startCommand(env: Readonly<Record<string, string>>, args: readonly string[] = []) {
  const command = agentllm(['serve', ...args], env);
  const [, port] = await command.says(/gRPC {6}[^:\s]+:(\d+)/);
  return { ...command, port: Number(port) };
}

export interface Directories {
  /** A new directory, empty. */
  (): Promise<string>;
  /** One as the first start leaves it: nobody has to wait for that again. */
  started(): Promise<string>;
}

/** Directories that are gone after the test, and no process that outlives it. */
export function useDirectories(): Directories {
  const directories: string[] = [];
  afterEach(async () => {
    for (const child of running) {
      child.kill('SIGKILL');
      await new Promise((resolve) => child.once('close', resolve));
    }
    for (const directory of directories.splice(0)) await rm(directory, { recursive: true, force: true });
  });
  const make = async () => {
    const directory = await mkdtemp(join(tmpdir(), 'agentllm-test-'));
    directories.push(directory);
    return directory;
  };
  return Object.assign(make, { started: async () => copyFirstStart(await make()) });
}

/** Fills a directory with what the first start leaves. */
export async function copyFirstStart(directory: string): Promise<string> {
  await copyDirectory(inject('prepared').firstStart, directory);
  return directory;
}
