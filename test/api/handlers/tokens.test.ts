import { createHash, randomUUID } from 'node:crypto';
import type { JsonObject } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import { CreateTokenRequest } from '../../../gen/ts/agentllm/v1/access_service.js';
import { send } from '../../http/support.js';
import { grant, rawCaller } from '../../support/access.js';
import { callsOf, everyTable, methodNamed, part, startReplica, useReplica } from '../../support/access_replica.js';
import { unique } from '../../support/service.js';

/* CreateToken and its sisters as the contract has them: what is asked for, what is answered, and where a text can be. */

const replica = useReplica();

/** Calls as an administrator. */
const asAdmin = async () => callsOf(replica(), (await grant(replica().store, { role: 'ROLE_ADMIN' })).text);
const CREATE = 'AccessService/CreateToken';
const viewer = (more: JsonObject = {}): JsonObject => ({ name: unique('t'), role: 'ROLE_VIEWER', ...more });
const agent = (more: JsonObject = {}): JsonObject => ({
  name: unique('t'),
  role: 'ROLE_AGENT',
  agents: ['a'],
  ...more,
});
const many = (count: number) => Array.from({ length: count }, (_, at) => `agent_${at}`);
const tokenOf = (answer: JsonObject) => part(answer, 'token');

describe('CreateToken refuses', () => {
  it.each<[string, JsonObject, string[]]>([
    ['no name', viewer({ name: '' }), ['name']],
    ['a name of 101 characters', viewer({ name: 'x'.repeat(101) }), ['name']],
    ['a name with a line break', viewer({ name: 'a\nb' }), ['name']],
    ['a name with NUL', viewer({ name: 'a\0b' }), ['name']],
    ['no role', { name: 'x' }, ['role']],
    ['a role that there is not', viewer({ role: 77 }), ['role']],
    ['a negative role', viewer({ role: -1 }), ['role']],
    ['a viewer for agents', viewer({ agents: ['a'] }), ['agents']],
    ['an operator for all agents', viewer({ role: 'ROLE_OPERATOR', allAgents: true }), ['all_agents']],
    ['an administrator for agents', viewer({ role: 'ROLE_ADMIN', agents: ['a'] }), ['agents']],
    ['an administrator for all agents', viewer({ role: 'ROLE_ADMIN', allAgents: true }), ['all_agents']],
    ['an agent of nothing', agent({ agents: [] }), ['agents']],
    ['an agent of some and all', agent({ allAgents: true }), ['agents']],
    ['an agent of 1001', agent({ agents: many(1001) }), ['agents']],
    ['an agent without a name', agent({ agents: ['a', ''] }), ['agents[1]']],
    ['an agent with a long name', agent({ agents: ['x'.repeat(256)] }), ['agents[0]']],
    ['an identity with a space', viewer({ certificateIdentity: 'CN=a b' }), ['certificate_identity']],
    ['an identity beyond ASCII', viewer({ certificateIdentity: 'CN=ä' }), ['certificate_identity']],
    ['an identity of 301', viewer({ certificateIdentity: 'x'.repeat(301) }), ['certificate_identity']],
    ['a request id that is no UUID', viewer({ requestId: 'x' }), ['request_id']],
    ['everything at once', { role: 'ROLE_VIEWER', agents: ['a'], requestId: 'x' }, ['agents', 'name', 'request_id']],
  ])('%s', async (_, json, fields) => {
    const before = replica().store.state.revision;
    const outcome = await (await asAdmin())(CREATE, json);
    expect(outcome).toMatchObject({ code: 'INVALID_ARGUMENT', reason: 'INVALID_FIELDS' });
    expect([...new Set(outcome.error?.fields)].sort()).toEqual(fields);
    // The administrator's own token was the last revision.
    expect(replica().store.state.revision).toBe(before + 1);
  });

  const days = 86_400;
  it.each([
    ['nothing', 0, 0],
    ['a ns less than a minute', 59, 999_999_999],
    ['a negative time', -60, 0],
    ['negative nanos', 0, -1],
    ['a ms more than 3650 days', 3650 * days, 1_000_000],
    ['a second more than 3650 days', 3650 * days + 1, 0],
    ['as many seconds as a Duration may have', 315_576_000_000, 0],
    ['as many as fit in 64 bits', 2n ** 63n - 1n, 0],
    ['the least that fits', -(2n ** 63n), 0],
    ['nanos beyond a second', 59, 1_000_000_000],
    ['seconds and nanos of different signs', 61, -500_000_000],
    ['the greatest nanos', 100, 2_147_483_647],
    ['the least nanos', 100, -2_147_483_648],
  ])('a lifetime of %s', async (_, seconds, nanos) => {
    const { text: token } = await grant(replica().store, { role: 'ROLE_ADMIN' });
    const request = { name: 'x', role: 'ROLE_VIEWER' as const, lifetime: { seconds: BigInt(seconds), nanos } };
    const bytes = Buffer.from(CreateTokenRequest.encode(CreateTokenRequest.fromPartial(request)).finish());
    const outcome = await rawCaller(replica().port)(methodNamed(CREATE), { token, bytes });
    expect(outcome).toMatchObject({ code: 'INVALID_ARGUMENT', reason: 'INVALID_FIELDS' });
    expect(outcome.error?.fields).toEqual(['lifetime']);
  });
});

