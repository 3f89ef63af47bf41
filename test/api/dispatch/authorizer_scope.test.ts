import { randomUUID } from 'node:crypto';
import type { JsonObject } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { WatchRequest } from '../../feed/support.js';
import { send } from '../../http/support.js';
import { grant } from '../../support/access.js';
import {
  agentNamed,
  type Calls,
  callsOf,
  part,
  type Replica,
  startReplica,
  useReplica,
  watchAs,
} from '../../support/access_replica.js';
import { unique } from '../../support/service.js';
import { until } from '../../support/until.js';

/* A token that is limited to agents applies to agents with these names, at every revision and in every request. */

const a = useReplica();
let b: Replica;
beforeAll(async () => {
  b = await startReplica({ database: a().database });
});
afterAll(() => b?.stop());

const NOT_ALLOWED = { code: 'PERMISSION_DENIED', reason: 'AGENT_NOT_ALLOWED' };
const RESOLVE = 'AgentLLMConfigService/ResolveConfig';
const asAdmin = async () => callsOf(a(), (await grant(a().store, { role: 'ROLE_ADMIN' })).text);
const agentToken = async (...agents: string[]) => (await grant(a().store, { role: 'ROLE_AGENT', agents })).text;
const waitForSync = () =>
  until(() => a().store.state.revision === b.store.state.revision, 'both replicas have the same revision');
const rename = (admin: Calls, id: number, name: string, description = '') =>
  admin('AgentService/UpdateAgent', { agent: { id, name, ...(description && { description }) } });

describe('an agent that is renamed', () => {
  it('leaves the scope, and its watch by id does not deliver the new name', async () => {
    const admin = await asAdmin();
    const [name, secret] = [unique('desk'), unique('SECRET')];
    const id = await agentNamed(admin, name);
    const token = await agentToken(name);
    await waitForSync();
    const watches = await Promise.all(
      [a(), b].flatMap((at) => [
        watchAs(at, token, { agents: [{ id }] }).ready(),
        watchAs(at, token, { agents: [{ id }, { name }] }).ready(),
      ]),
    );
    const byName = await Promise.all([a(), b].map((at) => watchAs(at, token, { agents: [{ name }] }).ready()));
    const { response } = await rename(admin, id, secret, 'SECRET');
    for (const watch of watches) {
      expect(await watch.end()).toMatchObject({ code: 7, reason: 'AGENT_NOT_ALLOWED' });
      expect(JSON.stringify(watch.events, bigintAsText)).not.toContain('SECRET');
      expect(watch.error?.message).not.toContain('SECRET');
    }
    const revision = Number(response['revision']);
    for (const watch of byName) {
      await watch.has(revision);
      const [tombstone] = watch.itemsOf(revision).agents;
      expect([tombstone?.name, tombstone?.agent, tombstone?.configs]).toEqual([name, undefined, []]);
      expect(JSON.stringify(watch.events, bigintAsText)).not.toContain('SECRET');
      expect(watch.ended).toBe(false);
    }
    for (const at of [a(), b]) {
      const calls = callsOf(at, token);
      expect(await calls(RESOLVE, { agent: { id } })).toMatchObject(NOT_ALLOWED);
      expect(await calls(RESOLVE, { agent: { name: secret } })).toMatchObject(NOT_ALLOWED);
      expect(await calls(RESOLVE, { agent: { name } })).toMatchObject({ reason: 'AGENT_NOT_FOUND' });
      expect(await watchAs(at, token, { agents: [{ id }] }).end()).toMatchObject({ reason: 'AGENT_NOT_ALLOWED' });
    }
    // A new agent with the old name is in the scope, by name and by its id.
    const next = await agentNamed(admin, name);
    await waitForSync();
    for (const at of [a(), b])
      for (const agent of [{ name }, { id: next }] as JsonObject[])
        expect((await callsOf(at, token)(RESOLVE, { agent })).reason).not.toBe('AGENT_NOT_ALLOWED');
    for (const watch of byName)
      await watch.until(({ changes }) =>
        changes.some(({ changes: c }) => c?.agents.some(({ agent }) => agent?.id === next)),
      );
  });

  it('into the scope and back is delivered only under the name in the scope', async () => {
    const admin = await asAdmin();
    const [name, other] = [unique('desk'), unique('SECRET')];
    const id = await agentNamed(admin, other);
    const token = await agentToken(name);
    const watch = await watchAs(a(), token, { agents: [{ name }] }).ready();
    expect(await watchAs(a(), token, { agents: [{ id }] }).end()).toMatchObject({ reason: 'AGENT_NOT_ALLOWED' });
    await rename(admin, id, name, 'mine');
    await rename(admin, id, other, 'SECRET');
    await admin('AgentService/UpdateAgent', { agent: { id, description: 'SECRET2' } });
    const { response } = await rename(admin, id, name, 'mine again');
    await watch.has(Number(response['revision']));
    expect(JSON.stringify(watch.events, bigintAsText)).toContain('mine again');
    expect(JSON.stringify(watch.events, bigintAsText)).not.toContain('SECRET');
  });

  it('is not delivered under its earlier names by a watch that resumes by name', async () => {
    const admin = await asAdmin();
    const [name, other] = [unique('desk'), unique('SECRET')];
    const id = await agentNamed(admin, name);
    const token = await agentToken(name);
    const first = await watchAs(a(), token, { agents: [{ name }] }).ready();
    first.cancel();
    await rename(admin, id, other);
    await admin('AgentService/UpdateAgent', { agent: { id, description: 'SECRET' } });
    const next = await agentNamed(admin, name);
    await waitForSync();
    for (const at of [a(), b]) {
      const watch = watchAs(at, token, { agents: [{ name }], resume_token: first.token });
      await watch.until(({ changes }) =>
        changes.some(({ changes: c }) => c?.agents.some(({ agent }) => agent?.id === next)),
      );
      expect(JSON.stringify(watch.events, bigintAsText)).not.toContain('SECRET');
    }
  });
});

