import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { AuditEvent } from '../../../gen/ts/agentllm/v1/audit_service.js';
import type { ApiKeyLease, LeaseApiKeysResponse } from '../../../gen/ts/agentllm/v1/credential_service.js';
import { EncryptionState } from '../../../src/domain/encryption_state.js';
import { generateKey } from '../../../src/domain/fernet.js';
import { type LeaseKeyPair, makeLeaseKeyPair, openSealedKey } from '../../../src/domain/lease.js';
import { openEncryption } from '../../../src/store/keys/encryption.js';
import { withLimits } from '../../feed/support.js';
import { grant } from '../../support/access.js';
import { startPostgres, type TestPostgres } from '../../support/postgres.js';
import { type Clients, connect, unique } from '../../support/service.js';
import { startBackend, type TestBackend } from '../../support/store.js';
import {
  type ConfigFields,
  GPT4,
  getConfig,
  invalid,
  newAgent,
  newConfig,
  newProvider,
  notFound,
  precondition,
  present,
  refused,
  status,
} from './support.js';

const CANARY = 'sk-CANARY-lease-51c0';
const ENCRYPTION_KEY = generateKey();
const json = (value: unknown) => JSON.stringify(value, (_, inner) => (typeof inner === 'bigint' ? `${inner}` : inner));

let postgres: TestPostgres;
let url: string;
let backend: TestBackend;
let admin: Clients;
let pair: LeaseKeyPair;

beforeAll(async () => {
  postgres = await startPostgres();
  url = await postgres.createDatabase('seeded');
  backend = await startBackend({ url });
  await openEncryption(backend.store, ENCRYPTION_KEY);
  admin = connect(backend.port, (await grant(backend.store, { role: 'ROLE_ADMIN' })).text);
});
afterAll(async () => {
  admin?.close();
  await backend?.close();
  await postgres?.stop();
});
beforeEach(async () => {
  pair = await makeLeaseKeyPair();
});

type Request = Parameters<Clients['credentials']['leaseApiKeys']>[0];
const lease = (request: Request = {}, by = admin): Promise<LeaseApiKeysResponse> =>
  by.credentials.leaseApiKeys({ public_key: Buffer.from(pair.publicKey), ...request });

function opened(one: ApiKeyLease | undefined): Promise<string> {
  const { lifetime, ...facts } = present(one);
  const ms = Number(present(lifetime).seconds) * 1000 + present(lifetime).nanos / 1e6;
  return openSealedKey(pair, facts, { ...facts, lifetime_ms: ms });
}

/** A config with a stored key, of a new agent by default. */
async function withKey(api_key: string, agent?: { readonly id: number }, fields: ConfigFields = {}) {
  const { id } = agent ?? (await newAgent(admin));
  const request = { agent: { id }, config: { ...GPT4, ...fields }, allow_unknown_model: true, api_key };
  return present((await admin.configs.createConfig(request)).config);
}

async function newCredential(api_key: string, provider = 'openai'): Promise<string> {
  const name = unique('desk');
  await admin.credentials.createCredential({ credential: { name, provider }, api_key });
  return name;
}

