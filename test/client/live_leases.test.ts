import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { ResidentAgentLLM, ResidentOptions } from '../../src/client/index.js';
import { generateKey } from '../../src/domain/fernet.js';
import { openEncryption } from '../../src/store/keys/encryption.js';
import { grant } from '../support/access.js';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { startProxy } from '../support/proxy.js';
import { type Clients, connect, unique } from '../support/service.js';
import { startBackend, type TestBackend } from '../support/store.js';
import { until } from '../support/until.js';
import { connectResident } from './fake_watch.js';
import { failed } from './support.js';

/*
 * Leases of the resident client from the real service: apiKey() returns the current key after every change.
 */

const CANARY = 'sk-CANARY-live-7d2a';
const ENCRYPTION_KEY = generateKey();
let postgres: TestPostgres;
let url: string;
let backend: TestBackend;
let admin: Clients;

beforeAll(async () => {
  vi.stubEnv('OPENAI_API_KEY', 'sk-of-the-environment');
  postgres = await startPostgres();
  url = await postgres.createDatabase('seeded');
  backend = await startBackend({ url });
  await openEncryption(backend.store, ENCRYPTION_KEY);
  admin = connect(backend.port, (await grant(backend.store, { role: 'ROLE_ADMIN' })).text);
});
afterAll(async () => {
  vi.unstubAllEnvs();
  admin?.close();
  await backend?.close();
  await postgres?.stop();
});

async function newAgent(api_key?: string, fields = {}) {
  const name = unique('agent');
  await admin.agents.createAgent({ agent: { name, agent_type: 'analyst' } });
  const config = { provider: 'openai', model_name: 'gpt-4', ...fields };
  const created = await admin.configs.createConfig({ agent: { name }, config, api_key });
  return { name, id: created.config?.id as number };
}

/** The client of an agent process, with a token of the role agent. */
async function startClient(name: string, options: Partial<ResidentOptions> = {}): Promise<ResidentAgentLLM> {
  const { text } = await grant(backend.store, { role: 'ROLE_AGENT', agents: [name] });
  const client = connectResident(`127.0.0.1:${backend.port}`, { agents: [name], token: text, ...options });
  await client.ready();
  await until(() => client.state.status === 'READY');
  return client;
}

/** Waits until a client has applied the revision of a write. */
const untilApplied = (client: ResidentAgentLLM, { revision }: { readonly revision: bigint }) =>
  until(() => client.state.revision >= revision);

