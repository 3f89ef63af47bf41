import type { DescMethod, JsonObject } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { GetCallerResponse, type Role } from '../../../gen/ts/agentllm/v1/access_service.js';
import { Permission } from '../../../gen/ts/agentllm/v1/options.js';
import { contract, grant, methods, type Outcome, pathOf, rawCaller } from '../../support/access.js';
import { startBackend, type TestBackend } from '../../support/store.js';

/*
 * Every method with every role. The table repeats the roles of each permission, so that neither the table of the
 * service nor an option in the contract can change unnoticed.
 */

const ADMIN = 'admin';
const OPERATOR = 'admin operator';
const VIEWER = 'admin operator viewer';
const AGENT = 'admin agent';
const ALL_ROLES = 'admin operator viewer agent';

const allowedRoles: Readonly<Record<Exclude<Permission, 'PERMISSION_UNSPECIFIED' | 'UNRECOGNIZED'>, string>> = {
  PERMISSION_AGENTS_READ: VIEWER,
  PERMISSION_AGENTS_WRITE: OPERATOR,
  PERMISSION_CONFIGS_READ: VIEWER,
  PERMISSION_CONFIGS_WRITE: OPERATOR,
  PERMISSION_RESOLVE: ALL_ROLES,
  PERMISSION_CATALOGUE_READ: VIEWER,
  PERMISSION_CATALOGUE_WRITE: OPERATOR,
  PERMISSION_CREDENTIALS_READ: VIEWER,
  PERMISSION_CREDENTIALS_WRITE: OPERATOR,
  PERMISSION_CHECK: OPERATOR,
  PERMISSION_WATCH: ALL_ROLES,
  PERMISSION_WATCHERS_READ: VIEWER,
  PERMISSION_HISTORY_READ: VIEWER,
  PERMISSION_AUDIT_READ: VIEWER,
  PERMISSION_ACCESS_READ: ADMIN,
  PERMISSION_ACCESS_WRITE: ADMIN,
  PERMISSION_CALLER_READ: ALL_ROLES,
  PERMISSION_LEASE: AGENT,
  PERMISSION_ENCRYPTION_READ: VIEWER,
  PERMISSION_ENCRYPTION_ROTATE: ADMIN,
  PERMISSION_ENDPOINTS_WRITE: ADMIN,
  PERMISSION_METRICS_READ: VIEWER,
  PERMISSION_USAGE_RECORD: AGENT,
  PERMISSION_USAGE_READ: VIEWER,
  PERMISSION_USAGE_WRITE: OPERATOR,
  PERMISSION_BUDGETS_READ: VIEWER,
  PERMISSION_BUDGETS_WRITE: OPERATOR,
  PERMISSION_BUDGETS_RESERVE: AGENT,
  PERMISSION_EXPERIMENTS_READ: VIEWER,
  PERMISSION_EXPERIMENTS_WRITE: OPERATOR,
  PERMISSION_EXPERIMENTS_RECORD: AGENT,
};
const NEVER_ANONYMOUS = ['PERMISSION_LEASE', 'PERMISSION_ACCESS_READ', 'PERMISSION_ACCESS_WRITE'];

const roles = ['admin', 'operator', 'viewer', 'agent'] as const;
const roleOf = (name: string) => `ROLE_${name.toUpperCase()}` as Role;
const permissionOf = (method: DescMethod) => contract.rule(pathOf(method)).permission as keyof typeof allowedRoles;
const refused = ({ code }: Outcome) => code === 'PERMISSION_DENIED' || code === 'UNAUTHENTICATED';
const cases = methods.map((method) => [`${method.parent.name}/${method.name}`, method] as const);

let backend: TestBackend;
const tokens = new Map<string, string>();

beforeAll(async () => {
  backend = await startBackend();
});
afterAll(() => backend.close());

describe('an anonymous caller on a loopback address', () => {
  it.each(cases)('may call %s unless it leases keys or manages access', async (_, method) => {
    const outcome = await rawCaller(backend.port)(method);
    if (NEVER_ANONYMOUS.includes(permissionOf(method)))
      expect(outcome).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_REQUIRED' });
    else expect(refused(outcome)).toBe(false);
  });

  it('is rejected when it sends an unknown token', async () => {
    const [, method] = cases.find(([name]) => name === 'AgentService/ListAgents') as (typeof cases)[number];
    const outcome = await rawCaller(backend.port)(method, { token: 'al_aaaaaaaaaa_wrong' });
    expect(outcome).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_UNKNOWN' });
  });
});

