import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { AgentLLMError, connect as connectClient } from '../../src/client/index.js';
import type { ChangedItem } from '../feed/ground_truth.js';
import type { Event } from '../feed/history.js';
import { watchStub } from '../feed/support.js';
import { violationsOf } from '../feed/validators.js';
import { allReach, endsOf, type Stubs, type Watcher } from '../feed/watcher.js';
import { useDirectories } from '../support/command.js';
import { freePort } from '../support/ports.js';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { connectPg } from '../support/sql.js';
import { until } from '../support/until.js';
import { hasPgBouncer, startPgBouncer } from './pgbouncer.js';
import { ServerProcess } from './server.js';
import { check, makeAgents, startWatchers, startWrites, stubsOf } from './watch.js';

/* Watchers on several replicas of one PostgreSQL database. */

const ROUNDS = Number(process.env['FAULT_ROUNDS'] ?? 2);
const SCALE = Math.min(ROUNDS, 15);
/** The writes of each writer in the negative control. */
const WRITES_EACH = 10;
vi.setConfig({ testTimeout: 90_000 + SCALE * 5_000 });

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

/** Starts the given number of replicas on one database. */
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

/** Moves random watchers from replica to replica until it is stopped. */
function moveWatchers(watchers: readonly Watcher[], stubs: readonly Stubs[], everyMs: number) {
  let moves = 0;
  const timer = setInterval(() => {
    const watcher = watchers[Math.floor(Math.random() * watchers.length)] as Watcher;
    watcher.reconnect(stubs[moves++ % stubs.length]);
  }, everyMs);
  onTestFinished(() => clearInterval(timer));
  return { count: () => moves, stop: () => clearInterval(timer) };
}

describe('watchers that move between replicas', () => {
  it.each([
    ['two replicas that notify each other', 2, {}],
    ['three replicas that only poll', 3, { NOTIFY: 'off', POLL_INTERVAL_MS: '100' }],
  ])('receive every change exactly once on %s', async (_, count, env) => {
    const url = await postgres.createDatabase();
    const all = await replicas(url, count, env);
    const [first] = all as [ServerProcess];
    const agents = await makeAgents(first, 10);
    const stubs = all.map((one) => stubsOf(one));
    const watchers = all.flatMap((one) => [...startWatchers(one, [], 4), ...startWatchers(one, agents, 10)]);
    const writes = startWrites(all, agents, 60, 6);
    const moves = moveWatchers(watchers, stubs, 15);
    await sleep(1_000 * SCALE);
    await until(() => moves.count() > SCALE * 20, 'enough moves');
    await writes.stop();
    moves.stop();
    const last = await first.clients.providers.updateProvider({ provider: { name: 'openai', display_name: 'last' } });
    await allReach(watchers, Number(last.revision));
    for (const one of watchers) one.stop();
    console.log({ replicas: count, moves: moves.count(), writes: writes.acknowledged.length, ends: endsOf(watchers) });
    expect([...writes.errors]).toEqual([]);
    await stopAll(all);
    await check({ url }, watchers, writes.acknowledged);
  });

  const pooled = 'receive every change exactly once when the replicas use PgBouncer in transaction mode';
  if (!hasPgBouncer()) it.skip(`${pooled} — skipped: no pgbouncer on the PATH, apt-get install pgbouncer`);
  else
    it(pooled, async () => {
      const url = await postgres.createDatabase();
      const bouncer = await startPgBouncer(postgres.url, 8);
      onTestFinished(() => bouncer.stop());
      const all = await replicas(bouncer.through(url), 2, { DATABASE_DIRECT_URL: url, NOTIFY: 'off' });
      const [first] = all as [ServerProcess];
      const agents = await makeAgents(first, 10);
      const watchers = all.flatMap((one) => [...startWatchers(one, [], 3), ...startWatchers(one, agents, 10)]);
      const writes = startWrites(all, agents, 60, 6);
      const moves = moveWatchers(
        watchers,
        all.map((one) => stubsOf(one)),
        25,
      );
      await sleep(700 * SCALE);
      await writes.stop();
      moves.stop();
      const last = await first.clients.providers.updateProvider({ provider: { name: 'openai', display_name: 'last' } });
      await allReach(watchers, Number(last.revision));
      for (const one of watchers) one.stop();
      expect([...writes.errors]).toEqual([]);
      await stopAll(all);
      await check({ url }, watchers, writes.acknowledged);
    });
});

