import { setTimeout as sleep } from 'node:timers/promises';
import { onTestFinished } from 'vitest';
import { openDatabase } from '../../src/store/database.js';
import { Follower, Stubs } from '../feed/follower.js';
import { type Ground, readGround } from '../feed/ground.js';
import type { AcknowledgedWrite } from '../feed/history.js';
import { validate } from '../feed/validators.js';
import { describe as say, type Target } from './history.js';

export type Where = { readonly url: string } | { readonly dataDir: string };

export const envOf = (where: Where): Record<string, string> =>
  'url' in where ? { DATABASE_URL: where.url } : { DATA_DIR: where.dataDir };

/** The log of a store; an embedded one must have no owner. */
export async function groundOf(where: Where): Promise<Ground> {
  const options = {
    url: undefined,
    dataDir: 'memory:',
    ...where,
    poolSize: 2,
    acquireTimeoutMs: 10_000,
    notify: false,
  };
  const database = await openDatabase(options);
  try {
    return await readGround(database.knex);
  } finally {
    await database.close();
  }
}

/** Holds what followers have against the log, which is no more written to. */
export async function check(where: Where, clients: readonly Follower[], writes: readonly AcknowledgedWrite[]) {
  for (const { name, streams } of clients)
    if (streams.length === 0) throw new Error(`${name} never had a stream: nothing is shown by this`);
  validate({ writes, clients }, await groundOf(where));
}

interface Port {
  readonly port: number;
}

/** Followers of one agent each, or of all, on a replica that may be started again elsewhere; they end with the test. */
export function follow(server: Port, agents: readonly { readonly id: number }[], count: number): Follower[] {
  const stubs = new Stubs(() => server.port);
  const followers = Array.from({ length: count }, (_, at) => {
    const agent = agents[at % agents.length];
    return new Follower(`watcher ${at}`, agent ? { agents: [{ id: agent.id }] } : { all_agents: true }, stubs);
  });
  for (const follower of followers) follower.start();
  onTestFinished(() => {
    for (const follower of followers) follower.stop();
    stubs.close();
  });
  return followers;
}

/** The stubs of a replica, closed with the test. */
export function stubsOf(server: Port): Stubs {
  const stubs = new Stubs(() => server.port);
  onTestFinished(() => stubs.close());
  return stubs;
}

export interface Writes {
  /** Acknowledged, in no order. */
  readonly acknowledged: AcknowledgedWrite[];
  readonly newest: number;
  readonly errors: Map<string, number>;
  /** Lets each writer finish what it is at. */
  stop(): Promise<void>;
}

/**
 * Writers that change the agents in turn at a rate together, on the targets in turn; a write that fails is counted and
 * not repeated: what became of it, the log says.
 */
export function startWrites(
  targets: readonly Target[],
  agents: readonly { readonly id: number }[],
  perSecond: number,
  writers = 4,
): Writes {
  let running = true;
  let newest = 0;
  let next = 0;
  const acknowledged: AcknowledgedWrite[] = [];
  const errors = new Map<string, number>();
  const write = async () => {
    const at = next++;
    const agent = agents[at % agents.length] as { id: number };
    const { clients } = targets[at % targets.length] as Target;
    try {
      const { revision } = await clients.agents.updateAgent(
        { agent: { id: agent.id, description: `write ${at}` } },
        { deadlineMs: 10_000 },
      );
      acknowledged.push({ revision: Number(revision), key: `agent ${agent.id}` });
      newest = Math.max(newest, Number(revision));
    } catch (error) {
      const how = say(error);
      errors.set(how, (errors.get(how) ?? 0) + 1);
      await sleep(20);
    }
  };
  const pause = (1000 / perSecond) * writers;
  const all = Array.from({ length: writers }, async (_, at) => {
    await sleep((pause * at) / writers);
    while (running) {
      const began = performance.now();
      await write();
      await sleep(Math.max(0, pause - (performance.now() - began)));
    }
  });
  return {
    acknowledged,
    errors,
    get newest() {
      return newest;
    },
    stop: async () => {
      running = false;
      await Promise.all(all);
    },
  };
}

/** Makes agents, with a config each. */
export async function makeAgents({ clients }: Target, count: number): Promise<{ readonly id: number }[]> {
  const made: { id: number }[] = [];
  for (let at = 0; at < count; at += 50)
    made.push(
      ...(await Promise.all(
        Array.from({ length: Math.min(50, count - at) }, async (_, n) => {
          const agent = { name: `watched_${at + n}_${process.pid}_${Date.now()}`, agent_type: 'analyst' };
          const id = (await clients.agents.createAgent({ agent })).agent?.id as number;
          const config = { provider: 'openai', model_name: 'gpt-4' };
          await clients.configs.createConfig({ agent: { id }, config });
          return { id };
        }),
      )),
    );
  return made;
}

export function percentile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
}
