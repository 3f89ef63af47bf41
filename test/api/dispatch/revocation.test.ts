import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { JsonObject } from '@bufbuild/protobuf';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { CreateAgentResponse } from '../../../gen/ts/agentllm/v1/agent_service.js';
import type { RecordedWatch } from '../../feed/support.js';
import { send } from '../../http/support.js';
import { expire, grant } from '../../support/access.js';
import {
  agentNamed,
  type Calls,
  callsOf,
  type Replica,
  startReplica,
  useReplicas,
  watchAs,
} from '../../support/access_replica.js';
import { startPostgres } from '../../support/postgres.js';
import { startProxy } from '../../support/proxy.js';
import { unique } from '../../support/service.js';
import { until } from '../../support/until.js';

/*
 * Every replica rejects a revoked token after at most the poll interval, which test/feed/feed.test.ts checks. No change
 * of the revision that revokes the token or of a later revision is delivered to it.
 */

const POLL_MS = 200;
/** Much more than the poll interval, for a busy machine. */
const SOON_MS = 5_000;
const CALLER = 'AccessService/GetCaller';
const REVOKED = { code: 'UNAUTHENTICATED', reason: 'TOKEN_REVOKED' };

/** The longest time after `since` at which a call with the token was still accepted, in ms. */
async function acceptedUntil(calls: Calls, since: number): Promise<number> {
  for (;;) {
    const sent = performance.now();
    const { code, reason } = await calls(CALLER);
    if (code !== 'OK') {
      expect({ code, reason }).toEqual(REVOKED);
      return sent - since;
    }
    await sleep(5);
  }
}

/** Counts the calls of a method of an object from now on. */
function countCalls<Name extends string>(on: Record<Name, (...args: never[]) => unknown>, name: Name): () => number {
  const spy = vi.spyOn(on as Record<string, (...args: never[]) => unknown>, name);
  onTestFinished(() => spy.mockRestore());
  return () => spy.mock.calls.length;
}

/** Counts the calls and streams that wait for a revision of a replica. */
const countWaits = ({ feed }: Replica) => countCalls(feed, 'reached');

const expectRevoked = async (watch: RecordedWatch) =>
  expect(await watch.end()).toMatchObject({ code: 16, reason: 'TOKEN_REVOKED' });

