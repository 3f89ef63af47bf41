import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { limits } from '../../src/limits.js';
import { frame, rawCall } from '../grpc/http2_client.js';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { type Link, startProxy } from '../support/proxy.js';
import { failure, startService, type TestService } from '../support/service.js';
import { connectPg } from '../support/sql.js';
import { until } from '../support/until.js';
import { Client, makeConfigs, Recorder, readImage, startLoad, type Target, validate } from './history.js';
import { hasPgBouncer, startPgBouncer } from './pgbouncer.js';

vi.setConfig({ testTimeout: 90_000 });

let postgres: TestPostgres;
const services: TestService[] = [];
const sessions: pg.Client[] = [];
const unhandled: unknown[] = [];
const record = (error: unknown) => unhandled.push(error);

beforeAll(async () => {
  postgres = await startPostgres({ own: true });
  process.on('unhandledRejection', record);
});

afterEach(async () => {
  await Promise.all(services.splice(0).map((service) => service.stop()));
  await Promise.all(sessions.splice(0).map((session) => session.end()));
  expect(unhandled.splice(0)).toEqual([]);
});

afterAll(async () => {
  process.off('unhandledRejection', record);
  await postgres.stop();
});

interface Replica extends Target {
  readonly service: TestService;
}

async function replica(name: string, url: string, env: Readonly<Record<string, string>> = {}): Promise<Replica> {
  const service = await startService({ DATABASE_URL: url, HTTP_ADDRESS: 'off', SHUTDOWN_GRACE_MS: '1000', ...env });
  services.push(service);
  return { name, clients: service, service };
}

async function sqlSession(url: string): Promise<pg.Client> {
  const session = await connectPg(url);
  session.on('error', () => undefined);
  sessions.push(session);
  return session;
}

/** The status of writes in grpc.health.v1. */
async function writesHealth({ service }: Replica): Promise<string> {
  const name = Buffer.from('agentllm.v1.Writes');
  const request = Buffer.concat([Buffer.from([0x0a, name.length]), name]);
  const { result, body } = await rawCall(service.port, { path: '/grpc.health.v1.Health/Check', body: frame(request) });
  return result === 'grpc OK' ? (['UNKNOWN', 'SERVING', 'NOT_SERVING'][body[1] ?? 0] as string) : result;
}

/** The errors that callers may receive while the database is unavailable, including those of invalid writes. */
const EXPECTED_ERRORS =
  /^(UNAVAILABLE (DATABASE_UNAVAILABLE|OUTCOME_UNKNOWN)|ABORTED STALE_ETAG|INVALID_ARGUMENT INVALID_FIELDS)$/;
const unexpectedErrors = (recorder: Recorder) =>
  recorder.errors('write').filter((error) => !EXPECTED_ERRORS.test(error));

/** Two replicas on one database with clients on both. */
async function startLoaded(
  through: (url: string) => string = (url) => url,
  env: Readonly<Record<string, string>> = {},
) {
  const url = await postgres.createDatabase();
  const replicas = [await replica('a', through(url), env), await replica('b', through(url), env)];
  const [a] = replicas as [Replica];
  const configs = await makeConfigs(a, 3);
  const recorder = new Recorder();
  for (const { service } of replicas)
    await vi.waitFor(() => service.configs.getConfig({ id: configs[2] as number }), { timeout: 30_000 });
  const load = startLoad(recorder, replicas, configs, { pauseMs: 10, deadlineMs: 20_000 });
  const untilMoreWrites = async (count = 20) => {
    const before = recorder.acknowledged;
    await vi.waitFor(() => expect(recorder.acknowledged).toBeGreaterThan(before + count), {
      timeout: 30_000,
      interval: 20,
    });
  };
  /** Ends the load, validates the history, and returns the unexpected errors of writes. */
  const finish = async () => {
    await load.stop();
    validate(recorder, await readImage({ url }));
    expect(recorder.errors('read')).toEqual([]);
    return unexpectedErrors(recorder);
  };
  return { url, a, replicas, configs, recorder, load, untilMoreWrites, finish };
}

