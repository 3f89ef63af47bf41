import type { DescMethod, JsonObject } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { GetCallerResponse, type Role } from '../../../gen/ts/agentllm/v1/access_service.js';
import { Permission } from '../../../gen/ts/agentllm/v1/options.js';
import { contract, grant, methods, type Outcome, pathOf, rawCaller } from '../../support/access.js';
import { startBackend, type TestBackend } from '../../support/store.js';

/*
 * Every method by every role. What each role may do is written down here once more, by permission and in words of the
 * design, so that neither the table of the product nor an option in the contract can move alone.
 */

const ADMIN = 'admin';
const OPERATOR = 'admin operator';
const VIEWER = 'admin operator viewer';
const AGENT = 'admin agent';
const EVERYBODY = 'admin operator viewer agent';

const whoMay: Readonly<Record<Exclude<Permission, 'PERMISSION_UNSPECIFIED' | 'UNRECOGNIZED'>, string>> = {
  PERMISSION_AGENTS_READ: VIEWER,
  PERMISSION_AGENTS_WRITE: OPERATOR,
  PERMISSION_CONFIGS_READ: VIEWER,
  PERMISSION_CONFIGS_WRITE: OPERATOR,
  PERMISSION_RESOLVE: EVERYBODY,
  PERMISSION_CATALOGUE_READ: VIEWER,
  PERMISSION_CATALOGUE_WRITE: OPERATOR,
  PERMISSION_CREDENTIALS_READ: VIEWER,
  PERMISSION_CREDENTIALS_WRITE: OPERATOR,
  PERMISSION_CHECK: OPERATOR,
  PERMISSION_WATCH: EVERYBODY,
  PERMISSION_WATCHERS_READ: VIEWER,
  PERMISSION_HISTORY_READ: VIEWER,
  PERMISSION_AUDIT_READ: VIEWER,
  PERMISSION_ACCESS_READ: ADMIN,
  PERMISSION_ACCESS_WRITE: ADMIN,
  PERMISSION_CALLER_READ: EVERYBODY,
  PERMISSION_LEASE: AGENT,
  PERMISSION_ENCRYPTION_READ: VIEWER,
  PERMISSION_ENCRYPTION_ROTATE: ADMIN,
  PERMISSION_ENDPOINTS_WRITE: ADMIN,
  PERMISSION_METRICS_READ: VIEWER,
};
const CLOSED_TO_NOBODY = ['PERMISSION_LEASE', 'PERMISSION_ACCESS_READ', 'PERMISSION_ACCESS_WRITE'];

const roles = ['admin', 'operator', 'viewer', 'agent'] as const;
const roleOf = (name: string) => `ROLE_${name.toUpperCase()}` as Role;
const permissionOf = (method: DescMethod) => contract.rule(pathOf(method)).permission as keyof typeof whoMay;
const refused = ({ code }: Outcome) => code === 'PERMISSION_DENIED' || code === 'UNAUTHENTICATED';
const cases = methods.map((method) => [`${method.parent.name}/${method.name}`, method] as const);

let backend: TestBackend;
const tokens = new Map<string, string>();

beforeAll(async () => {
  backend = await startBackend();
});
afterAll(() => backend.close());

describe('without any token, on this machine', () => {
  it.each(cases)('%s is open unless it gives out keys or access', async (_, method) => {
    const outcome = await rawCaller(backend.port)(method);
    if (CLOSED_TO_NOBODY.includes(permissionOf(method)))
      expect(outcome).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_REQUIRED' });
    else expect(refused(outcome)).toBe(false);
  });

  it('a token that nobody made is refused all the same', async () => {
    const [, method] = cases.find(([name]) => name === 'AgentService/ListAgents') as (typeof cases)[number];
    const outcome = await rawCaller(backend.port)(method, { token: 'al_aaaaaaaaaa_wrong' });
    expect(outcome).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_UNKNOWN' });
  });
});

