import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect as connectSocket, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, onTestFinished } from 'vitest';
import type { limits } from '../../src/limits.js';
import { packageFile } from '../../src/package.js';
import { send } from '../http/support.js';
import { copyFirstStart } from '../support/command.js';
import { type Clients, connect } from '../support/service.js';

/** A service in a separate process. */
export interface HostedService {
  readonly grpcPort: number;
  readonly httpPort: number;
  readonly clients: Clients;
  residentMb(): number;
}

export const AGENTS = 100;
const PROMPT = 'x'.repeat(57_000);

/** Starts a service with the changed limits and with agents with long prompts: a list of them has 5.7 MB. */
export function useHostedService(changed: Partial<Record<keyof typeof limits, number>>): () => HostedService {
  let service: HostedService | undefined;
  let stop: () => Promise<void> = async () => {};
  beforeAll(async () => {
    const directory = await copyFirstStart(await mkdtemp(join(tmpdir(), 'agentllm-test-')));
    const child = spawn(process.execPath, ['--import', 'tsx', packageFile('test/hostile/limited_service.ts')], {
      env: {
        PATH: process.env['PATH'],
        GRPC_ADDRESS: '127.0.0.1:0',
        HTTP_ADDRESS: '127.0.0.1:0',
        LOG_LEVEL: 'error',
        DATA_DIR: directory,
        LIMITS: JSON.stringify(changed),
      },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
    stop = async () => {
      service?.clients.close();
      child.kill('SIGKILL');
      await ended;
      await rm(directory, { recursive: true, force: true });
    };
    const [grpcPort = 0, httpPort = 0] = await new Promise<number[]>((resolve, reject) => {
      let output = '';
      child.stdout.on('data', (chunk) => {
        output += chunk;
        const ports = /ports (\d+) (\d+)\n/.exec(output);
        if (ports) resolve(ports.slice(1).map(Number));
      });
      void ended.then(() => reject(new Error('the service ended')));
    });
    const residentMb = () =>
      Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]) / 1024;
    const clients = connect(grpcPort);
    service = { grpcPort, httpPort, clients, residentMb };
    const { agents } = clients;
    for (let n = 0; n < AGENTS; n++)
      await agents.createAgent({ agent: { name: `long_${n}`, agent_type: 'long', prompt_template: PROMPT } });
    // Warms the process up, so that its initial growth is not measured.
    for (let n = 0; n < 10; n++) await agents.listAgents({ page_size: 1000 });
  }, 120_000);
  afterAll(() => stop());
  return () => service as HostedService;
}

export interface AttackCost {
  /** The longest wait of a well-behaved caller over gRPC and HTTP, in ms, divided by the slowdown of the machine. */
  readonly longestMs: number;
  readonly grownMb: number;
  readonly errors: readonly string[];
}

/** The factor by which other processes on the machine slow this one down. */
function slowdown(): number {
  const [started, cpu] = [performance.now(), process.cpuUsage()];
  while (process.cpuUsage(cpu).user < 50_000);
  const { user, system } = process.cpuUsage(cpu);
  return Math.max(1, (performance.now() - started) / ((user + system) / 1000));
}

/** Runs an attack while a well-behaved caller sends requests, and measures the wait of that caller and the memory. */
export async function attack(service: HostedService, runAttack: () => Promise<unknown>): Promise<AttackCost> {
  const caller = connect(service.grpcPort);
  onTestFinished(() => caller.close());
  const calls = [
    () => caller.agents.getAgent({ agent: { name: 'trader' } }),
    () => caller.configs.listConfigs({}),
    async () => {
      const { status } = await send(service.httpPort, 'GET', '/v1/agents/by-name/trader');
      if (status !== 200) throw new Error(`HTTP ${status}`);
    },
  ];
  for (const call of calls) await call();
  const slowdownBefore = slowdown();
  const before = service.residentMb();
  const errors: string[] = [];
  let [longestMs, largest, running] = [0, before, true];
  const measure = async (call: () => Promise<unknown>) => {
    while (running) {
      const started = performance.now();
      await call().catch((error: unknown) => errors.push(String(error)));
      longestMs = Math.max(longestMs, Math.round(performance.now() - started));
      largest = Math.max(largest, service.residentMb());
      await sleep(20);
    }
  };
  const measurements = Promise.all(calls.map(measure));
  await runAttack().finally(() => {
    running = false;
  });
  await measurements;
  const factor = Math.max(slowdownBefore, slowdown());
  return { longestMs: Math.round(longestMs / factor), grownMb: Math.round(largest - before), errors };
}

/** A connection that is closed at the end of the test. */
export async function openSocket(port: number): Promise<Socket> {
  const socket = connectSocket({ host: '127.0.0.1', port });
  socket.on('error', () => undefined);
  onTestFinished(() => void socket.destroy());
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  return socket;
}
