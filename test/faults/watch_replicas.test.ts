import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { AgentLLMError, connect as connectClient } from '../../src/client/index.js';
import { allReach, endsOf, type Follower, type Stubs } from '../feed/follower.js';
import type { Touched } from '../feed/ground.js';
import type { Event } from '../feed/history.js';
import { watchStub } from '../feed/support.js';
import { broken } from '../feed/validators.js';
import { useDirectories } from '../support/command.js';
import { freePort } from '../support/ports.js';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { connectPg } from '../support/sql.js';
import { hasPgBouncer, startPgBouncer } from './pgbouncer.js';
import { ServerProcess } from './server.js';
import { check, follow, makeAgents, startWrites, stubsOf } from './watch.js';

/* Watchers on several replicas of one PostgreSQL: rows 25, 26 and 44 of the fault table. */

const ROUNDS = Number(process.env['FAULT_ROUNDS'] ?? 2);
const LONG = Math.min(ROUNDS, 15);
/** Of the negative control. */
const WRITES_EACH = 10;
vi.setConfig({ testTimeout: 90_000 + LONG * 5_000 });

let postgres: TestPostgres;
let servers: ServerProcess[] = [];
useDirectories();
beforeAll(async () => {
  postgres = await startPostgres({ own: true });
});
afterEach(() => {
  for (const { clients } of servers.splice(0)) clients.close();
});
afterAll(() => postgres.stop());

/** So many replicas on one database. */
async function replicas(url: string, count: number, env: Readonly<Record<string, string>> = {}) {
  const first = await ServerProcess.start('replica 0', { DATABASE_URL: url, ...env });
  const others = await Promise.all(
    Array.from({ length: count - 1 }, (_, at) =>
      ServerProcess.start(`replica ${at + 1}`, { DATABASE_URL: url, ...env }),
    ),
  );
  servers = [first, ...others];
  return servers;
}

const stopAll = (all: readonly ServerProcess[]) => Promise.all(all.map((one) => one.stop()));

/** Lets followers go from replica to replica, now and then, until it is told to stop. */
function hopping(followers: readonly Follower[], stubs: readonly Stubs[], everyMs: number): () => number {
  let hops = 0;
  const timer = setInterval(() => {
    const follower = followers[Math.floor(Math.random() * followers.length)] as Follower;
    follower.hop(stubs[hops++ % stubs.length]);
  }, everyMs);
  onTestFinished(() => clearInterval(timer));
  return () => {
    clearInterval(timer);
    return hops;
  };
}

describe('watchers that go from replica to replica', () => {
  it.each([
    ['two replicas that notify each other', 2, {}],
    ['three replicas that only poll', 3, { NOTIFY: 'off', POLL_INTERVAL_MS: '100' }],
  ])('miss nothing and get nothing twice: %s', async (_, count, env) => {
    const url = await postgres.createDatabase();
    const all = await replicas(url, count, env);
    const [first] = all as [ServerProcess];
    const agents = await makeAgents(first, 10);
    const stubs = all.map((one) => stubsOf(one));
    const followers = all.flatMap((one) => [...follow(one, [], 4), ...follow(one, agents, 10)]);
    const writes = startWrites(all, agents, 60, 6);
    const stop = hopping(followers, stubs, 15);
    await sleep(1_000 * LONG);
    await writes.stop();
    const hops = stop();
    const last = await first.clients.providers.updateProvider({ provider: { name: 'openai', display_name: 'last' } });
    await allReach(followers, Number(last.revision));
    for (const one of followers) one.stop();
    console.log({ replicas: count, hops, writes: writes.acknowledged.length, ends: endsOf(followers) });
    expect(hops).toBeGreaterThan(LONG * 20);
    expect([...writes.errors]).toEqual([]);
    await stopAll(all);
    await check({ url }, followers, writes.acknowledged);
  });

  const pooled = 'miss nothing: behind PgBouncer in transaction mode';
  if (!hasPgBouncer()) it.skip(`${pooled} — skipped: no pgbouncer on the PATH, apt-get install pgbouncer`);
  else
    it(pooled, async () => {
      const url = await postgres.createDatabase();
      const bouncer = await startPgBouncer(postgres.url, 8);
      onTestFinished(() => bouncer.stop());
      const all = await replicas(bouncer.through(url), 2, { DATABASE_DIRECT_URL: url, NOTIFY: 'off' });
      const [first] = all as [ServerProcess];
      const agents = await makeAgents(first, 10);
      const followers = all.flatMap((one) => [...follow(one, [], 3), ...follow(one, agents, 10)]);
      const writes = startWrites(all, agents, 60, 6);
      const stop = hopping(
        followers,
        all.map((one) => stubsOf(one)),
        25,
      );
      await sleep(700 * LONG);
      await writes.stop();
      stop();
      const last = await first.clients.providers.updateProvider({ provider: { name: 'openai', display_name: 'last' } });
      await allReach(followers, Number(last.revision));
      for (const one of followers) one.stop();
      expect([...writes.errors]).toEqual([]);
      await stopAll(all);
      await check({ url }, followers, writes.acknowledged);
    });
});

