import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import type { AuditEventKind } from '../../../gen/ts/agentllm/v1/audit_service.js';
import { generateKey } from '../../../src/domain/fernet.js';
import { limits } from '../../../src/limits.js';
import { KEY, startFakeProvider } from '../../providers/fake_provider.js';
import { startPostgres, type TestPostgres } from '../../support/postgres.js';
import { startService, type TestService, useService } from '../../support/service.js';
import { connectPg, withClient } from '../../support/sql.js';
import {
  GPT4,
  invalid,
  newAgent,
  newConfig,
  newProvider,
  notFound,
  present,
  refused,
  revision,
  status,
} from './support.js';

const CANARY = 'sk-CANARY-93be07d1f2';
const settings = { ENCRYPTION_KEY: generateKey(), PROVIDER_ALLOW_CIDRS: '127.0.0.0/8' };
const json = (value: unknown) => JSON.stringify(value, (_, inner) => (typeof inner === 'bigint' ? `${inner}` : inner));
const kind = (name: 'WRITE' | 'HEALTH_CHECK' | 'KEY_VALIDATION'): AuditEventKind => `AUDIT_EVENT_KIND_${name}`;

/** A provider row for a fake provider that accepts only KEY. */
async function createFakeProvider(service: TestService): Promise<string> {
  const { dialect, base_url } = (await startFakeProvider('openai')).provider;
  return (await newProvider(service, { dialect, base_url })).name;
}

