import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { RecordedWatch, watchCalls } from '../feed/support.js';
import { allReach, endsOf, type Watcher } from '../feed/watcher.js';
import { copyFirstStart, useDirectories } from '../support/command.js';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { failure } from '../support/service.js';
import { connectPg } from '../support/sql.js';
import { until } from '../support/until.js';
import { ServerProcess } from './server.js';
import { check, envOf, makeAgents, startWatchers, startWrites, type Where, type Writes } from './watch.js';

/* Watchers while the server or its database is killed, frozen or restarted. */

/** At most 20, because a kill takes seconds here and more rounds show nothing new. */
const ROUNDS = Math.min(20, Number(process.env['FAULT_ROUNDS'] ?? 3));
const EXTENDED = process.env['FAULT_ROUNDS'] !== undefined;
vi.setConfig({ testTimeout: 90_000 + ROUNDS * 10_000 });

let postgres: TestPostgres;
const servers: ServerProcess[] = [];
useDirectories();
beforeAll(async () => {
  postgres = await startPostgres({ own: true });
});
afterEach(() => {
  for (const { clients } of servers.splice(0)) clients.close();
});
afterAll(() => postgres.stop());

async function newStore(engine: 'embedded' | 'postgres'): Promise<Where> {
  if (engine === 'postgres') return { url: await postgres.createDatabase() };
  const dataDir = await copyFirstStart(await mkdtemp(join(tmpdir(), 'agentllm-test-')));
  onTestFinished(() => rm(dataDir, { recursive: true, force: true }));
  return { dataDir };
}

async function start(where: Where, env: Readonly<Record<string, string>> = {}): Promise<ServerProcess> {
  const server = await ServerProcess.start(`replica ${servers.length}`, { ...envOf(where), ...env });
  servers.push(server);
  return server;
}

/** Ten agents with 40 watchers, and 5 watchers of all agents. */
async function startWatchedAgents(server: ServerProcess) {
  const agents = await makeAgents(server, 10);
  const watchers = [...startWatchers(server, [], 5), ...startWatchers(server, agents, 40)];
  await allReach(watchers, 1);
  return { agents, watchers };
}

/** Ends the writes and checks that every watcher received every change in order, once and complete. */
async function finishAndCheck(where: Where, server: ServerProcess, watchers: readonly Watcher[], writes: Writes) {
  await writes.stop();
  const change = { provider: { name: 'openai', display_name: `last of ${writes.newest}` } };
  let revision = 0n;
  await vi.waitFor(
    async () => {
      ({ revision } = await server.clients.providers.updateProvider(change));
    },
    { timeout: 30_000, interval: 100 },
  );
  await allReach(watchers, Number(revision));
  for (const one of watchers) one.stop();
  for (const one of servers) expect(await one.stop()).toBe(0);
  await check(where, watchers, writes.acknowledged);
}

const untilMoreWrites = async (writes: Writes, count = 15) => {
  const before = writes.acknowledged.length;
  await vi.waitFor(() => expect(writes.acknowledged.length).toBeGreaterThan(before + count), {
    timeout: 30_000,
    interval: 10,
  });
};

describe.each(['embedded', 'postgres'] as const)('watchers on %s', (engine) => {
  it(`miss no change when the server is killed (kill -9) and restarted ${ROUNDS} times under load`, async () => {
    const where = await newStore(engine);
    const server = await start(where);
    const { agents, watchers } = await startWatchedAgents(server);
    const writes = startWrites([server], agents, 80);
    for (let round = 0; round < ROUNDS; round++) {
      await untilMoreWrites(writes);
      await sleep(Math.random() * 200);
      await server.kill();
      await server.restart();
    }
    await untilMoreWrites(writes);
    await finishAndCheck(where, server, watchers, writes);
    console.log({ engine, kills: ROUNDS, writes: writes.acknowledged.length, errors: [...writes.errors] });
    for (const { ends, streams } of watchers) {
      expect(streams.length).toBeGreaterThan(1);
      expect([...ends.keys()].every((how) => how.startsWith('UNAVAILABLE'))).toBe(true);
    }
  });
});

