import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach } from 'vitest';
import { packageFile } from '../../src/package.js';
import { freePort } from '../support/ports.js';

export const PROGRAM = packageFile('dist/src/cli/agentllm.js');

const groups = new Set<number>();

/** Starts a program in a process group of its own, which is ended after the test with all that is in it. */
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
      // It has ended.
    }
  groups.clear();
});

export interface Place {
  readonly port: number;
  readonly env: Record<string, string | undefined>;
}

/** An environment for a service on a port of its own. */
export async function place(DATA_DIR: string, more: Readonly<Record<string, string>> = {}): Promise<Place> {
  const port = await freePort();
  const { PATH, HOME } = process.env;
  return { port, env: { PATH, HOME, DATA_DIR, GRPC_ADDRESS: `127.0.0.1:${port}`, HTTP_ADDRESS: 'off', ...more } };
}

export const isListening = async (port: number): Promise<boolean> => {
  const socket = connect(port, '127.0.0.1');
  const [found] = await Promise.race([
    once(socket, 'connect').then(() => [true]),
    once(socket, 'error').then(() => [false]),
  ]).catch(() => [false]);
  socket.destroy();
  return found === true;
};

/** Waits until a service listens, or does so no more. */
export async function until(port: number, listening: boolean, withinMs = 40_000): Promise<void> {
  const giveUpAt = performance.now() + withinMs;
  while ((await isListening(port)) !== listening) {
    if (performance.now() > giveUpAt) throw new Error(`port ${port} is ${listening ? 'not' : 'still'} listened on`);
    await delay(100);
  }
}