describe.each(['embedded', 'postgres'] as const)('ListAuditEvents on %s', (backend) => {
  const service = useService(backend, settings);
  type Request = Parameters<ReturnType<typeof service>['audit']['listAuditEvents']>[0];
  const list = (request: Request = {}) => service().audit.listAuditEvents(request);
  const events = async (request: Request = {}) => (await list(request)).events;

  it('returns every health check and key validation with its outcome', async () => {
    const provider = await createFakeProvider(service());
    const config = await newConfig(service(), { provider, model_name: 'gpt-4o' });
    const { id, agent_id } = config;
    await service().configs.updateConfig({ config: { id }, api_key: `${CANARY}-stored` });
    await service().configs.checkConfigHealth({ id });
    await service().providers.validateApiKey({ provider, api_key: `${CANARY}-brought` });
    await service().providers.validateApiKey({ provider, api_key: KEY, model_name: 'gpt-4o' });
    const [validKey, invalidKey, check] = await events({ page_size: 3 });
    const common = { actor: 'anonymous', provider, change: undefined, created_at: expect.any(Date) };
    const validation = { ...common, kind: kind('KEY_VALIDATION'), agent_id: undefined, config_id: undefined };
    const method = 'agentllm.v1.ProviderService/ValidateApiKey';
    expect(validKey).toEqual({ ...validation, id: validKey?.id, method, outcome: 'CHECK_STATUS_OK' });
    expect(invalidKey).toEqual({ ...validation, id: invalidKey?.id, method, outcome: 'CHECK_STATUS_INVALID' });
    expect(check).toEqual({
      ...common,
      id: check?.id,
      kind: kind('HEALTH_CHECK'),
      method: 'agentllm.v1.AgentLLMConfigService/CheckConfigHealth',
      agent_id,
      config_id: id,
      outcome: 'CHECK_STATUS_INVALID',
    });
    expect(Math.abs(Date.now() - Number(validKey?.created_at))).toBeLessThan(60_000);
    for (const { id } of [validKey, invalidKey, check].map(present)) expect(id).toMatch(/^e-\d+$/);
    expect(json(await list({ page_size: 1000 }))).not.toMatch(/CANARY|planted|gAAAAA|key_id/);
  });

  it('omits a rejected check, which sends no request to a provider', async () => {
    const before = await list({ kinds: [kind('HEALTH_CHECK'), kind('KEY_VALIDATION')] });
    await invalid(service().providers.validateApiKey({ provider: 'openai', api_key: 'not a key' }), 'api_key');
    await notFound(service().providers.validateApiKey({ provider: 'nobody', api_key: KEY }), 'PROVIDER_NOT_FOUND');
    await notFound(service().configs.checkConfigHealth({ id: 2_000_000_000 }), 'CONFIG_NOT_FOUND');
    expect((await list({ kinds: [kind('HEALTH_CHECK'), kind('KEY_VALIDATION')] })).events).toEqual(before.events);
  });

  it('returns every write with its entry of ListConfigRevisions', async () => {
    const agent = await newAgent(service());
    const { id } = await newConfig(service(), {}, agent);
    await service().agents.deleteAgent({ agent: { id: agent.id }, cascade: true, reason: 'no longer wanted' });
    const { entries } = await service().configs.listConfigRevisions({ agent: { id: agent.id } });
    const written = await events({ agent: { id: agent.id } });
    expect(written).toHaveLength(4);
    expect(written.map(({ change }) => change)).toEqual(entries);
    for (const { change, ...event } of written) {
      const { revision, position, kind: of, id: thing, ...entry } = present(change);
      expect(event).toEqual({
        id: `w-${revision}-${position}`,
        kind: kind('WRITE'),
        created_at: entry.created_at,
        actor: entry.actor,
        method: entry.method,
        agent_id: agent.id,
        config_id: of === 'RESOURCE_KIND_CONFIG' ? id : undefined,
        provider: '',
        outcome: '',
      });
      expect([agent.id, id]).toContain(thing);
    }
    await notFound(list({ agent: { name: agent.name } }), 'AGENT_NOT_FOUND');
  });

  it('returns the events that match agent, kind, actor and time', async () => {
    const agent = await newAgent(service());
    const config = await newConfig(service(), {}, agent);
    await service().configs.checkConfigHealth({ id: config.id });
    const other = await newConfig(service());
    const named = { agent: { name: agent.name } };
    const kindsOf = async (request: Request) => (await events(request)).map((event) => event.kind);
    expect(await kindsOf(named)).toEqual([kind('HEALTH_CHECK'), kind('WRITE'), kind('WRITE')]);
    expect(await kindsOf({ ...named, kinds: [kind('HEALTH_CHECK')] })).toEqual([kind('HEALTH_CHECK')]);
    expect(await kindsOf({ ...named, kinds: [kind('WRITE')] })).toEqual([kind('WRITE'), kind('WRITE')]);
    expect(await kindsOf({ ...named, actor: 'anonymous' })).toHaveLength(3);
    expect(await kindsOf({ ...named, actor: 'nobody' })).toEqual([]);
    expect(new Set((await events({ actor: 'agentllm seed', page_size: 1000 })).map(({ actor }) => actor))).toEqual(
      new Set(['agentllm seed']),
    );
    const [check, created] = (await events(named)).map(present);
    const at = present(check?.created_at);
    const next = new Date(at.getTime() + 1);
    expect(await kindsOf({ ...named, since: at })).toEqual([kind('HEALTH_CHECK')]);
    expect(await kindsOf({ ...named, since: next })).toEqual([]);
    expect(await kindsOf({ ...named, until: next })).toHaveLength(3);
    expect(await kindsOf({ ...named, until: at })).toEqual([kind('WRITE'), kind('WRITE')]);
    expect(await kindsOf({ ...named, since: present(created?.created_at), until: at })).toEqual([kind('WRITE')]);
    expect((await events()).map(({ config_id }) => config_id)).toContain(other.id);
    expect((await list()).revision).toBe(await revision(service()));
  });

  it('returns a violation for every invalid field', async () => {
    const kinds = ['AUDIT_EVENT_KIND_UNSPECIFIED' as const];
    await invalid(
      list({ agent: { id: 0 }, kinds, actor: 'x'.repeat(101), page_size: -1 }),
      ...['agent.id', 'kinds[0]', 'actor', 'page_size'],
    );
    await invalid(list({ since: new Date('0000-12-31'), until: new Date('+010000-01-01') }), 'since', 'until');
    const now = new Date();
    await invalid(list({ since: now, until: now }), 'until');
    expect(await events({ actor: 'x'.repeat(100), since: new Date('0001-01-01T00:00:00Z') })).toEqual([]);
  });

  it('rejects a page token of another list', async () => {
    const { next_page_token: page_token } = await list({ page_size: 1 });
    const foreign = (request: Request) => refused(list(request), status.INVALID_ARGUMENT, 'INVALID_PAGE_TOKEN');
    await foreign({ page_token, actor: 'anonymous' });
    await foreign({ page_token, since: new Date(0) });
    const [mark, ms] = JSON.parse(Buffer.from(page_token, 'base64url').toString());
    const places = [[ms], [ms, 'entry', 1], [ms, 'other', 1, 0], [ms, 'entry', 1.5, 0], [8.64e15, 'entry', 1, 0]];
    for (const place of [...places, [ms, 'entry', '1', 0], [-8.64e15, 'event', 1, 0]])
      await foreign({ page_token: Buffer.from(JSON.stringify([mark, ...place])).toString('base64url') });
  });
});