describe('a lease from the service', () => {
  it('provides the current key after each change of the key of the config', async () => {
    const { name, id } = await newAgent();
    const client = await startClient(name);
    const handle = client.agent(name);
    expect(await handle.apiKey()).toBe('sk-of-the-environment');
    await untilApplied(client, await admin.configs.updateConfig({ config: { id }, api_key: `${CANARY}-1` }));
    expect(await handle.apiKey()).toBe(`${CANARY}-1`);
    await untilApplied(client, await admin.configs.updateConfig({ config: { id }, api_key: `${CANARY}-2` }));
    expect(await handle.apiKey()).toBe(`${CANARY}-2`);
    await untilApplied(client, await admin.configs.updateConfig({ config: { id }, clear_api_key: true }));
    expect(await handle.apiKey()).toBe('sk-of-the-environment');
  });

  it('provides the current key of a credential, and fails when the config is disabled', async () => {
    const desk = unique('desk');
    await admin.credentials.createCredential({
      credential: { name: desk, provider: 'openai' },
      api_key: `${CANARY}-1`,
    });
    const { name, id } = await newAgent(undefined, { credential_name: desk });
    const client = await startClient(name);
    const handle = client.agent(name);
    const [hop] = handle.resolve().hops;
    expect(await handle.apiKey(hop)).toBe(`${CANARY}-1`);
    const update = { credential: { name: desk }, api_key: `${CANARY}-2` };
    await untilApplied(client, await admin.credentials.updateCredential(update));
    expect(await handle.apiKey(hop)).toBe(`${CANARY}-2`);
    await untilApplied(client, await admin.configs.updateConfig({ config: { id, enabled: false } }));
    expect((await failed(handle.apiKey(hop))).message).toMatch(/no longer has a stored key, or is disabled/);
  });

  it('fails when the agent is deactivated, for pinned runs as well', async () => {
    const { name } = await newAgent(CANARY);
    const client = await startClient(name);
    const run = client.run({ pin: 'run' });
    const [hop] = run.agent(name).resolve().hops;
    expect(await run.agent(name).apiKey(hop)).toBe(CANARY);
    await untilApplied(client, await admin.agents.updateAgent({ agent: { id: await idOf(name), is_active: false } }));
    expect(await failed(run.agent(name).apiKey(hop))).toMatchObject({ reason: 'AGENT_INACTIVE' });
    expect(await failed(client.agent(name).apiKey())).toMatchObject({ reason: 'AGENT_INACTIVE' });
  });

  const idOf = async (name: string) => (await admin.agents.getAgent({ agent: { name } })).agent?.id;

  it('is denied to the token of a viewer and to the token of another agent', async () => {
    const { name } = await newAgent(CANARY);
    const { name: other } = await newAgent(CANARY);
    const viewer = await grant(backend.store, { role: 'ROLE_VIEWER' });
    const client = connectResident(`127.0.0.1:${backend.port}`, { agents: [name], token: viewer.text });
    await client.ready();
    expect(await failed(client.agent(name).apiKey())).toMatchObject({ reason: 'PERMISSION_DENIED' });
    const withOtherToken = connectResident(`127.0.0.1:${backend.port}`, {
      agents: [name],
      token: (await grant(backend.store, { role: 'ROLE_AGENT', agents: [other] })).text,
    });
    await until(() => withOtherToken.state.status === 'FAILED');
    expect(() => withOtherToken.agent(name).resolve()).toThrow('Nothing is held yet');
  });

  it('fails when the service cannot decrypt the key, until the key is set again', async () => {
    const { name, id } = await newAgent(CANARY);
    await backend.database.knex('agent_llm_configs').where({ id }).update({ api_key_encrypted: 'gAAAAAno-token' });
    const client = await startClient(name);
    const error = await failed(client.agent(name).apiKey());
    expect(error.code).toBe('FAILED_PRECONDITION');
    expect(error.message).toContain(`cannot decrypt the stored key of config ${id}`);
    await untilApplied(client, await admin.configs.updateConfig({ config: { id }, api_key: CANARY }));
    expect(await client.agent(name).apiKey()).toBe(CANARY);
  });

  it('provides the key until it expires during an outage, and the new key after the outage', async () => {
    const { name, id } = await newAgent(`${CANARY}-1`);
    const proxy = await startProxy(backend.port);
    const replies: Buffer[] = [];
    proxy.onReply = (chunk) => void replies.push(chunk);
    const client = await startClient(name, { address: `127.0.0.1:${proxy.port}`, deadlineMs: 3_000 });
    const key = () => client.agent(name).apiKey();
    expect(await key()).toBe(`${CANARY}-1`);
    expect(Buffer.concat(replies).length).toBeGreaterThan(1_000);
    expect(Buffer.concat(replies).toString('latin1')).not.toContain('CANARY');
    proxy.freeze();
    for (const link of proxy.links) link.cut();
    await until(() => client.state.status === 'STALE');
    expect(await key()).toBe(`${CANARY}-1`);
    await admin.configs.updateConfig({ config: { id }, api_key: `${CANARY}-2` });
    expect(await key()).toBe(`${CANARY}-1`);
    const now = performance.now.bind(performance);
    vi.spyOn(performance, 'now').mockImplementation(() => now() + 600_000);
    const error = await failed(key()).finally(() => vi.restoreAllMocks());
    expect(error).toMatchObject({ code: 'UNAVAILABLE' });
    expect(error.message).toMatch(/expired at .* and could not be renewed/);
    proxy.thaw();
    await until(() => client.state.status === 'READY');
    expect(await key()).toBe(`${CANARY}-2`);
  });

  it('is recorded in the audit log for each key, and exists in plaintext only in the agent process', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'agentllm-cache-'));
    onTestFinished(() => rm(directory, { recursive: true, force: true }));
    const { name } = await newAgent(CANARY);
    const path = join(directory, 'held');
    const client = await startClient(name, { cache: { path, key: 'k' } });
    expect(await client.agent(name).apiKey()).toBe(CANARY);
    const { events } = await admin.audit.listAuditEvents({ agent: { name }, kinds: ['AUDIT_EVENT_KIND_KEY_LEASE'] });
    expect(events).toMatchObject([
      { actor: expect.stringMatching(/^token:al_/), outcome: expect.stringMatching(/^leased for 600 s, lease /) },
    ]);
    await client[Symbol.asyncDispose]();
    expect((await readFile(path)).toString('latin1')).not.toContain(CANARY);
    const { rows } = await backend.database.knex.raw(
      `select string_agg(query_to_xml(format('select * from %I', tablename), true, true, '')::text, '') as all
       from pg_tables where schemaname = 'public'`,
    );
    expect(rows[0].all).toContain('leased for 600 s');
    expect(rows[0].all).not.toContain('CANARY');
  });
});