describe('CreateToken makes', () => {
  it.each<[string, JsonObject, JsonObject]>([
    ['a viewer', viewer({ name: 'v'.repeat(100) }), { role: 'ROLE_VIEWER' }],
    ['an operator', viewer({ role: 'ROLE_OPERATOR' }), { role: 'ROLE_OPERATOR' }],
    ['an administrator', viewer({ role: 'ROLE_ADMIN' }), { role: 'ROLE_ADMIN' }],
    ['an agent of agents, each once', agent({ agents: ['b', 'a', 'b'] }), { role: 'ROLE_AGENT', agents: ['a', 'b'] }],
    ['an agent of 1000', agent({ agents: many(1000) }), { role: 'ROLE_AGENT' }],
    ['an agent of all', agent({ agents: [], allAgents: true }), { role: 'ROLE_AGENT', allAgents: true }],
    ['one that lives a minute', viewer({ lifetime: '60s' }), { role: 'ROLE_VIEWER' }],
    ['one that lives 3650 days', viewer({ lifetime: `${3650 * 86_400}s` }), { role: 'ROLE_VIEWER' }],
  ])('%s, which works at once', async (_, json, expected) => {
    const admin = await asAdmin();
    const { code, answer, message } = await admin(CREATE, json);
    expect(code, message).toBe('OK');
    const token = tokenOf(answer);
    const text = String(answer['text']);
    expect(token).toMatchObject({ ...expected, name: json['name'], state: 'TOKEN_STATE_ACTIVE' });
    expect(token['id']).toMatch(/^al_[a-z2-7]{10}$/);
    expect(text.startsWith(`${token['id']}_`)).toBe(true);
    // 256 random bits.
    expect(text.slice(`${token['id']}_`.length)).toMatch(/^[\w-]{43}$/);
    expect(token['revision']).toBe(answer['revision']);
    const lives = Number(String(json['lifetime'] ?? '0').replace('s', '')) * 1000;
    const left = Date.parse(String(token['expiresAt'])) - Date.parse(String(token['createdAt']));
    if (lives) expect(left).toBe(lives);
    else expect(token['expiresAt']).toBeUndefined();
    const caller = await callsOf(replica(), text)('AccessService/GetCaller');
    expect(caller.answer).toMatchObject({ actor: `token:${token['id']}`, role: expected['role'] });
    expect((await admin('AccessService/GetToken', { id: token['id'] as string })).answer).toMatchObject({
      token: { id: token['id'] },
    });
  });

  it('a SHA-256 of the text and nothing else of it', async () => {
    const { answer } = await (await asAdmin())(CREATE, viewer());
    const row = await replica()
      .database.knex('api_tokens')
      .where({ token_id: tokenOf(answer)['id'] })
      .first();
    expect(row.token_hash).toBe(createHash('sha256').update(String(answer['text'])).digest('hex'));
  });

  it('texts that have nothing in common', async () => {
    const admin = await asAdmin();
    const made = await Promise.all(Array.from({ length: 20 }, () => admin(CREATE, viewer())));
    const texts = made.map(({ answer }) => String(answer['text']));
    expect(new Set(texts.map((text) => text.slice(3, 9))).size).toBe(20);
    expect(new Set(texts.map((text) => text.slice(14, 24))).size).toBe(20);
  });

  it('nothing when it is only to validate', async () => {
    const admin = await asAdmin();
    const before = replica().store.state;
    const [revision, count] = [before.revision, before.tokens.size];
    const { code, answer } = await admin(CREATE, viewer({ validateOnly: true, name: 'rehearsed' }));
    expect(code).toBe('OK');
    expect(answer['text']).toBeUndefined();
    expect(tokenOf(answer)).toMatchObject({ name: 'rehearsed', role: 'ROLE_VIEWER' });
    expect(tokenOf(answer)['revision'] ?? '0').toBe('0');
    expect(answer['revision']).toBe(String(revision));
    expect([replica().store.state.revision, replica().store.state.tokens.size]).toEqual([revision, count]);
    expect(await everyTable(replica().database)).not.toContain('rehearsed');
  });

  it('no id when it is only to validate, which somebody could look for', async () => {
    const { answer } = await (await asAdmin())(CREATE, viewer({ validateOnly: true }));
    expect(tokenOf(answer)['id'] ?? '').toBe('');
  });

  it('one token for a request id, and says its text once', async () => {
    const admin = await asAdmin();
    const request = viewer({ requestId: randomUUID() });
    const first = await admin(CREATE, request);
    const again = await admin(CREATE, request);
    expect(first.answer['text']).toBeDefined();
    expect(again.answer['text']).toBeUndefined();
    expect(tokenOf(again.answer)).toEqual(tokenOf(first.answer));
    expect(again.answer['revision']).toBe(first.answer['revision']);
    const other = await admin(CREATE, { ...request, name: 'another' });
    expect(other).toMatchObject({ code: 'INVALID_ARGUMENT', reason: 'REQUEST_ID_REUSED' });
    // Of somebody else it is another id: nobody is told what another administrator made.
    const others = await (await asAdmin())(CREATE, request);
    expect(tokenOf(others.answer)['id']).not.toBe(tokenOf(first.answer)['id']);
    expect(others.answer['text']).toBeDefined();
  });

  it('one token for a request id that comes many times at once, with its text in one answer at most', async () => {
    const admin = await asAdmin();
    for (let round = 0; round < 5; round++) {
      const request = viewer({ requestId: randomUUID() });
      const outcomes = await Promise.all(Array.from({ length: 8 }, () => admin(CREATE, request)));
      const answers = outcomes.filter(({ code }) => code === 'OK').map(({ answer }) => answer);
      expect(answers.length).toBe(8);
      expect(new Set(answers.map((answer) => tokenOf(answer)['id'])).size).toBe(1);
      const texts = answers.filter((answer) => answer['text'] !== undefined);
      expect(texts.length).toBe(1);
      const caller = await callsOf(replica(), String(texts[0]?.['text']))('AccessService/GetCaller');
      expect(caller.code).toBe('OK');
    }
  });
});

