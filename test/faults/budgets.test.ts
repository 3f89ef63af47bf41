import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { unique } from '../support/service.js';
import { connectPg } from '../support/sql.js';
import { until } from '../support/until.js';
import { ServerProcess } from './server.js';

const PROCESSES = 10;
const AGENTS_OF_PROCESS = 10;
const KILLED = 4;
const ATTEMPTS = 16;
const DOLLAR = 1_000_000_000n;
const PRICES = { cost_per_1k_input_tokens: 0.001, max_tokens: 100 };

let postgres: TestPostgres;
let url: string;
let sql: pg.Client;
const replicas: ServerProcess[] = [];

beforeAll(async () => {
  postgres = await startPostgres({ own: true });
  url = await postgres.createDatabase('seeded');
  sql = await connectPg(url);
  for (const name of ['a', 'b', 'c'])
    replicas.push(await ServerProcess.start(name, { DATABASE_URL: url, HTTP_ADDRESS: 'off' }));
});

afterAll(async () => {
  await Promise.all(replicas.map((replica) => replica.stop()));
  await sql?.end();
  await postgres?.stop();
});

/** An agent whose first hop costs 0.002 USD for each attempt, and whose second one costs 0.0011 USD. */
async function createAgent(): Promise<string> {
  const { agents, configs } = (replicas[0] as ServerProcess).clients;
  const name = unique('agent');
  await agents.createAgent({ agent: { name, agent_type: 'analyst' } });
  const agent = { name };
  const first = { provider: 'openai', model_name: 'gpt-4', ...PRICES, cost_per_1k_output_tokens: 0.01 };
  await configs.createConfig({ agent, config: first });
  const second = { provider: 'openai', model_name: 'gpt-4o-mini', ...PRICES, cost_per_1k_output_tokens: 0.001 };
  await configs.createConfig({ agent, config: second });
  return name;
}

interface AgentProcess {
  readonly child: ChildProcess;
  output: string;
}

function startAgents(port: number, agents: readonly string[]): AgentProcess {
  const script = fileURLToPath(new URL('./budget_agents.ts', import.meta.url));
  const words = ['--import', 'tsx', script, `127.0.0.1:${port}`, String(ATTEMPTS), ...agents];
  const child = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'inherit'] });
  const started: AgentProcess = { child, output: '' };
  child.stdout?.on('data', (chunk) => {
    started.output += chunk;
  });
  return started;
}

/** The amounts of the budget, read from the database in one statement. */
async function amounts() {
  const { rows } = await sql.query(
    `select reserved_nano_usd::text as reserved, committed_nano_usd::text as committed, spent_nano_usd::text as spent,
            open_reservations as open from llm_budget_counters`,
  );
  const [row] = rows;
  if (!row) return { reserved: 0n, committed: 0n, spent: 0n, open: 0 };
  const { reserved, committed, spent, open } = row;
  return { reserved: BigInt(reserved), committed: BigInt(committed), spent: BigInt(spent), open };
}

describe('a budget of one dollar', () => {
  it('is never overspent by a hundred agents on three replicas, some of which are killed, and steps them down', async () => {
    const [first] = replicas as [ServerProcess];
    const agents: string[] = [];
    for (let at = 0; at < PROCESSES * AGENTS_OF_PROCESS; at++) agents.push(await createAgent());
    const budget = {
      name: 'dollar',
      scope: 'BUDGET_SCOPE_ALL',
      period: 'BUDGET_PERIOD_TOTAL',
      limit_nano_usd: DOLLAR,
      action: 'BUDGET_ACTION_STEP_DOWN',
      step_down_provider: 'openai',
      step_down_model: 'gpt-4o-mini',
    } as const;
    const { revision } = await first.clients.budgets.createBudget({ budget });
    for (const { clients } of replicas) await clients.budgets.getBudget({ name: 'dollar', min_revision: revision });

    const processes = Array.from({ length: PROCESSES }, (_, at) => {
      const own = agents.slice(at * AGENTS_OF_PROCESS, (at + 1) * AGENTS_OF_PROCESS);
      return startAgents((replicas[at % replicas.length] as ServerProcess).port, own);
    });
    const ended = Promise.all(processes.map(({ child }) => once(child, 'exit')));
    let isRunning = true;
    let highest = 0n;
    const watching = (async () => {
      while (isRunning) {
        const { reserved, committed } = await amounts();
        if (reserved + committed > highest) highest = reserved + committed;
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    })();
    // Each is killed while it holds reservations.
    for (const { child, output } of processes.slice(0, KILLED)) {
      if (!output.includes('ready')) await once(child.stdout as NonNullable<typeof child.stdout>, 'data');
      await until(async () => (await amounts()).open > 0);
      child.kill('SIGKILL');
    }
    await ended;
    isRunning = false;
    await watching;
    expect(highest).toBeGreaterThan(0n);
    expect(highest).toBeLessThanOrEqual(DOLLAR);

    const made = processes.slice(KILLED).map(({ output }) => JSON.parse(output.split('\n')[1] ?? '') as number[]);
    const atHop = (hop: number) => made.reduce((sum, hops) => sum + (hops[hop] ?? 0), 0);
    expect(atHop(0)).toBeGreaterThan(0);
    expect(atHop(1)).toBeGreaterThan(0);
    expect(atHop(0) + atHop(1)).toBe((PROCESSES - KILLED) * AGENTS_OF_PROCESS * ATTEMPTS);

    // What the killed processes held is released when their reservations expire.
    await sql.query(`update llm_budget_reservations set expires_at = now() where state = 'open'`);
    await until(async () => (await amounts()).open === 0);
    const { reserved, committed } = await amounts();
    expect(reserved).toBe(0n);
    expect(committed).toBeLessThanOrEqual(DOLLAR);
    // Every attempt of the first hop was made under a reservation in the budget, and is recorded.
    const { rows } = await sql.query(
      `select coalesce(sum(cost_nano_usd), 0)::text as cost from llm_usage_attempts where model_name = 'gpt-4'`,
    );
    expect(BigInt(rows[0].cost)).toBe(committed);
  }, 300_000);
});
