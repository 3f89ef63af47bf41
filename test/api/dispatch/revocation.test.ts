import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { JsonObject } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import type { RecordedWatch } from '../../feed/support.js';
import { send } from '../../http/support.js';
import { grant } from '../../support/access.js';
import {
  agentNamed,
  type Calls,
  callsOf,
  eventually,
  type Replica,
  startReplica,
  useReplicas,
  watchAs,
} from '../../support/access_replica.js';
import { startPostgres } from '../../support/postgres.js';
import { startProxy } from '../../support/proxy.js';
import { unique } from '../../support/service.js';

/*
 * What a token was good for it is good for no more, on any replica: from the poll interval on, and of the changes of the
 * revision that takes it away, and of all later ones, none is delivered.
 */

const POLL_MS = 200;
/** For what hears of a revision by polling, and is then one of many things in this process. */
const SOON_MS = POLL_MS * 1.05 + 400;
const CALLER = 'AccessService/GetCaller';
const REVOKED = { code: 'UNAUTHENTICATED', reason: 'TOKEN_REVOKED' };

/** The longest time for which a token still worked after a moment. */
async function worksUntil(calls: Calls, since: number): Promise<number> {
  for (;;) {
    const asked = performance.now();
    const { code, reason } = await calls(CALLER);
    if (code !== 'OK') {
      expect({ code, reason }).toEqual(REVOKED);
      return asked - since;
    }
    await sleep(5);
  }
}

const endsRevoked = async (watch: RecordedWatch) =>
  expect(await watch.end()).toMatchObject({ code: 16, reason: 'TOKEN_REVOKED' });