describe('the history of an agent whose current name is in the scope', () => {
  it('is not resolved by id or name, with the same error as for an id that did not exist', async () => {
    const admin = await asAdmin();
    const [name, secret] = [unique('ghost'), unique('SECRET')];
    const before = a().store.state.revision;
    const id = await agentNamed(admin, secret);
    const past = a().store.state.revision;
    await rename(admin, id, name);
    const renamed = a().store.state.revision;
    const token = await agentToken(name);
    await waitForSync();
    for (const at of [a(), b]) {
      const calls = callsOf(at, token);
      const refused = [];
      for (const revision of [before, past]) {
        const outcome = await calls(RESOLVE, { agent: { id }, atRevision: String(revision) });
        expect(outcome).toMatchObject(NOT_ALLOWED);
        refused.push(outcome.message);
        const down = { agent: { id }, atRevision: String(revision), providerDown: ['openai'] };
        expect((await calls(RESOLVE, down)).message).toBe(outcome.message);
        expect(await calls(RESOLVE, { agent: { name }, atRevision: String(revision) })).toMatchObject(NOT_ALLOWED);
      }
      expect(new Set(refused).size).toBe(1);
      for (const agent of [{ id }, { name }] as JsonObject[])
        expect((await calls(RESOLVE, { agent, atRevision: String(renamed) })).code).toBe('OK');
    }
    const operator = await callsOf(a(), (await grant(a().store, { role: 'ROLE_VIEWER' })).text);
    expect((await operator(RESOLVE, { agent: { id }, atRevision: String(past) })).code).toBe('OK');
  });

  it('is resolved by a name in the scope for the agent that had it then, also after its deletion', async () => {
    const admin = await asAdmin();
    const [name, other] = [unique('ghost'), unique('other')];
    const first = await agentNamed(admin, name);
    const past = a().store.state.revision;
    await admin('AgentService/DeleteAgent', { agent: { id: first } });
    const second = await agentNamed(admin, other);
    await rename(admin, second, name);
    const calls = callsOf(a(), await agentToken(name));
    const { response } = await calls(RESOLVE, { agent: { name }, atRevision: String(past) });
    expect(part(response, 'resolved')['agentId']).toBe(first);
    // An id refers to the agent that exists now, which had another name.
    for (const id of [first, second])
      expect(await calls(RESOLVE, { agent: { id }, atRevision: String(past) })).toMatchObject(NOT_ALLOWED);
  });

  it('is not replayed on a watch by id, regardless of the token that created the resume token', async () => {
    const admin = await asAdmin();
    const [name, secret] = [unique('ghost'), unique('SECRET')];
    const id = await agentNamed(admin, name);
    const token = await agentToken(name);
    const mine = await watchAs(a(), token, { agents: [{ id }] }).ready();
    mine.cancel();
    const adminToken = (await grant(a().store, { role: 'ROLE_ADMIN' })).text;
    const admins = await watchAs(a(), adminToken, { agents: [{ id }] }).ready();
    admins.cancel();
    await rename(admin, id, secret);
    await admin('AgentService/UpdateAgent', { agent: { id, description: 'SECRET too' } });
    const { response } = await rename(admin, id, name, 'mine again');
    await waitForSync();
    const back = Number(response['revision']);
    // A watch with full access must not share its events with a limited watch.
    const whole = watchAs(a(), adminToken, { agents: [{ id }], resume_token: admins.token });
    await whole.has(back);
    expect(JSON.stringify(whole.events, bigintAsText)).toContain('SECRET too');
    for (const at of [a(), b])
      for (const resume_token of [mine.token, admins.token]) {
        const watch = watchAs(at, token, { agents: [{ id }], resume_token });
        await watch.has(back);
        expect(JSON.stringify(watch.events, bigintAsText)).toContain('mine again');
        expect(JSON.stringify(watch.events, bigintAsText)).not.toContain('SECRET');
      }
  });
});

