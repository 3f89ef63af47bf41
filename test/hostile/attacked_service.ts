import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import http2 from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { readSettings } from '../../src/config.js';
import type { limits } from '../../src/limits.js';
import { openConfigured } from '../../src/main.js';
import { packageFile } from '../../src/package.js';
import { frame } from '../grpc/http2_client.js';
import { copyFirstStart, startCommand } from '../support/command.js';

/** The service in a separate process, with measurements of the cost of an attack. */
export interface Target {
  readonly grpcPort: number;
  readonly httpPort: number;
  readonly pid: number;
  /** The current resident memory of the process, in MiB. */
  memory(): number;
  /** The longest delay of its event loop since the last call, in ms. */
  loopDelayMs(): Promise<number>;
  stop(): Promise<void>;
}

/** Starts the built service. @param agents the number of agents, in addition to those of a first start. */
export async function startTarget({ agents = 0, env = {} } = {}): Promise<Target> {
  const directory = await copyFirstStart(await mkdtemp(join(tmpdir(), 'agentllm-test-')));
  if (agents > 0) await insertAgents(directory, agents);
  const command = await startCommand({
    DATA_DIR: directory,
    HTTP_ADDRESS: '127.0.0.1:0',
    LOG_LEVEL: 'warn',
    ...env,
  });
  const httpPort = Number((await command.untilOutput(/HTTP {6}[^:\s]+:(\d+)/))[1]);
  return targetOf(command, { grpcPort: command.port, httpPort, directory });
}

/** Starts the service with other limits. */
export async function startLimitedTarget(changed: Partial<Record<keyof typeof limits, number>>): Promise<Target> {
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
  const [grpcPort = 0, httpPort = 0] = await new Promise<number[]>((resolve, reject) => {
    let output = '';
    child.stdout.on('data', (chunk) => {
      output += chunk;
      const ports = /ports (\d+) (\d+)\n/.exec(output);
      if (ports) resolve(ports.slice(1).map(Number));
    });
    void ended.then(() => reject(new Error('the service ended')));
  });
  return targetOf({ child, ended }, { grpcPort, httpPort, directory });
}

function targetOf(
  { child, ended }: { readonly child: ChildProcess; readonly ended: Promise<unknown> },
  {
    grpcPort,
    httpPort,
    directory,
  }: { readonly grpcPort: number; readonly httpPort: number; readonly directory: string },
): Target {
  const pid = child.pid as number;
  return {
    grpcPort,
    httpPort,
    pid,
    memory: () => Number(/VmRSS:\s*(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024,
    async loopDelayMs() {
      const text = await (await fetch(`http://127.0.0.1:${httpPort}/metrics`)).text();
      return Math.round(Number(/^nodejs_eventloop_lag_max_seconds (\S+)/m.exec(text)?.[1]) * 1000);
    },
    async stop() {
      child.kill('SIGKILL');
      await ended;
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Rows per statement: the embedded engine limits a statement to five seconds, also on a loaded machine. */
const ROWS_PER_STATEMENT = 500;

/** Inserts agents with SQL before the service starts: through the API it takes minutes. */
async function insertAgents(directory: string, count: number): Promise<void> {
  const database = await openConfigured(readSettings({ DATA_DIR: directory, LOG_LEVEL: 'silent' }));
  try {
    for (let from = 1; from <= count; from += ROWS_PER_STATEMENT)
      await database.knex.raw(
        `with agents as (
           insert into agent_configs (name, agent_type, llm_provider, llm_model, temperature, prompt_template)
           select 'agent_' || n, 'analyst', 'openai', 'gpt-4', 0.5, repeat('x', 400) from generate_series(?::int, ?::int) n
           returning id)
         insert into agent_llm_configs (agent_id, provider, model_name) select id, 'openai', 'gpt-4' from agents`,
        [from, Math.min(count, from + ROWS_PER_STATEMENT - 1)],
      );
  } finally {
    await database.close();
  }
}

/** The effects of an attack on a well-behaved caller and on the process. */
export interface AttackResult {
  readonly calls: number;
  /**
   * The longest wait of the caller on open connections, in ms, without the time in which other processes had the
   * processors.
   */
  readonly longestMs: number;
  /** The longest wait of each kind of call. */
  readonly longest: Readonly<Record<string, number>>;
  /** The same for a new connection: at least a second if the system drops its first packet, because many connect. */
  readonly connectMs: number;
  /** The longest delay of the event loop of the service, in ms. */
  readonly loopDelayMs: number;
  readonly errors: readonly string[];
  /** The maximum size of the process, and its growth during the attack, in MiB. */
  readonly largestMb: number;
  readonly grewMb: number;
}

/** Runs an attack while a well-behaved caller reads and writes. */
export async function underAttack(target: Target, attack: () => Promise<unknown>): Promise<AttackResult> {
  const caller = await startCaller(target);
  await target.loopDelayMs();
  const before = target.memory();
  let largest = before;
  const sampler = setInterval(() => {
    largest = Math.max(largest, target.memory());
  }, 20);
  try {
    await attack();
    // Work that the attack has left can still delay other callers.
    await sleep(500);
  } finally {
    clearInterval(sampler);
  }
  const callerResult = await caller.stop();
  const loopDelayMs = await target.loopDelayMs();
  return { ...callerResult, loopDelayMs, largestMb: Math.round(largest), grewMb: Math.round(largest - before) };
}

async function startCaller({ pid, grpcPort, httpPort }: Target) {
  const script = fileURLToPath(new URL('caller.ts', import.meta.url));
  const child = spawn(process.execPath, ['--import', 'tsx', script, ...[pid, grpcPort, httpPort].map(String)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', (chunk) => {
    output += chunk;
  });
  while (!output.includes('ready')) await once(child.stdout, 'data');
  return {
    async stop(): Promise<Pick<AttackResult, 'calls' | 'longestMs' | 'longest' | 'connectMs' | 'errors'>> {
      child.stdin.end();
      await once(child, 'close');
      return JSON.parse(output.replace('ready\n', ''));
    },
  };
}

export interface OpenStream {
  readonly stream: http2.ClientHttp2Stream;
  readonly session: http2.ClientHttp2Session;
}

/** A connection whose errors are ignored: they are part of the attack. */
export function connection(port: number): http2.ClientHttp2Session {
  const session = http2.connect(`http://127.0.0.1:${port}`);
  session.on('error', () => {});
  return session;
}

export interface Upload {
  readonly path: string;
  readonly headers?: Readonly<Record<string, string | undefined>>;
}

/** Begins a gRPC call and ignores its errors. */
export function begin(session: http2.ClientHttp2Session, { path, headers = {} }: Upload): http2.ClientHttp2Stream {
  const stream = session.request(
    { ':method': 'POST', ':path': path, te: 'trailers', 'content-type': 'application/grpc', ...headers },
    { endStream: false },
  );
  stream.on('error', () => {});
  return stream;
}

export const WATCH = '/agentllm.v1.AgentLLMConfigWatchService/WatchConfigs';
/** WatchConfigs of all agents. */
export const WATCH_ALL = frame(Buffer.from([0x10, 0x01]));