describe.each([
  ['with notifications', true],
  ['by polling alone', false],
])('on two replicas, %s', (_, notify) => {
  const replicas = useReplicas({ notify, pollIntervalMs: POLL_MS });
  const asAdmin = async (replica: Replica) =>
    callsOf(replica, (await grant(replica.store, { role: 'ROLE_ADMIN' })).text);

  /** Both replicas have what was written. */
  const level = () =>
    eventually(
      () => replicas()[0].store.state.revision === replicas()[1].store.state.revision,
      'the replicas are at the same revision',
    );

  it('a new token works on the other within the poll interval, and is refused within it when it is revoked', async () => {
    const [a, b] = replicas();
    const admin = await asAdmin(a);
    for (let round = 0; round < 3; round++) {
      const { id, text } = await grant(a.store, { role: 'ROLE_VIEWER' });
      const made = performance.now();
      const there = callsOf(b, text);
      await eventually(async () => (await there(CALLER)).code === 'OK', 'the token works there', SOON_MS);
      expect(performance.now() - made).toBeLessThan(SOON_MS);
      expect((await admin('AccessService/RevokeToken', { id })).code).toBe('OK');
      const revoked = performance.now();
      expect(await callsOf(a, text)(CALLER)).toMatchObject(REVOKED);
      expect(await worksUntil(there, revoked)).toBeLessThan(SOON_MS);
      const headers = { authorization: `Bearer ${text}` };
      expect((await send(b.http, 'GET', '/v1/agents', { headers })).status).toBe(401);
    }
  });

  it('open streams end on both, those of others go on, and a revoked certificate counts as a token', async () => {
    const [a, b] = replicas();
    const admin = await asAdmin(a);
    const name = unique('agent');
    const agentId = await agentNamed(admin, name);
    const bad = await grant(a.store, { role: 'ROLE_AGENT', agents: [name] });
    const good = await grant(a.store, { role: 'ROLE_AGENT', agents: [name] });
    const identity = unique('spiffe://desk/');
    const certificate = await grant(a.store, { role: 'ROLE_VIEWER', certificate_identity: identity });
    await level();
    const open = async (token: string) =>
      Promise.all(
        [a, b].flatMap((at) => [{ name }, { id: agentId }].map((ref) => watchAs(at, token, { agents: [ref] }).ready())),
      );
    const [theirs, ours] = [await open(bad.text), await open(good.text)];
    for (const { access } of [a, b])
      expect(access.identify({ identities: [identity] }, 'test').actor).toContain(identity);
    await admin('AccessService/RevokeToken', { id: bad.id });
    await admin('AccessService/RevokeToken', { id: certificate.id });
    const revoked = performance.now();
    for (const watch of theirs) await endsRevoked(watch);
    expect(performance.now() - revoked).toBeLessThan(SOON_MS);
    await level();
    for (const { access } of [a, b])
      expect(() => access.identify({ identities: [identity] }, 'test')).toThrow('was revoked');
    const { answer } = await admin('AgentService/UpdateAgent', { agent: { id: agentId, description: 'later' } });
    for (const watch of ours) {
      await watch.has(BigInt(String(answer['revision'])));
      expect(watch.ended).toBe(false);
    }
    for (const watch of theirs) expect(watch.revisions).toEqual([]);
  });

  it('what is written with the revocation or after it never reaches a stream of the token', async () => {
    const [a, b] = replicas();
    const name = unique('raced');
    const admin = [await asAdmin(a), await asAdmin(b)] as const;
    const agentId = await agentNamed(admin[0], name);
    let delivered = 0;
    for (let round = 0; round < 25; round++) {
      const { id, text } = await grant(a.store, { role: 'ROLE_AGENT', agents: [name] });
      await level();
      const watches = [watchAs(a, text, { agents: [{ name }] }), watchAs(b, text, { agents: [{ id: agentId }] })];
      // Some are on their way into the stream yet when it is taken away.
      if (round % 3 !== 0) await Promise.all(watches.map((watch) => watch.ready()));
      const write = (at: number) =>
        admin[at % 2 ? 1 : 0]('AgentService/UpdateAgent', {
          agent: { id: agentId, description: `${round}.${at}` },
        });
      const before = [write(0), write(1)];
      const revoking = admin[round % 2 ? 1 : 0]('AccessService/RevokeToken', { id });
      const after = [write(2), write(3), write(4)];
      const { answer } = await revoking;
      await Promise.all([...before, ...after]);
      const last = Number(answer['revision']);
      for (const watch of watches) {
        await endsRevoked(watch);
        const late = watch.events.filter(({ revision }) => Number(revision) >= last);
        expect(late.map(({ revision }) => Number(revision))).toEqual([]);
        delivered += watch.revisions.length;
      }
    }
    // Or the streams would have been given nothing at all.
    expect(delivered).toBeGreaterThan(0);
  });

  it('nor one that has fallen behind and reads slowly', async () => {
    const [a, b] = replicas();
    const admin = await asAdmin(a);
    const name = unique('slow');
    const agentId = await agentNamed(admin, name);
    const { id, text } = await grant(a.store, { role: 'ROLE_AGENT', agents: [name] });
    await level();
    const watches = await Promise.all([a, b].map((at) => watchAs(at, text, { agents: [{ name }] }).ready()));
    for (const watch of watches) watch.pause();
    for (let at = 0; at < 40; at++)
      await admin('AgentService/UpdateAgent', { agent: { id: agentId, description: `${at} ${'x'.repeat(4_000)}` } });
    const { answer } = await admin('AccessService/RevokeToken', { id });
    await admin('AgentService/UpdateAgent', { agent: { id: agentId, description: 'secret' } });
    await level();
    await sleep(100);
    for (const watch of watches) watch.resume();
    for (const watch of watches) {
      await endsRevoked(watch);
      expect(Math.max(...watch.events.map(({ revision }) => Number(revision)))).toBeLessThan(
        Number(answer['revision']),
      );
    }
  });

  it('nor one that waits for a revision before it begins, nor one that resumes', async () => {
    const [a, b] = replicas();
    const admin = await asAdmin(a);
    const name = unique('waits');
    const agentId = await agentNamed(admin, name);
    const { id, text } = await grant(a.store, { role: 'ROLE_AGENT', agents: [name] });
    await level();
    const first = await watchAs(a, text, { agents: [{ name }] }).ready();
    const min_revision = BigInt(a.store.state.revision + 2);
    const watches = [a, b].map((at) => watchAs(at, text, { agents: [{ name }], min_revision }));
    await sleep(50);
    await admin('AccessService/RevokeToken', { id });
    await admin('AgentService/UpdateAgent', { agent: { id: agentId, description: 'secret' } });
    for (const watch of watches) {
      await endsRevoked(watch);
      expect(watch.events).toEqual([]);
    }
    await level();
    for (const at of [a, b]) {
      const resumed = watchAs(at, text, { agents: [{ name }], resume_token: first.token });
      await endsRevoked(resumed);
      expect(resumed.events).toEqual([]);
    }
    // Of a token with the same agents it goes on there.
    const other = await grant(a.store, { role: 'ROLE_AGENT', agents: [name] });
    await level();
    const resumed = await watchAs(b, other.text, { agents: [{ name }], resume_token: first.token }).ready();
    expect(resumed.started?.resumed).toBe(true);
  });

  // What waited is answered without another look at who asked: `read` in src/api/handlers/backend.ts.
  it.each([
    ['AgentLLMConfigService/ResolveConfig', 'ROLE_AGENT'],
    ['AgentLLMConfigService/GetPrimaryConfig', 'ROLE_AGENT'],
    ['AgentService/GetAgent', 'ROLE_VIEWER'],
    ['AgentLLMConfigService/ListConfigs', 'ROLE_VIEWER'],
  ] as const)('%s that waits for a later revision is not answered once the token is revoked', async (method, role) => {
    const [a] = replicas();
    const admin = await asAdmin(a);
    const name = unique('waiting');
    const agentId = await agentNamed(admin, name);
    const { id, text } = await grant(a.store, { role, agents: role === 'ROLE_AGENT' ? [name] : [] });
    const minRevision = String(a.store.state.revision + 2);
    const waiting = callsOf(a, text)(method, { agent: { name }, minRevision });
    await sleep(100);
    await admin('AccessService/RevokeToken', { id });
    await admin('AgentService/UpdateAgent', { agent: { id: agentId, llmModel: 'gpt-4o-mini', description: 'secret' } });
    expect(await waiting).toMatchObject(REVOKED);
  });

  it('a call about an agent by its id is not answered once that is renamed out of the scope, though it waited', async () => {
    const [a] = replicas();
    const admin = await asAdmin(a);
    const name = unique('leaving');
    const id = await agentNamed(admin, name);
    const { text } = await grant(a.store, { role: 'ROLE_AGENT', agents: [name] });
    const minRevision = String(a.store.state.revision + 1);
    const waiting = callsOf(a, text)('AgentLLMConfigService/ResolveConfig', { agent: { id }, minRevision });
    await sleep(100);
    await admin('AgentService/UpdateAgent', { agent: { id, name: unique('secret') } });
    expect(await waiting).toMatchObject({ code: 'PERMISSION_DENIED', reason: 'AGENT_NOT_ALLOWED' });
  });

  // Nor is a write looked at once more that waits behind the revocation: `write` in src/api/handlers/backend.ts.
  it('a write that waits behind the revocation is not done', async () => {
    const [a] = replicas();
    const admin = await asAdmin(a);
    const { id, text } = await grant(a.store, { role: 'ROLE_OPERATOR' });
    const name = unique('late');
    // Nothing is written before this lock is gone.
    const lock = await a.database.knex.transaction();
    await lock.raw('select * from store_state for update');
    const revoking = admin('AccessService/RevokeToken', { id });
    await sleep(100);
    const writing = callsOf(a, text)('AgentService/CreateAgent', { agent: { name, agentType: 'analyst' } });
    await sleep(100);
    await lock.rollback();
    expect((await revoking).code).toBe('OK');
    expect(await writing).toMatchObject(REVOKED);
    expect(a.store.state.agentNamed(name)).toBeUndefined();
  });
});