describe('a PostgreSQL server that becomes unavailable under load', () => {
  it('causes only UNAVAILABLE and breaks no promise when it restarts 3 s after a crash', async () => {
    const { a, recorder, untilMoreWrites, finish } = await startLoaded();
    await untilMoreWrites();
    await postgres.crash();
    const before = recorder.reads.length;
    await sleep(3_000);
    expect(await writesHealth(a)).toBe('NOT_SERVING');
    await until(() => recorder.reads.length > before + 20, 'reads continue');
    await postgres.restart();
    await untilMoreWrites();
    await vi.waitFor(async () => expect(await writesHealth(a)).toBe('SERVING'), { timeout: 30_000, interval: 50 });
    expect(await finish()).toEqual([]);
  });

  it('causes only UNAVAILABLE and breaks no promise when it terminates all sessions each second', async () => {
    const { url, recorder, untilMoreWrites, finish } = await startLoaded();
    const adminSession = await sqlSession(postgres.url);
    const name = new URL(url).pathname.slice(1);
    for (let second = 0; second < 5; second++) {
      await untilMoreWrites(5);
      await adminSession.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = $1', [name]);
      await sleep(1_000);
    }
    await untilMoreWrites();
    expect(recorder.errors('write').filter((error) => error.startsWith('UNAVAILABLE'))).not.toEqual([]);
    expect(await finish()).toEqual([]);
  });

  it('causes only UNAVAILABLE and breaks no promise when it is temporarily read-only (25006)', async () => {
    const { a, recorder, untilMoreWrites, finish } = await startLoaded();
    await untilMoreWrites();
    const admin = await sqlSession(postgres.url);
    // Unlike `alter database`, this affects open sessions.
    const readOnly = async (on: boolean) => {
      await admin.query('set default_transaction_read_only = off');
      await admin.query(`alter system set default_transaction_read_only = ${on ? 'on' : 'off'}`);
      await admin.query('select pg_reload_conf()');
    };
    await readOnly(true);
    try {
      await until(() => recorder.errors('write').includes('UNAVAILABLE DATABASE_UNAVAILABLE'));
      await sleep(1_000);
      const before = recorder.acknowledged;
      await sleep(1_000);
      expect(recorder.acknowledged).toBe(before);
      const health = await writesHealth(a);
      console.log({ writesHealthWhileReadOnly: health });
    } finally {
      await readOnly(false);
    }
    await untilMoreWrites();
    expect(recorder.errors('write')).toContain('UNAVAILABLE DATABASE_UNAVAILABLE');
    expect(await finish()).toEqual([]);
  });
});

