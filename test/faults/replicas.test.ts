import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { GetPrimaryConfigRequest } from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { migrations } from '../../migrations/index.js';
import { loadState } from '../../src/store/write/change_log.js';
import { frame, rawCall } from '../grpc/http2_client.js';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { CallError, failure, startService, type TestService, unique } from '../support/service.js';
import { connectPg } from '../support/sql.js';
import { contents, gapsInLog, openStore, replay } from '../support/store.js';

// The replicas run in one process and share only the database.
const MODEL = { provider: 'openai', model_name: 'gpt-4' } as const;
/** The environment of a replica that does not poll within a test. */
const STALE_ENV = { POLL_INTERVAL_MS: '60000', NOTIFY: 'off' };
const WAIT_OPTIONS = { timeout: 30_000, interval: 50 };

let postgres: TestPostgres;
const services: TestService[] = [];
const sessions: pg.Client[] = [];

beforeAll(async () => {
  postgres = await startPostgres({ own: true });
});

afterEach(async () => {
  await Promise.all(services.splice(0).map((service) => service.stop()));
  await Promise.all(sessions.splice(0).map((session) => session.end()));
});

afterAll(async () => {
  await postgres.stop();
});

async function replica(url: string, env: Readonly<Record<string, string>> = {}): Promise<TestService> {
  const service = await startService({ DATABASE_URL: url, HTTP_ADDRESS: 'off', ...env });
  services.push(service);
  return service;
}

/** A polling replica and one that does not poll, so that it is stale from its start on. */
async function pair(): Promise<{ url: string; a: TestService; b: TestService }> {
  const url = await postgres.createDatabase('seeded');
  const a = await replica(url);
  return { url, a, b: await replica(url, STALE_ENV) };
}

async function sqlSession(url: string): Promise<pg.Client> {
  const session = await connectPg(url);
  session.on('error', () => undefined);
  sessions.push(session);
  return session;
}

async function newAgent(service: TestService): Promise<{ id: number; name: string }> {
  const { agent } = await service.agents.createAgent({ agent: { name: unique('agent'), agent_type: 'analyst' } });
  return { id: agent?.id as number, name: agent?.name as string };
}

async function newConfig(service: TestService) {
  const agent = await newAgent(service);
  const { config } = await service.configs.createConfig({ agent: { id: agent.id }, config: MODEL });
  return { id: config?.id as number, etag: config?.etag as string, agent };
}

/** Checks that the log has no gaps and that log and tables agree. */
async function expectSoundStore(url: string): Promise<void> {
  const { database, close } = await openStore({ url, pollIntervalMs: 60_000 });
  try {
    expect(await gapsInLog(database)).toEqual([]);
    expect(contents(await replay(database))).toEqual(contents(await loadState(database.knex)));
  } finally {
    await close();
  }
}

/** The status of a service in grpc.health.v1; the proto has only two fields, so no gRPC library is needed. */
async function health({ port }: TestService, service: string): Promise<string> {
  const name = Buffer.from(service);
  const request = Buffer.concat([Buffer.from([0x0a, name.length]), name]);
  const { result, body } = await rawCall(port, { path: '/grpc.health.v1.Health/Check', body: frame(request) });
  return result === 'grpc OK' ? (['UNKNOWN', 'SERVING', 'NOT_SERVING'][body[1] ?? 0] as string) : result;
}