describe('the end of the time of a token', () => {
  const replicas = useReplicas();

  it('refuses its calls and ends its streams within about a second', async () => {
    const [a] = replicas();
    const lifetimeMs = 1_500;
    const { text } = await grant(a.store, { role: 'ROLE_VIEWER', lifetimeMs });
    const expires = performance.now() + lifetimeMs;
    const calls = callsOf(a, text);
    const watch = await watchAs(a, text, { all_agents: true }).ready();
    expect((await calls(CALLER)).code).toBe('OK');
    await sleep(expires - performance.now() + 50);
    expect(await calls(CALLER)).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_EXPIRED' });
    expect(await watch.end()).toMatchObject({ code: 16, reason: 'TOKEN_EXPIRED' });
    expect(performance.now() - expires).toBeLessThan(1_700);
  });

  it('is the end of its certificate, which can be bound again', async () => {
    const [a] = replicas();
    const identity = unique('spiffe://short/');
    await grant(a.store, { role: 'ROLE_VIEWER', certificate_identity: identity, lifetimeMs: 150 });
    expect(a.access.identify({ identities: [identity] }, 'test').role).toBe('ROLE_VIEWER');
    await sleep(200);
    expect(() => a.access.identify({ identities: [identity] }, 'test')).toThrow('expired at');
    await grant(a.store, { role: 'ROLE_OPERATOR', certificate_identity: identity });
    expect(a.access.identify({ identities: [identity] }, 'test').role).toBe('ROLE_OPERATOR');
  });
});