describe('a faulty network to PostgreSQL', () => {
  const portOf = (url: string) => Number(new URL(url).port);
  const serverPort = () => portOf(postgres.url);

  it.each(['cut', 'reset'] as const)(
    'causes no lost and no duplicate write when connections are %s at any moment',
    async (how) => {
      const proxy = await startProxy(serverPort());
      const { recorder, untilMoreWrites, finish } = await startLoaded(proxy.through);
      let messageCount = 0;
      // In the middle of transactions, every 40th message of a client.
      proxy.onRequest = (_, link) => {
        messageCount = (messageCount + 1) % 40;
        if (messageCount === 0) setImmediate(() => link[how]());
      };
      await sleep(3_000);
      proxy.onRequest = undefined;
      await untilMoreWrites();
      expect(recorder.errors('write').filter((error) => error.startsWith('UNAVAILABLE'))).not.toEqual([]);
      expect(await finish()).toEqual([]);
    },
  );

  it('only delays calls when it is slow (200 kB/s, 20 ms)', async () => {
    const proxy = await startProxy(serverPort());
    const { recorder, untilMoreWrites, finish } = await startLoaded(proxy.through);
    Object.assign(proxy, { latencyMs: 20, bytesPerSecond: 200_000 });
    await untilMoreWrites();
    expect(recorder.errors('write').filter((error) => error.startsWith('UNAVAILABLE'))).toEqual([]);
    Object.assign(proxy, { latencyMs: 0, bytesPerSecond: 0 });
    expect(await finish()).toEqual([]);
  });

  it.each([
    ['2 s over an existing connection', 1_000, false],
    ['half a second over a new connection', 250, true],
  ])('lets a write succeed when each response takes %s', async (_, latencyMs, newConnection) => {
    const proxy = await startProxy(serverPort());
    const url = await postgres.createDatabase();
    const env = { DATABASE_WAIT_MS: '10000', POLL_INTERVAL_MS: '1000', NOTIFY: 'off' };
    const a = await replica('a', proxy.through(url), env);
    const [config = 0] = await makeConfigs(a, 1);
    const recorder = new Recorder();
    const client = new Client('the caller', recorder, 40_000);
    if (newConnection) for (const link of proxy.links) link.cut();
    await sleep(100);
    proxy.latencyMs = latencyMs;
    const began = performance.now();
    const outcome = await client.write(config).attempt(a);
    console.log({ roundTripMs: 2 * latencyMs, newConnection, tookMs: Math.round(performance.now() - began) });
    await client.read(a, config);
    proxy.latencyMs = 0;
    expect(outcome.kind).toBe('acknowledged');
    validate(recorder, await readImage({ url }));
  });

  it('makes writes UNAVAILABLE in bounded time, and recovers, when it becomes silent', async () => {
    const proxy = await startProxy(serverPort());
    const url = await postgres.createDatabase();
    const far = await replica('far', proxy.through(url), { DATABASE_WAIT_MS: '1000' });
    const near = await replica('near', url);
    const [config = 0] = await makeConfigs(far, 1);
    const recorder = new Recorder();
    // Longer than any timeout that the service sets for a statement.
    const boundMs = limits.statementTimeoutMs + 5_000;
    const clients = Array.from({ length: 4 }, (_, n) => new Client(`client ${n}`, recorder, boundMs));
    // Several connections in the pool, as after a busy time.
    for (let round = 0; round < 5; round++)
      await Promise.all(clients.map((client) => client.write(config).attempt(far)));
    proxy.freeze();
    const writes = clients.map((client) => client.write(config));
    const outcomes = await Promise.all(writes.map(({ attempt }) => attempt(far)));
    await Promise.all(clients.map((client) => client.read(far, config)));
    const inTime = async (work: () => Promise<void>, timeout = 30_000) =>
      await vi.waitFor(work, { timeout, interval: 100 }).then(
        () => 'soon',
        () => 'too late',
      );
    // A poll, which determines the health, may have begun after the writes.
    const isNotServing = async () => expect(await writesHealth(far)).toBe('NOT_SERVING');
    const notServing = await inTime(isNotServing, boundMs);
    // The network works again, but the previous connections stay dead.
    proxy.strand();
    const laterClient = new Client('afterwards', recorder, 5_000);
    const writesAgain = await inTime(async () => {
      expect((await laterClient.write(config).attempt(far)).kind).toBe('acknowledged');
    });
    const writeOnNear = await new Client('elsewhere', recorder).write(config).attempt(near);
    const revision = 'revision' in writeOnNear ? writeOnNear.revision : 0;
    const followsAgain = await inTime(async () => {
      const seen = await far.service.configs.getConfig({ id: config });
      expect(Number(seen.revision)).toBeGreaterThanOrEqual(revision);
    });
    const healthAfter = await writesHealth(far);
    for (const link of proxy.links) link.cut();
    validate(recorder, await readImage({ url }));
    expect(recorder.errors('read')).toEqual([]);
    const outcomeKinds = outcomes.map((outcome) => ('error' in outcome ? outcome.error.split(' ')[0] : outcome.kind));
    expect({ outcomeKinds: [...new Set(outcomeKinds)], notServing, writesAgain, followsAgain, healthAfter }).toEqual({
      outcomeKinds: ['UNAVAILABLE'],
      notServing: 'soon',
      writesAgain: 'soon',
      followsAgain: 'soon',
      healthAfter: 'SERVING',
    });
  });

  it('cancels a read that takes longer than the statement timeout', async () => {
    const url = await postgres.createDatabase('seeded');
    const { service } = await replica('a', url, { NOTIFY: 'off' });
    const other = await sqlSession(url);
    await other.query('begin');
    await other.query('lock table audit_events in access exclusive mode');
    expect((await failure(service.audit.listAuditEvents({}))).reason).toBe('DATABASE_UNAVAILABLE');
    // The server would not notice that the service has closed the connection.
    const { rows } = await other.query(
      `select pid from pg_locks where relation = 'audit_events'::regclass and not granted`,
    );
    expect(rows).toEqual([]);
    await other.query('rollback');
  });

  it('causes no lasting lock and no duplicate write when it becomes silent within a transaction', async () => {
    const proxy = await startProxy(serverPort());
    const url = await postgres.createDatabase();
    const far = await replica('far', proxy.through(url), { NOTIFY: 'off' });
    const near = await replica('near', url);
    const [config = 0] = await makeConfigs(near, 1);
    await vi.waitFor(() => far.service.configs.getConfig({ id: config }), { timeout: 30_000 });
    const recorder = new Recorder();
    const [farClient, nearClient] = [new Client('far', recorder, 30_000), new Client('near', recorder, 20_000)];
    let frozen: Link | undefined;
    proxy.onReply = (chunk, link) => {
      // The response to the first statement that locks: from here on the session holds the lock of the row.
      if (frozen || !/UPDATE 1\0/.test(chunk.toString('latin1'))) return;
      frozen = link;
      link.freeze();
    };
    const write = farClient.write(config);
    const first = write.attempt(far);
    await vi.waitFor(() => expect(frozen).toBeDefined(), { timeout: 30_000, interval: 5 });
    const started = performance.now();
    let outcome = await nearClient.write(config).attempt(near);
    while (outcome.kind !== 'acknowledged' && performance.now() - started < 40_000) {
      expect(outcome).toMatchObject({ error: 'ABORTED WRITE_CONFLICT' });
      outcome = await nearClient.write(config).attempt(near);
    }
    const waited = performance.now() - started;
    console.log({ counterRowFreeAfterMs: Math.round(waited) });
    expect(outcome.kind).toBe('acknowledged');
    expect(waited).toBeLessThan(limits.idleInTransactionTimeoutMs + limits.lockTimeoutMs);
    // The network works again, and the service learns that its session was terminated.
    proxy.onReply = undefined;
    proxy.thaw();
    expect((await first).kind).not.toBe('acknowledged');
    expect((await write.attempt(far)).kind).toBe('acknowledged');
    await farClient.read(far, config);
    validate(recorder, await readImage({ url }));
  });
});