describe('LeaseApiKeys', () => {
  it('returns the sealed keys of an agent in chain order', async () => {
    const desk = await newCredential(`${CANARY}-desk`);
    const override = await withKey(`${CANARY}-own`);
    const agent = { id: override.agent_id };
    const shared = await newConfig(admin, { credential_name: desk, priority: -1 }, agent);
    await newConfig(admin, { priority: 1 }, agent);
    await withKey(`${CANARY}-off`, agent, { enabled: false });
    const { leases, revision, unreadable_config_ids } = await lease({ agent });
    expect(unreadable_config_ids).toEqual([]);
    expect(revision).toBe(BigInt(backend.store.state.revision));
    const common = {
      store_id: backend.store.state.identity,
      lease_id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      agent_id: override.agent_id,
      provider: 'openai',
      origin: 'https://api.openai.com',
      lifetime: { seconds: 600n, nanos: 0 },
    };
    expect(leases).toMatchObject([
      {
        ...common,
        config_id: shared.id,
        key_source: 'KEY_SOURCE_CREDENTIAL',
        credential_name: desk,
        key_revision: (await admin.credentials.getCredential({ name: desk })).credential?.revision,
      },
      {
        ...common,
        config_id: override.id,
        key_source: 'KEY_SOURCE_CONFIG',
        credential_name: '',
        key_revision: override.revision,
      },
    ]);
    expect(new Set(leases.map(({ lease_id }) => lease_id)).size).toBe(2);
    expect(await Promise.all(leases.map(opened))).toEqual([`${CANARY}-desk`, `${CANARY}-own`]);
  });

  it('returns keys that only the private key of the request can open', async () => {
    const { agent_id } = await withKey(CANARY);
    const response = await lease({ agent: { id: agent_id } });
    const bytes = json(response) + present(response.leases[0]).ciphertext.toString('latin1');
    for (const secret of ['CANARY', 'gAAAA', Buffer.from(CANARY).toString('base64')])
      expect(bytes).not.toContain(secret);
    pair = await makeLeaseKeyPair();
    await expect(opened(response.leases[0])).rejects.toThrow();
  });

  it('returns no lease for keys in the environment, and needs no ENCRYPTION_KEY then', async () => {
    const { agent_id } = await newConfig(admin);
    const { encryption } = backend.store.state;
    backend.store.state.encryption = EncryptionState.none;
    const response = await lease({ agent: { id: agent_id } });
    backend.store.state.encryption = encryption;
    expect(response).toMatchObject({ leases: [], unreadable_config_ids: [] });
  });

  it('returns leases with the requested lifetime in whole milliseconds', async () => {
    const { agent_id } = await withKey(CANARY);
    for (const lifetime of [
      { seconds: 1n, nanos: 0 },
      { seconds: 3600n, nanos: 0 },
      { seconds: 1n, nanos: 500_000_000 },
    ]) {
      const [one] = (await lease({ agent: { id: agent_id }, lifetime })).leases;
      expect(one?.lifetime).toEqual(lifetime);
      expect(await opened(one)).toBe(CANARY);
    }
    const [one] = (await lease({ agent: { id: agent_id }, lifetime: { seconds: 2n, nanos: 999_999 } })).leases;
    expect(one?.lifetime).toEqual({ seconds: 2n, nanos: 0 });
  });

  it('returns the most recently stored key', async () => {
    const { id, agent_id } = await withKey(`${CANARY}-1`);
    const { revision } = await admin.configs.updateConfig({ config: { id }, api_key: `${CANARY}-2` });
    const { leases } = await lease({ agent: { id: agent_id }, min_revision: revision });
    expect(leases).toMatchObject([{ key_revision: revision }]);
    expect(await opened(leases[0])).toBe(`${CANARY}-2`);
  });

  it('returns no lease for a disabled provider', async () => {
    const { name } = await newProvider(admin);
    const config = await withKey(CANARY, undefined, { provider: name, model_name: 'm' });
    const request = { agent: { id: config.agent_id } };
    expect((await lease(request)).leases).toMatchObject([{ provider: name, origin: 'https://llm.example.com' }]);
    await admin.providers.updateProvider({ provider: { name, enabled: false } });
    expect(await lease(request)).toMatchObject({ leases: [], unreadable_config_ids: [] });
  });

  it('lists the configs with unreadable keys and returns the other keys', async () => {
    const readable = await withKey(CANARY);
    const lost = await withKey(CANARY, { id: readable.agent_id });
    const row = await backend.database.knex('agent_llm_configs').where({ id: readable.id }).first('api_key_encrypted');
    // A ciphertext that is copied to another row cannot be read.
    await backend.database.knex('agent_llm_configs').where({ id: lost.id }).update(row);
    const response = await lease({ agent: { id: readable.agent_id } });
    expect(response.leases.map(({ config_id }) => config_id)).toEqual([readable.id]);
    expect(response.unreadable_config_ids).toEqual([lost.id]);
    await backend.database.knex('agent_llm_configs').where({ id: lost.id }).update({ api_key_encrypted: null });
    expect((await lease({ agent: { id: readable.agent_id } })).unreadable_config_ids).toEqual([lost.id]);
  });

  it('returns the newest key of the database, also when another replica has stored it', async () => {
    const { id, agent_id } = await withKey(`${CANARY}-old`);
    const { store } = backend;
    const other = await startBackend({ url, pollIntervalMs: 60_000 });
    try {
      await openEncryption(other.store, ENCRYPTION_KEY);
      const { text } = await grant(store, { role: 'ROLE_ADMIN' });
      await other.feed.poll();
      const by = connect(other.port, text);
      const before = other.store.state.revision;
      const { revision } = await admin.configs.updateConfig({ config: { id }, api_key: `${CANARY}-new` });
      const { leases, revision: served } = await lease({ agent: { id: agent_id } }, by);
      expect(Number(revision)).toBeGreaterThan(before);
      expect(served).toBeGreaterThanOrEqual(revision);
      expect(leases).toMatchObject([{ key_revision: revision }]);
      expect(await opened(leases[0])).toBe(`${CANARY}-new`);
      // A replica that receives no notifications must still read the newest revision.
      await other.feed['listener']?.close();
      const newest = await admin.configs.updateConfig({ config: { id }, api_key: `${CANARY}-newest` });
      expect(other.store.state.revision).toBeLessThan(Number(newest.revision));
      const [last] = (await lease({ agent: { id: agent_id } }, by)).leases;
      expect(last?.key_revision).toBe(newest.revision);
      expect(await opened(last)).toBe(`${CANARY}-newest`);
      by.close();
    } finally {
      await other.close();
    }
  });
});