describe('an agent that is deleted', () => {
  it('and created again is in the scope by its name and its new id, but not by its old id', async () => {
    const admin = await asAdmin();
    const name = unique('desk');
    const id = await agentNamed(admin, name);
    const token = await agentToken(name);
    const watch = await watchAs(a(), token, { agents: [{ name }] }).ready();
    await admin('AgentService/DeleteAgent', { agent: { id } });
    const again = await agentNamed(admin, name);
    await watch.until(({ changes }) =>
      changes.some(({ changes: c }) => c?.agents.some(({ agent }) => agent?.id === again)),
    );
    const calls = callsOf(a(), token);
    expect(await calls(RESOLVE, { agent: { id } })).toMatchObject(NOT_ALLOWED);
    for (const agent of [{ id: again }, { name }] as JsonObject[])
      expect((await calls(RESOLVE, { agent })).reason).not.toBe('AGENT_NOT_ALLOWED');
  });

  // The check of open streams (src/api/dispatch/open_streams.ts) looks for the id among existing agents, so it could
  // end the watch first.
  it('is delivered as a tombstone on a watch by its id', async () => {
    const admin = await asAdmin();
    const name = unique('desk');
    const id = await agentNamed(admin, name);
    const token = await agentToken(name);
    const watch = await watchAs(a(), token, { agents: [{ id }] }).ready();
    const { response } = await admin('AgentService/DeleteAgent', { agent: { id } });
    await watch.has(Number(response['revision']));
    expect(watch.itemsOf(Number(response['revision'])).agents).toMatchObject([{ name, agent: undefined, configs: [] }]);
  });
});