it('CreateToken that waits for adoption says the text too, and waits for nobody', async () => {
  const request = viewer({ waitForAdoption: { timeout: '20s' } });
  const { code, answer, message } = await (await asAdmin())(CREATE, request);
  expect(code, message).toBe('OK');
  expect(answer['adoption']).toMatchObject({ complete: true });
  expect((await callsOf(replica(), String(answer['text']))('AccessService/GetCaller')).code).toBe('OK');
});

describe('a certificate identity', () => {
  it.each(['spiffe://desk/trader', 'trader.example.com', 'CN=trader', 'x'.repeat(300)])(
    '%s is bound',
    async (identity) => {
      const admin = await asAdmin();
      const { code, answer } = await admin(CREATE, viewer({ certificateIdentity: identity }));
      expect(code).toBe('OK');
      expect(answer['text']).toBeUndefined();
      expect(tokenOf(answer)).toMatchObject({ certificateIdentity: identity });
      const { access } = replica();
      const principal = access.identify({ identities: [identity] }, 'test');
      expect(principal.token?.token_id).toBe(tokenOf(answer)['id']);
      expect(principal.actor.length).toBeLessThanOrEqual(100);
      // It has no text, so that nothing is its bearer.
      const row = await replica()
        .database.knex('api_tokens')
        .where({ token_id: tokenOf(answer)['id'] })
        .first();
      expect(row.token_hash).toBeNull();
      for (const text of [identity, tokenOf(answer)['id'] as string, '', 'null', 'undefined'])
        expect(() => access.identify({ authorization: `Bearer ${text}` }, 'test')).toThrow(
          'not issued by this service',
        );
    },
  );

  it('is bound once, until its token ends', async () => {
    const admin = await asAdmin();
    const certificateIdentity = unique('spiffe://desk/');
    const first = await admin(CREATE, viewer({ certificateIdentity }));
    const id = tokenOf(first.answer)['id'] as string;
    const second = await admin(CREATE, viewer({ certificateIdentity }));
    expect(second).toMatchObject({ code: 'ALREADY_EXISTS', reason: 'CERTIFICATE_BOUND' });
    expect(second.error?.resources).toEqual([{ type: 'token', name: id }]);
    await admin('AccessService/RevokeToken', { id });
    const { access } = replica();
    expect(() => access.identify({ identities: [certificateIdentity] }, 'test')).toThrow('was revoked');
    const third = await admin(CREATE, viewer({ certificateIdentity, role: 'ROLE_OPERATOR' }));
    expect(third.code).toBe('OK');
    expect(access.identify({ identities: [certificateIdentity] }, 'test').role).toBe('ROLE_OPERATOR');
    // The first one, revoked once more, takes nothing from the third.
    await admin('AccessService/RevokeToken', { id });
    expect(access.identify({ identities: [certificateIdentity] }, 'test').role).toBe('ROLE_OPERATOR');
  });

  it('is bound once when two ask in the same moment', async () => {
    const admin = await asAdmin();
    for (let round = 0; round < 5; round++) {
      const certificateIdentity = unique('spiffe://race/');
      const outcomes = await Promise.all(
        Array.from({ length: 6 }, () => admin(CREATE, viewer({ certificateIdentity }))),
      );
      expect(outcomes.filter(({ code }) => code === 'OK').length).toBe(1);
    }
  });

  it('that nobody has bound is told from no certificate at all; a wrong token counts before a good certificate', async () => {
    await asAdmin();
    const { access } = replica();
    expect(() => access.identify({ identities: ['CN=nobody'] }, 'test')).toThrow('is not bound to a token');
    expect(() => access.identify({ identities: [] }, 'test')).toThrow('requires a token');
    await grant(replica().store, { certificate_identity: 'CN=good', role: 'ROLE_VIEWER' });
    expect(access.identify({ identities: ['CN=good'] }, 'test').role).toBe('ROLE_VIEWER');
    expect(() => access.identify({ authorization: 'Bearer x', identities: ['CN=good'] }, 'test')).toThrow(
      'was not issued by this service',
    );
    expect(() => access.identify({ authorization: '', identities: ['CN=good'] }, 'test')).toThrow(
      'was not issued by this service',
    );
    // One that is revoked is not stepped over for the next.
    const { id } = await grant(replica().store, { certificate_identity: 'CN=gone', role: 'ROLE_ADMIN' });
    await (await asAdmin())('AccessService/RevokeToken', { id });
    expect(() => access.identify({ identities: ['CN=gone', 'CN=good'] }, 'test')).toThrow('was revoked');
  });
});