/** Makes every transaction that enters something wait before it commits, each for another time. */
async function delayCommits(session: pg.Client, table: string): Promise<void> {
  await session.query(
    `create or replace function delay_commit() returns trigger language plpgsql as
     $$ begin perform pg_sleep(random() * 0.03); return null; end $$`,
  );
  await session.query(
    `create constraint trigger delay_commit after insert on ${table} deferrable initially deferred
       for each row execute function delay_commit()`,
  );
}

describe('12 writers with random delays before the commit', () => {
  it('0 changes are missed by the watchers of three replicas', async () => {
    const url = await postgres.createDatabase();
    const all = await replicas(url, 3);
    const [first] = all as [ServerProcess];
    const agents = await makeAgents(first, 12);
    const session = await connectPg(url);
    onTestFinished(() => session.end());
    await delayCommits(session, 'config_revisions');
    const followers = all.flatMap((one) => [...follow(one, [], 2), ...follow(one, agents, 12)]);
    const writes = startWrites(all, agents, 1000, 12);
    await sleep(1_500 + 500 * LONG);
    await writes.stop();
    const last = await first.clients.providers.updateProvider({ provider: { name: 'openai', display_name: 'last' } });
    await allReach(followers, Number(last.revision));
    for (const one of followers) one.stop();
    console.log({ writes: writes.acknowledged.length });
    expect(writes.acknowledged.length).toBeGreaterThan(50);
    expect([...writes.errors]).toEqual([]);
    await stopAll(all);
    await check({ url }, followers, writes.acknowledged);
  });

  /** As a service would that numbers its log by a sequence or, as ours, by a counter row that is held to the commit. */
  async function variant(nextNumber: string): Promise<string[]> {
    const url = await postgres.createDatabase();
    const session = await connectPg(url);
    onTestFinished(() => session.end());
    await session.query('create table log (n int8 primary key)');
    await session.query('create sequence numbers');
    await session.query('create table counter as select 0::int8 as n');
    await delayCommits(session, 'log');
    let running = true;
    const events: Event[] = [{ kind: 'started', revision: 0, complete: false, items: [], resumed: true }];
    const watch = async () => {
      const reader = await connectPg(url);
      for (let last = 0; ; ) {
        const stop = !running;
        const { rows } = await reader.query('select n from log where n > $1 order by n', [last]);
        for (const { n } of rows) {
          last = Number(n);
          events.push({ kind: 'changes', revision: last, complete: true, items: [{ key: `row ${last}`, value: 'x' }] });
        }
        if (stop) break;
        await sleep(2);
      }
      await reader.end();
    };
    const watching = watch();
    await Promise.all(
      Array.from({ length: 12 }, async () => {
        const writer = await connectPg(url);
        for (let at = 0; at < WRITES_EACH; at++)
          await writer.query(`with next as (${nextNumber}) insert into log select n from next`);
        await writer.end();
      }),
    );
    running = false;
    await watching;
    const { rows } = await session.query('select n from log order by n');
    expect(rows).toHaveLength(12 * WRITES_EACH);
    const touched = (n: number): Touched => ({ key: `row ${n}`, value: 'x', agent: undefined });
    const revisions = new Map(rows.map(({ n }) => [Number(n), [touched(Number(n))]]));
    const client = { name: 'the reader', watched: { all: true }, streams: [{ resumedAt: 0, events }] };
    const ground = { head: rows.length, revisions, at: () => [] };
    return broken(
      'Reliable: every change to a watched resource is delivered',
      { writes: [], clients: [client] },
      ground,
    );
  }

  it('negative control: the same validator finds what a feed over a sequence leaves out', async () => {
    expect(await variant(`select nextval('numbers') as n`)).not.toEqual([]);
  });

  it('and finds nothing by the same schedule with a counter row', async () => {
    expect(await variant('update counter set n = n + 1 returning n')).toEqual([]);
  });
});