describe.each([
  ['with notifications', true],
  ['with polling only', false],
])('two replicas %s', (_, notify) => {
  const replicas = useReplicas({ notify, pollIntervalMs: POLL_MS });
  const asAdmin = async (replica: Replica) =>
    callsOf(replica, (await grant(replica.store, { role: 'ROLE_ADMIN' })).text);

  /** Waits until both replicas have the same revision. */
  const waitForSync = () =>
    until(
      () => replicas()[0].store.state.revision === replicas()[1].store.state.revision,
      'the replicas are at the same revision',
    );

  it('accept a new token within the poll interval, and reject it within the interval after its revocation', async () => {
    const [a, b] = replicas();
    const admin = await asAdmin(a);
    for (let round = 0; round < 3; round++) {
      const { id, text } = await grant(a.store, { role: 'ROLE_VIEWER' });
      const created = performance.now();
      const callsOfB = callsOf(b, text);
      await until(async () => (await callsOfB(CALLER)).code === 'OK', 'the other replica accepts the token', SOON_MS);
      expect(performance.now() - created).toBeLessThan(SOON_MS);
      expect((await admin('AccessService/RevokeToken', { id })).code).toBe('OK');
      const revoked = performance.now();
      expect(await callsOf(a, text)(CALLER)).toMatchObject(REVOKED);
      expect(await acceptedUntil(callsOfB, revoked)).toBeLessThan(SOON_MS);
      const headers = { authorization: `Bearer ${text}` };
      expect((await send(b.http, 'GET', '/v1/agents', { headers })).status).toBe(401);
    }
  });

  it('end the open streams of a revoked token, keep those of other tokens, and reject a revoked certificate', async () => {
    const [a, b] = replicas();
    const admin = await asAdmin(a);
    const name = unique('agent');
    const agentId = await agentNamed(admin, name);
    const revokedToken = await grant(a.store, { role: 'ROLE_AGENT', agents: [name] });
    const validToken = await grant(a.store, { role: 'ROLE_AGENT', agents: [name] });
    const identity = unique('spiffe://desk/');
    const certificate = await grant(a.store, { role: 'ROLE_VIEWER', certificate_identity: identity });
    await waitForSync();
    const open = async (token: string) =>
      Promise.all(
        [a, b].flatMap((at) => [{ name }, { id: agentId }].map((ref) => watchAs(at, token, { agents: [ref] }).ready())),
      );
    const [revokedWatches, validWatches] = [await open(revokedToken.text), await open(validToken.text)];
    for (const { access } of [a, b])
      expect(access.identify({ identities: [identity] }, 'test').actor).toContain(identity);
    await admin('AccessService/RevokeToken', { id: revokedToken.id });
    await admin('AccessService/RevokeToken', { id: certificate.id });
    const revoked = performance.now();
    for (const watch of revokedWatches) await expectRevoked(watch);
    expect(performance.now() - revoked).toBeLessThan(SOON_MS);
    await waitForSync();
    for (const { access } of [a, b])
      expect(() => access.identify({ identities: [identity] }, 'test')).toThrow('was revoked');
    const { response } = await admin('AgentService/UpdateAgent', { agent: { id: agentId, description: 'later' } });
    for (const watch of validWatches) {
      await watch.has(BigInt(String(response['revision'])));
      expect(watch.ended).toBe(false);
    }
    for (const watch of revokedWatches) expect(watch.revisions).toEqual([]);
  });

  it('deliver nothing of the revocation or later revisions to a stream of the revoked token', async () => {
    const [a, b] = replicas();
    const name = unique('raced');
    const admin = [await asAdmin(a), await asAdmin(b)] as const;
    const agentId = await agentNamed(admin[0], name);
    let delivered = 0;
    for (let round = 0; round < 25; round++) {
      const { id, text } = await grant(a.store, { role: 'ROLE_AGENT', agents: [name] });
      await waitForSync();
      const watches = [watchAs(a, text, { agents: [{ name }] }), watchAs(b, text, { agents: [{ id: agentId }] })];
      // Every third round revokes the token while its streams are still being opened.
      if (round % 3 !== 0) await Promise.all(watches.map((watch) => watch.ready()));
      const write = (at: number) =>
        admin[at % 2 ? 1 : 0]('AgentService/UpdateAgent', {
          agent: { id: agentId, description: `${round}.${at}` },
        });
      const before = [write(0), write(1)];
      const revoking = admin[round % 2 ? 1 : 0]('AccessService/RevokeToken', { id });
      const after = [write(2), write(3), write(4)];
      const { response } = await revoking;
      await Promise.all([...before, ...after]);
      const last = Number(response['revision']);
      for (const watch of watches) {
        await expectRevoked(watch);
        const late = watch.events.filter(({ revision }) => Number(revision) >= last);
        expect(late.map(({ revision }) => Number(revision))).toEqual([]);
        delivered += watch.revisions.length;
      }
    }
    // Otherwise the streams would have delivered nothing at all.
    expect(delivered).toBeGreaterThan(0);
  });

  it('deliver nothing of the revocation or later revisions to a slow stream with a backlog', async () => {
    const [a, b] = replicas();
    const admin = await asAdmin(a);
    const name = unique('slow');
    const agentId = await agentNamed(admin, name);
    const { id, text } = await grant(a.store, { role: 'ROLE_AGENT', agents: [name] });
    await waitForSync();
    const watches = await Promise.all([a, b].map((at) => watchAs(at, text, { agents: [{ name }] }).ready()));
    for (const watch of watches) watch.pause();
    for (let at = 0; at < 40; at++)
      await admin('AgentService/UpdateAgent', { agent: { id: agentId, description: `${at} ${'x'.repeat(4_000)}` } });
    const { response } = await admin('AccessService/RevokeToken', { id });
    await admin('AgentService/UpdateAgent', { agent: { id: agentId, description: 'secret' } });
    await waitForSync();
    await sleep(100);
    for (const watch of watches) watch.resume();
    for (const watch of watches) {
      await expectRevoked(watch);
      expect(Math.max(...watch.events.map(({ revision }) => Number(revision)))).toBeLessThan(
        Number(response['revision']),
      );
    }
  });

  it('deliver nothing to a stream of the revoked token that waits for a revision or resumes', async () => {
    const [a, b] = replicas();
    const admin = await asAdmin(a);
    const name = unique('waits');
    const agentId = await agentNamed(admin, name);
    const { id, text } = await grant(a.store, { role: 'ROLE_AGENT', agents: [name] });
    await waitForSync();
    const first = await watchAs(a, text, { agents: [{ name }] }).ready();
    const min_revision = BigInt(a.store.state.revision + 2);
    const waits = [a, b].map(countWaits);
    const watches = [a, b].map((at) => watchAs(at, text, { agents: [{ name }], min_revision }));
    await until(() => waits.every((count) => count() === 1), 'both streams wait');
    await admin('AccessService/RevokeToken', { id });
    await admin('AgentService/UpdateAgent', { agent: { id: agentId, description: 'secret' } });
    for (const watch of watches) {
      await expectRevoked(watch);
      expect(watch.events).toEqual([]);
    }
    await waitForSync();
    for (const at of [a, b]) {
      const resumed = watchAs(at, text, { agents: [{ name }], resume_token: first.token });
      await expectRevoked(resumed);
      expect(resumed.events).toEqual([]);
    }
    // A token with the same agents can continue from that resume token.
    const other = await grant(a.store, { role: 'ROLE_AGENT', agents: [name] });
    await waitForSync();
    const resumed = await watchAs(b, other.text, { agents: [{ name }], resume_token: first.token }).ready();
    expect(resumed.started?.resumed).toBe(true);
  });

  // `read` in src/api/handlers/read_write.ts must check the caller again after the wait.
  it.each([
    ['AgentLLMConfigService/ResolveConfig', 'ROLE_AGENT'],
    ['AgentLLMConfigService/GetPrimaryConfig', 'ROLE_AGENT'],
    ['AgentService/GetAgent', 'ROLE_VIEWER'],
    ['AgentLLMConfigService/ListConfigs', 'ROLE_VIEWER'],
  ] as const)('reject %s when the token is revoked while the call waits for a revision', async (method, role) => {
    const [a] = replicas();
    const admin = await asAdmin(a);
    const name = unique('waiting');
    const agentId = await agentNamed(admin, name);
    const { id, text } = await grant(a.store, { role, agents: role === 'ROLE_AGENT' ? [name] : [] });
    const minRevision = String(a.store.state.revision + 2);
    const waits = countWaits(a);
    const waiting = callsOf(a, text)(method, { agent: { name }, minRevision });
    await until(() => waits() === 1, 'the call waits');
    await admin('AccessService/RevokeToken', { id });
    await admin('AgentService/UpdateAgent', { agent: { id: agentId, llmModel: 'gpt-4o-mini', description: 'secret' } });
    expect(await waiting).toMatchObject(REVOKED);
  });

  it('reject a waiting call by agent id when the agent is renamed out of the scope', async () => {
    const [a] = replicas();
    const admin = await asAdmin(a);
    const name = unique('leaving');
    const id = await agentNamed(admin, name);
    const { text } = await grant(a.store, { role: 'ROLE_AGENT', agents: [name] });
    const minRevision = String(a.store.state.revision + 1);
    const waits = countWaits(a);
    const waiting = callsOf(a, text)('AgentLLMConfigService/ResolveConfig', { agent: { id }, minRevision });
    await until(() => waits() === 1, 'the call waits');
    await admin('AgentService/UpdateAgent', { agent: { id, name: unique('secret') } });
    expect(await waiting).toMatchObject({ code: 'PERMISSION_DENIED', reason: 'AGENT_NOT_ALLOWED' });
  });

  // `write` in src/api/handlers/read_write.ts must check the caller again after the revocation.
  it('reject a write that is queued after the revocation', async () => {
    const [a] = replicas();
    const admin = await asAdmin(a);
    const { id, text } = await grant(a.store, { role: 'ROLE_OPERATOR' });
    const name = unique('late');
    // This lock delays every write.
    const lock = await a.database.knex.transaction();
    await lock.raw('select * from store_state for update');
    const queued = countCalls(a.store.writeQueue, 'add');
    const revoking = admin('AccessService/RevokeToken', { id });
    await until(() => queued() === 1, 'the revocation is queued');
    const writing = callsOf(a, text)('AgentService/CreateAgent', { agent: { name, agentType: 'analyst' } });
    await until(() => queued() === 2, 'the write is queued');
    await lock.rollback();
    expect((await revoking).code).toBe('OK');
    expect(await writing).toMatchObject(REVOKED);
    expect(a.store.state.agentNamed(name)).toBeUndefined();
  });
});