describe('a lack of connections', () => {
  it('fails writes in bounded time and interrupts no reads when the pool is exhausted', async () => {
    const url = await postgres.createDatabase();
    const a = await replica('a', url, { DATABASE_POOL_SIZE: '1', DATABASE_WAIT_MS: '500' });
    const [config = 0] = await makeConfigs(a, 1);
    const recorder = new Recorder();
    const clients = Array.from({ length: 8 }, (_, n) => new Client(`client ${n}`, recorder, 60_000));
    const foreignSession = await sqlSession(url);
    await foreignSession.query('begin');
    await foreignSession.query('select from store_state for update');
    const started = performance.now();
    let settled = false;
    const writing = Promise.all(clients.map((client) => client.write(config).attempt(a))).finally(() => {
      settled = true;
    });
    await sleep(300);
    await Promise.all(clients.map((client) => client.read(a, config)));
    expect(settled).toBe(false);
    // The writes wait in the queue for the only connection, which the first write holds. Other queries fail.
    expect((await failure(a.clients.configs.listConfigHealth({}))).reason).toBe('DATABASE_UNAVAILABLE');
    const outcomes = await writing;
    const took = performance.now() - started;
    await foreignSession.query('rollback');
    const errors = recorder.errors('write');
    console.log({ tookMs: Math.round(took), errors });
    expect(outcomes.filter(({ kind }) => kind !== 'rejected')).toEqual([]);
    expect(
      errors.filter((error) => !/^(UNAVAILABLE DATABASE_UNAVAILABLE|ABORTED WRITE_CONFLICT)$/.test(error)),
    ).toEqual([]);
    // Half of the deadline of the callers.
    expect(took).toBeLessThan(30_000);
    await vi.waitFor(async () => expect((await clients[0]?.write(config).attempt(a))?.kind).toBe('acknowledged'), {
      timeout: 30_000,
    });
    validate(recorder, await readImage({ url }));
    expect(recorder.errors('read')).toEqual([]);
  });

  it('makes writes UNAVAILABLE when the server has no connection left (53300), until it has one again', async () => {
    const admin = await sqlSession(postgres.url);
    const url = await postgres.createDatabase();
    const name = new URL(url).pathname.slice(1);
    await admin.query(`create role ${name} login password 'password'`);
    await admin.query(`alter database ${name} owner to ${name}`);
    const ownerUrl = Object.assign(new URL(url), { username: name }).href;
    const a = await replica('a', ownerUrl);
    const [config = 0] = await makeConfigs(a, 1);
    const client = new Client('the caller', new Recorder());
    await admin.query(`alter role ${name} connection limit 0`);
    await admin.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = $1', [name]);
    await vi.waitFor(async () => expect(await writesHealth(a)).toBe('NOT_SERVING'), { timeout: 30_000, interval: 20 });
    for (let n = 0; n < 3; n++)
      expect(await client.write(config).attempt(a)).toMatchObject({ error: 'UNAVAILABLE DATABASE_UNAVAILABLE' });
    await admin.query(`alter role ${name} connection limit -1`);
    await vi.waitFor(async () => expect((await client.write(config).attempt(a)).kind).toBe('acknowledged'), {
      timeout: 30_000,
    });
    await vi.waitFor(async () => expect(await writesHealth(a)).toBe('SERVING'), { timeout: 30_000, interval: 20 });
  });

  const pgBouncerInstalled = hasPgBouncer();
  if (!pgBouncerInstalled)
    console.log('PgBouncer is not installed here: its test is skipped (apt-get install pgbouncer)');

  it.runIf(pgBouncerInstalled)('breaks no promise of two replicas that use PgBouncer in transaction mode', async () => {
    // Fewer sessions than the pools of both replicas, so that their transactions share sessions.
    const bouncer = await startPgBouncer(postgres.url, 3);
    try {
      const url = await postgres.createDatabase();
      const { recorder, untilMoreWrites, finish, a, configs } = await (async () => {
        const env = { DATABASE_DIRECT_URL: url };
        const replicas = [
          await replica('a', bouncer.through(url), env),
          await replica('b', bouncer.through(url), env),
        ] as [Replica, Replica];
        const configs = await makeConfigs(replicas[0], 3);
        const recorder = new Recorder();
        await vi.waitFor(() => replicas[1].service.configs.getConfig({ id: configs[2] as number }), {
          timeout: 30_000,
        });
        const load = startLoad(recorder, replicas, configs, { clients: 6, pauseMs: 5 });
        const untilMoreWrites = async (count: number) => {
          const before = recorder.acknowledged;
          await vi.waitFor(() => expect(recorder.acknowledged).toBeGreaterThan(before + count), { timeout: 30_000 });
        };
        const finish = async () => {
          await load.stop();
          validate(recorder, await readImage({ url }));
          expect(recorder.errors('read')).toEqual([]);
          return unexpectedErrors(recorder);
        };
        return { recorder, untilMoreWrites, finish, a: replicas[0], configs };
      })();
      await untilMoreWrites(100);
      expect(recorder.errors('write').filter((error) => error.startsWith('UNAVAILABLE'))).toEqual([]);
      // A session that kept settings of another transaction would cause errors.
      const admin = await sqlSession(url);
      const killed = await admin.query(
        `select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid()`,
      );
      expect(killed.rowCount).toBeGreaterThan(0);
      await untilMoreWrites(20);
      expect(await finish()).toEqual([]);
      expect((await a.service.configs.getConfig({ id: configs[0] as number })).config).toBeDefined();
    } finally {
      await Promise.all(services.splice(0).map((service) => service.stop()));
      await bouncer.stop();
    }
  });
});