describe('LeaseApiKeys with an invalid request', () => {
  const agent = { name: 'trader' };
  const point = (first: number) => Buffer.from([first, ...new Uint8Array(31)]);

  it('returns a violation for each invalid field', async () => {
    await invalid(lease({ public_key: Buffer.alloc(0) }), 'agent', 'public_key');
    for (const public_key of [Buffer.alloc(31, 9), Buffer.alloc(33, 9), point(0), point(1)])
      expect((await invalid(lease({ agent, public_key }), 'public_key')).message).toContain('X25519');
    for (const lifetime of [
      { seconds: 0n, nanos: 999_999_999 },
      { seconds: 3600n, nanos: 1_000_000 },
      { seconds: -5n, nanos: 0 },
      { seconds: 2n ** 62n, nanos: 0 },
    ])
      expect((await invalid(lease({ agent, lifetime }), 'lifetime')).message).toContain('must be 1 to 3600 s');
    for (const nanos of [-1, 1_000_000_000])
      expect((await invalid(lease({ agent, lifetime: { seconds: 5n, nanos } }), 'lifetime')).message).toContain(
        'must have nanos of 0 to 999999999',
      );
    await invalid(lease({ agent: { id: 1, name: 'x' } }), 'agent');
  });

  it('returns an error for an unknown or inactive agent', async () => {
    await notFound(lease({ agent: { name: 'trador' } }), 'AGENT_NOT_FOUND');
    const { agent_id } = await withKey(CANARY);
    await admin.agents.updateAgent({ agent: { id: agent_id, is_active: false } });
    await precondition(lease({ agent: { id: agent_id } }), 'AGENT_INACTIVE');
  });

  it('returns REVISION_NOT_REACHED for a revision that is not reached', async () => {
    withLimits({ maxCallMs: 500 });
    const call = admin.credentials.leaseApiKeys({
      agent,
      public_key: Buffer.from(pair.publicKey),
      min_revision: 1_000_000n,
    });
    await refused(call, status.UNAVAILABLE, 'REVISION_NOT_REACHED');
  });

  it('returns an error without the ENCRYPTION_KEY of the store', async () => {
    const { agent_id } = await withKey(CANARY);
    const { state } = backend.store;
    const { encryption } = state;
    state.encryption = EncryptionState.none;
    await precondition(lease({ agent: { id: agent_id } }), 'ENCRYPTION_NOT_CONFIGURED');
    state.encryption = new EncryptionState(encryption.keyring, {
      reason: 'ENCRYPTION_KEY_WRONG',
      ours: 'a',
      theirs: 'b',
    });
    await precondition(lease({ agent: { id: agent_id } }), 'ENCRYPTION_KEY_WRONG');
    state.encryption = encryption;
  });

  it('returns an error for callers without permission for the agent', async () => {
    const { agent_id } = await withKey(CANARY);
    const { name } = present((await admin.agents.getAgent({ agent: { id: agent_id } })).agent);
    const withToken = async (
      request: Parameters<typeof grant>[1],
      expectation: (clients: Clients) => Promise<unknown>,
    ) => {
      const clients = connect(backend.port, (await grant(backend.store, request)).text);
      await expectation(clients).finally(() => clients.close());
    };
    const request = { agent: { id: agent_id } };
    const anonymous = connect(backend.port);
    await refused(lease(request, anonymous), status.UNAUTHENTICATED, 'TOKEN_REQUIRED');
    anonymous.close();
    for (const role of ['ROLE_OPERATOR', 'ROLE_VIEWER'] as const)
      await withToken({ role }, (clients) =>
        refused(lease(request, clients), status.PERMISSION_DENIED, 'PERMISSION_DENIED'),
      );
    await withToken({ role: 'ROLE_AGENT', agents: ['trader'] }, (clients) =>
      refused(lease(request, clients), status.PERMISSION_DENIED, 'AGENT_NOT_ALLOWED'),
    );
    await withToken({ role: 'ROLE_AGENT', agents: [name] }, async (clients) =>
      expect(await opened((await lease(request, clients)).leases[0])).toBe(CANARY),
    );
  });
});

