import { createHash, randomUUID } from 'node:crypto';
import type { JsonObject } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import { CreateTokenRequest } from '../../../gen/ts/agentllm/v1/access_service.js';
import { send } from '../../http/support.js';
import { expire, grant, rawCaller } from '../../support/access.js';
import { callsOf, everyTable, methodNamed, part, startReplica, useReplica } from '../../support/access_replica.js';
import { unique } from '../../support/service.js';

/* CreateToken and the other token methods: validation, responses, and where the text of a token may appear. */

const replica = useReplica();

/** Calls with the token of an administrator. */
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
const tokenOf = (response: JsonObject) => part(response, 'token');

describe('CreateToken', () => {
  it.each<[string, JsonObject, string[]]>([
    ['no name', viewer({ name: '' }), ['name']],
    ['a name of 101 characters', viewer({ name: 'x'.repeat(101) }), ['name']],
    ['a name with a line break', viewer({ name: 'a\nb' }), ['name']],
    ['a name with NUL', viewer({ name: 'a\0b' }), ['name']],
    ['no role', { name: 'x' }, ['role']],
    ['an unknown role', viewer({ role: 77 }), ['role']],
    ['a negative role', viewer({ role: -1 }), ['role']],
    ['a viewer token with agents', viewer({ agents: ['a'] }), ['agents']],
    ['an operator token with all_agents', viewer({ role: 'ROLE_OPERATOR', allAgents: true }), ['all_agents']],
    ['an administrator token with agents', viewer({ role: 'ROLE_ADMIN', agents: ['a'] }), ['agents']],
    ['an administrator token with all_agents', viewer({ role: 'ROLE_ADMIN', allAgents: true }), ['all_agents']],
    ['an agent token without agents', agent({ agents: [] }), ['agents']],
    ['an agent token with agents and all_agents', agent({ allAgents: true }), ['agents']],
    ['an agent token for 1001 agents', agent({ agents: many(1001) }), ['agents']],
    ['an empty agent name', agent({ agents: ['a', ''] }), ['agents[1]']],
    ['an agent name of 256 characters', agent({ agents: ['x'.repeat(256)] }), ['agents[0]']],
    ['an identity with a space', viewer({ certificateIdentity: 'CN=a b' }), ['certificate_identity']],
    ['an identity that is not ASCII', viewer({ certificateIdentity: 'CN=ä' }), ['certificate_identity']],
    ['an identity of 301 characters', viewer({ certificateIdentity: 'x'.repeat(301) }), ['certificate_identity']],
    ['a request_id that is not a UUID', viewer({ requestId: 'x' }), ['request_id']],
    [
      'several invalid fields at once',
      { role: 'ROLE_VIEWER', agents: ['a'], requestId: 'x' },
      ['agents', 'name', 'request_id'],
    ],
  ])('rejects %s', async (_, json, fields) => {
    const before = replica().store.state.revision;
    const outcome = await (await asAdmin())(CREATE, json);
    expect(outcome).toMatchObject({ code: 'INVALID_ARGUMENT', reason: 'INVALID_FIELDS' });
    expect([...new Set(outcome.error?.fields)].sort()).toEqual(fields);
    // The token of the administrator is the only new revision.
    expect(replica().store.state.revision).toBe(before + 1);
  });

  const days = 86_400;
  it.each([
    ['0', 0, 0],
    ['a minute minus 1 ns', 59, 999_999_999],
    ['a negative time', -60, 0],
    ['negative nanos', 0, -1],
    ['3650 days plus 1 ms', 3650 * days, 1_000_000],
    ['3650 days plus 1 s', 3650 * days + 1, 0],
    ['the maximum seconds of a Duration', 315_576_000_000, 0],
    ['the maximum seconds of 64 bits', 2n ** 63n - 1n, 0],
    ['the minimum seconds of 64 bits', -(2n ** 63n), 0],
    ['nanos beyond a second', 59, 1_000_000_000],
    ['seconds and nanos of different signs', 61, -500_000_000],
    ['the maximum nanos of 32 bits', 100, 2_147_483_647],
    ['the minimum nanos of 32 bits', 100, -2_147_483_648],
  ])('rejects a lifetime of %s', async (_, seconds, nanos) => {
    const { text: token } = await grant(replica().store, { role: 'ROLE_ADMIN' });
    const request = { name: 'x', role: 'ROLE_VIEWER' as const, lifetime: { seconds: BigInt(seconds), nanos } };
    const bytes = Buffer.from(CreateTokenRequest.encode(CreateTokenRequest.fromPartial(request)).finish());
    const outcome = await rawCaller(replica().port)(methodNamed(CREATE), { token, bytes });
    expect(outcome).toMatchObject({ code: 'INVALID_ARGUMENT', reason: 'INVALID_FIELDS' });
    expect(outcome.error?.fields).toEqual(['lifetime']);
  });
});