/** Makes every transaction that inserts into the table wait for a random time before its commit. */
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
  it('cause no missed change for the watchers of three replicas', async () => {
    const url = await postgres.createDatabase();
    const all = await replicas(url, 3);
    const [first] = all as [ServerProcess];
    const agents = await makeAgents(first, 12);
    const session = await connectPg(url);
    onTestFinished(() => session.end());
    await delayCommits(session, 'config_revisions');
    const watchers = all.flatMap((one) => [...startWatchers(one, [], 2), ...startWatchers(one, agents, 12)]);
    const writes = startWrites(all, agents, 1000, 12);
    await sleep(1_500 + 500 * SCALE);
    await until(() => writes.acknowledged.length > 50, 'enough writes');
    await writes.stop();
    const last = await first.clients.providers.updateProvider({ provider: { name: 'openai', display_name: 'last' } });
    await allReach(watchers, Number(last.revision));
    for (const one of watchers) one.stop();
    console.log({ writes: writes.acknowledged.length });
    expect([...writes.errors]).toEqual([]);
    await stopAll(all);
    await check({ url }, watchers, writes.acknowledged);
  });

  /** Models a feed over a log that is numbered by `nextNumber`, and returns the changes that its reader misses. */
  async function violationsWith(nextNumber: string): Promise<string[]> {
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
    const changedItem = (n: number): ChangedItem => ({ key: `row ${n}`, value: 'x', agent: undefined });
    const revisions = new Map(rows.map(({ n }) => [Number(n), [changedItem(Number(n))]]));
    const client = { name: 'the reader', watched: { all: true }, streams: [{ resumedAt: 0, events }] };
    const truth = { head: rows.length, revisions, at: () => [] };
    return violationsOf(
      'Reliable: every change to a watched resource is delivered',
      { writes: [], clients: [client] },
      truth,
    );
  }

  it('cause missed changes in a feed over a sequence, which the validator reports (negative control)', async () => {
    expect(await violationsWith(`select nextval('numbers') as n`)).not.toEqual([]);
  });

  it('cause no missed change in a feed over a counter row with the same schedule', async () => {
    expect(await violationsWith('update counter set n = n + 1 returning n')).toEqual([]);
  });
});

describe('a rolling restart of two replicas under load', () => {
  it('fails no unary call of a client that retries, and leaves no gap in a watch', async () => {
    const url = await postgres.createDatabase();
    // The ports stay the same, like those of a service behind a load balancer.
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
    const watchers = all.flatMap((one) => [...startWatchers(one, [], 2), ...startWatchers(one, agents, 10)]);
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
    await allReach(watchers, 1);
    for (let round = 0; round < 3; round++)
      for (const server of all) {
        await sleep(300);
        expect(await server.stop()).toBe(0);
        await server.restart();
      }
    running = false;
    await Promise.all(work);
    const { revision } = await client.providers.updateProvider({ provider: { name: 'openai', display_name: 'last' } });
    await allReach(watchers, Number(revision));
    for (const one of watchers) one.stop();
    console.log({ calls, writes: writes.length, failed: [...new Set(failed)], ends: endsOf(watchers) });
    expect(failed).toEqual([]);
    expect(calls).toBeGreaterThan(200);
    await stopAll(all);
    await check({ url }, watchers, writes);
  });
});

describe('SIGTERM', () => {
  it('ends every stream with UNAVAILABLE, SERVER_SHUTTING_DOWN and a different retry delay', async () => {
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