describe('the first token', () => {
  const replicas = useReplicas({ pollIntervalMs: POLL_MS });

  it('closes the service, for good, and ends what is open', async () => {
    const [a, b] = replicas();
    const name = 'trader';
    const nobody = [callsOf(a), callsOf(b)];
    for (const calls of nobody) expect((await calls('AgentService/ListAgents')).code).toBe('OK');
    const watches = await Promise.all(
      [a, b].flatMap((at) => [
        watchAs(at, undefined, { all_agents: true }).ready(),
        watchAs(at, undefined, { agents: [{ name }] }).ready(),
      ]),
    );
    const { id, text } = await grant(a.store, { role: 'ROLE_ADMIN' });
    const closed = { code: 'UNAUTHENTICATED', reason: 'TOKEN_REQUIRED' };
    expect(await nobody[0]?.('AgentService/ListAgents')).toMatchObject(closed);
    for (const watch of watches) expect(await watch.end(SOON_MS)).toMatchObject({ code: 16, reason: 'TOKEN_REQUIRED' });
    expect(await nobody[1]?.('AgentService/ListAgents')).toMatchObject(closed);
    const admin = callsOf(a, text);
    expect((await admin('AccessService/ListTokens')).code).toBe('OK');
    expect((await admin('AccessService/RevokeToken', { id })).code).toBe('OK');
    await eventually(() => a.store.state.revision === b.store.state.revision, 'both know');
    for (const calls of nobody) expect(await calls('AgentService/ListAgents')).toMatchObject(closed);
    // Nor does a replica open it that starts when no token is good.
    const later = await startReplica({ database: a.database });
    try {
      expect(await callsOf(later)('AgentService/ListAgents')).toMatchObject(closed);
      expect((await send(later.http, 'GET', '/v1/agents')).status).toBe(401);
    } finally {
      await later.stop();
    }
  });
});

describe('while the database is away', () => {
  it('tokens that are known work, unknown ones do not, and nothing can be revoked', async () => {
    const postgres = await startPostgres({ own: true });
    try {
      const url = await postgres.createDatabase('seeded');
      const proxy = await startProxy(Number(new URL(url).port));
      const replica = await startReplica({ url: proxy.through(url) });
      try {
        const admin = callsOf(replica, (await grant(replica.store, { role: 'ROLE_ADMIN' })).text);
        const { id, text } = await grant(replica.store, { role: 'ROLE_VIEWER' });
        const gone = await grant(replica.store, { role: 'ROLE_VIEWER' });
        await admin('AccessService/RevokeToken', { id: gone.id });
        const watch = await watchAs(replica, text, { all_agents: true }).ready();
        await postgres.crash();
        for (const link of proxy.links) link.cut();
        const calls = callsOf(replica, text);
        expect((await calls('AgentService/ListAgents')).code).toBe('OK');
        expect(await calls('AgentService/CreateAgent')).toMatchObject({ code: 'PERMISSION_DENIED' });
        expect(await callsOf(replica, `${text}x`)(CALLER)).toMatchObject({
          code: 'UNAUTHENTICATED',
          reason: 'TOKEN_UNKNOWN',
        });
        expect(await callsOf(replica, gone.text)(CALLER)).toMatchObject(REVOKED);
        expect(await callsOf(replica)(CALLER)).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_REQUIRED' });
        for (const name of ['AccessService/RevokeToken', 'AccessService/CreateToken']) {
          const json: JsonObject = name.endsWith('CreateToken') ? { name: 'x', role: 'ROLE_VIEWER' } : { id };
          expect(await admin(name, json), name).toMatchObject({ code: 'UNAVAILABLE' });
        }
        // Lists and one token come without when they were used.
        const { code, answer } = await admin('AccessService/GetToken', { id });
        expect([code, (answer['token'] as { lastUsedAt?: string }).lastUsedAt]).toEqual(['OK', undefined]);
        expect((await admin('AccessService/ListTokens')).code).toBe('OK');
        expect((await calls(CALLER)).code).toBe('OK');
        expect(watch.ended).toBe(false);
        await postgres.restart();
        const requestId = randomUUID();
        await eventually(
          async () => (await admin('AccessService/RevokeToken', { id, requestId })).code === 'OK',
          'it can be revoked again',
          20_000,
        );
        await endsRevoked(watch);
      } finally {
        await replica.stop();
      }
    } finally {
      await postgres.stop();
    }
  });
});