describe('replicas', () => {
  it('initialize an empty database once when five of them start simultaneously', async () => {
    const url = await postgres.createDatabase('seeded');
    const five = await Promise.all(Array.from({ length: 5 }, () => replica(url)));
    const session = await sqlSession(url);
    const one = async (sql: string) => (await session.query(sql)).rows;
    expect(await one('select name from knex_migrations order by id')).toEqual(migrations.map(({ name }) => ({ name })));
    expect(await one('select count(*)::int as n from agent_configs')).toEqual([{ n: 12 }]);
    expect(await one('select distinct count(*)::int as n from agent_llm_configs group by agent_id')).toEqual([
      { n: 1 },
    ]);
    // One revision for each of the three seeds: the later replicas changed nothing.
    expect(await one('select revision::int as n from store_state')).toEqual([{ n: 3 }]);
    const responses = await Promise.all(
      five.map(({ configs }) => configs.batchGetPrimaryConfigs({ min_revision: 3n })),
    );
    expect(responses.slice(1)).toEqual(responses.slice(0, -1));
    expect(responses[0]?.results).toHaveLength(12);
    await expectSoundStore(url);
  });

  it('see a write of another replica, immediately when min_revision is its revision', async () => {
    const { url, a, b } = await pair();
    const c = await replica(url);
    const agent = await newAgent(a);
    const { revision } = await a.configs.createConfig({ agent: { id: agent.id }, config: MODEL });
    expect((await failure(b.configs.getPrimaryConfig({ agent }))).code).toBe(3);
    const ref = { name: agent.name };
    expect((await failure(b.configs.getPrimaryConfig({ agent: ref }))).reason).toBe('AGENT_NOT_FOUND');
    const withMinRevision = await b.configs.getPrimaryConfig({ agent: ref, min_revision: revision });
    expect(withMinRevision.revision).toBe(revision);
    await vi.waitFor(async () => {
      expect((await c.configs.getPrimaryConfig({ agent: ref })).config).toEqual(withMinRevision.config);
    }, WAIT_OPTIONS);
  });

  it('accept a request that is valid in the newest state although their own state is stale', async () => {
    const { a, b } = await pair();
    const first = await newAgent(a);
    await expect(b.configs.createConfig({ agent: { name: first.name }, config: MODEL })).resolves.toBeDefined();
    const second = await newAgent(a);
    await expect(b.configs.upsertPrimaryConfig({ agent: { id: second.id }, config: MODEL })).resolves.toBeDefined();
    const third = await newAgent(a);
    const bulk = { agents: [{ id: third.id }, { id: first.id }], config: { max_tokens: 5, ...MODEL } };
    expect((await b.configs.bulkAssignConfig(bulk)).results.map(({ created }) => created)).toEqual([true, false]);
    const fourth = await newAgent(a);
    const validateOnly = { agent: { id: fourth.id }, config: MODEL, validate_only: true };
    await expect(b.configs.createConfig(validateOnly)).resolves.toBeDefined();
    await expect(b.agents.deleteAgent({ agent: { id: (await newAgent(a)).id } })).resolves.toBeDefined();
  });

  it('execute a partial bulk assignment on the newest state although their own state is stale', async () => {
    const { a, b } = await pair();
    const agent = await newAgent(a);
    const { results } = await b.configs.bulkAssignConfig({
      agents: [{ name: agent.name }, { name: 'trader' }],
      config: { ...MODEL, max_tokens: 7 },
      allow_partial: true,
    });
    expect(results.map(({ status }) => status?.message)).toEqual([undefined, undefined]);
  });

  it('reject a request that is invalid in the newest state although their own state is stale', async () => {
    const { a, b } = await pair();
    const taken = await newAgent(a);
    const duplicate = await failure(b.agents.createAgent({ agent: { name: taken.name, agent_type: 'analyst' } }));
    expect(duplicate.reason).toBe('AGENT_NAME_TAKEN');
    const gone = await newAgent(b);
    await a.agents.deleteAgent({ agent: { id: gone.id } });
    const late = await failure(b.configs.createConfig({ agent: { id: gone.id }, config: MODEL }));
    expect(late.reason).toBe('AGENT_NOT_FOUND');
    // A name that another replica has freed can be used.
    await expect(b.agents.createAgent({ agent: { name: gone.name, agent_type: 'analyst' } })).resolves.toBeDefined();

    const { id, etag } = await newConfig(b);
    const { config } = await a.configs.updateConfig({ config: { id, max_tokens: 9 } });
    const stale = await failure(b.configs.updateConfig({ config: { id, etag, max_tokens: 10 } }));
    expect(stale.reason).toBe('STALE_ETAG');
    const fresh = await a.configs.updateConfig({ config: { id, etag: config?.etag, max_tokens: 11 } });
    const current = { id, etag: fresh.config?.etag, max_tokens: 12 };
    expect((await b.configs.updateConfig({ config: current })).config?.max_tokens).toBe(12);
  });

  it('return the first response when a request is retried on another replica', async () => {
    const { url, a, b } = await pair();
    const name = unique('agent');
    const create = { agent: { name, agent_type: 'analyst' }, request_id: randomUUID() };
    const created = await a.agents.createAgent(create);
    // Without the stored response, the retry would fail because the name exists.
    expect(await b.agents.createAgent(create)).toEqual(created);
    const { id, etag } = await newConfig(a);
    const update = { config: { id, etag, max_tokens: 3 }, request_id: randomUUID() };
    const updated = await a.configs.updateConfig(update);
    expect(await b.configs.updateConfig(update)).toEqual(updated);
    const remove = { id, request_id: randomUUID() };
    const removed = await a.configs.deleteConfig(remove);
    expect(await b.configs.deleteConfig(remove)).toEqual(removed);
    const other = await failure(b.configs.deleteConfig({ ...remove, reason: 'another request' }));
    expect(other.reason).toBe('REQUEST_ID_REUSED');
    await expectSoundStore(url);
  });

  it('assign gapless revisions and read their own writes when three of them write concurrently', async () => {
    const { url, a, b } = await pair();
    const c = await replica(url);
    const { id } = await newConfig(a);
    const seen: bigint[] = [];
    await Promise.all(
      [a, b, c].map(async ({ configs }, at) => {
        for (let n = 1; n <= 20; n++) {
          const { revision } = await configs.updateConfig({ config: { id, max_tokens: at * 100 + n } });
          const read = await configs.getConfig({ id });
          expect(read.revision).toBeGreaterThanOrEqual(revision);
          seen.push(revision);
        }
      }),
    );
    const sorted = [...seen].sort((x, y) => Number(x - y));
    expect(sorted).toEqual(sorted.map((_, at) => (sorted[0] as bigint) + BigInt(at)));
    const last = sorted.at(-1) as bigint;
    const reads = await Promise.all([a, b, c].map(({ configs }) => configs.getConfig({ id, min_revision: last })));
    expect(reads.slice(1)).toEqual(reads.slice(0, -1));
    await expectSoundStore(url);
  });
});

