import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { JsonObject } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { send } from '../../http/support.js';
import { grant } from '../../support/access.js';
import {
  agentNamed,
  type Calls,
  callsOf,
  eventually,
  part,
  type Replica,
  startReplica,
  useReplica,
  watchAs,
} from '../../support/access_replica.js';
import { unique } from '../../support/service.js';

/* A token for certain agents is for what has their names, whenever and however it is asked for. */

const a = useReplica();
let b: Replica;
beforeAll(async () => {
  b = await startReplica({ database: a().database });
});
afterAll(() => b?.stop());

const NOT_ALLOWED = { code: 'PERMISSION_DENIED', reason: 'AGENT_NOT_ALLOWED' };
const RESOLVE = 'AgentLLMConfigService/ResolveConfig';
const asAdmin = async () => callsOf(a(), (await grant(a().store, { role: 'ROLE_ADMIN' })).text);
const forAgents = async (...agents: string[]) => (await grant(a().store, { role: 'ROLE_AGENT', agents })).text;
const level = () => eventually(() => a().store.state.revision === b.store.state.revision, 'both replicas know');
const rename = (admin: Calls, id: number, name: string, description = '') =>
  admin('AgentService/UpdateAgent', { agent: { id, name, ...(description && { description }) } });

describe('an agent that is renamed', () => {
  it('leaves the scope, and its stream by id does not say what it is called then', async () => {
    const admin = await asAdmin();
    const [name, secret] = [unique('desk'), unique('SECRET')];
    const id = await agentNamed(admin, name);
    const token = await forAgents(name);
    await level();
    const watches = await Promise.all(
      [a(), b].flatMap((at) => [
        watchAs(at, token, { agents: [{ id }] }).ready(),
        watchAs(at, token, { agents: [{ id }, { name }] }).ready(),
      ]),
    );
    const byName = await Promise.all([a(), b].map((at) => watchAs(at, token, { agents: [{ name }] }).ready()));
    const { answer } = await rename(admin, id, secret, 'SECRET');
    for (const watch of watches) {
      expect(await watch.end()).toMatchObject({ code: 7, reason: 'AGENT_NOT_ALLOWED' });
      expect(JSON.stringify(watch.events, plain)).not.toContain('SECRET');
      expect(watch.error?.message).not.toContain('SECRET');
    }
    const revision = Number(answer['revision']);
    for (const watch of byName) {
      await watch.has(revision);
      const [gone] = watch.itemsOf(revision).agents;
      expect([gone?.name, gone?.agent, gone?.configs]).toEqual([name, undefined, []]);
      expect(JSON.stringify(watch.events, plain)).not.toContain('SECRET');
      expect(watch.ended).toBe(false);
    }
    for (const at of [a(), b]) {
      const calls = callsOf(at, token);
      expect(await calls(RESOLVE, { agent: { id } })).toMatchObject(NOT_ALLOWED);
      expect(await calls(RESOLVE, { agent: { name: secret } })).toMatchObject(NOT_ALLOWED);
      expect(await calls(RESOLVE, { agent: { name } })).toMatchObject({ reason: 'AGENT_NOT_FOUND' });
      expect(await watchAs(at, token, { agents: [{ id }] }).end()).toMatchObject({ reason: 'AGENT_NOT_ALLOWED' });
    }
    // Whoever comes under the old name is in the scope: by name, and by an id of its own.
    const next = await agentNamed(admin, name);
    await level();
    for (const at of [a(), b])
      for (const agent of [{ name }, { id: next }] as JsonObject[])
        expect((await callsOf(at, token)(RESOLVE, { agent })).reason).not.toBe('AGENT_NOT_ALLOWED');
    for (const watch of byName)
      await watch.until(({ changes }) =>
        changes.some(({ changes: c }) => c?.agents.some(({ agent }) => agent?.id === next)),
      );
  });

  it('into the scope, and back, is not told of under its other names', async () => {
    const admin = await asAdmin();
    const [name, other] = [unique('desk'), unique('SECRET')];
    const id = await agentNamed(admin, other);
    const token = await forAgents(name);
    const watch = await watchAs(a(), token, { agents: [{ name }] }).ready();
    expect(await watchAs(a(), token, { agents: [{ id }] }).end()).toMatchObject({ reason: 'AGENT_NOT_ALLOWED' });
    await rename(admin, id, name, 'mine');
    await rename(admin, id, other, 'SECRET');
    await admin('AgentService/UpdateAgent', { agent: { id, description: 'SECRET2' } });
    const { answer } = await rename(admin, id, name, 'mine again');
    await watch.has(Number(answer['revision']));
    expect(JSON.stringify(watch.events, plain)).toContain('mine again');
    expect(JSON.stringify(watch.events, plain)).not.toContain('SECRET');
  });

  it('is not read of again from before by a stream that resumes by name', async () => {
    const admin = await asAdmin();
    const [name, other] = [unique('desk'), unique('SECRET')];
    const id = await agentNamed(admin, name);
    const token = await forAgents(name);
    const first = await watchAs(a(), token, { agents: [{ name }] }).ready();
    first.cancel();
    await rename(admin, id, other);
    await admin('AgentService/UpdateAgent', { agent: { id, description: 'SECRET' } });
    const next = await agentNamed(admin, name);
    await level();
    for (const at of [a(), b]) {
      const watch = watchAs(at, token, { agents: [{ name }], resume_token: first.token });
      await watch.until(({ changes }) =>
        changes.some(({ changes: c }) => c?.agents.some(({ agent }) => agent?.id === next)),
      );
      expect(JSON.stringify(watch.events, plain)).not.toContain('SECRET');
    }
  });
});

