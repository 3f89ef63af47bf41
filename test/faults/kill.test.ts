import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { AgentLLMConfig } from '../../gen/ts/agentllm/v1/agent_llm_config.js';
import { UpdateConfigResponse } from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { migrations } from '../../migrations/index.js';
import { agentllm, useDirectories } from '../support/command.js';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { type Link, startProxy } from '../support/proxy.js';
import { connect } from '../support/service.js';
import { connectPg } from '../support/sql.js';
import { until } from '../support/until.js';
import { Client, makeConfigs, Recorder, readImage, startLoad, type Target, validate } from './history.js';
import { ServerProcess } from './server.js';

const ROUNDS = Number(process.env['FAULT_ROUNDS'] ?? 5);
vi.setConfig({ testTimeout: 60_000 + ROUNDS * 15_000 });
/** A restart takes one second on idle cores. */
const MAX_RESTART_MS = 20_000;

let postgres: TestPostgres;
/** The data directory of an embedded store that has been started once. */
let started: string;
const directory = useDirectories();
const servers: ServerProcess[] = [];

beforeAll(async () => {
  postgres = await startPostgres({ own: true });
  started = await mkdtemp(join(tmpdir(), 'agentllm-test-'));
  const server = await ServerProcess.start('the first', { DATA_DIR: started });
  expect(await server.stop()).toBe(0);
});

afterEach(() => {
  for (const { clients } of servers.splice(0)) clients.close();
});

afterAll(async () => {
  await postgres.stop();
  await rm(started, { recursive: true, force: true });
});

type Where = { readonly url: string } | { readonly dataDir: string };
const engines = ['embedded', 'postgres'] as const;

async function newStore(engine: (typeof engines)[number]): Promise<Where> {
  return engine === 'embedded' ? { dataDir: await directory() } : { url: await postgres.createDatabase() };
}

const envOf = (where: Where): Record<string, string> =>
  'url' in where ? { DATABASE_URL: where.url } : { DATA_DIR: where.dataDir };

/** A store that has been started before, because the first start of the embedded engine takes seconds. */
async function startedStore(engine: (typeof engines)[number]): Promise<Where> {
  const where = await newStore(engine);
  if ('dataDir' in where) await cp(started, where.dataDir, { recursive: true });
  return where;
}

async function startServer(where: Where, env: Readonly<Record<string, string>> = {}): Promise<ServerProcess> {
  const server = await ServerProcess.start('the server', { ...envOf(where), ...env });
  servers.push(server);
  return server;
}

/** The bytes of the changed field in a response. */
const changedConfig = (max_tokens: number) =>
  Buffer.from(AgentLLMConfig.encode(AgentLLMConfig.fromPartial({ max_tokens })).finish());

describe.each(engines)('a service on %s that is killed (kill -9)', (engine) => {
  it(`keeps every promise through ${ROUNDS} kills at random moments under load`, async () => {
    const where = await startedStore(engine);
    const server = await startServer(where);
    const configs = await makeConfigs(server, 3);
    const recorder = new Recorder();
    const restartMs: number[] = [];
    const load = startLoad(recorder, [server], configs, { retryMs: 30_000 });
    for (let round = 0; round < ROUNDS; round++) {
      const before = recorder.acknowledged;
      await vi.waitFor(() => expect(recorder.acknowledged).toBeGreaterThan(before + 8), {
        timeout: 30_000,
        interval: 5,
      });
      await sleep(Math.random() * 400);
      await server.kill();
      restartMs.push(Math.round(await server.restart()));
    }
    await load.stop();
    expect(await server.stop()).toBe(0);
    console.log({
      engine,
      rounds: ROUNDS,
      acknowledged: recorder.acknowledged,
      restartMs,
      errors: recorder.errors('write'),
    });
    validate(recorder, await readImage(where));
    expect(recorder.acknowledged).toBeGreaterThan(ROUNDS * 8);
    expect(Math.max(...restartMs)).toBeLessThan(MAX_RESTART_MS);
  });

  /** A committed write whose response is lost between the server and the caller. */
  async function startUnansweredWrite() {
    const where = await startedStore(engine);
    const server = await startServer(where);
    const [config = 0] = await makeConfigs(server, 1);
    const proxy = await startProxy(server.port);
    const recorder = new Recorder();
    const client = new Client('the caller', recorder);
    const clients = connect(proxy.port);
    const throughProxy: Target = { name: 'through the proxy', clients };
    await client.read(throughProxy, config);
    const lostBytes: Buffer[] = [];
    proxy.onReply = (chunk) => lostBytes.push(chunk);
    for (const link of proxy.links) link.freeze('down');
    const write = client.write(config);
    const first = write.attempt(throughProxy);
    // The write is committed when another caller sees it.
    await vi.waitFor(
      async () => expect((await server.clients.configs.getConfig({ id: config })).config?.max_tokens).toBe(write.value),
      { timeout: 30_000, interval: 10 },
    );
    const hasLostResponse = () => Buffer.concat(lostBytes).includes(changedConfig(write.value));
    const cutConnection = async () => {
      for (const link of proxy.links) link.cut();
      expect(await first).toMatchObject({ kind: 'unknown' });
      clients.close();
    };
    return { where, server, recorder, client, config, write, lostBytes, hasLostResponse, cutConnection };
  }

  it('returns the stored response to a retry when the response was lost after the commit', async () => {
    const { where, server, recorder, client, config, write, lostBytes, hasLostResponse, cutConnection } =
      await startUnansweredWrite();
    await until(hasLostResponse, 'the response arrives at the proxy');
    await cutConnection();
    const retried = await write.attempt(server);
    expect(retried.kind).toBe('acknowledged');
    // The response consists of the same bytes that were lost.
    const response = 'response' in retried ? Buffer.from(retried.response, 'base64') : Buffer.alloc(0);
    expect(UpdateConfigResponse.decode(response).config?.max_tokens).toBe(write.value);
    expect(Buffer.concat(lostBytes).includes(response)).toBe(true);
    expect(await write.attempt(server)).toEqual(retried);
    await client.read(server, config);
    expect(await server.stop()).toBe(0);
    validate(recorder, await readImage(where));
  });

  it('executes a write once when it is killed between commit and response and the write is retried', async () => {
    const { where, server, recorder, client, config, write, cutConnection } = await startUnansweredWrite();
    await server.kill();
    await cutConnection();
    await server.restart();
    const retried = await write.attempt(server);
    expect(retried.kind).toBe('acknowledged');
    expect(await write.attempt(server)).toEqual(retried);
    await client.read(server, config);
    expect(await server.stop()).toBe(0);
    const image = await readImage(where);
    validate(recorder, image);
    expect(image.entries.filter(({ after }) => after === write.value)).toHaveLength(1);
  });
});