describe('several agents', () => {
  it('are rejected by BatchGetPrimaryConfigs unless all of them are in the scope', async () => {
    const admin = await asAdmin();
    const names = [unique('one'), unique('two')] as const;
    for (const name of names) await agentNamed(admin, name);
    const calls = callsOf(a(), await agentToken(...names));
    const BATCH = 'AgentLLMConfigService/BatchGetPrimaryConfigs';
    const [one, two] = [{ name: names[0] }, { name: names[1] }];
    expect((await calls(BATCH, { agents: [one, two] })).code).toBe('OK');
    for (const agents of [
      [],
      [one, { name: 'trader' }],
      [one, {}],
      [{ id: 1 }],
      [one, { id: 2_147_483_647 }],
      [one, { name: '' }],
    ])
      expect(await calls(BATCH, { agents }), JSON.stringify(agents)).toMatchObject(NOT_ALLOWED);
  });

  it('are not watched with all_agents by a token that is limited to agents, in any combination', async () => {
    const admin = await asAdmin();
    const name = unique('desk');
    await agentNamed(admin, name);
    const token = await agentToken(name);
    expect(await watchAs(a(), token, { all_agents: true }).end()).toMatchObject({
      code: 7,
      reason: 'AGENT_NOT_ALLOWED',
    });
    const both = watchAs(a(), token, { all_agents: true, agents: [{ name }] });
    await both.until(({ ended }) => ended);
    expect(both.events).toEqual([]);
    const allAgents = await grant(a().store, { role: 'ROLE_AGENT', all_agents: true });
    const watch = await watchAs(a(), allAgents.text, { all_agents: true }).ready();
    const next = unique('new');
    const id = await agentNamed(admin, next);
    await watch.until(({ changes }) =>
      changes.some(({ changes: c }) => c?.agents.some(({ agent }) => agent?.id === id)),
    );
    // The token covers all agents, but has only the permissions of the agent role.
    const calls = callsOf(a(), allAgents.text);
    expect((await calls(RESOLVE, { agent: { id } })).reason).not.toBe('AGENT_NOT_ALLOWED');
    expect(await calls('AgentService/ListAgents')).toMatchObject({ reason: 'PERMISSION_DENIED' });
    await admin('AccessService/RevokeToken', { id: allAgents.id });
    expect(await watch.end()).toMatchObject({ reason: 'TOKEN_REVOKED' });
  });

  it('are matched by their exact names', async () => {
    const admin = await asAdmin();
    const name = unique('desk');
    for (const one of [name.toUpperCase(), `${name}x`, name.slice(0, -1)]) await agentNamed(admin, one);
    const calls = callsOf(a(), await agentToken(name));
    for (const one of [name.toUpperCase(), `${name}x`, name.slice(0, -1), `${name} `, ` ${name}`, `${name}\0`, '*', ''])
      expect(await calls(RESOLVE, { agent: { name: one } }), one).toMatchObject(NOT_ALLOWED);
  });

  it('are not watched with a resume token of agents outside the scope', async () => {
    const admin = await asAdmin();
    const [mine, theirs] = [unique('mine'), unique('theirs')];
    for (const name of [mine, theirs]) await agentNamed(admin, name);
    const token = await agentToken(mine);
    const other = await watchAs(a(), await agentToken(theirs), { agents: [{ name: theirs }] }).ready();
    const all = await watchAs(a(), (await grant(a().store, { role: 'ROLE_ADMIN' })).text, { all_agents: true }).ready();
    for (const resume_token of [other.token, all.token]) {
      const watch = watchAs(a(), token, { agents: [{ name: mine }], resume_token });
      expect(await watch.end()).toMatchObject({ reason: 'RESUME_TOKEN_FILTER_CHANGED' });
    }
    const refused = watchAs(a(), token, { agents: [{ name: theirs }], resume_token: other.token });
    expect(await refused.end()).toMatchObject({ reason: 'AGENT_NOT_ALLOWED' });
  });
});

