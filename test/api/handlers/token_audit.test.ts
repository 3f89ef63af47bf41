import type { JsonObject } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import { limits } from '../../../src/limits.js';
import { send } from '../../http/support.js';
import { grant, methods } from '../../support/access.js';
import { agentNamed, type Calls, callsOf, part, useReplica, watchAs } from '../../support/access_replica.js';
import { unique } from '../../support/service.js';
import { until } from '../../support/until.js';

/* The audit log of callers: writes, rejected calls, and the use of tokens. */

const service = useReplica();
const KIND = 'AUDIT_EVENT_KIND_';

const asAdmin = async () => {
  const { id, text } = await grant(service().store, { role: 'ROLE_ADMIN' });
  return { id, actor: `token:${id}`, text, calls: callsOf(service(), text) };
};

/** The events that match a filter, newest first. */
async function events(calls: Calls, filter: JsonObject): Promise<JsonObject[]> {
  const { code, response, message } = await calls('AuditService/ListAuditEvents', { pageSize: 1000, ...filter });
  expect(code, message).toBe('OK');
  return (response['events'] ?? []) as JsonObject[];
}

/** Waits until the service has written all audit events: no query runs or waits. */
async function auditWritten(): Promise<void> {
  const { pool } = service().database.knex.client;
  let idle = 0;
  const isIdle = () => {
    idle = pool.numUsed() + pool.numPendingAcquires() === 0 ? idle + 1 : 0;
    return idle === 5;
  };
  await until(isIdle, 'all audit events are written');
}

