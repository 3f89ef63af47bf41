import { withClient } from '../../test/support/sql.js';
import { type Lab, runJob } from '../lab.js';
import { startPostgres } from '../postgres.js';
import type { ResidentJob } from '../resident_clients.js';
import type { Figure, Row } from '../row.js';
import { startService } from '../service.js';
import { residentBytes } from '../watching.js';

const CONFIGS = 3;
const SIZES = [10_000, 100_000] as const;
/** Tolerance for linear growth, because a larger heap is collected at other times. */
const TOLERANCE = 1.3;

export const row: Row = {
  name: 'scale',
  about: `${SIZES[1]} agents with ${CONFIGS} configs each: load time, memory, and sending all of them to a client`,
  target: 'linear in the number of agents',
  async run(lab) {
    const postgres = await startPostgres(lab);
    const small = await measure(lab, await postgres.createDatabase(), SIZES[0]);
    const large = await measure(lab, await postgres.createDatabase(), SIZES[1]);
    return [
      figureOf('start of the service, minus the start with the seeds only', 's', small.load, large.load),
      figureOf('memory of the service for them', 'MB', small.memory, large.memory),
      figureOf('a client with all agents, from connect to ready', 's', small.sync, large.sync),
      figureOf('memory of that client for them', 'MB', small.client, large.client),
    ];
  },
};

interface Measured {
  readonly load: number;
  readonly memory: number;
  readonly sync: number;
  readonly client: number;
}

async function measure(lab: Lab, url: string, agents: number): Promise<Measured> {
  // The first start creates the schema.
  await (await started(lab, url)).service.program.stop();
  const empty = await started(lab, url);
  await empty.service.program.stop();
  await fill(url, agents);
  const full = await started(lab, url);
  const client = lab.startScript('resident_clients.ts');
  await client.match(/ready/);
  const before = await residentBytes(client);
  const from = performance.now();
  await runJob(client, { kind: 'open', port: full.service.port, agents: 'all', clients: 1 } satisfies ResidentJob);
  const sync = (performance.now() - from) / 1000;
  const after = await residentBytes(client);
  await client.stop();
  await full.service.program.stop();
  const load = full.seconds - empty.seconds;
  return { load, memory: (full.bytes - empty.bytes) / 1e6, sync, client: (after - before) / 1e6 };
}

async function started(lab: Lab, url: string) {
  const from = performance.now();
  const service = await startService(lab, { DATABASE_URL: url });
  const seconds = (performance.now() - from) / 1000;
  return { service, seconds, bytes: await residentBytes(service.program) };
}

/** Inserts rows directly into the tables. */
async function fill(url: string, agents: number): Promise<void> {
  await withClient(url, async (client) => {
    await client.query(
      `insert into agent_configs (name, agent_type, revision)
         select 'bench_' || n, 'analyst', 1 from generate_series(1, $1::int) as n`,
      [agents],
    );
    await client.query(
      `insert into agent_llm_configs (agent_id, provider, model_name, priority, revision)
         select id, 'openai', 'gpt-4o', n, 1 from agent_configs, generate_series(1, $1::int) as n
          where name like 'bench\\_%'`,
      [CONFIGS],
    );
    await client.query('analyze');
  });
}

const figureOf = (what: string, unit: string, small: number, large: number): Figure => ({
  what: `${SIZES[1]} agents: ${what}`,
  unit,
  ours: large,
  reference: small * (SIZES[1] / SIZES[0]),
  compared: large / (small * (SIZES[1] / SIZES[0])),
  goal: { kind: 'ratio at most', value: TOLERANCE },
  note: `the reference is ten times what ${SIZES[0]} agents take`,
});
