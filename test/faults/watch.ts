import { setTimeout as sleep } from 'node:timers/promises';
import { onTestFinished } from 'vitest';
import { openDatabase } from '../../src/store/database.js';
import { type GroundTruth, readGroundTruth } from '../feed/ground_truth.js';
import type { AcknowledgedWrite } from '../feed/history.js';
import { validate } from '../feed/validators.js';
import { Stubs, Watcher } from '../feed/watcher.js';
import { describe as describeError, type Target } from './history.js';

export type Where = { readonly url: string } | { readonly dataDir: string };

export const envOf = (where: Where): Record<string, string> =>
  'url' in where ? { DATABASE_URL: where.url } : { DATA_DIR: where.dataDir };

/** Reads the ground truth of a store; no process may have an embedded store open. */
export async function groundTruthOf(where: Where): Promise<GroundTruth> {
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
    return await readGroundTruth(database.knex);
  } finally {
    await database.close();
  }
}

/** Validates the histories of watchers against the log, which must no longer change. */
export async function check(where: Where, clients: readonly Watcher[], writes: readonly AcknowledgedWrite[]) {
  for (const { name, streams } of clients)
    if (streams.length === 0) throw new Error(`${name} never had a stream, so the test proves nothing`);
  validate({ writes, clients }, await groundTruthOf(where));
}

interface Port {
  readonly port: number;
}

/** Starts watchers of one agent each, or of all agents, that follow a replica to its port after a restart. */
export function startWatchers(server: Port, agents: readonly { readonly id: number }[], count: number): Watcher[] {
  const stubs = new Stubs(() => server.port);
  const watchers = Array.from({ length: count }, (_, at) => {
    const agent = agents[at % agents.length];
    return new Watcher(`watcher ${at}`, agent ? { agents: [{ id: agent.id }] } : { all_agents: true }, stubs);
  });
  for (const watcher of watchers) watcher.start();
  onTestFinished(() => {
    for (const watcher of watchers) watcher.stop();
    stubs.close();
  });
  return watchers;
}

/** The stubs of a replica, closed at the end of the test. */
export function stubsOf(server: Port): Stubs {
  const stubs = new Stubs(() => server.port);
  onTestFinished(() => stubs.close());
  return stubs;
}

export interface Writes {
  /** The acknowledged writes, in no particular order. */
  readonly acknowledged: AcknowledgedWrite[];
  readonly newest: number;
  readonly errors: Map<string, number>;
  /** Resolves when each writer has finished its current write. */
  stop(): Promise<void>;
}

/**
 * Starts writers that update the agents and use the targets in turn, at a total rate. A failed write is counted and not
 * repeated; the log shows whether it was committed.
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
      const description = describeError(error);
      errors.set(description, (errors.get(description) ?? 0) + 1);
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

/** Creates agents with one config each. */
export async function makeAgents({ clients }: Target, count: number): Promise<{ readonly id: number }[]> {
  const created: { id: number }[] = [];
  for (let at = 0; at < count; at += 50)
    created.push(
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
  return created;
}

export function percentile(values: readonly number[], quantile: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * quantile))] ?? Number.NaN;
}