describe('a row that this version did not write', () => {
  it.each(['ROLE_AUDITOR', 'ROLE_UNSPECIFIED', '', 'UNRECOGNIZED', 'admin', 'ROLE_ADMIN ', 'constructor'])(
    'of the role %j may do nothing',
    async (role) => {
      const { id, text } = await grant(replica().store, { role: 'ROLE_ADMIN' });
      await replica().database.knex('api_tokens').where({ token_id: id }).update({ role });
      // A replica that starts now reads it.
      const later = await startReplica({ database: replica().database });
      try {
        const calls = callsOf(later, text);
        for (const name of [
          'AgentService/ListAgents',
          'AgentService/CreateAgent',
          'AgentLLMConfigWatchService/WatchConfigs',
          'AgentLLMConfigWatchService/ListWatchers',
          'AccessService/ListTokens',
          'AuditService/ListAuditEvents',
          'CredentialService/LeaseApiKeys',
          'AgentLLMConfigService/ResolveConfig',
        ])
          expect(await calls(name), name).toMatchObject({ code: 'PERMISSION_DENIED' });
        const metrics = await send(later.http, 'GET', '/metrics', { headers: { authorization: `Bearer ${text}` } });
        expect(metrics.status).toBe(403);
        // Others may still see that it is there.
        const admin = callsOf(later, (await grant(later.store, { role: 'ROLE_ADMIN' })).text);
        expect(await admin('AccessService/GetToken', { id })).toMatchObject({ code: 'OK' });
        expect(await admin('AccessService/ListTokens', { pageSize: 1000 })).toMatchObject({ code: 'OK' });
        expect(await admin('AccessService/RevokeToken', { id })).toMatchObject({ code: 'OK' });
      } finally {
        await later.stop();
      }
    },
  );
});