describe('the revocation of a token during a write that waits for adoption', () => {
  const replicas = useReplicas();

  it('ends the wait, and the response does not name the watchers', async () => {
    const [a] = replicas();
    const admin = await grant(a.store, { role: 'ROLE_ADMIN' });
    const { id, text } = await grant(a.store, { role: 'ROLE_OPERATOR' });
    const watch = await watchAs(a, admin.text, { all_agents: true }).ready();
    onTestFinished(() => watch.close());
    const writing = callsOf(a, text)('AgentService/CreateAgent', {
      agent: { name: unique('waiting'), agentType: 'analyst' },
      waitForAdoption: { timeout: '25s' },
    });
    await watch.until(({ revisions }) => revisions.length > 0);
    await callsOf(a, admin.text)('AccessService/RevokeToken', { id });
    const { code, bytes } = await writing;
    expect(code).toBe('OK');
    const { adoption } = CreateAgentResponse.decode(bytes as Buffer);
    expect(adoption).toEqual({ complete: false, applied_count: 0, pending_count: 0, applied: [], pending: [] });
  });
});

describe('the expiry of a token', () => {
  const replicas = useReplicas();

  const lifetimeMs = 600_000;

  it('rejects its calls and ends its streams', async () => {
    const [a] = replicas();
    const { id, text } = await grant(a.store, { role: 'ROLE_VIEWER', lifetimeMs });
    const calls = callsOf(a, text);
    const watch = await watchAs(a, text, { all_agents: true }).ready();
    expect((await calls(CALLER)).code).toBe('OK');
    expire(a.store, id);
    expect(await calls(CALLER)).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_EXPIRED' });
    expect(await watch.end()).toMatchObject({ code: 16, reason: 'TOKEN_EXPIRED' });
  });

  it('makes its certificate identity invalid until it is bound to another token', async () => {
    const [a] = replicas();
    const identity = unique('spiffe://short/');
    const { id } = await grant(a.store, { role: 'ROLE_VIEWER', certificate_identity: identity, lifetimeMs });
    expect(a.access.identify({ identities: [identity] }, 'test').role).toBe('ROLE_VIEWER');
    expire(a.store, id);
    expect(() => a.access.identify({ identities: [identity] }, 'test')).toThrow('expired at');
    await grant(a.store, { role: 'ROLE_OPERATOR', certificate_identity: identity });
    expect(a.access.identify({ identities: [identity] }, 'test').role).toBe('ROLE_OPERATOR');
  });
});