describe('authorization by role', () => {
  beforeAll(async () => {
    for (const role of roles) {
      const agents = role === 'agent' ? ['trader'] : [];
      tokens.set(role, (await grant(backend.store, { role: roleOf(role), agents })).text);
    }
  });

  const ownAgent: JsonObject = { name: 'trader' };

  /** A request with this agent in each field of type AgentRef. */
  function requestFor(method: DescMethod, agent: JsonObject): JsonObject {
    const fields = method.input.fields.filter(({ message }) => message?.typeName === 'agentllm.v1.AgentRef');
    return Object.fromEntries(
      fields.map(({ jsonName, fieldKind }) => [jsonName, fieldKind === 'list' ? [agent] : agent]),
    );
  }

  it('defines roles for exactly the permissions of the contract', () => {
    expect(Object.keys(allowedRoles).sort()).toEqual(
      Object.values(Permission)
        .filter((one) => one !== 'PERMISSION_UNSPECIFIED' && one !== 'UNRECOGNIZED')
        .sort(),
    );
  });

  it.each(cases)('rejects %s without a token', async (_, method) => {
    const outcome = await rawCaller(backend.port)(method, { json: requestFor(method, ownAgent) });
    expect(outcome).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_REQUIRED' });
  });

  it.each(cases.flatMap(([name, method]) => roles.map((role) => [role, name, method] as const)))(
    'permits the role %s to call %s exactly when the table permits it',
    async (role, _, method) => {
      const call = rawCaller(backend.port);
      const token = tokens.get(role);
      const outcome = await call(method, { token, json: requestFor(method, ownAgent) });
      const allowed = allowedRoles[permissionOf(method)].split(' ').includes(role);
      if (allowed) expect(refused(outcome), outcome.message).toBe(false);
      else expect(outcome).toMatchObject({ code: 'PERMISSION_DENIED', reason: 'PERMISSION_DENIED' });
      // A malformed request must not reveal more.
      const garbage = await call(method, { token, bytes: Buffer.from([0xff, 0xff]) });
      expect([garbage.code, garbage.reason]).toEqual(
        allowed ? ['INVALID_ARGUMENT', 'MALFORMED_REQUEST'] : ['PERMISSION_DENIED', 'PERMISSION_DENIED'],
      );
    },
  );

  const agentMethods = cases.filter(([, method]) => contract.rule(pathOf(method)).agentRefs !== undefined);

  it('covers at least five methods with agent references', () => expect(agentMethods.length).toBeGreaterThanOrEqual(5));

  it.each(agentMethods)('limits an agent token in %s to its agents', async (_, method) => {
    const call = rawCaller(backend.port);
    const token = tokens.get('agent');
    const traderId = backend.store.state.agentNamed('trader')?.id as number;
    const otherId = backend.store.state.agentNamed('risk_manager')?.id ?? (await anyOther());
    for (const agentOutcome of [ownAgent, { id: traderId }] as JsonObject[])
      expect(refused(await call(method, { token, json: requestFor(method, agentOutcome) }))).toBe(false);
    const otherAgents: JsonObject[] = [
      { name: 'market_analyst' },
      { name: 'nobody_at_all' },
      { id: otherId },
      { id: 2_000_000_000 },
      {},
    ];
    const messages = new Set<string>();
    for (const other of otherAgents) {
      const outcome = await call(method, { token, json: requestFor(method, other) });
      expect(outcome, JSON.stringify(other)).toMatchObject({ code: 'PERMISSION_DENIED', reason: 'AGENT_NOT_ALLOWED' });
      messages.add(outcome.message);
    }
    // The message must not reveal whether the agent exists.
    expect(messages.size).toBe(1);
    expect(await call(method, { token })).toMatchObject({ reason: 'AGENT_NOT_ALLOWED' });
  });

  async function anyOther(): Promise<number> {
    return [...backend.store.state.agents.values()].find(({ name }) => name !== 'trader')?.id as number;
  }

  it.each(agentMethods.filter(([, { input }]) => input.fields.some(({ name }) => name === 'agents')))(
    'limits an agent token in %s to requests in which every agent is permitted',
    async (_, method) => {
      const outcome = await rawCaller(backend.port)(method, {
        token: tokens.get('agent'),
        json: { agents: [ownAgent, { name: 'market_analyst' }] },
      });
      expect(outcome).toMatchObject({ code: 'PERMISSION_DENIED', reason: 'AGENT_NOT_ALLOWED' });
    },
  );

  it('hides the names of other agents from an agent token', async () => {
    const { text } = await grant(backend.store, { role: 'ROLE_AGENT', agents: ['market_analist'] });
    const [, method] = cases.find(([name]) => name.endsWith('/ResolveConfig')) as (typeof cases)[number];
    const json = { agent: { name: 'market_analist' } };
    const [agentOutcome, adminOutcome] = await Promise.all(
      [text, tokens.get('admin')].map((token) => rawCaller(backend.port)(method, { token, json })),
    );
    expect(agentOutcome).toMatchObject({ code: 'NOT_FOUND', reason: 'AGENT_NOT_FOUND' });
    expect(agentOutcome?.message).not.toContain('market_analyst');
    expect(adminOutcome?.message).toContain('market_analyst');
  });

  it.each(roles)('reports the role and permissions of the token of role %s in GetCaller', async (role) => {
    const [, method] = cases.find(([name]) => name === 'AccessService/GetCaller') as (typeof cases)[number];
    const { bytes } = await rawCaller(backend.port)(method, { token: tokens.get(role) });
    const caller = GetCallerResponse.decode(bytes as Buffer);
    expect(caller.role).toBe(roleOf(role));
    expect(caller.actor).toMatch(/^token:al_[a-z2-7]{10}$/);
    expect(caller.agents).toEqual(role === 'agent' ? ['trader'] : []);
    const expected = Object.entries(allowedRoles).flatMap(([permission, names]) =>
      names.split(' ').includes(role) ? [permission] : [],
    );
    expect([...caller.permissions].sort()).toEqual(expected.sort());
  });
});