describe('a PostgreSQL server that becomes unavailable', () => {
  it('ends no stream and causes no missed change when it crashes and restarts', async () => {
    const where = await newStore('postgres');
    const [server, other] = [await start(where), await start(where)] as const;
    const { agents, watchers } = await startWatchedAgents(server);
    const watchersOfOther = [...startWatchers(other, [], 3), ...startWatchers(other, agents, 10)];
    await allReach(watchersOfOther, 1);
    const writes = startWrites([server, other], agents, 60);
    const calls = watchCalls(server.port);
    onTestFinished(() => calls.close());
    for (let round = 0; round < (EXTENDED ? 5 : 2); round++) {
      await untilMoreWrites(writes);
      await postgres.crash();
      await sleep(EXTENDED ? 3_000 : 700);
      const error = await failure(calls.list());
      expect([error.code, error.reason]).toEqual([14, 'DATABASE_UNAVAILABLE']);
      // A stream that is opened during the outage is served from memory.
      const fresh = await new RecordedWatch(server.port, { all_agents: true }).ready();
      const resumed = await new RecordedWatch(server.port, { all_agents: true, resume_token: fresh.token }).ready();
      fresh.close();
      resumed.close();
      await postgres.restart();
    }
    await untilMoreWrites(writes);
    await finishAndCheck(where, server, [...watchers, ...watchersOfOther], writes);
    console.log({ writes: writes.acknowledged.length, errors: [...writes.errors] });
    // No stream ended.
    expect(endsOf([...watchers, ...watchersOfOther])).toEqual({});
    expect([...writes.errors.keys()].every((how) => how.startsWith('UNAVAILABLE'))).toBe(true);
  });

  it('lets a committed write that waits for adoption return with an incomplete adoption', async () => {
    const where = await newStore('postgres');
    const server = await start(where);
    const [agent] = await makeAgents(server, 1);
    const { id } = agent as { id: number };
    const watch = await new RecordedWatch(server.port, { agents: [{ id }] }).ready();
    onTestFinished(() => watch.close());
    const update = {
      agent: { id, description: 'waited for' },
      wait_for_adoption: { timeout: { seconds: 15n, nanos: 0 } },
    };
    const session = await connectPg((where as { url: string }).url);
    session.on('error', () => undefined);
    onTestFinished(() => session.end());
    const writing = server.clients.agents.updateAgent(update);
    await watch.until(({ revisions }) => revisions.length > 0);
    const sent = watch.revisions[0] as number;
    const isSent = async () => {
      const { rows } = await session.query('select 1 from watchers where sent_revision >= $1', [sent]);
      return rows.length > 0;
    };
    // The wait for adoption writes this row before it reads the acknowledgements.
    await until(isSent, 'the row of the watcher has the revision');
    await sleep(1_000);
    await postgres.crash();
    const { adoption, revision } = await writing;
    expect(Number(revision)).toBe(watch.revisions[0]);
    expect(adoption).toMatchObject({ complete: false, pending_count: 1 });
    await postgres.restart();
    expect((await server.clients.agents.getAgent({ agent: { id } })).agent?.description).toBe('waited for');
  });

  it('causes no missed change when it and the server are killed alternately', async () => {
    const where = await newStore('postgres');
    const server = await start(where);
    const { agents, watchers } = await startWatchedAgents(server);
    const writes = startWrites([server], agents, 60);
    for (let round = 0; round < Math.min(ROUNDS, 10); round++) {
      await untilMoreWrites(writes, 10);
      if (round % 2 === 0) {
        await postgres.crash();
        await sleep(300);
        await postgres.restart();
      } else {
        await server.kill();
        await server.restart();
      }
    }
    await untilMoreWrites(writes, 10);
    await finishAndCheck(where, server, watchers, writes);
  });
});

describe('a server that is frozen', () => {
  it('continues its streams with every change that another replica wrote in the meantime', async () => {
    const where = await newStore('postgres');
    const [server, other] = [await start(where), await start(where)] as const;
    const { agents, watchers } = await startWatchedAgents(server);
    const writes = startWrites([other], agents, 80);
    await untilMoreWrites(writes);
    server.signal('SIGSTOP');
    // A stopped process must be continued even when the test fails.
    onTestFinished(() => server.signal('SIGCONT'));
    await sleep(EXTENDED ? 20_000 : 3_000);
    server.signal('SIGCONT');
    await untilMoreWrites(writes);
    await finishAndCheck(where, server, watchers, writes);
    expect(endsOf(watchers)).toEqual({});
  });
});