describe('notifications', () => {
  it('deliver a write to a replica that does not poll, also after the connection was lost', async () => {
    const url = await postgres.createDatabase('seeded');
    const a = await replica(url);
    const b = await replica(url, { POLL_INTERVAL_MS: '60000' });
    const untilSeen = async (revision: bigint) =>
      vi.waitFor(async () => {
        const { revision: here } = await b.agents.getAgent({ agent: { name: 'trader' } });
        expect(here).toBeGreaterThanOrEqual(revision);
      }, WAIT_OPTIONS);
    const session = await sqlSession(url);
    const listening = async () => {
      const { rows } = await session.query(
        "select pid from pg_stat_activity where application_name = 'agentllm listen' and datname = current_database()",
      );
      return rows.map((row) => row.pid as number);
    };
    await vi.waitFor(async () => expect(await listening()).toHaveLength(2), WAIT_OPTIONS);
    const { config } = await a.configs.upsertPrimaryConfig({ agent: { name: 'trader' }, config: { top_p: 0.5 } });
    await untilSeen(config?.revision as bigint);

    const before = await listening();
    for (const pid of before) await session.query('select pg_terminate_backend($1)', [pid]);
    await vi.waitFor(async () => {
      const now = await listening();
      expect(now).toHaveLength(2);
      expect(now.some((pid) => before.includes(pid))).toBe(false);
    }, WAIT_OPTIONS);
    const again = await a.configs.upsertPrimaryConfig({ agent: { name: 'trader' }, config: { top_p: 0.6 } });
    await untilSeen(again.config?.revision as bigint);
  });
});