describe('AcknowledgeRevision for a client that watches other agents', () => {
  const ACKNOWLEDGE = 'AgentLLMConfigWatchService/AcknowledgeRevision';

  interface Scenario {
    readonly admin: Calls;
    readonly client_id: string;
    readonly mine: string;
    readonly theirs: string;
    readonly attacker: string;
    readonly owner: string;
    readonly applied: () => Promise<number | undefined>;
    /** A client of the attacker with a watch at the same replica. */
    readonly ownClient: { readonly client_id: string; readonly applied: () => Promise<number | undefined> };
  }

  /** A client that watches at one of the replicas, and the token of an attacker. */
  async function setUp(at: Replica, { byId = false } = {}): Promise<Scenario> {
    const admin = await asAdmin();
    const [mine, theirs] = [unique('mine'), unique('theirs')];
    const id = await agentNamed(admin, theirs);
    await agentNamed(admin, mine);
    const [attacker, owner] = [await agentToken(mine), await agentToken(theirs)];
    await waitForSync();
    const clientOf = async (token: string, agents: WatchRequest['agents']) => {
      const client_id = randomUUID();
      await watchAs(at, token, { client_id, agents }).ready();
      const row = async () => {
        const { response } = await admin('AgentLLMConfigWatchService/ListWatchers', { pageSize: 1000 });
        return ((response['watchers'] ?? []) as JsonObject[]).find(({ clientId }) => clientId === client_id);
      };
      await until(async () => (await row()) !== undefined, 'the client is listed');
      const applied = async () => {
        const { appliedRevision } = (await row()) ?? {};
        return appliedRevision === undefined ? undefined : Number(appliedRevision);
      };
      return { client_id, applied };
    };
    const ownClient = await clientOf(attacker, [{ name: mine }]);
    const client = await clientOf(owner, [byId ? { id } : { name: theirs }]);
    return { admin, ...client, mine, theirs, attacker, owner, ownClient };
  }

  const acknowledge = (at: Replica, token: string, clientIds: readonly string[], revision: number) =>
    callsOf(at, token)(ACKNOWLEDGE, {
      acknowledgements: clientIds.map((clientId) => ({ clientId, revision: String(revision) })),
    });

  async function changesNothing(where: Replica, byId: boolean): Promise<void> {
    const { client_id, attacker, owner, applied, ownClient } = await setUp(a(), { byId });
    const revision = a().store.state.revision;
    const { code } = await acknowledge(where, attacker, [client_id, ownClient.client_id], revision);
    expect(code).toBe('OK');
    // Both acknowledgements are written together.
    await until(async () => (await ownClient.applied()) === revision, 'the acknowledgement of the attacker is visible');
    expect(await applied()).toBeUndefined();
    await acknowledge(where, owner, [client_id], revision);
    await until(async () => (await applied()) === revision, 'the acknowledgement of the owner is visible');
  }

  it('changes nothing on the same replica for a watch by name', () => changesNothing(a(), false));
  it('changes nothing on the same replica for a watch by id', () => changesNothing(a(), true));
  it('changes nothing on another replica for a watch by name', () => changesNothing(b, false));
  // `a.name = name` in acknowledgeElsewhere of src/store/watchers.ts compares a column with itself.
  it('changes nothing on another replica for a watch by id', () => changesNothing(b, true));

  // Presence.acknowledge keeps the greatest acknowledged revision and the scope of the last caller.
  it('changes nothing on another replica when the owner acknowledges directly after it', async () => {
    const { admin, client_id, theirs, attacker, owner, applied } = await setUp(a());
    const acknowledged = a().store.state.revision;
    const later = await agentNamed(admin, unique('later')).then(() => a().store.state.revision);
    expect(later).toBeGreaterThan(acknowledged);
    await Promise.all([waitForSync(), admin('AgentService/GetAgent', { agent: { name: theirs } })]);
    const [asAttacker, asOwner] = [callsOf(b, attacker), callsOf(b, owner)];
    await Promise.all([asAttacker('AccessService/GetCaller'), asOwner('AccessService/GetCaller')]);
    await asAttacker(ACKNOWLEDGE, { acknowledgements: [{ clientId: client_id, revision: String(later) }] });
    await asOwner(ACKNOWLEDGE, { acknowledgements: [{ clientId: client_id, revision: String(acknowledged) }] });
    await until(async () => (await applied()) !== undefined, 'the acknowledgement of the owner is visible');
    expect(await applied()).toBe(acknowledged);
  });

  // As above: the scope of the last caller would apply to all.
  it('does not hide the acknowledgement of the owner on another replica', async () => {
    const { client_id, attacker, owner, applied } = await setUp(a());
    const revision = a().store.state.revision;
    const [asAttacker, asOwner] = [callsOf(b, attacker), callsOf(b, owner)];
    await Promise.all([asAttacker('AccessService/GetCaller'), asOwner('AccessService/GetCaller')]);
    await asOwner(ACKNOWLEDGE, { acknowledgements: [{ clientId: client_id, revision: String(revision) }] });
    await asAttacker(ACKNOWLEDGE, { acknowledgements: [{ clientId: client_id, revision: '1' }] });
    await until(async () => (await applied()) === revision, 'the acknowledgement of the owner is visible');
  });
});