describe('the audit log', () => {
  let postgres: TestPostgres;
  let url: string;
  let service: TestService;
  beforeAll(async () => {
    postgres = await startPostgres();
    url = await postgres.createDatabase('seeded');
    service = await startService({ ...settings, DATABASE_URL: url });
  });
  afterAll(async () => {
    await service?.stop();
    await postgres.stop();
  });

  const sql = (text: string) => withClient(url, (client) => client.query(text));

  it('is paged without loss or repetition, also for events with the same timestamp', async () => {
    const agents = await Promise.all(Array.from({ length: 250 }, () => newAgent(service)));
    const refs = agents.map(({ id }) => ({ id }));
    for (const temperature of [0.1, 0.2, 0.3, 0.4, 0.5])
      await service.configs.bulkAssignConfig({ agents: refs, config: { ...GPT4, temperature } });
    // One event in the same millisecond as each entry.
    await sql(`insert into audit_events (kind, actor, method, provider, outcome, created_at)
      select 'AUDIT_EVENT_KIND_HEALTH_CHECK', 'test', 'm', 'openai', 'CHECK_STATUS_OK', created_at from config_revisions`);
    const seen: { id: string; time: number }[] = [];
    const until = new Date(Date.now() + 60_000);
    let page_token = '';
    do {
      const page = await service.audit.listAuditEvents({
        page_size: 333,
        page_token,
        until,
      });
      seen.push(...page.events.map(({ id, created_at }) => ({ id, time: Number(created_at) })));
      page_token = page.next_page_token;
    } while (page_token !== '' && seen.length < 10_000);
    expect(seen.length).toBeLessThan(10_000);
    const { rows } = await sql(
      `select 'w-' || revision || '-' || position as id from config_revisions
       union all select 'e-' || id from audit_events`,
    );
    expect(rows.length).toBeGreaterThanOrEqual(2500);
    expect(seen.map(({ id }) => id).sort()).toEqual(rows.map(({ id }) => id).sort());
    for (const [at, { time }] of seen.entries()) expect(time).toBeLessThanOrEqual(seen[at - 1]?.time ?? Infinity);
  });

  it('does not fail a check when its table is missing', async () => {
    const provider = await createFakeProvider(service);
    const config = await newConfig(service, { provider, model_name: 'gpt-4o' });
    await sql('alter table audit_events rename to audit_events_away');
    const { check } = await service.providers.validateApiKey({ provider, api_key: KEY });
    expect(check?.status).toBe('CHECK_STATUS_OK');
    const { health } = await service.configs.checkConfigHealth({ id: config.id });
    expect(health?.status).toBe('CHECK_STATUS_NO_KEY');
    await sql('alter table audit_events_away rename to audit_events');
  });

  it('does not delay a check while its table is locked', async () => {
    const provider = await createFakeProvider(service);
    const client = await connectPg(url);
    onTestFinished(() => client.end());
    await client.query('begin');
    await client.query('lock table audit_events');
    const start = performance.now();
    const { check } = await service.providers.validateApiKey({ provider, api_key: KEY });
    const elapsedMs = performance.now() - start;
    expect(check?.status).toBe('CHECK_STATUS_OK');
    // Without its own limit the check would wait until the statement gives up the lock.
    expect(elapsedMs).toBeLessThan(limits.lockTimeoutMs);
  });
});
