import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach } from 'vitest';
import { packageFile } from '../../src/package.js';
import { freePort } from '../support/ports.js';

export const PROGRAM = packageFile('dist/src/cli/agentllm.js');

const groups = new Set<number>();

/** Starts a program in a new process group. All processes of the group are ended after the test. */
export function startGroup(command: string, args: readonly string[], options: SpawnOptions = {}): ChildProcess {
  const child = spawn(command, [...args], { detached: true, stdio: 'ignore', ...options });
  if (child.pid !== undefined) groups.add(child.pid);
  return child;
}

afterEach(() => {
  for (const group of groups)
    try {
      process.kill(-group, 'SIGKILL');
    } catch {
      // The group has already ended.
    }
  groups.clear();
});

export interface ServiceEnvironment {
  readonly port: number;
  readonly env: Record<string, string | undefined>;
}

/** An environment for a service on a free port. */
export async function serviceEnvironment(
  DATA_DIR: string,
  more: Readonly<Record<string, string>> = {},
): Promise<ServiceEnvironment> {
  const port = await freePort();
  const { PATH, HOME } = process.env;
  return { port, env: { PATH, HOME, DATA_DIR, GRPC_ADDRESS: `127.0.0.1:${port}`, HTTP_ADDRESS: 'off', ...more } };
}

export const isListening = async (port: number): Promise<boolean> => {
  const socket = connect(port, '127.0.0.1');
  const [connected] = await Promise.race([
    once(socket, 'connect').then(() => [true]),
    once(socket, 'error').then(() => [false]),
  ]).catch(() => [false]);
  socket.destroy();
  return connected === true;
};

/** Waits until a port is open, or until it is closed. */
export async function untilListening(port: number, listening: boolean, withinMs = 40_000): Promise<void> {
  const deadline = performance.now() + withinMs;
  while ((await isListening(port)) !== listening) {
    if (performance.now() > deadline) throw new Error(`port ${port} is ${listening ? 'not' : 'still'} listened on`);
    await delay(100);
  }
}