describe('the text of a token', () => {
  it('is in its one answer and nowhere else, also when it is sent where it does not belong', async () => {
    const { text: adminText } = await grant(replica().store, { role: 'ROLE_ADMIN' });
    const admin = callsOf(replica(), adminText);
    const requestId = randomUUID();
    const request = viewer({ requestId, reason: 'for the scan' });
    const { answer } = await admin(CREATE, request);
    const text = String(answer['text']);
    const secret = text.slice(14);
    const said: string[] = [];
    const note = async (name: string, json: JsonObject, calls = admin) => {
      const { answer: told, message, error } = await calls(name, json);
      const { metadata, violations, resources, preconditions } = error ?? {};
      said.push(JSON.stringify([told, message, metadata, violations, resources, preconditions]));
    };
    await note(CREATE, request);
    await note('AccessService/GetCaller', {}, callsOf(replica(), text));
    for (const wrong of [text, `${text} `, ` ${text}`, `Bearer ${text}`, secret, text.toUpperCase(), `token:${text}`]) {
      await note('AccessService/GetToken', { id: wrong });
      await note('AccessService/RevokeToken', { id: wrong });
      await note('AccessService/ListTokens', { pageToken: wrong });
      await note('AuditService/ListAuditEvents', { pageToken: wrong });
      await note('AgentLLMConfigWatchService/WatchConfigs', { allAgents: true, resumeToken: wrong });
      await note('AgentLLMConfigWatchService/WatchConfigs', { allAgents: true, clientId: wrong });
      await note('AccessService/GetToken', { id: wrong }, callsOf(replica(), text));
    }
    const shown: Record<string, string>[] = [
      { authorization: `Basic ${text}` },
      { authorization: text },
      { 'x-api-key': text },
    ];
    for (const headers of shown) await rawCaller(replica().port)(methodNamed('AgentService/ListAgents'), { headers });
    for (const path of [`/v1/tokens/${text}`, `/v1/tokens/${text}/x`, `/${text}`, `/v1/agents?page_token=${text}`]) {
      const headers = { authorization: `Bearer ${adminText}` };
      said.push((await send(replica().http, 'GET', path, { headers })).text);
    }
    await note('AccessService/ListTokens', { showEnded: true, pageSize: 1000 });
    await note('AuditService/ListAuditEvents', { pageSize: 1000 });
    await note('AgentLLMConfigService/ListConfigRevisions', { pageSize: 1000 });
    await new Promise((resolve) => setTimeout(resolve, 200));
    const places = {
      answers: said.join('\n'),
      log: replica().logged.join(''),
      tables: await everyTable(replica().database),
      metrics: (await send(replica().http, 'GET', '/metrics', { headers: { authorization: `Bearer ${adminText}` } }))
        .text,
    };
    expect(places.tables).toContain(String(tokenOf(answer)['id']));
    expect(places.log).toContain('GetToken');
    for (const [place, content] of Object.entries(places))
      for (const form of [
        secret,
        Buffer.from(secret).toString('hex'),
        Buffer.from(text).toString('base64').slice(20, -4),
      ]) {
        const at = content.toLowerCase().indexOf(form.toLowerCase());
        expect(at < 0 ? 'nowhere' : `${place}: …${content.slice(Math.max(0, at - 200), at)}…`).toBe('nowhere');
      }
  });
});

