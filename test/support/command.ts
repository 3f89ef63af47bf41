import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, inject } from 'vitest';
import { packageFile } from '../../src/package.js';
import { copyDirectory } from './copy_directory.js';

/** The result of a command. */
export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A running command: the built program in a separate process. */
export interface RunningCommand {
  readonly child: ChildProcess;
  /** The output so far, of both streams. */
  readonly output: () => string;
  /** Waits until the output matches a pattern. */
  readonly untilOutput: (pattern: RegExp) => Promise<RegExpExecArray>;
  readonly ended: Promise<Ended>;
}

const PROGRAM = packageFile('dist/src/cli/agentllm.js');
/**
 * Processes of tests are too short for V8 to gain from optimized WebAssembly. Without it, a command on an embedded
 * database takes 1.0 s of processor time instead of 1.7 s.
 */
const FLAGS = ['--liftoff-only'];
const running = new Set<ChildProcess>();

/** Starts `agentllm` with only the given settings, and with a text or nothing on standard input. */
export function agentllm(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  { stdin }: { readonly stdin?: string } = {},
): RunningCommand {
  const child = spawn(process.execPath, [...FLAGS, PROGRAM, ...args], {
    env: { PATH: process.env['PATH'], HTTP_ADDRESS: 'off', GRPC_ADDRESS: '127.0.0.1:0', ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  // A command may end without reading its input, which breaks the pipe.
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
  const untilOutput = (pattern: RegExp) =>
    new Promise<RegExpExecArray>((resolve, reject) => {
      const check = () => {
        const match = pattern.exec(stdout + stderr);
        if (!match) return;
        listeners.delete(check);
        resolve(match);
      };
      listeners.add(check);
      void ended.then(() => {
        check();
        reject(new Error(`ended without the output ${pattern}:\n${stdout}${stderr}`));
      });
      check();
    });
  return { child, output: () => stdout + stderr, untilOutput, ended };
}

/** Starts the service and waits until it is ready. Returns the command with the gRPC port. */
export async function startCommand(env: Readonly<Record<string, string>>, args: readonly string[] = []) {
  const command = agentllm(['serve', ...args], env);
  const [, port] = await command.untilOutput(/gRPC {6}[^:\s]+:(\d+)/);
  return { ...command, port: Number(port) };
}

export interface Directories {
  /** Creates an empty directory. */
  (): Promise<string>;
  /** Creates a data directory that is a copy of one after a first start, which saves the time of that start. */
  started(): Promise<string>;
}

/** Removes the directories and ends the commands after each test. */
export function useDirectories(): Directories {
  const directories: string[] = [];
  afterEach(async () => {
    for (const child of running) {
      child.kill('SIGKILL');
      await new Promise((resolve) => child.once('close', resolve));
    }
    for (const directory of directories.splice(0)) await rm(directory, { recursive: true, force: true });
  });
  const create = async () => {
    const directory = await mkdtemp(join(tmpdir(), 'agentllm-test-'));
    directories.push(directory);
    return directory;
  };
  return Object.assign(create, { started: async () => copyFirstStart(await create()) });
}

/** Copies the data directory after a first start into a directory. */
export async function copyFirstStart(directory: string): Promise<string> {
  await copyDirectory(inject('prepared').firstStart, directory);
  return directory;
}