describe('a rolling restart of two replicas under load', () => {
  it('fails no unary call of a client that retries, and no watch has a gap', async () => {
    const url = await postgres.createDatabase();
    // The ports stay, as those of a service behind a load balancer do.
    const ports = [await freePort(), await freePort()];
    const start = (at: number) =>
      ServerProcess.start(`replica ${at}`, {
        DATABASE_URL: url,
        GRPC_ADDRESS: `127.0.0.1:${ports[at]}`,
        SHUTDOWN_GRACE_MS: '5000',
      });
    const all = [await start(0), await start(1)];
    servers = all;
    const agents = await makeAgents(all[0] as ServerProcess, 10);
    const followers = all.flatMap((one) => [...follow(one, [], 2), ...follow(one, agents, 10)]);
    const address = `ipv4:${ports.map((port) => `127.0.0.1:${port}`).join(',')}`;
    const client = connectClient({
      address,
      deadlineMs: 20_000,
      channelOptions: { 'grpc.use_local_subchannel_pool': 1 },
    });
    onTestFinished(() => client.close());
    const failed: string[] = [];
    const writes: { revision: number; key: string }[] = [];
    let calls = 0;
    let running = true;
    const work = Array.from({ length: 6 }, async (_, at) => {
      for (let turn = 0; running; turn++) {
        const { id } = agents[(at + turn) % agents.length] as { id: number };
        try {
          if (turn % 3 === 0) {
            const written = await client.agents.updateAgent({ agent: { id, description: `${at}.${turn}` } });
            writes.push({ revision: Number(written.revision), key: `agent ${id}` });
          } else await client.agents.getAgent({ agent: { id } });
          calls++;
        } catch (error) {
          failed.push(
            error instanceof AgentLLMError ? `${error.code} ${error.reason} ${error.message}` : String(error),
          );
        }
        await sleep(10);
      }
    });
    await allReach(followers, 1);
    for (let round = 0; round < 3; round++)
      for (const server of all) {
        await sleep(300);
        expect(await server.stop()).toBe(0);
        await server.restart();
      }
    running = false;
    await Promise.all(work);
    const { revision } = await client.providers.updateProvider({ provider: { name: 'openai', display_name: 'last' } });
    await allReach(followers, Number(revision));
    for (const one of followers) one.stop();
    console.log({ calls, writes: writes.length, failed: [...new Set(failed)], ends: endsOf(followers) });
    expect(failed).toEqual([]);
    expect(calls).toBeGreaterThan(200);
    await stopAll(all);
    await check({ url }, followers, writes);
  });
});

describe('SIGTERM', () => {
  it('ends streams with UNAVAILABLE, SERVER_SHUTTING_DOWN, and each with another time to come back', async () => {
    const url = await postgres.createDatabase();
    const [server] = (await replicas(url, 1)) as [ServerProcess];
    const stub = watchStub(server.port);
    onTestFinished(() => stub.close());
    const { RecordedWatch } = await import('../feed/support.js');
    const watches = Array.from({ length: 40 }, () => new RecordedWatch(server.port, { all_agents: true }, {}, stub));
    await Promise.all(watches.map((one) => one.ready()));
    expect(await server.stop()).toBe(0);
    const ends = await Promise.all(watches.map((one) => one.end()));
    for (const error of ends) expect([error.code, error.reason]).toEqual([14, 'SERVER_SHUTTING_DOWN']);
    const delays = ends.map(({ retry }) => retry ?? -1);
    for (const delay of delays) expect(delay).toBeGreaterThanOrEqual(0);
    expect(new Set(delays).size).toBeGreaterThan(20);
    expect(Math.max(...delays)).toBeLessThanOrEqual(5_000);
  });
});