// src/api/dispatch/method.ts logs a request id before anybody has seen whether it is one.
it('the text of a token that is sent as a request id is in no log', async () => {
  const { text } = await grant(replica().store, { role: 'ROLE_ADMIN' });
  await callsOf(replica(), text)('AccessService/RevokeToken', { id: 'al_aaaaaaaaaa', requestId: text });
  expect(replica().logged.some((line) => line.includes(text.slice(14)))).toBe(false);
});

describe('ListTokens and RevokeToken', () => {
  it('list in the order of making, those that ended only when asked', async () => {
    const admin = await asAdmin();
    const name = unique('listed');
    const ids: string[] = [];
    for (let at = 0; at < 3; at++) {
      const { answer } = await admin(CREATE, viewer({ name }));
      ids.push(String(tokenOf(answer)['id']));
    }
    await grant(replica().store, { name, role: 'ROLE_VIEWER', lifetimeMs: -1 });
    await admin('AccessService/RevokeToken', { id: ids[1] as string });
    const list = async (showEnded: boolean) => {
      const found: JsonObject[] = [];
      let pageToken = '';
      do {
        const { answer } = await admin('AccessService/ListTokens', { showEnded, pageSize: 7, pageToken });
        found.push(...((answer['tokens'] ?? []) as JsonObject[]));
        pageToken = String(answer['nextPageToken'] ?? '');
      } while (pageToken !== '');
      return found.filter((token) => token['name'] === name);
    };
    expect((await list(false)).map(({ id }) => id)).toEqual([ids[0], ids[2]]);
    const states = (await list(true)).map(({ state }) => state);
    expect(states).toEqual(['ACTIVE', 'REVOKED', 'ACTIVE', 'EXPIRED'].map((state) => `TOKEN_STATE_${state}`));
    const { answer } = await admin('AccessService/ListTokens', { pageSize: 1 });
    const reused = { showEnded: true, pageSize: 1, pageToken: String(answer['nextPageToken']) };
    expect(await admin('AccessService/ListTokens', reused)).toMatchObject({ reason: 'INVALID_PAGE_TOKEN' });
  });

  it('revoke once: a second time changes nothing, and is no revision', async () => {
    const admin = await asAdmin();
    const { id } = await grant(replica().store, { role: 'ROLE_VIEWER' });
    const rehearsal = await admin('AccessService/RevokeToken', { id, validateOnly: true });
    expect(rehearsal.code).toBe('OK');
    expect(replica().store.state.tokenNamed(id)?.revoked_at).toBeNull();
    const first = await admin('AccessService/RevokeToken', { id });
    const again = await admin('AccessService/RevokeToken', { id });
    expect(tokenOf(first.answer)).toMatchObject({ state: 'TOKEN_STATE_REVOKED' });
    expect(tokenOf(again.answer)['revokedAt']).toBe(tokenOf(first.answer)['revokedAt']);
    expect(tokenOf(again.answer)['revision']).toBe(tokenOf(first.answer)['revision']);
    for (const name of ['AccessService/GetToken', 'AccessService/RevokeToken']) {
      expect(await admin(name, { id: 'al_aaaaaaaaaa' })).toMatchObject({
        code: 'NOT_FOUND',
        reason: 'TOKEN_NOT_FOUND',
      });
      expect(await admin(name, {})).toMatchObject({ code: 'INVALID_ARGUMENT', reason: 'INVALID_FIELDS' });
    }
  });

  it('an administrator may revoke itself, and then may nothing any more', async () => {
    const { id, text } = await grant(replica().store, { role: 'ROLE_ADMIN' });
    const calls = callsOf(replica(), text);
    expect((await calls('AccessService/RevokeToken', { id })).code).toBe('OK');
    expect(await calls('AccessService/GetCaller')).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_REVOKED' });
  });

  it('an expired token is refused by when it expired', async () => {
    const { text } = await grant(replica().store, { role: 'ROLE_ADMIN', lifetimeMs: 300 });
    const calls = callsOf(replica(), text);
    expect((await calls('AccessService/GetCaller')).code).toBe('OK');
    await new Promise((resolve) => setTimeout(resolve, 320));
    const outcome = await calls('AccessService/GetCaller');
    expect(outcome).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_EXPIRED' });
    expect(outcome.message).toMatch(/^Token al_[a-z2-7]{10} expired at .*Z; use another one$/);
  });
});