describe('the first token', () => {
  const replicas = useReplicas({ pollIntervalMs: POLL_MS });

  it('closes the service to anonymous callers permanently and ends their streams', async () => {
    const [a, b] = replicas();
    const name = 'trader';
    const anonymous = [callsOf(a), callsOf(b)];
    for (const calls of anonymous) expect((await calls('AgentService/ListAgents')).code).toBe('OK');
    const watches = await Promise.all(
      [a, b].flatMap((at) => [
        watchAs(at, undefined, { all_agents: true }).ready(),
        watchAs(at, undefined, { agents: [{ name }] }).ready(),
      ]),
    );
    const { id, text } = await grant(a.store, { role: 'ROLE_ADMIN' });
    const closed = { code: 'UNAUTHENTICATED', reason: 'TOKEN_REQUIRED' };
    expect(await anonymous[0]?.('AgentService/ListAgents')).toMatchObject(closed);
    for (const watch of watches) expect(await watch.end(SOON_MS)).toMatchObject({ code: 16, reason: 'TOKEN_REQUIRED' });
    expect(await anonymous[1]?.('AgentService/ListAgents')).toMatchObject(closed);
    const admin = callsOf(a, text);
    expect((await admin('AccessService/ListTokens')).code).toBe('OK');
    expect((await admin('AccessService/RevokeToken', { id })).code).toBe('OK');
    await until(() => a.store.state.revision === b.store.state.revision, 'the replicas are at the same revision');
    for (const calls of anonymous) expect(await calls('AgentService/ListAgents')).toMatchObject(closed);
    // A replica that starts when no token is valid must not open the service either.
    const later = await startReplica({ database: a.database });
    try {
      expect(await callsOf(later)('AgentService/ListAgents')).toMatchObject(closed);
      expect((await send(later.http, 'GET', '/v1/agents')).status).toBe(401);
    } finally {
      await later.stop();
    }
  });
});