describe('a database that is restored from a backup', () => {
  /** Writes three changes to a config; `restore` reverts the last two of them like a restore from a backup. */
  async function history() {
    const { url, a, b } = await pair();
    const { id } = await newConfig(a);
    const { revision: kept } = await a.configs.updateConfig({ config: { id, max_tokens: 100 } });
    const session = await sqlSession(url);
    const before = await session.query('select nonce, previous_nonce from store_state');
    for (const max_tokens of [200, 300]) await a.configs.updateConfig({ config: { id, max_tokens } });
    const last = await b.configs.getConfig({ id, min_revision: kept + 2n });
    const restore = async () => {
      await session.query('begin');
      await session.query('update store_state set revision = $1, nonce = $2, previous_nonce = $3', [
        kept,
        before.rows[0].nonce,
        before.rows[0].previous_nonce,
      ]);
      await session.query('delete from config_revisions where revision > $1', [kept]);
      await session.query('update agent_llm_configs set max_tokens = 100, revision = $1 where id = $2', [kept, id]);
      await session.query('commit');
    };
    return { url, a, b, id, kept, last, restore };
  }

  it('is detected by a replica that polls', async () => {
    const { url, a, id, kept, restore } = await history();
    await restore();
    await vi.waitFor(async () => {
      const { config, revision } = await a.configs.getConfig({ id });
      expect([config?.max_tokens, revision]).toEqual([100, kept]);
    }, WAIT_OPTIONS);
    expect((await a.configs.updateConfig({ config: { id, top_p: 0.5 } })).revision).toBe(kept + 1n);
    await expectSoundStore(url);
  });

  it('is detected by a stale replica when it writes', async () => {
    const { url, b, id, kept, restore } = await history();
    await restore();
    const { config, revision } = await b.configs.updateConfig({ config: { id, top_p: 0.5 } });
    expect([config?.max_tokens, config?.top_p, revision]).toEqual([100, 0.5, kept + 1n]);
    expect((await b.configs.getConfig({ id })).config?.max_tokens).toBe(100);
    await expectSoundStore(url);
  });

  it.each([1, 2, 3])('is detected by the nonces when %i revisions were written since the restore', async (writes) => {
    const { url, a, b, id, kept, restore } = await history();
    // The polling replica stops, because it would detect the restore before the revisions are used again.
    services.splice(services.indexOf(a), 1);
    await a.stop();
    await restore();
    const c = await replica(url);
    for (let n = 1; n <= writes; n++) await c.configs.updateConfig({ config: { id, max_tokens: 1000 + n } });
    const { config, revision } = await b.configs.updateConfig({ config: { id, top_p: 0.5 } });
    expect([config?.max_tokens, revision]).toEqual([1000 + writes, kept + BigInt(writes) + 1n]);
    await expectSoundStore(url);
  });

  it('does not make an etag from before the restore valid when its revision is used again', async () => {
    const { url, a, id, last, restore } = await history();
    services.splice(services.indexOf(a), 1);
    await a.stop();
    await restore();
    const c = await replica(url);
    for (const max_tokens of [1001, 1002]) await c.configs.updateConfig({ config: { id, max_tokens } });
    const now = await c.configs.getConfig({ id });
    expect(now.revision).toBe(last.revision);
    expect(now.config?.max_tokens).not.toBe(last.config?.max_tokens);
    const error = await failure(c.configs.updateConfig({ config: { id, etag: last.config?.etag, top_p: 0.5 } }));
    expect(error.reason).toBe('STALE_ETAG');
  });
});

