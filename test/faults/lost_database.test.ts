import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { readSettings } from '../../src/config.js';
import { createLog } from '../../src/log.js';
import { type Running, serve } from '../../src/main.js';
import { frame, rawCall } from '../grpc/http2_client.js';
import type { InstalledServer } from '../support/pg_tools.js';
import { asRole, nameOf, serverKinds } from '../support/servers.js';
import { type Clients, connect, failure, unique } from '../support/service.js';
import { connectPg } from '../support/sql.js';

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

interface Loss {
  readonly what: string;
  /** SQL that a superuser runs in another database (`admin`) or in the database itself (`inside`). */
  readonly admin?: string;
  readonly inside?: string;
  /** SQL that reverts the loss. */
  readonly revertAdmin?: string;
  readonly revertInside?: string;
  readonly cause: RegExp;
}

const END_SESSIONS = `select pg_terminate_backend(pid) from pg_stat_activity where datname = 'DB' and pid <> pg_backend_pid()`;

const LOSSES: readonly Loss[] = [
  {
    what: 'the role may not log in (28000)',
    admin: `alter role ROLE nologin; ${END_SESSIONS}`,
    revertAdmin: 'alter role ROLE login',
    cause: /has no role "ROLE" that may log in/,
  },
  {
    what: 'CONNECT is revoked (42501)',
    admin: `revoke connect on database DB from public; ${END_SESSIONS}`,
    revertAdmin: 'grant connect on database DB to public',
    cause: /lacks a privilege/,
  },
  {
    what: 'the database is renamed (3D000)',
    // A session that the service opens in between would prevent the change of the name.
    admin: `alter database DB allow_connections false; ${END_SESSIONS}; alter database DB rename to DB_away; alter database DB_away allow_connections true`,
    revertAdmin: 'alter database DB_away rename to DB',
    cause: /has no database "DB"/,
  },
  {
    what: 'the database accepts no connections (55000)',
    admin: `alter database DB allow_connections false; ${END_SESSIONS}`,
    revertAdmin: 'alter database DB allow_connections true',
    cause: /accepts no connections at present/,
  },
  {
    what: 'every privilege on the tables is revoked (42501)',
    inside: 'revoke all on all tables in schema public from ROLE',
    revertInside: 'grant all on all tables in schema public to ROLE',
    cause: /lacks a privilege/,
  },
  {
    what: 'the privilege to insert into the log is revoked (42501)',
    inside: 'revoke insert on config_revisions from ROLE',
    revertInside: 'grant insert on config_revisions to ROLE',
    cause: /lacks a privilege/,
  },
  {
    what: 'USAGE of the schema is revoked',
    inside: 'revoke usage on schema public from public, ROLE',
    revertInside: 'grant usage on schema public to public, ROLE',
    cause: /lacks a privilege|no longer contains the tables/,
  },
  {
    what: 'the tables are moved to another schema (42P01)',
    inside: 'alter schema public rename to away; create schema public; grant all on schema public to ROLE',
    revertInside: 'drop schema public; alter schema away rename to public',
    cause: /no longer contains the tables of the store/,
  },
];