describe('a replica whose database is unavailable', () => {
  it('accepts known tokens, rejects unknown ones and cannot revoke or create any', async () => {
    const postgres = await startPostgres({ own: true });
    try {
      const url = await postgres.createDatabase('seeded');
      const proxy = await startProxy(Number(new URL(url).port));
      const replica = await startReplica({ url: proxy.through(url) });
      try {
        const admin = callsOf(replica, (await grant(replica.store, { role: 'ROLE_ADMIN' })).text);
        const { id, text } = await grant(replica.store, { role: 'ROLE_VIEWER' });
        const revokedToken = await grant(replica.store, { role: 'ROLE_VIEWER' });
        await admin('AccessService/RevokeToken', { id: revokedToken.id });
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
        expect(await callsOf(replica, revokedToken.text)(CALLER)).toMatchObject(REVOKED);
        expect(await callsOf(replica)(CALLER)).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_REQUIRED' });
        for (const name of ['AccessService/RevokeToken', 'AccessService/CreateToken']) {
          const json: JsonObject = name.endsWith('CreateToken') ? { name: 'x', role: 'ROLE_VIEWER' } : { id };
          expect(await admin(name, json), name).toMatchObject({ code: 'UNAVAILABLE' });
        }
        // GetToken and ListTokens omit the time of last use.
        const { code, response } = await admin('AccessService/GetToken', { id });
        expect([code, (response['token'] as { lastUsedAt?: string }).lastUsedAt]).toEqual(['OK', undefined]);
        expect((await admin('AccessService/ListTokens')).code).toBe('OK');
        expect((await calls(CALLER)).code).toBe('OK');
        expect(watch.ended).toBe(false);
        await postgres.restart();
        const requestId = randomUUID();
        await until(
          async () => (await admin('AccessService/RevokeToken', { id, requestId })).code === 'OK',
          'the token can be revoked',
          20_000,
        );
        await expectRevoked(watch);
      } finally {
        await replica.stop();
      }
    } finally {
      await postgres.stop();
    }
  });
});