describe('the past of an agent that has a name of the scope now', () => {
  it('is not resolved: neither by id nor by name, nor is it told from an id that did not exist', async () => {
    const admin = await asAdmin();
    const [name, secret] = [unique('ghost'), unique('SECRET')];
    const before = a().store.state.revision;
    const id = await agentNamed(admin, secret);
    const past = a().store.state.revision;
    await rename(admin, id, name);
    const renamed = a().store.state.revision;
    const token = await forAgents(name);
    await level();
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

  it('is resolved by a name of the scope, as of the agent that had it, also when that is deleted since', async () => {
    const admin = await asAdmin();
    const [name, other] = [unique('ghost'), unique('other')];
    const first = await agentNamed(admin, name);
    const past = a().store.state.revision;
    await admin('AgentService/DeleteAgent', { agent: { id: first } });
    const second = await agentNamed(admin, other);
    await rename(admin, second, name);
    const calls = callsOf(a(), await forAgents(name));
    const { answer } = await calls(RESOLVE, { agent: { name }, atRevision: String(past) });
    expect(part(answer, 'resolved')['agentId']).toBe(first);
    // By its id it is the agent that exists now, which had another name.
    for (const id of [first, second])
      expect(await calls(RESOLVE, { agent: { id }, atRevision: String(past) })).toMatchObject(NOT_ALLOWED);
  });

  it('is not replayed on a stream by its id, whoever made the resume token', async () => {
    const admin = await asAdmin();
    const [name, secret] = [unique('ghost'), unique('SECRET')];
    const id = await agentNamed(admin, name);
    const token = await forAgents(name);
    const mine = await watchAs(a(), token, { agents: [{ id }] }).ready();
    mine.cancel();
    const everyone = (await grant(a().store, { role: 'ROLE_ADMIN' })).text;
    const admins = await watchAs(a(), everyone, { agents: [{ id }] }).ready();
    admins.cancel();
    await rename(admin, id, secret);
    await admin('AgentService/UpdateAgent', { agent: { id, description: 'SECRET too' } });
    const { answer } = await rename(admin, id, name, 'mine again');
    await level();
    const back = Number(answer['revision']);
    // One that may see all of it shares nothing with one that may not.
    const whole = watchAs(a(), everyone, { agents: [{ id }], resume_token: admins.token });
    await whole.has(back);
    expect(JSON.stringify(whole.events, plain)).toContain('SECRET too');
    for (const at of [a(), b])
      for (const resume_token of [mine.token, admins.token]) {
        const watch = watchAs(at, token, { agents: [{ id }], resume_token });
        await watch.has(back);
        expect(JSON.stringify(watch.events, plain)).toContain('mine again');
        expect(JSON.stringify(watch.events, plain)).not.toContain('SECRET');
      }
  });
});

describe('an agent that is deleted', () => {
  it('and made again is in the scope by its name and its new id, and by its old id no more', async () => {
    const admin = await asAdmin();
    const name = unique('desk');
    const id = await agentNamed(admin, name);
    const token = await forAgents(name);
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

  // The check of open streams looks for the id among the agents that there are: src/api/dispatch/open_streams.ts ends it first.
  it('is told of as gone on a stream by its id, which its token was for', async () => {
    const admin = await asAdmin();
    const name = unique('desk');
    const id = await agentNamed(admin, name);
    const token = await forAgents(name);
    const watch = await watchAs(a(), token, { agents: [{ id }] }).ready();
    const { answer } = await admin('AgentService/DeleteAgent', { agent: { id } });
    await watch.has(Number(answer['revision']));
    expect(watch.itemsOf(Number(answer['revision'])).agents).toMatchObject([{ name, agent: undefined, configs: [] }]);
  });
});

describe('several agents', () => {
  it('are all in the scope or none is told of: BatchGetPrimaryConfigs', async () => {
    const admin = await asAdmin();
    const names = [unique('one'), unique('two')] as const;
    for (const name of names) await agentNamed(admin, name);
    const calls = callsOf(a(), await forAgents(...names));
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

  it('and all of them by one word: not for a token of certain agents, in no combination', async () => {
    const admin = await asAdmin();
    const name = unique('desk');
    await agentNamed(admin, name);
    const token = await forAgents(name);
    expect(await watchAs(a(), token, { all_agents: true }).end()).toMatchObject({
      code: 7,
      reason: 'AGENT_NOT_ALLOWED',
    });
    const both = watchAs(a(), token, { all_agents: true, agents: [{ name }] });
    await both.until(({ ended }) => ended);
    expect(both.events).toEqual([]);
    const everybody = await grant(a().store, { role: 'ROLE_AGENT', all_agents: true });
    const watch = await watchAs(a(), everybody.text, { all_agents: true }).ready();
    const next = unique('new');
    const id = await agentNamed(admin, next);
    await watch.until(({ changes }) =>
      changes.some(({ changes: c }) => c?.agents.some(({ agent }) => agent?.id === id)),
    );
    // For all agents, but with the permissions of an agent.
    const calls = callsOf(a(), everybody.text);
    expect((await calls(RESOLVE, { agent: { id } })).reason).not.toBe('AGENT_NOT_ALLOWED');
    expect(await calls('AgentService/ListAgents')).toMatchObject({ reason: 'PERMISSION_DENIED' });
    await admin('AccessService/RevokeToken', { id: everybody.id });
    expect(await watch.end()).toMatchObject({ reason: 'TOKEN_REVOKED' });
  });

  it('names are compared letter by letter', async () => {
    const admin = await asAdmin();
    const name = unique('desk');
    for (const one of [name.toUpperCase(), `${name}x`, name.slice(0, -1)]) await agentNamed(admin, one);
    const calls = callsOf(a(), await forAgents(name));
    for (const one of [name.toUpperCase(), `${name}x`, name.slice(0, -1), `${name} `, ` ${name}`, `${name}\0`, '*', ''])
      expect(await calls(RESOLVE, { agent: { name: one } }), one).toMatchObject(NOT_ALLOWED);
  });

  it('are not found by a resume token of somebody else’s agents', async () => {
    const admin = await asAdmin();
    const [mine, theirs] = [unique('mine'), unique('theirs')];
    for (const name of [mine, theirs]) await agentNamed(admin, name);
    const token = await forAgents(mine);
    const other = await watchAs(a(), await forAgents(theirs), { agents: [{ name: theirs }] }).ready();
    const all = await watchAs(a(), (await grant(a().store, { role: 'ROLE_ADMIN' })).text, { all_agents: true }).ready();
    for (const resume_token of [other.token, all.token]) {
      const watch = watchAs(a(), token, { agents: [{ name: mine }], resume_token });
      expect(await watch.end()).toMatchObject({ reason: 'RESUME_TOKEN_FILTER_CHANGED' });
    }
    const refused = watchAs(a(), token, { agents: [{ name: theirs }], resume_token: other.token });
    expect(await refused.end()).toMatchObject({ reason: 'AGENT_NOT_ALLOWED' });
  });
});

describe('AcknowledgeRevision for processes that watch other agents', () => {
  const ACKNOWLEDGE = 'AgentLLMConfigWatchService/AcknowledgeRevision';

  interface Stage {
    readonly admin: Calls;
    readonly client_id: string;
    readonly mine: string;
    readonly theirs: string;
    readonly attacker: string;
    readonly owner: string;
    readonly applied: () => Promise<number | undefined>;
  }

  /** A process that watches at one of the replicas, and one that is after it. */
  async function stage(at: Replica, { byId = false } = {}): Promise<Stage> {
    const admin = await asAdmin();
    const [mine, theirs] = [unique('mine'), unique('theirs')];
    const id = await agentNamed(admin, theirs);
    await agentNamed(admin, mine);
    const [attacker, owner] = [await forAgents(mine), await forAgents(theirs)];
    await level();
    const client_id = randomUUID();
    await watchAs(at, owner, { client_id, agents: [byId ? { id } : { name: theirs }] }).ready();
    const row = async () => {
      const { answer } = await admin('AgentLLMConfigWatchService/ListWatchers', { pageSize: 1000 });
      return ((answer['watchers'] ?? []) as JsonObject[]).find(({ clientId }) => clientId === client_id);
    };
    await eventually(async () => (await row()) !== undefined, 'the process is listed');
    const applied = async () => {
      const { appliedRevision } = (await row()) ?? {};
      return appliedRevision === undefined ? undefined : Number(appliedRevision);
    };
    return { admin, client_id, mine, theirs, attacker, owner, applied };
  }

  const acknowledge = (at: Replica, token: string, clientId: string, revision: number) =>
    callsOf(at, token)(ACKNOWLEDGE, { acknowledgements: [{ clientId, revision: String(revision) }] });

  async function changesNothing(where: Replica, byId: boolean): Promise<void> {
    const { client_id, attacker, owner, applied } = await stage(a(), { byId });
    expect((await acknowledge(where, attacker, client_id, a().store.state.revision)).code).toBe('OK');
    await sleep(1_500);
    expect(await applied()).toBeUndefined();
    const revision = a().store.state.revision;
    await acknowledge(where, owner, client_id, revision);
    await eventually(async () => (await applied()) === revision, 'the owner may');
  }

  it('changes nothing on the same replica', () => changesNothing(a(), false));
  it('changes nothing on the same replica, by id', () => changesNothing(a(), true));
  it('changes nothing on another replica', () => changesNothing(b, false));
  // `a.name = name` in acknowledgeElsewhere of src/store/watchers.ts compares a column with itself.
  it('changes nothing on another replica, by id', () => changesNothing(b, true));

  // Presence.acknowledge keeps the greater revision of what several tellers said, and the scope of the last of them.
  it('changes nothing on another replica either when the owner speaks right after', async () => {
    const { admin, client_id, theirs, attacker, owner, applied } = await stage(a());
    const told = a().store.state.revision;
    const later = await agentNamed(admin, unique('later')).then(() => a().store.state.revision);
    expect(later).toBeGreaterThan(told);
    await Promise.all([level(), admin('AgentService/GetAgent', { agent: { name: theirs } })]);
    const [say, tell] = [callsOf(b, attacker), callsOf(b, owner)];
    await Promise.all([say('AccessService/GetCaller'), tell('AccessService/GetCaller')]);
    await say(ACKNOWLEDGE, { acknowledgements: [{ clientId: client_id, revision: String(later) }] });
    await tell(ACKNOWLEDGE, { acknowledgements: [{ clientId: client_id, revision: String(told) }] });
    await eventually(async () => (await applied()) !== undefined, 'what the owner said is known');
    expect(await applied()).toBe(told);
  });

  // As above: the scope of the last teller counts for all.
  it('takes nothing of what the owner says, on another replica', async () => {
    const { client_id, attacker, owner, applied } = await stage(a());
    const revision = a().store.state.revision;
    const [say, tell] = [callsOf(b, attacker), callsOf(b, owner)];
    await Promise.all([say('AccessService/GetCaller'), tell('AccessService/GetCaller')]);
    await tell(ACKNOWLEDGE, { acknowledgements: [{ clientId: client_id, revision: String(revision) }] });
    await say(ACKNOWLEDGE, { acknowledgements: [{ clientId: client_id, revision: '1' }] });
    await eventually(async () => (await applied()) === revision, 'what the owner said is known');
  });
});

describe('a request over HTTP', () => {
  it('is about the agent that its path, query and body name together', async () => {
    const admin = await asAdmin();
    const [mine, theirs] = [unique('mine'), unique('theirs')];
    const [myId, theirId] = [await agentNamed(admin, mine), await agentNamed(admin, theirs)];
    const headers = { authorization: `Bearer ${await forAgents(mine)}` };
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
          const bodied = verb !== 'get' && verb !== 'delete';
          const answer = await send(a().http, verb.toUpperCase(), `${target}${bodied ? '' : query}`, {
            headers,
            ...(bodied && { body: agent ? { agent } : {} }),
          });
          expect([400, 403], `${verb} ${target}${query}: ${answer.text}`).toContain(answer.status);
          expect(answer.text).not.toContain('llmProvider');
        }
      }
  });

  it('needs the permission of the method at its path, whatever its body, headers and query are of', async () => {
    const viewer = (await grant(a().store, { role: 'ROLE_VIEWER' })).text;
    const { id } = await grant(a().store, { role: 'ROLE_VIEWER' });
    const tries: [string, string, JsonObject | undefined, Record<string, string>][] = [
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
    for (const [verb, path, body, more] of tries) {
      const headers = { authorization: `Bearer ${viewer}`, ...more };
      const answer = await send(a().http, verb, path, { headers, ...(body && { body }) });
      expect([400, 403, 404, 405, 415], `${verb} ${path}: ${answer.text}`).toContain(answer.status);
    }
    expect(a().store.state.revision).toBe(before);
  });
});

describe('an operator', () => {
  it('changes a provider but not where requests with keys go; an administrator does', async () => {
    const admin = await asAdmin();
    const { id, text } = await grant(a().store, { role: 'ROLE_OPERATOR' });
    const operator = callsOf(a(), text);
    const UPDATE = 'ProviderService/UpdateProvider';
    const name = unique('prov').toLowerCase();
    const provider = { name, dialect: 'DIALECT_OPENAI_COMPATIBLE', baseUrl: 'https://llm.example.com/v1' };
    expect((await admin('ProviderService/CreateProvider', { provider })).code).toBe('OK');
    const revision = a().store.state.revision;
    const tries: JsonObject[] = [{}, { updateMask: 'baseUrl' }, { validateOnly: true }, { requestId: randomUUID() }];
    for (const more of tries) {
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

const plain = (_: string, value: unknown) => (typeof value === 'bigint' ? String(value) : value);