describe('CreateToken with a valid request', () => {
  it.each<[string, JsonObject, JsonObject]>([
    ['a viewer token', viewer({ name: 'v'.repeat(100) }), { role: 'ROLE_VIEWER' }],
    ['an operator token', viewer({ role: 'ROLE_OPERATOR' }), { role: 'ROLE_OPERATOR' }],
    ['an administrator token', viewer({ role: 'ROLE_ADMIN' }), { role: 'ROLE_ADMIN' }],
    [
      'an agent token with each agent once',
      agent({ agents: ['b', 'a', 'b'] }),
      { role: 'ROLE_AGENT', agents: ['a', 'b'] },
    ],
    ['an agent token for 1000 agents', agent({ agents: many(1000) }), { role: 'ROLE_AGENT' }],
    ['an agent token for all agents', agent({ agents: [], allAgents: true }), { role: 'ROLE_AGENT', allAgents: true }],
    ['a token with a lifetime of one minute', viewer({ lifetime: '60s' }), { role: 'ROLE_VIEWER' }],
    ['a token with a lifetime of 3650 days', viewer({ lifetime: `${3650 * 86_400}s` }), { role: 'ROLE_VIEWER' }],
  ])('creates %s, which is valid at once', async (_, json, expected) => {
    const admin = await asAdmin();
    const { code, response, message } = await admin(CREATE, json);
    expect(code, message).toBe('OK');
    const token = tokenOf(response);
    const text = String(response['text']);
    expect(token).toMatchObject({ ...expected, name: json['name'], state: 'TOKEN_STATE_ACTIVE' });
    expect(token['id']).toMatch(/^al_[a-z2-7]{10}$/);
    expect(text.startsWith(`${token['id']}_`)).toBe(true);
    // 256 random bits.
    expect(text.slice(`${token['id']}_`.length)).toMatch(/^[\w-]{43}$/);
    expect(token['revision']).toBe(response['revision']);
    const lifetimeMs = Number(String(json['lifetime'] ?? '0').replace('s', '')) * 1000;
    const left = Date.parse(String(token['expiresAt'])) - Date.parse(String(token['createdAt']));
    if (lifetimeMs) expect(left).toBe(lifetimeMs);
    else expect(token['expiresAt']).toBeUndefined();
    const caller = await callsOf(replica(), text)('AccessService/GetCaller');
    expect(caller.response).toMatchObject({ actor: `token:${token['id']}`, role: expected['role'] });
    expect((await admin('AccessService/GetToken', { id: token['id'] as string })).response).toMatchObject({
      token: { id: token['id'] },
    });
  });

  it('stores only a SHA-256 of the text', async () => {
    const { response } = await (await asAdmin())(CREATE, viewer());
    const row = await replica()
      .database.knex('api_tokens')
      .where({ token_id: tokenOf(response)['id'] })
      .first();
    expect(row.token_hash).toBe(createHash('sha256').update(String(response['text'])).digest('hex'));
  });

  it('creates texts that are independent of each other', async () => {
    const admin = await asAdmin();
    const created = await Promise.all(Array.from({ length: 20 }, () => admin(CREATE, viewer())));
    const texts = created.map(({ response }) => String(response['text']));
    expect(new Set(texts.map((text) => text.slice(3, 9))).size).toBe(20);
    expect(new Set(texts.map((text) => text.slice(14, 24))).size).toBe(20);
  });

  it('creates nothing with validate_only', async () => {
    const admin = await asAdmin();
    const before = replica().store.state;
    const [revision, count] = [before.revision, before.tokens.size];
    const { code, response } = await admin(CREATE, viewer({ validateOnly: true, name: 'rehearsed' }));
    expect(code).toBe('OK');
    expect(response['text']).toBeUndefined();
    expect(tokenOf(response)).toMatchObject({ name: 'rehearsed', role: 'ROLE_VIEWER' });
    expect(tokenOf(response)['revision'] ?? '0').toBe('0');
    expect(response['revision']).toBe(String(revision));
    expect([replica().store.state.revision, replica().store.state.tokens.size]).toEqual([revision, count]);
    expect(await everyTable(replica().database)).not.toContain('rehearsed');
  });

  it('returns no id with validate_only', async () => {
    const { response } = await (await asAdmin())(CREATE, viewer({ validateOnly: true }));
    expect(tokenOf(response)['id'] ?? '').toBe('');
  });

  it('creates one token for a repeated request_id, and returns its text once', async () => {
    const admin = await asAdmin();
    const request = viewer({ requestId: randomUUID() });
    const first = await admin(CREATE, request);
    const again = await admin(CREATE, request);
    expect(first.response['text']).toBeDefined();
    expect(again.response['text']).toBeUndefined();
    expect(tokenOf(again.response)).toEqual(tokenOf(first.response));
    expect(again.response['revision']).toBe(first.response['revision']);
    const other = await admin(CREATE, { ...request, name: 'another' });
    expect(other).toMatchObject({ code: 'INVALID_ARGUMENT', reason: 'REQUEST_ID_REUSED' });
    // The same request_id of another caller is independent: a caller cannot read the response to another administrator.
    const others = await (await asAdmin())(CREATE, request);
    expect(tokenOf(others.response)['id']).not.toBe(tokenOf(first.response)['id']);
    expect(others.response['text']).toBeDefined();
  });

  it('creates one token for concurrent calls with one request_id, and returns its text in only one response', async () => {
    const admin = await asAdmin();
    for (let round = 0; round < 5; round++) {
      const request = viewer({ requestId: randomUUID() });
      const outcomes = await Promise.all(Array.from({ length: 8 }, () => admin(CREATE, request)));
      const responses = outcomes.filter(({ code }) => code === 'OK').map(({ response }) => response);
      expect(responses.length).toBe(8);
      expect(new Set(responses.map((response) => tokenOf(response)['id'])).size).toBe(1);
      const texts = responses.filter((response) => response['text'] !== undefined);
      expect(texts.length).toBe(1);
      const caller = await callsOf(replica(), String(texts[0]?.['text']))('AccessService/GetCaller');
      expect(caller.code).toBe('OK');
    }
  });
});

