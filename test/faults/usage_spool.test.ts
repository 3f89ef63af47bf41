import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { packageFile } from '../../src/package.js';
import { useDirectories } from '../support/command.js';
import { freePort } from '../support/ports.js';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { withClient } from '../support/sql.js';
import { until } from '../support/until.js';
import { ServerProcess } from './server.js';

/* Agent processes that record usage, and the service, are killed at any point. */

const ROUNDS = Math.min(50, Number(process.env['FAULT_ROUNDS'] ?? 8));
vi.setConfig({ testTimeout: 120_000 + ROUNDS * 10_000 });

let postgres: TestPostgres;
useDirectories();
beforeAll(async () => {
  postgres = await startPostgres({ own: true });
});
afterAll(() => postgres.stop());

/** An agent process and what it has printed. */
class Agent {
  output = '';
  errors = '';
  private readonly child: ChildProcess;
  readonly ended: Promise<unknown>;

  constructor(address: string, directory: string, mode: 'record' | 'finish' | 'exit') {
    const program = packageFile('test/faults/usage_process.ts');
    this.child = spawn(process.execPath, ['--import', 'tsx', program, address, directory, mode], {
      cwd: packageFile('.'),
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.child.stdout?.on('data', (chunk) => {
      this.output += chunk;
    });
    this.child.stderr?.on('data', (chunk) => {
      this.errors += chunk;
    });
    this.ended = once(this.child, 'close');
    onTestFinished(() => void this.child.kill('SIGKILL'));
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.ended;
  }

  /** The ids of attempts that it has recorded (R), or whose recording it has reported as kept (K). */
  ids(letter: 'R' | 'K'): string[] {
    return [...this.output.matchAll(new RegExp(`^${letter} ([0-9a-f-]{36})$`, 'gm'))].map(([, id = '']) => id);
  }
}

async function start() {
  const url = await postgres.createDatabase('seeded');
  const address = `127.0.0.1:${await freePort()}`;
  const server = await ServerProcess.start('service', { DATABASE_URL: url, GRPC_ADDRESS: address });
  onTestFinished(() => server.clients.close());
  const base = await mkdtemp(join(tmpdir(), 'agentllm-test-'));
  onTestFinished(() => rm(base, { recursive: true, force: true }));
  return { url, address, server, directory: join(base, 'usage') };
}

/** What the service has stored. */
async function stored(url: string) {
  return withClient(url, async (sql) => {
    const attempts = await sql.query('select attempt_id, cost_nano_usd from llm_usage_attempts');
    const hours = await sql.query('select sum(attempts) as attempts, sum(cost_nano_usd) as cost from llm_usage_hourly');
    return {
      ids: attempts.rows.map(({ attempt_id }) => attempt_id as string),
      cost: attempts.rows.reduce((sum, { cost_nano_usd }) => sum + BigInt(cost_nano_usd ?? 0), 0n),
      reported: { attempts: Number(hours.rows[0].attempts), cost: BigInt(hours.rows[0].cost ?? 0) },
    };
  });
}

/** Checks what the service has stored against what the processes have printed, in ids and in sums. */
async function expectComplete(url: string, agents: readonly Agent[]): Promise<void> {
  const recorded = new Set(agents.flatMap((agent) => agent.ids('R')));
  const kept = agents.flatMap((agent) => agent.ids('K'));
  const { ids, cost, reported } = await stored(url);
  const found = new Set(ids);
  expect(kept.length).toBeGreaterThan(0);
  expect(kept.filter((id) => !found.has(id))).toEqual([]);
  expect(ids.filter((id) => !recorded.has(id))).toEqual([]);
  expect(found.size).toBe(ids.length);
  expect(cost).toBeGreaterThan(0n);
  expect(cost % BigInt(ids.length)).toBe(0n);
  expect(reported).toEqual({ attempts: ids.length, cost });
}

/** A last process delivers what the killed ones have left. */
async function finish(address: string, directory: string): Promise<void> {
  const last = new Agent(address, directory, 'finish');
  await last.ended;
  expect(last.output, last.errors).toContain('F true');
}

const isKeeping = (agent: Agent) => until(() => agent.ids('K').length > 0, 'an attempt is kept', 60_000);

describe('usage', () => {
  it('is complete and counted once when agent processes are killed at any point', async () => {
    const { url, address, server, directory } = await start();
    const agents: Agent[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const pair = [new Agent(address, directory, 'record'), new Agent(address, directory, 'record')];
      agents.push(...pair);
      await Promise.all(pair.map(isKeeping));
      for (const agent of pair) {
        await sleep(Math.random() * 600);
        await agent.kill();
      }
    }
    await finish(address, directory);
    await expectComplete(url, agents);
    await server.stop();
  });

  it('is complete and counted once when the service is killed, too', async () => {
    const { url, address, server, directory } = await start();
    const agents: Agent[] = [];
    for (let round = 0; round < Math.ceil(ROUNDS / 3); round++) {
      const agent = new Agent(address, directory, 'record');
      agents.push(agent);
      await isKeeping(agent);
      await sleep(500 + Math.random() * 1_000);
      await server.kill();
      await sleep(Math.random() * 500);
      if (round % 2 === 0) await agent.kill();
      await server.restart();
      await sleep(Math.random() * 2_000);
      await agent.kill();
    }
    await finish(address, directory);
    await expectComplete(url, agents);
    await server.stop();
  });

  it('is sent by a process whose work is done, before it exits', async () => {
    const { url, address, server, directory } = await start();
    const agent = new Agent(address, directory, 'exit');
    await agent.ended;
    const ids = agent.ids('R');
    expect(agent.output, agent.errors).toContain(`S ${ids.length} of ${ids.length}`);
    expect((await stored(url)).ids.sort()).toEqual(ids.sort());
    await server.stop();
  });
});