describe('the audit log', () => {
  it('contains the token of a write as its actor, and is filtered by it', async () => {
    const admin = await asAdmin();
    const { id, text } = await grant(service().store, { role: 'ROLE_OPERATOR' });
    const name = unique('agent');
    await agentNamed(callsOf(service(), text), name);
    await auditWritten();
    const found = await events(admin.calls, { actor: `token:${id}` });
    expect(found.map(({ kind, method }) => [kind, method])).toEqual(
      expect.arrayContaining([
        [`${KIND}WRITE`, 'agentllm.v1.AgentService/CreateAgent'],
        [`${KIND}TOKEN_USE`, undefined],
      ]),
    );
    expect(found.every(({ actor }) => actor === `token:${id}`)).toBe(true);
    for (const actor of [`token:${id.slice(0, -1)}`, id, 'token:%', 'token:al__________', 'TOKEN:'])
      expect(await events(admin.calls, { actor }), actor).toEqual([]);
    // The history has the same actor.
    const history = await admin.calls('AgentLLMConfigService/ListConfigRevisions', { pageSize: 10 });
    expect(JSON.stringify(history.response)).toContain(`token:${id}`);
  });

  it('contains the creation and revocation of a token without its text or hash', async () => {
    const admin = await asAdmin();
    const { response } = await admin.calls('AccessService/CreateToken', {
      name: unique('audited'),
      role: 'ROLE_AGENT',
      agents: ['trader'],
      reason: 'because',
    });
    const text = String(response['text']);
    const id = String(part(response, 'token')['id']);
    await admin.calls('AccessService/RevokeToken', { id });
    const found = await events(admin.calls, { actor: admin.actor, kinds: [`${KIND}WRITE`] });
    expect(found.map(({ method }) => method)).toEqual([
      'agentllm.v1.AccessService/RevokeToken',
      'agentllm.v1.AccessService/CreateToken',
    ]);
    const row = await service().database.knex('api_tokens').where({ token_id: id }).first();
    const serialized = JSON.stringify(found);
    expect(serialized).toContain(id);
    expect(serialized).not.toContain(text.slice(14));
    expect(serialized).not.toContain(row.token_hash);
    expect(serialized).toContain('because');
  });

  it('contains a repeated rejection once per minute', async () => {
    const admin = await asAdmin();
    const { id, text } = await grant(service().store, { role: 'ROLE_VIEWER' });
    const calls = callsOf(service(), text);
    await Promise.all(Array.from({ length: 40 }, () => calls('AgentService/CreateAgent')));
    await Promise.all(Array.from({ length: 40 }, () => calls('AgentService/DeleteAgent')));
    const headers = { authorization: `Bearer ${text}` };
    await send(service().http, 'POST', '/v1/agents', { headers, body: {} });
    await auditWritten();
    const found = await events(admin.calls, { actor: `token:${id}`, kinds: [`${KIND}CALL_REFUSED`] });
    expect(found.map(({ method, outcome }) => [method, outcome]).sort()).toEqual([
      ['agentllm.v1.AgentService/CreateAgent', 'PERMISSION_DENIED'],
      ['agentllm.v1.AgentService/DeleteAgent', 'PERMISSION_DENIED'],
    ]);
  });

  it('contains rejected streams, agents outside the scope and ended tokens by actor', async () => {
    const admin = await asAdmin();
    const agent = await grant(service().store, { role: 'ROLE_AGENT', agents: ['trader'] });
    await watchAs(service(), agent.text, { all_agents: true }).end();
    await callsOf(service(), agent.text)('AgentLLMConfigService/ResolveConfig', { agent: { name: 'market_analyst' } });
    const revokedToken = await grant(service().store, { role: 'ROLE_VIEWER' });
    await admin.calls('AccessService/RevokeToken', { id: revokedToken.id });
    await callsOf(service(), revokedToken.text)('AccessService/GetCaller');
    const expiredToken = await grant(service().store, { role: 'ROLE_VIEWER', lifetimeMs: -1 });
    await callsOf(service(), expiredToken.text)('AccessService/GetCaller');
    await callsOf(service(), 'wrong')('AccessService/GetCaller');
    await auditWritten();
    const kinds = [`${KIND}CALL_REFUSED`];
    const outcomes = async (actor: string) =>
      (await events(admin.calls, { actor, kinds })).map(({ outcome }) => outcome).sort();
    expect(await outcomes(`token:${agent.id}`)).toEqual(['AGENT_NOT_ALLOWED', 'AGENT_NOT_ALLOWED']);
    expect(await outcomes(`token:${revokedToken.id}`)).toEqual(['TOKEN_REVOKED']);
    expect(await outcomes(`token:${expiredToken.id}`)).toEqual(['TOKEN_EXPIRED']);
    expect(await outcomes('anonymous')).toContain('TOKEN_UNKNOWN');
  });

  it('contains the use of a token once, and the token shows its last use', async () => {
    const admin = await asAdmin();
    const { id, text } = await grant(service().store, { role: 'ROLE_VIEWER' });
    const get = async () => part((await admin.calls('AccessService/GetToken', { id })).response, 'token');
    expect((await get())['lastUsedAt']).toBeUndefined();
    const start = Date.now();
    const calls = callsOf(service(), text);
    await Promise.all(Array.from({ length: 20 }, () => calls('AccessService/GetCaller')));
    // A rejected call counts as a use, too.
    await calls('AgentService/CreateAgent');
    await auditWritten();
    expect((await events(admin.calls, { actor: `token:${id}`, kinds: [`${KIND}TOKEN_USE`] })).length).toBe(1);
    const used = Date.parse(String((await get())['lastUsedAt']));
    expect(used).toBeGreaterThan(start - 1_000);
    expect(used).toBeLessThan(Date.now() + 1_000);
    const row = await service().database.knex('api_tokens').where({ token_id: id }).first();
    expect(row.last_used_at).not.toBeNull();
    const { response } = await admin.calls('AccessService/ListTokens', { pageSize: 1000 });
    const listed = (response['tokens'] as JsonObject[]).find((token) => token['id'] === id);
    expect(listed?.['lastUsedAt']).toBeDefined();
  });

  it('contains the use of a certificate by its identity', async () => {
    const admin = await asAdmin();
    const identity = unique('spiffe://desk/');
    await grant(service().store, { role: 'ROLE_VIEWER', certificate_identity: identity });
    for (let at = 0; at < 5; at++) service().access.identify({ identities: [identity] }, 'test');
    await auditWritten();
    expect((await events(admin.calls, { actor: `cert:${identity}` })).map(({ kind }) => kind)).toEqual([
      `${KIND}TOKEN_USE`,
    ]);
    expect(() => service().access.identify({ identities: ['CN=nobody'] }, 'test/refused')).toThrow();
    await auditWritten();
    const refused = await events(admin.calls, { actor: 'cert:CN=nobody', kinds: [`${KIND}CALL_REFUSED`] });
    expect(refused.find(({ method }) => method === 'test/refused')?.['outcome']).toBe('CERTIFICATE_NOT_BOUND');
  });

  it('is limited in size, like the log, for callers without a valid token', async () => {
    // Anonymous callers and tokens have separate budgets.
    const admin = await asAdmin();
    const start = performance.now();
    const before = (await events(admin.calls, { kinds: [`${KIND}CALL_REFUSED`] })).length;
    const lines = service().logged.filter((line) => line.includes('a call was refused')).length;
    const viewers = await Promise.all(
      Array.from({ length: 8 }, () => grant(service().store, { role: 'ROLE_AGENT', agents: ['x'] })),
    );
    const tokens = [undefined, 'wrong', ...viewers.map(({ text }) => text)];
    for (const token of tokens) {
      const calls = callsOf(service(), token);
      await Promise.all(methods.map(({ parent, name }) => calls(`${parent.name}/${name}`)));
    }
    await auditWritten();
    const after = (await events(admin.calls, { kinds: [`${KIND}CALL_REFUSED`] })).length;
    expect(tokens.length * methods.length).toBeGreaterThan(300);
    expect(after - before).toBeGreaterThan(50);
    const perMinute = limits.refusalsPerMinute.known + limits.refusalsPerMinute.anonymous;
    const most = perMinute * (1 + (performance.now() - start) / 60_000);
    expect(after - before).toBeLessThanOrEqual(most);
    const logged = service().logged.filter((line) => line.includes('a call was refused')).length;
    expect(logged - lines).toBeLessThanOrEqual(most);
  });
});

describe('the actor of a write', () => {
  it('is the token in the changes of a watch', async () => {
    const admin = await asAdmin();
    const name = unique('told');
    const id = await agentNamed(admin.calls, name);
    const watch = await watchAs(service(), admin.text, { agents: [{ name }] }).ready();
    await admin.calls('AgentService/UpdateAgent', { agent: { id, description: 'x' } });
    await until(() => watch.changes.length > 0, 'a change');
    expect(watch.changes[0]?.cause?.actor).toBe(admin.actor);
  });
});