it('CreateToken with wait_for_adoption returns the text and complete adoption without watchers', async () => {
  const request = viewer({ waitForAdoption: { timeout: '20s' } });
  const { code, response, message } = await (await asAdmin())(CREATE, request);
  expect(code, message).toBe('OK');
  expect(response['adoption']).toMatchObject({ complete: true });
  expect((await callsOf(replica(), String(response['text']))('AccessService/GetCaller')).code).toBe('OK');
});

describe('a certificate identity', () => {
  it.each(['spiffe://desk/trader', 'trader.example.com', 'CN=trader', 'x'.repeat(300)])(
    'such as %s is bound to a token',
    async (identity) => {
      const admin = await asAdmin();
      const { code, response } = await admin(CREATE, viewer({ certificateIdentity: identity }));
      expect(code).toBe('OK');
      expect(response['text']).toBeUndefined();
      expect(tokenOf(response)).toMatchObject({ certificateIdentity: identity });
      const { access } = replica();
      const principal = access.identify({ identities: [identity] }, 'test');
      expect(principal.token?.token_id).toBe(tokenOf(response)['id']);
      expect(principal.actor.length).toBeLessThanOrEqual(100);
      // The token has no text, so no bearer value matches it.
      const row = await replica()
        .database.knex('api_tokens')
        .where({ token_id: tokenOf(response)['id'] })
        .first();
      expect(row.token_hash).toBeNull();
      for (const text of [identity, tokenOf(response)['id'] as string, '', 'null', 'undefined'])
        expect(() => access.identify({ authorization: `Bearer ${text}` }, 'test')).toThrow(
          'not issued by this service',
        );
    },
  );

  it('is bound to one token until that token is revoked', async () => {
    const admin = await asAdmin();
    const certificateIdentity = unique('spiffe://desk/');
    const first = await admin(CREATE, viewer({ certificateIdentity }));
    const id = tokenOf(first.response)['id'] as string;
    const second = await admin(CREATE, viewer({ certificateIdentity }));
    expect(second).toMatchObject({ code: 'ALREADY_EXISTS', reason: 'CERTIFICATE_BOUND' });
    expect(second.error?.resources).toEqual([{ type: 'token', name: id }]);
    await admin('AccessService/RevokeToken', { id });
    const { access } = replica();
    expect(() => access.identify({ identities: [certificateIdentity] }, 'test')).toThrow('was revoked');
    const third = await admin(CREATE, viewer({ certificateIdentity, role: 'ROLE_OPERATOR' }));
    expect(third.code).toBe('OK');
    expect(access.identify({ identities: [certificateIdentity] }, 'test').role).toBe('ROLE_OPERATOR');
    // Revoking the first token again does not affect the third.
    await admin('AccessService/RevokeToken', { id });
    expect(access.identify({ identities: [certificateIdentity] }, 'test').role).toBe('ROLE_OPERATOR');
  });

  it('is bound once when six calls arrive at once', async () => {
    const admin = await asAdmin();
    for (let round = 0; round < 5; round++) {
      const certificateIdentity = unique('spiffe://race/');
      const outcomes = await Promise.all(
        Array.from({ length: 6 }, () => admin(CREATE, viewer({ certificateIdentity }))),
      );
      expect(outcomes.filter(({ code }) => code === 'OK').length).toBe(1);
    }
  });

  it('that is not bound is distinguished from a missing certificate, and a wrong token takes precedence over a valid certificate', async () => {
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
    // A revoked identity is not skipped in favour of the next one.
    const { id } = await grant(replica().store, { certificate_identity: 'CN=gone', role: 'ROLE_ADMIN' });
    await (await asAdmin())('AccessService/RevokeToken', { id });
    expect(() => access.identify({ identities: ['CN=gone', 'CN=good'] }, 'test')).toThrow('was revoked');
  });
});