describe('an HTTP request', () => {
  it('is rejected when its path, query or body names an agent outside the scope', async () => {
    const admin = await asAdmin();
    const [mine, theirs] = [unique('mine'), unique('theirs')];
    const [myId, theirId] = [await agentNamed(admin, mine), await agentNamed(admin, theirs)];
    const headers = { authorization: `Bearer ${await agentToken(mine)}` };
    const { paths } = (await send(a().http, 'GET', '/openapi.json', { headers })).json as { paths: JsonObject };
    const places = Object.entries(paths).filter(([path]) => path.includes('{agent_'));
    expect(places.length).toBeGreaterThan(3);
    for (const [path, verbs] of places)
      for (const verb of Object.keys(verbs as JsonObject)) {
        const at = (id: number, name: string) =>
          path
            .replace('{agent_id}', String(id))
            .replace('{agent_name}', name)
            .replace(/\{[^}]*\}/g, '1');
        for (const [target, query, agent] of [
          [at(theirId, theirs), '', undefined],
          [at(theirId, theirs), `?agent.name=${mine}`, { name: mine }],
          [at(theirId, theirs), `?agent.id=${myId}`, { id: myId }],
          [at(myId, mine), `?agent.name=${theirs}`, { name: theirs }],
          [at(myId, mine), `?agent.id=${theirId}`, { id: theirId }],
        ] as const) {
          const hasBody = verb !== 'get' && verb !== 'delete';
          const response = await send(a().http, verb.toUpperCase(), `${target}${hasBody ? '' : query}`, {
            headers,
            ...(hasBody && { body: agent ? { agent } : {} }),
          });
          expect([400, 403], `${verb} ${target}${query}: ${response.text}`).toContain(response.status);
          expect(response.text).not.toContain('llmProvider');
        }
      }
  });

  it('needs the permission of the method at its path, regardless of its body, headers and query', async () => {
    const viewer = (await grant(a().store, { role: 'ROLE_VIEWER' })).text;
    const { id } = await grant(a().store, { role: 'ROLE_VIEWER' });
    const attempts: [string, string, JsonObject | undefined, Record<string, string>][] = [
      ['POST', '/v1/tokens', { id }, {}],
      ['POST', '/v1/tokens', { name: 'x', role: 'ROLE_ADMIN' }, { 'x-http-method-override': 'GET' }],
      ['POST', `/v1/tokens/${id}:revoke`, {}, { 'x-http-method-override': 'GET' }],
      ['POST', `/v1/tokens/${id}%3Arevoke`, {}, {}],
      ['POST', '/v1/watchers:acknowledge/../../v1/tokens', {}, {}],
      ['POST', '//v1/tokens', {}, {}],
      ['POST', '/v1/tokens/', {}, {}],
      ['POST', '/v1/agents', { name: 'x', role: 'ROLE_ADMIN' }, {}],
      ['POST', '/v1/agents', { agent: { name: 'x' } }, { 'x-original-url': '/v1/caller' }],
      ['GET', '/v1/tokens', undefined, { 'x-http-method-override': 'POST' }],
      ['GET', '/v1/tokens/x:revoke', undefined, {}],
      ['POST', '/agentllm.v1.AccessService/CreateToken', { name: 'x' }, { 'content-type': 'application/grpc+json' }],
    ];
    const before = a().store.state.revision;
    for (const [verb, path, body, more] of attempts) {
      const headers = { authorization: `Bearer ${viewer}`, ...more };
      const response = await send(a().http, verb, path, { headers, ...(body && { body }) });
      expect([400, 403, 404, 405, 415], `${verb} ${path}: ${response.text}`).toContain(response.status);
    }
    expect(a().store.state.revision).toBe(before);
  });
});

describe('an operator', () => {
  it('may change a provider except its base URL, which only an administrator may change', async () => {
    const admin = await asAdmin();
    const { id, text } = await grant(a().store, { role: 'ROLE_OPERATOR' });
    const operator = callsOf(a(), text);
    const UPDATE = 'ProviderService/UpdateProvider';
    const name = unique('prov').toLowerCase();
    const provider = { name, dialect: 'DIALECT_OPENAI_COMPATIBLE', baseUrl: 'https://llm.example.com/v1' };
    expect((await admin('ProviderService/CreateProvider', { provider })).code).toBe('OK');
    const revision = a().store.state.revision;
    const attempts: JsonObject[] = [{}, { updateMask: 'baseUrl' }, { validateOnly: true }, { requestId: randomUUID() }];
    for (const more of attempts) {
      const json: JsonObject = { provider: { name, baseUrl: 'https://evil.example.com/v1' }, ...more };
      const outcome = await operator(UPDATE, json);
      expect(outcome).toMatchObject({ code: 'PERMISSION_DENIED', reason: 'PERMISSION_DENIED' });
      expect(outcome.message).toContain('PERMISSION_ENDPOINTS_WRITE');
      expect(outcome.message).toContain(id);
    }
    for (const baseUrl of ['https://llm.example.com/v2', 'https://llm.example.com:8443/v1'])
      expect(await operator(UPDATE, { provider: { name, displayName: 'x', baseUrl } })).toMatchObject({
        code: 'PERMISSION_DENIED',
      });
    expect(a().store.state.revision).toBe(revision);
    expect((await operator(UPDATE, { provider: { name, displayName: 'Mine' } })).code).toBe('OK');
    expect(
      (await operator(UPDATE, { provider: { name, displayName: 'Mine 2', baseUrl: provider.baseUrl } })).code,
    ).toBe('OK');
    expect((await admin(UPDATE, { provider: { name, baseUrl: 'https://other.example.com/v1' } })).code).toBe('OK');
  });
});

const bigintAsText = (_: string, value: unknown) => (typeof value === 'bigint' ? String(value) : value);