describe.each(serverKinds())('a database that is lost at run time on $name', ({ name: serverName, start }) => {
  let server: InstalledServer;
  let admin: pg.Client;
  const closing: (() => unknown)[] = [];

  beforeAll(async () => {
    server = await start();
    admin = await connectPg(server.url);
  });
  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close();
  });
  afterAll(async () => {
    await admin?.end();
    await server?.stop();
  });

  interface Started {
    readonly clients: Clients;
    readonly running: Running;
    readonly lines: string[];
    readonly superuser: string;
    readonly role: string;
    readonly fill: (sql: string) => string;
    run(client: pg.Client, sql: string | undefined): Promise<void>;
  }

  /** A service whose role does not own the tables: another role has created them. */
  async function startAsGuest(): Promise<Started> {
    const superuser = await server.createDatabase();
    const role = unique('role');
    const db = nameOf(superuser);
    await admin.query(`create role ${role} login password '${role}'`);
    const env = { GRPC_ADDRESS: '127.0.0.1:0', HTTP_ADDRESS: 'off', SHUTDOWN_GRACE_MS: '500', POLL_INTERVAL_MS: '50' };
    const flags = { allowPlaintext: false, allowAnonymous: false };
    const first = await serve(readSettings({ ...env, DATABASE_URL: superuser }), flags, createLog('silent'));
    await first.stop();
    const root = await connectPg(superuser);
    await root.query(
      `grant all on all tables in schema public to ${role}; grant all on all sequences in schema public to ${role}`,
    );
    await root.end();
    const lines: string[] = [];
    const log = createLog('info');
    // The log lines as an operator reads them.
    for (const level of ['info', 'warn', 'error'] as const) {
      log[level] = ((...args: unknown[]) => lines.push(JSON.stringify([level, ...args], printable))) as never;
    }
    const settings = readSettings({ ...env, DATABASE_URL: asRole(superuser, role) });
    const running = await serve(settings, flags, log);
    const clients = connect(running.grpcPort);
    closing.push(
      () => running.stop(),
      () => clients.close(),
    );
    const fill = (sql: string) => sql.replaceAll('DB', db).replaceAll('ROLE', role);
    const run = async (client: pg.Client, sql: string | undefined) => {
      for (const statement of fill(sql ?? '')
        .split('; ')
        .filter(Boolean))
        await client.query(statement);
    };
    return { clients, running, lines, superuser, role, fill, run };
  }

  const createAgent = ({ clients }: Started) =>
    clients.agents.createAgent({ agent: { name: unique('agent'), agent_type: 'analyst' } });

  async function writesHealth({ running }: Started): Promise<string> {
    const name = Buffer.from('agentllm.v1.Writes');
    const request = Buffer.concat([Buffer.from([0x0a, name.length]), name]);
    const { body } = await rawCall(running.grpcPort, { path: '/grpc.health.v1.Health/Check', body: frame(request) });
    return ['UNKNOWN', 'SERVING', 'NOT_SERVING'][body[1] ?? 0] as string;
  }

  it.each(LOSSES)('makes writes UNAVAILABLE, logs the cause once and recovers when $what', async (loss) => {
    const service = await startAsGuest();
    const { lines, superuser, role, clients, fill, run } = service;
    await createAgent(service);
    if (loss.inside) {
      const inside = await connectPg(superuser);
      await run(inside, loss.inside);
      await inside.end();
    }
    await run(admin, loss.admin);
    // A privilege that only writes need is first missed by a write.
    expect((await failure(createAgent(service))).reason).toBe('DATABASE_UNAVAILABLE');
    await vi.waitFor(async () => expect(await writesHealth(service)).toBe('NOT_SERVING'), { timeout: 30_000 });
    for (let n = 0; n < 5; n++) {
      expect((await failure(createAgent(service))).reason).toBe('DATABASE_UNAVAILABLE');
      await new Promise((resolve) => setTimeout(resolve, 100));
      expect(await writesHealth(service)).toBe('NOT_SERVING');
    }
    expect((await clients.agents.listAgents({})).agents.length).toBeGreaterThan(0);
    const causes = lines.filter((line) => line.includes('accepts no writes; reads continue'));
    const matching = causes.filter((line) => new RegExp(fill(loss.cause.source)).test(JSON.parse(line)[1].cause));
    expect(matching, causes.join('\n')).toHaveLength(1);
    expect(causes.length).toBeLessThanOrEqual(3);
    expect(lines.join('\n')).not.toMatch(new RegExp(`:${role}@|password '`));
    await run(admin, loss.revertAdmin);
    if (loss.revertInside) {
      const inside = await connectPg(superuser);
      await run(inside, loss.revertInside);
      await inside.end();
    }
    await vi.waitFor(() => createAgent(service), { timeout: 30_000, interval: 100 });
    await vi.waitFor(async () => expect(await writesHealth(service)).toBe('SERVING'), { timeout: 30_000 });
  });

  it.runIf(serverName === 'PostgreSQL 18')(
    'makes writes UNAVAILABLE, logs the cause and recovers when the password is changed (28P01)',
    async () => {
      const service = await startAsGuest();
      const { role, lines, run } = service;
      await run(admin, `alter role ROLE password 'other-secret'; ${END_SESSIONS}`);
      await vi.waitFor(async () => expect(await writesHealth(service)).toBe('NOT_SERVING'), { timeout: 30_000 });
      expect((await failure(createAgent(service))).reason).toBe('DATABASE_UNAVAILABLE');
      await vi.waitFor(() => expect(lines.join('\n')).toMatch(/refuses the password of user/), { timeout: 30_000 });
      expect(lines.join('\n')).not.toContain('other-secret');
      await run(admin, `alter role ROLE password '${role}'`);
      await vi.waitFor(() => createAgent(service), { timeout: 30_000, interval: 100 });
    },
  );

  it('is not served as an empty store when it is dropped and created again', async () => {
    const service = await startAsGuest();
    const { clients, lines, run, superuser } = service;
    const before = (await clients.agents.listAgents({})).agents;
    await run(
      admin,
      `alter database DB allow_connections false; ${END_SESSIONS}; drop database DB; create database DB`,
    );
    await vi.waitFor(() => expect(lines.join('\n')).toMatch(/no longer contains the tables of the store/), {
      timeout: 30_000,
    });
    expect((await failure(createAgent(service))).reason).toBe('DATABASE_UNAVAILABLE');
    expect(await writesHealth(service)).toBe('NOT_SERVING');
    expect((await clients.agents.listAgents({})).agents).toEqual(before);
    // Another replica creates a new store there, which the log reports.
    const env = { GRPC_ADDRESS: '127.0.0.1:0', HTTP_ADDRESS: 'off', DATABASE_URL: superuser };
    const flags = { allowPlaintext: false, allowAnonymous: false };
    const other = await serve(readSettings(env), flags, createLog('silent'));
    closing.push(() => other.stop());
    const root = await connectPg(superuser);
    await run(
      root,
      'grant all on all tables in schema public to ROLE; grant all on all sequences in schema public to ROLE',
    );
    await root.end();
    await vi.waitFor(() => expect(lines.join('\n')).toMatch(/contains another store than before/), { timeout: 30_000 });
    await vi.waitFor(() => createAgent(service), { timeout: 30_000, interval: 100 });
  });
});

const printable = (_key: string, value: unknown) =>
  value instanceof Error ? { code: (value as { code?: string }).code, message: value.message } : value;