describe('a token row with an unknown role', () => {
  it.each(['ROLE_AUDITOR', 'ROLE_UNSPECIFIED', '', 'UNRECOGNIZED', 'admin', 'ROLE_ADMIN ', 'constructor'])(
    'has no permissions: %j',
    async (role) => {
      const { id, text } = await grant(replica().store, { role: 'ROLE_ADMIN' });
      await replica().database.knex('api_tokens').where({ token_id: id }).update({ role });
      // A replica that starts now reads the row.
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
        // An administrator can still list and revoke the token.
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
  it('appears only in its one response, also when it is sent in wrong places', async () => {
    const { text: adminText } = await grant(replica().store, { role: 'ROLE_ADMIN' });
    const admin = callsOf(replica(), adminText);
    const requestId = randomUUID();
    const request = viewer({ requestId, reason: 'for the scan' });
    const { response } = await admin(CREATE, request);
    const text = String(response['text']);
    const secret = text.slice(14);
    const recorded: string[] = [];
    const record = async (name: string, json: JsonObject, calls = admin) => {
      const { response: returned, message, error } = await calls(name, json);
      const { metadata, violations, resources, preconditions } = error ?? {};
      recorded.push(JSON.stringify([returned, message, metadata, violations, resources, preconditions]));
    };
    await record(CREATE, request);
    await record('AccessService/GetCaller', {}, callsOf(replica(), text));
    for (const wrong of [text, `${text} `, ` ${text}`, `Bearer ${text}`, secret, text.toUpperCase(), `token:${text}`]) {
      await record('AccessService/GetToken', { id: wrong });
      await record('AccessService/RevokeToken', { id: wrong });
      await record('AccessService/ListTokens', { pageToken: wrong });
      await record('AuditService/ListAuditEvents', { pageToken: wrong });
      await record('AgentLLMConfigWatchService/WatchConfigs', { allAgents: true, resumeToken: wrong });
      await record('AgentLLMConfigWatchService/WatchConfigs', { allAgents: true, clientId: wrong });
      await record('AccessService/GetToken', { id: wrong }, callsOf(replica(), text));
    }
    const shown: Record<string, string>[] = [
      { authorization: `Basic ${text}` },
      { authorization: text },
      { 'x-api-key': text },
    ];
    for (const headers of shown) await rawCaller(replica().port)(methodNamed('AgentService/ListAgents'), { headers });
    for (const path of [`/v1/tokens/${text}`, `/v1/tokens/${text}/x`, `/${text}`, `/v1/agents?page_token=${text}`]) {
      const headers = { authorization: `Bearer ${adminText}` };
      recorded.push((await send(replica().http, 'GET', path, { headers })).text);
    }
    await record('AccessService/ListTokens', { showEnded: true, pageSize: 1000 });
    await record('AuditService/ListAuditEvents', { pageSize: 1000 });
    await record('AgentLLMConfigService/ListConfigRevisions', { pageSize: 1000 });
    await new Promise((resolve) => setTimeout(resolve, 200));
    const places = {
      responses: recorded.join('\n'),
      log: replica().logged.join(''),
      tables: await everyTable(replica().database),
      metrics: (await send(replica().http, 'GET', '/metrics', { headers: { authorization: `Bearer ${adminText}` } }))
        .text,
    };
    expect(places.tables).toContain(String(tokenOf(response)['id']));
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

// src/api/dispatch/method.ts logs a request_id before it is validated.
it('the text of a token is not logged when it is sent as a request_id', async () => {
  const { text } = await grant(replica().store, { role: 'ROLE_ADMIN' });
  await callsOf(replica(), text)('AccessService/RevokeToken', { id: 'al_aaaaaaaaaa', requestId: text });
  expect(replica().logged.some((line) => line.includes(text.slice(14)))).toBe(false);
});

describe('ListTokens and RevokeToken', () => {
  it('list tokens in creation order, and ended ones only with show_ended', async () => {
    const admin = await asAdmin();
    const name = unique('listed');
    const ids: string[] = [];
    for (let at = 0; at < 3; at++) {
      const { response } = await admin(CREATE, viewer({ name }));
      ids.push(String(tokenOf(response)['id']));
    }
    await grant(replica().store, { name, role: 'ROLE_VIEWER', lifetimeMs: -1 });
    await admin('AccessService/RevokeToken', { id: ids[1] as string });
    const list = async (showEnded: boolean) => {
      const found: JsonObject[] = [];
      let pageToken = '';
      do {
        const { response } = await admin('AccessService/ListTokens', { showEnded, pageSize: 7, pageToken });
        found.push(...((response['tokens'] ?? []) as JsonObject[]));
        pageToken = String(response['nextPageToken'] ?? '');
      } while (pageToken !== '');
      return found.filter((token) => token['name'] === name);
    };
    expect((await list(false)).map(({ id }) => id)).toEqual([ids[0], ids[2]]);
    const states = (await list(true)).map(({ state }) => state);
    expect(states).toEqual(['ACTIVE', 'REVOKED', 'ACTIVE', 'EXPIRED'].map((state) => `TOKEN_STATE_${state}`));
    const { response } = await admin('AccessService/ListTokens', { pageSize: 1 });
    const reused = { showEnded: true, pageSize: 1, pageToken: String(response['nextPageToken']) };
    expect(await admin('AccessService/ListTokens', reused)).toMatchObject({ reason: 'INVALID_PAGE_TOKEN' });
  });

  it('revoke a token once: a second call changes nothing', async () => {
    const admin = await asAdmin();
    const { id } = await grant(replica().store, { role: 'ROLE_VIEWER' });
    const dryRun = await admin('AccessService/RevokeToken', { id, validateOnly: true });
    expect(dryRun.code).toBe('OK');
    expect(replica().store.state.tokenNamed(id)?.revoked_at).toBeNull();
    const first = await admin('AccessService/RevokeToken', { id });
    const again = await admin('AccessService/RevokeToken', { id });
    expect(tokenOf(first.response)).toMatchObject({ state: 'TOKEN_STATE_REVOKED' });
    expect(tokenOf(again.response)['revokedAt']).toBe(tokenOf(first.response)['revokedAt']);
    expect(tokenOf(again.response)['revision']).toBe(tokenOf(first.response)['revision']);
    for (const name of ['AccessService/GetToken', 'AccessService/RevokeToken']) {
      expect(await admin(name, { id: 'al_aaaaaaaaaa' })).toMatchObject({
        code: 'NOT_FOUND',
        reason: 'TOKEN_NOT_FOUND',
      });
      expect(await admin(name, {})).toMatchObject({ code: 'INVALID_ARGUMENT', reason: 'INVALID_FIELDS' });
    }
  });

  it('allow an administrator to revoke its token, which is rejected afterwards', async () => {
    const { id, text } = await grant(replica().store, { role: 'ROLE_ADMIN' });
    const calls = callsOf(replica(), text);
    expect((await calls('AccessService/RevokeToken', { id })).code).toBe('OK');
    expect(await calls('AccessService/GetCaller')).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_REVOKED' });
  });

  it('are rejected, like every call, after the token has expired', async () => {
    const { id, text } = await grant(replica().store, { role: 'ROLE_ADMIN', lifetimeMs: 600_000 });
    const calls = callsOf(replica(), text);
    expect((await calls('AccessService/GetCaller')).code).toBe('OK');
    expire(replica().store, id);
    const outcome = await calls('AccessService/GetCaller');
    expect(outcome).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_EXPIRED' });
    expect(outcome.message).toMatch(/^Token al_[a-z2-7]{10} expired at .*Z; use another one$/);
  });
});