describe('with tokens', () => {
  beforeAll(async () => {
    for (const role of roles) {
      const agents = role === 'agent' ? ['trader'] : [];
      tokens.set(role, (await grant(backend.store, { role: roleOf(role), agents })).text);
    }
  });

  const own: JsonObject = { name: 'trader' };

  /** A request that names an agent in each field of the kind, and the same field with another one. */
  function about(method: DescMethod, agent: JsonObject): JsonObject {
    const fields = method.input.fields.filter(({ message }) => message?.typeName === 'agentllm.v1.AgentRef');
    return Object.fromEntries(
      fields.map(({ jsonName, fieldKind }) => [jsonName, fieldKind === 'list' ? [agent] : agent]),
    );
  }

  it('every permission is somebody’s, and no other than those of the contract are looked at', () => {
    expect(Object.keys(whoMay).sort()).toEqual(
      Object.values(Permission)
        .filter((one) => one !== 'PERMISSION_UNSPECIFIED' && one !== 'UNRECOGNIZED')
        .sort(),
    );
  });

  it.each(cases)('%s needs one', async (_, method) => {
    const outcome = await rawCaller(backend.port)(method, { json: about(method, own) });
    expect(outcome).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_REQUIRED' });
  });

  it.each(cases.flatMap(([name, method]) => roles.map((role) => [role, name, method] as const)))(
    '%s: %s is what its role says',
    async (role, _, method) => {
      const call = rawCaller(backend.port);
      const token = tokens.get(role);
      const outcome = await call(method, { token, json: about(method, own) });
      const allowed = whoMay[permissionOf(method)].split(' ').includes(role);
      if (allowed) expect(refused(outcome), outcome.message).toBe(false);
      else expect(outcome).toMatchObject({ code: 'PERMISSION_DENIED', reason: 'PERMISSION_DENIED' });
      // Nor does it learn more by a request that cannot even be read.
      const garbage = await call(method, { token, bytes: Buffer.from([0xff, 0xff]) });
      expect([garbage.code, garbage.reason]).toEqual(
        allowed ? ['INVALID_ARGUMENT', 'MALFORMED_REQUEST'] : ['PERMISSION_DENIED', 'PERMISSION_DENIED'],
      );
    },
  );

  const aboutAgents = cases.filter(([, method]) => contract.rule(pathOf(method)).agentRefs !== undefined);

  it('there are methods about agents', () => expect(aboutAgents.length).toBeGreaterThanOrEqual(5));

  it.each(aboutAgents)('an agent’s token: %s of its own agent alone', async (_, method) => {
    const call = rawCaller(backend.port);
    const token = tokens.get('agent');
    const traderId = backend.store.state.agentNamed('trader')?.id as number;
    const otherId = backend.store.state.agentNamed('risk_manager')?.id ?? (await anyOther());
    for (const mine of [own, { id: traderId }] as JsonObject[])
      expect(refused(await call(method, { token, json: about(method, mine) }))).toBe(false);
    const notMine: JsonObject[] = [
      { name: 'market_analyst' },
      { name: 'nobody_at_all' },
      { id: otherId },
      { id: 2_000_000_000 },
      {},
    ];
    const answers = new Set<string>();
    for (const other of notMine) {
      const outcome = await call(method, { token, json: about(method, other) });
      expect(outcome, JSON.stringify(other)).toMatchObject({ code: 'PERMISSION_DENIED', reason: 'AGENT_NOT_ALLOWED' });
      answers.add(outcome.message);
    }
    // Whether there is such an agent cannot be told from the answer.
    expect(answers.size).toBe(1);
    expect(await call(method, { token })).toMatchObject({ reason: 'AGENT_NOT_ALLOWED' });
  });

  async function anyOther(): Promise<number> {
    return [...backend.store.state.agents.values()].find(({ name }) => name !== 'trader')?.id as number;
  }

  it.each(aboutAgents.filter(([, { input }]) => input.fields.some(({ name }) => name === 'agents')))(
    'an agent’s token: %s of several only when all of them are its own',
    async (_, method) => {
      const outcome = await rawCaller(backend.port)(method, {
        token: tokens.get('agent'),
        json: { agents: [own, { name: 'market_analyst' }] },
      });
      expect(outcome).toMatchObject({ code: 'PERMISSION_DENIED', reason: 'AGENT_NOT_ALLOWED' });
    },
  );

  it('an agent’s token is not told the names of other agents', async () => {
    const { text } = await grant(backend.store, { role: 'ROLE_AGENT', agents: ['market_analist'] });
    const [, method] = cases.find(([name]) => name.endsWith('/ResolveConfig')) as (typeof cases)[number];
    const json = { agent: { name: 'market_analist' } };
    const [mine, admins] = await Promise.all(
      [text, tokens.get('admin')].map((token) => rawCaller(backend.port)(method, { token, json })),
    );
    expect(mine).toMatchObject({ code: 'NOT_FOUND', reason: 'AGENT_NOT_FOUND' });
    expect(mine?.message).not.toContain('market_analyst');
    expect(admins?.message).toContain('market_analyst');
  });

  it.each(roles)('GetCaller tells %s what it is', async (role) => {
    const [, method] = cases.find(([name]) => name === 'AccessService/GetCaller') as (typeof cases)[number];
    const { bytes } = await rawCaller(backend.port)(method, { token: tokens.get(role) });
    const caller = GetCallerResponse.decode(bytes as Buffer);
    expect(caller.role).toBe(roleOf(role));
    expect(caller.actor).toMatch(/^token:al_[a-z2-7]{10}$/);
    expect(caller.agents).toEqual(role === 'agent' ? ['trader'] : []);
    const expected = Object.entries(whoMay).flatMap(([permission, who]) =>
      who.split(' ').includes(role) ? [permission] : [],
    );
    expect([...caller.permissions].sort()).toEqual(expected.sort());
  });
});