describe('the audit log of leases', () => {
  const eventsOf = async (id: number): Promise<AuditEvent[]> =>
    (await admin.audit.listAuditEvents({ agent: { id }, kinds: ['AUDIT_EVENT_KIND_KEY_LEASE'] })).events;

  it('contains one event for each key', async () => {
    const first = await withKey(CANARY);
    const second = await withKey(`${CANARY}-2`, { id: first.agent_id });
    const { leases } = await lease({ agent: { id: first.agent_id }, lifetime: { seconds: 90n, nanos: 0 } });
    const events = await eventsOf(first.agent_id);
    expect(events).toHaveLength(2);
    for (const [at, { id }] of [first, second].entries())
      expect(events.find(({ config_id }) => config_id === id)).toMatchObject({
        actor: expect.stringMatching(/^token:al_/),
        method: 'agentllm.v1.CredentialService/LeaseApiKeys',
        agent_id: first.agent_id,
        provider: 'openai',
        outcome: `leased for 90 s, lease ${leases[at]?.lease_id}`,
      });
    expect(json(events)).not.toContain('CANARY');
    for (const { outcome } of events) expect(outcome.length).toBeLessThanOrEqual(100);
  });

  it('is written first, so that a key is not leased when the write fails', async () => {
    const { agent_id } = await withKey(CANARY);
    const { knex } = backend.database;
    await knex.schema.renameTable('audit_events', 'audit_events_away');
    const error = await refused(lease({ agent: { id: agent_id } }), status.UNAVAILABLE, 'DATABASE_UNAVAILABLE');
    await knex.schema.renameTable('audit_events_away', 'audit_events');
    expect(json(error)).not.toContain('CANARY');
    expect(await eventsOf(agent_id)).toEqual([]);
    expect((await lease({ agent: { id: agent_id } })).leases).toHaveLength(1);
  });

  it('creates no revision', async () => {
    const { id, agent_id } = await withKey(CANARY);
    const before = backend.store.state.revision;
    await lease({ agent: { id: agent_id } });
    expect(backend.store.state.revision).toBe(before);
    expect((await getConfig(admin, id)).revision).toBe(BigInt(before));
  });
});

describe('a provider with a stored base URL that is not canonical', () => {
  /** Sets a base URL that an earlier release could store. */
  const move = (name: string, base_url: string) => {
    const { state } = backend.store;
    state.load('provider', { ...present(state.provider(name)), base_url });
  };

  it('is skipped with a finding and has no key leased while the base URL is ambiguous', async () => {
    const { name } = await newProvider(admin, { base_url: 'https://example.com/v1' });
    const { id } = await newAgent(admin);
    await withKey(CANARY, { id }, { provider: name, model_name: 'm' });
    expect((await lease({ agent: { id } })).leases).toHaveLength(1);
    move(name, 'https://example.com\\@10.0.0.1/v1');
    expect(await lease({ agent: { id } })).toMatchObject({ leases: [], unreadable_config_ids: [] });
    const { resolved } = await admin.configs.resolveConfig({ agent: { id } });
    expect(resolved).toMatchObject({ hops: [], skipped: [{ reason: 'SKIP_REASON_BASE_URL_INVALID', provider: name }] });
    expect(resolved?.findings).toContainEqual(
      expect.objectContaining({ reason: 'FINDING_REASON_BASE_URL_INVALID', severity: 'SEVERITY_ERROR', hop: 0 }),
    );
    await admin.providers.updateProvider({ provider: { name, base_url: 'https://example.com/v1' } });
    expect(await opened((await lease({ agent: { id } })).leases[0])).toBe(CANARY);
  });

  it('is returned and resolved with the canonical form and its keys', async () => {
    const { name } = await newProvider(admin, { base_url: 'https://llm.example.com/v1' });
    const { id } = await newAgent(admin);
    await withKey(CANARY, { id }, { provider: name, model_name: 'm' });
    move(name, 'HTTPS://LLM.example.com:443/v1/');
    const base_url = 'https://llm.example.com/v1';
    expect((await admin.providers.getProvider({ name })).provider?.base_url).toBe(base_url);
    expect((await admin.configs.resolveConfig({ agent: { id } })).resolved).toMatchObject({ hops: [{ base_url }] });
    expect((await lease({ agent: { id } })).leases).toMatchObject([{ origin: 'https://llm.example.com' }]);
  });
});