describe('a commit whose acknowledgement does not reach the service', () => {
  it.each(['killed', 'cut off'] as const)(
    'is acknowledged once to a retry after the service was %s at that moment',
    async (how) => {
      const url = await postgres.createDatabase();
      const proxy = await startProxy(Number(new URL(url).port));
      const server = await startServer({ url: proxy.through(url) }, { NOTIFY: 'off' });
      const [config = 0] = await makeConfigs(server, 1);
      const recorder = new Recorder();
      const client = new Client('the caller', recorder, 20_000);
      let committing: Link | undefined;
      proxy.onRequest = (chunk, link) => {
        if (!/\bcommit\b/i.test(chunk.toString('latin1'))) return;
        committing = link;
        link.freeze('down');
      };
      const write = client.write(config);
      const first = write.attempt(server);
      const session = await connectPg(url);
      await vi.waitFor(
        async () => {
          const { rows } = await session.query('select max_tokens from agent_llm_configs where id = $1', [config]);
          expect(rows).toEqual([{ max_tokens: write.value }]);
        },
        { timeout: 30_000, interval: 5 },
      );
      await session.end();
      proxy.onRequest = undefined;
      if (how === 'killed') await server.kill();
      else committing?.reset();
      const outcome = await first;
      expect(outcome.kind).toBe('unknown');
      if (how === 'killed') await server.restart();
      else expect(outcome).toMatchObject({ error: 'UNAVAILABLE OUTCOME_UNKNOWN' });
      const retried = await write.attempt(server);
      expect(retried.kind).toBe('acknowledged');
      expect(await write.attempt(server)).toEqual(retried);
      await client.read(server, config);
      expect(await server.stop()).toBe(0);
      const image = await readImage({ url });
      validate(recorder, image);
      expect(image.entries.filter(({ after }) => after === write.value)).toHaveLength(1);
    },
  );
});

describe.each(engines)('a first start on %s that is killed (kill -9)', (engine) => {
  const rounds = Math.ceil(ROUNDS / 3);

  it(`leaves a store that the next start completes, at ${2 * rounds} random moments`, async () => {
    const killedAt: string[] = [];
    const began = performance.now();
    const reference = agentllm(['serve'], envOf(await newStore(engine)));
    await reference.untilOutput(/is ready/);
    const longest = performance.now() - began;
    reference.child.kill('SIGKILL');
    for (let round = 0; round < rounds; round++) {
      const where = await newStore(engine);
      // Two kills per store, so that the recovery from the first kill is killed as well.
      for (const divisor of [1, 2]) {
        const first = agentllm(['serve'], envOf(where));
        await sleep((Math.random() * longest) / divisor);
        first.child.kill('SIGKILL');
        const { stderr } = await first.ended;
        killedAt.push(stderr.includes('is ready') ? 'ready' : 'before');
      }
      const server = await startServer(where);
      const { agents } = await server.clients.agents.listAgents({});
      expect(agents).toHaveLength(12);
      const primaries = await server.clients.configs.batchGetPrimaryConfigs({});
      expect(primaries.results.filter(({ config }) => config)).toHaveLength(12);
      expect(await server.stop()).toBe(0);
      const image = await readImage(where);
      expect(image.faults).toEqual([]);
      expect([image.head, image.entries.length]).toEqual([3, 12]);
    }
    console.log({ engine, longestStartMs: Math.round(longest), killedAt: killedAt.join(' ') });
  });
});

describe('a migration of an embedded database that is killed (kill -9)', () => {
  it('leaves a directory on which the next start continues, for every migration', async () => {
    const dataDir = await directory();
    const script = fileURLToPath(new URL('./killed_embedded_migrator.ts', import.meta.url));
    for (const { name } of migrations) {
      const migrating = spawn(process.execPath, ['--import', 'tsx', script, dataDir, name], {
        stdio: ['ignore', 'inherit', 'inherit'],
      });
      const [, signal] = await once(migrating, 'exit');
      expect([name, signal]).toEqual([name, 'SIGKILL']);
    }
    const status = await agentllm(['migrate', 'status', '--json'], { DATA_DIR: dataDir }).ended;
    expect(JSON.parse(status.stdout)).toMatchObject({ pending: [migrations.at(-1)?.name], unknown: [] });
    const server = await startServer({ dataDir });
    expect((await server.clients.agents.listAgents({})).agents).toHaveLength(12);
    expect(await server.stop()).toBe(0);
    expect((await readImage({ dataDir })).faults).toEqual([]);
  });
});