describe('a database that becomes unavailable', () => {
  const unavailable = (error: CallError) => [error.code, error.reason, error.retry !== undefined];

  it('makes writes UNAVAILABLE and health NOT_SERVING, and interrupts no reads', async () => {
    const { url, a } = await pair();
    const { id, agent } = await newConfig(a);
    expect(await health(a, 'agentllm.v1.Writes')).toBe('SERVING');
    await postgres.crash();
    try {
      const write = () => a.configs.updateConfig({ config: { id, max_tokens: 4 } });
      expect(unavailable(await failure(write()))).toEqual([14, 'DATABASE_UNAVAILABLE', true]);
      await vi.waitFor(async () => expect(await health(a, 'agentllm.v1.Writes')).toBe('NOT_SERVING'), WAIT_OPTIONS);
      expect(await health(a, '')).toBe('SERVING');
      expect(await health(a, 'agentllm.v1.AgentLLMConfigService')).toBe('SERVING');
      const read = await a.configs.getPrimaryConfig({ agent: { name: agent.name } });
      expect(read.config?.id).toBe(id);
      const ahead = { agent: { name: agent.name }, min_revision: read.revision + 1n };
      const body = frame(GetPrimaryConfigRequest.encode(GetPrimaryConfigRequest.fromPartial(ahead)).finish());
      const path = '/agentllm.v1.AgentLLMConfigService/GetPrimaryConfig';
      // Without a gRPC client, whose deadline could expire first on a busy machine.
      const waited = await rawCall(a.port, { path, body, headers: { 'grpc-timeout': '500m' } });
      expect(waited.result).toBe('grpc UNAVAILABLE REVISION_NOT_REACHED');
      // The error contains no details of the database.
      const rejection = await failure(write());
      expect(`${rejection.message} ${JSON.stringify(rejection.metadata)}`).not.toMatch(
        /ECONN|127\.0\.0\.1|select|update|pg|knex/i,
      );
    } finally {
      await postgres.restart();
    }
    await vi.waitFor(async () => {
      await a.configs.updateConfig({ config: { id, max_tokens: 5 } });
      expect(await health(a, 'agentllm.v1.Writes')).toBe('SERVING');
    }, WAIT_OPTIONS);
    await expectSoundStore(url);
  });

  it('causes no output that bypasses LOG_LEVEL', async () => {
    const { a } = await pair();
    const printed = vi.spyOn(console, 'log').mockImplementation(() => undefined);
    onTestFinished(() => printed.mockRestore());
    await postgres.crash();
    try {
      await vi.waitFor(async () => expect(await health(a, 'agentllm.v1.Writes')).toBe('NOT_SERVING'), WAIT_OPTIONS);
    } finally {
      await postgres.restart();
    }
    const lines = printed.mock.calls.map(([line]) => String(line));
    expect(lines).toEqual([]);
  });

  it('makes a validate_only request at worst UNAVAILABLE, never INTERNAL', async () => {
    const { a } = await pair();
    await postgres.crash();
    try {
      const valid = { agent: { name: 'trader' }, config: MODEL, validate_only: true };
      await expect(a.configs.createConfig(valid)).resolves.toBeDefined();
      const invalid = { ...valid, agent: { name: unique('nobody') } };
      expect((await failure(a.configs.createConfig(invalid))).reason).toMatch(
        /^(AGENT_NOT_FOUND|DATABASE_UNAVAILABLE)$/,
      );
    } finally {
      await postgres.restart();
    }
  });

  it('loses no acknowledged write and executes none twice when every session is terminated repeatedly', async () => {
    const { url, a, b } = await pair();
    const { id } = await newConfig(a);
    const adminSession = await sqlSession(postgres.url);
    const database = new URL(url).pathname.slice(1);
    const seen = new Set<string>();
    let running = true;
    const terminating = (async () => {
      for (; running; await new Promise((resolve) => setTimeout(resolve, 100)))
        await adminSession.query(`select pg_terminate_backend(pid) from pg_stat_activity where datname = $1`, [
          database,
        ]);
    })();
    const acknowledged: number[] = [];
    await Promise.all(
      [a, b, a, b].map(async ({ configs }, at) => {
        for (let n = 1; n <= 50; n++) {
          const request = { config: { id, max_tokens: at * 1000 + n }, request_id: randomUUID() };
          for (let done = false; !done; )
            await configs.updateConfig(request).then(
              () => {
                acknowledged.push(request.config.max_tokens);
                done = true;
              },
              (error: unknown) => {
                seen.add(error instanceof CallError ? `${error.code} ${error.reason}` : String(error));
              },
            );
        }
      }),
    );
    running = false;
    await terminating;
    expect([...seen].filter((one) => !/^14 (DATABASE_UNAVAILABLE|OUTCOME_UNKNOWN)$/.test(one))).toEqual([]);
    const session = await sqlSession(url);
    const { rows } = await session.query(
      `select (after->>'max_tokens')::int as n from config_revisions
       where entity = 'config' and entity_id = $1 and action = 'update'`,
      [id],
    );
    const logged = rows.map(({ n }: { n: number }) => n).sort((x, y) => x - y);
    expect(logged).toEqual(acknowledged.sort((x, y) => x - y));
    await expectSoundStore(url);
  });

  it('accepts no writes while it is read-only, and accepts them again afterwards without a restart', async () => {
    const url = await postgres.createDatabase('seeded');
    // With a pool of one session, recovery cannot depend on a second session.
    const a = await replica(url, { DATABASE_POOL_SIZE: '1' });
    const { id } = await newConfig(a);
    const admin = await sqlSession(postgres.url);
    const name = new URL(url).pathname.slice(1);
    const readOnly = async (on: boolean) => {
      await admin.query(`alter database ${name} set default_transaction_read_only = ${on ? 'on' : 'off'}`);
    };
    await readOnly(true);
    // Like a failover: existing sessions break, and new ones reach a read-only server.
    await admin.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = $1', [name]);
    await vi.waitFor(async () => {
      const sessions = `select 1 from pg_stat_activity where datname = $1 and application_name = 'agentllm'`;
      expect((await admin.query(sessions, [name])).rowCount).toBeGreaterThan(0);
    }, WAIT_OPTIONS);
    const write = () => a.configs.updateConfig({ config: { id, max_tokens: 4 } });
    for (let n = 0; n < 3; n++) expect(unavailable(await failure(write()))).toEqual([14, 'DATABASE_UNAVAILABLE', true]);
    expect((await a.configs.getConfig({ id })).config?.max_tokens).toBeUndefined();
    await readOnly(false);
    // Open sessions stay read-only, like sessions to a server that has become a standby.
    await vi.waitFor(write, { timeout: 30_000, interval: 50 });
    await expectSoundStore(url);
  });
});