describe('a foreign session that locks the counter row', () => {
  it('makes every write ABORTED or UNAVAILABLE in bounded time, and failed writes leave no effect', async () => {
    const { url, recorder, untilMoreWrites, finish } = await startLoaded();
    await untilMoreWrites();
    const foreignSession = await sqlSession(url);
    await foreignSession.query('begin');
    await foreignSession.query('select from store_state for update');
    const [from, before] = [performance.now(), recorder.acknowledged];
    await sleep(limits.lockTimeoutMs + 3_000);
    // Retries whose response is stored under their request_id still succeed.
    expect(recorder.acknowledged - before).toBeLessThanOrEqual(4);
    await foreignSession.query('rollback');
    await untilMoreWrites();
    const attempts = recorder.writes.flatMap((write) => write.attempts).filter(({ to }) => to > from);
    const longest = Math.max(...attempts.map((attempt) => attempt.to - attempt.from));
    console.log({ longestMs: Math.round(longest), errors: recorder.errors('write') });
    // The deadline of the callers is 20 s.
    expect(longest).toBeLessThan(limits.lockTimeoutMs * 3);
    expect(recorder.errors('write')).toContain('ABORTED WRITE_CONFLICT');
    expect((await finish()).filter((error) => error !== 'ABORTED WRITE_CONFLICT')).toEqual([]);
  });
});
