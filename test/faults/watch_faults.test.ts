import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { allReach, endsOf, type Follower } from '../feed/follower.js';
import { RecordedWatch, watchCalls } from '../feed/support.js';
import { copyFirstStart, useDirectories } from '../support/command.js';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { failure } from '../support/service.js';
import { ServerProcess } from './server.js';
import { check, envOf, follow, makeAgents, startWrites, type Where, type Writes } from './watch.js';

/*
 * Watchers while the server or its database is killed, frozen or restarted: rows 8 and 27 of the fault table, and
 * row 1 as watchers see it.
 */

/** A kill takes seconds here, and what it shows it shows soon. */
const ROUNDS = Math.min(20, Number(process.env['FAULT_ROUNDS'] ?? 3));
const LONG = process.env['FAULT_ROUNDS'] !== undefined;
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

/** Ten agents with their watchers, and some of all. */
async function scene(server: ServerProcess) {
  const agents = await makeAgents(server, 10);
  const watchers = [...follow(server, [], 5), ...follow(server, agents, 40)];
  await allReach(watchers, 1);
  return { agents, watchers };
}

/** Everything that was written has come to everybody, in order, once and whole. */
async function settle(where: Where, server: ServerProcess, watchers: readonly Follower[], writes: Writes) {
  await writes.stop();
  const change = { provider: { name: 'openai', display_name: `last of ${writes.newest}` } };
  let revision = 0n;
  await vi.waitFor(
    async () => {
      ({ revision } = await server.clients.providers.updateProvider(change));
    },
    { timeout: 20_000, interval: 100 },
  );
  await allReach(watchers, Number(revision), 30_000);
  for (const one of watchers) one.stop();
  for (const one of servers) expect(await one.stop()).toBe(0);
  await check(where, watchers, writes.acknowledged);
}

const more = async (writes: Writes, count = 15) => {
  const before = writes.acknowledged.length;
  await vi.waitFor(() => expect(writes.acknowledged.length).toBeGreaterThan(before + count), {
    timeout: 30_000,
    interval: 10,
  });
};

describe.each(['embedded', 'postgres'] as const)('kill -9 of the server on %s', (engine) => {
  it(`watchers that resume miss nothing through ${ROUNDS} kills under load`, async () => {
    const where = await newStore(engine);
    const server = await start(where);
    const { agents, watchers } = await scene(server);
    const writes = startWrites([server], agents, 80);
    for (let round = 0; round < ROUNDS; round++) {
      await more(writes);
      await sleep(Math.random() * 200);
      await server.kill();
      await server.restart();
    }
    await more(writes);
    await settle(where, server, watchers, writes);
    console.log({ engine, kills: ROUNDS, writes: writes.acknowledged.length, errors: [...writes.errors] });
    for (const { ends, streams } of watchers) {
      expect(streams.length).toBeGreaterThan(1);
      expect([...ends.keys()].every((how) => how.startsWith('UNAVAILABLE'))).toBe(true);
    }
  });
});

describe('a PostgreSQL that goes away', () => {
  it('streams stay open and miss nothing while it is crashed and started again', async () => {
    const where = await newStore('postgres');
    const [server, other] = [await start(where), await start(where)] as const;
    const { agents, watchers } = await scene(server);
    const elsewhere = [...follow(other, [], 3), ...follow(other, agents, 10)];
    await allReach(elsewhere, 1);
    const writes = startWrites([server, other], agents, 60);
    const calls = watchCalls(server.port);
    onTestFinished(() => calls.close());
    for (let round = 0; round < (LONG ? 5 : 2); round++) {
      await more(writes);
      await postgres.crash();
      await sleep(LONG ? 3_000 : 700);
      const error = await failure(calls.list());
      expect([error.code, error.reason]).toEqual([14, 'DATABASE_UNAVAILABLE']);
      // A stream that begins meanwhile begins, from memory.
      const fresh = await new RecordedWatch(server.port, { all_agents: true }).ready();
      const resumed = await new RecordedWatch(server.port, { all_agents: true, resume_token: fresh.token }).ready();
      fresh.close();
      resumed.close();
      await postgres.restart();
    }
    await more(writes);
    await settle(where, server, [...watchers, ...elsewhere], writes);
    console.log({ writes: writes.acknowledged.length, errors: [...writes.errors] });
    // Not one of them ended.
    expect(endsOf([...watchers, ...elsewhere])).toEqual({});
    expect([...writes.errors.keys()].every((how) => how.startsWith('UNAVAILABLE'))).toBe(true);
  });

  it('a write that waits for adoption when it goes is done and says so', async () => {
    const where = await newStore('postgres');
    const server = await start(where);
    const [agent] = await makeAgents(server, 1);
    const { id } = agent as { id: number };
    const watch = await new RecordedWatch(server.port, { agents: [{ id }] }).ready();
    onTestFinished(() => watch.close());
    const update = {
      agent: { id, description: 'waited for' },
      wait_for_adoption: { timeout: { seconds: 8n, nanos: 0 } },
    };
    const writing = server.clients.agents.updateAgent(update);
    await watch.until(({ revisions }) => revisions.length > 0);
    // It has looked at least once by then.
    await sleep(300);
    await postgres.crash();
    const { adoption, revision } = await writing;
    expect(Number(revision)).toBe(watch.revisions[0]);
    expect(adoption).toMatchObject({ complete: false, pending_count: 1 });
    await postgres.restart();
    expect((await server.clients.agents.getAgent({ agent: { id } })).agent?.description).toBe('waited for');
  });

  it('watchers miss nothing while it and the server are killed in turn', async () => {
    const where = await newStore('postgres');
    const server = await start(where);
    const { agents, watchers } = await scene(server);
    const writes = startWrites([server], agents, 60);
    for (let round = 0; round < Math.min(ROUNDS, 10); round++) {
      await more(writes, 10);
      if (round % 2 === 0) {
        await postgres.crash();
        await sleep(300);
        await postgres.restart();
      } else {
        await server.kill();
        await server.restart();
      }
    }
    await more(writes, 10);
    await settle(where, server, watchers, writes);
  });
});

describe('a server that is frozen', () => {
  it('goes on where it was, with everything that another replica wrote meanwhile', async () => {
    const where = await newStore('postgres');
    const [server, other] = [await start(where), await start(where)] as const;
    const { agents, watchers } = await scene(server);
    const writes = startWrites([other], agents, 80);
    await more(writes);
    server.signal('SIGSTOP');
    // A process that is stopped must not stay so when the test fails.
    onTestFinished(() => server.signal('SIGCONT'));
    await sleep(LONG ? 20_000 : 3_000);
    server.signal('SIGCONT');
    await more(writes);
    await settle(where, server, watchers, writes);
    expect(endsOf(watchers)).toEqual({});
  });
});
