import { randomUUID } from 'node:crypto';
import { isIP } from 'node:net';
import {
  type DescMethod,
  fromBinary,
  fromJson,
  type JsonObject,
  type JsonValue,
  toBinary,
  toJson,
} from '@bufbuild/protobuf';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createRouter, type Route } from '../../src/http/routes.js';
import { writeTemplate } from '../../src/http/template.js';
import { limits } from '../../src/limits.js';
import { type HttpResponse, send } from '../http/support.js';
import { fakeResolver } from '../providers/fake_resolver.js';
import { contract, grant, methods, pathOf } from '../support/access.js';
import { unique } from '../support/service.js';
import { contents, gapsInLog, replay } from '../support/store.js';
import { fieldOf, invalidJson, messageOf, mutated } from './generate.js';
import { Caller, type CallOptions, responseDefect, startTarget, type Target } from './whole_service.js';

/*
 * Calls every method with requests generated from the contract, so that a method or field which is added later is
 * fuzzed too. FUZZ_RUNS sets the number of runs; a failure prints its seed, with which FUZZ_SEED repeats the run.
 */

const RUNS = Number(process.env['FUZZ_RUNS'] ?? 12);
const SEED = Number(process.env['FUZZ_SEED'] ?? Date.now() % 2 ** 31);
const runs = (share = 1) => ({ numRuns: Math.max(3, Math.round(RUNS * share)), seed: SEED });
const TIMEOUT = 20_000 + RUNS * 2_000;
const DEADLINE_MS = 5_000;

let target: Target;
let caller: Caller;
let admin: string | undefined;
const unhandled: unknown[] = [];
/** How often each method ended with each code. */
const endings = new Map<string, Map<string, number>>();
const onUnhandled = (error: unknown) => void unhandled.push(error);
// No name resolves, so that the generated keys are not sent to real providers.
const unknownNames = new Proxy({}, { get: (_, name) => (isIP(String(name)) ? undefined : { code: 'ENOTFOUND' }) });
const { restore } = fakeResolver(unknownNames);

beforeAll(async () => {
  process.on('unhandledRejection', onUnhandled).on('uncaughtExceptionMonitor', onUnhandled);
  target = await startTarget();
  caller = new Caller(target.grpcPort);
});

afterAll(async () => {
  caller?.close();
  await target?.close();
  restore();
  process.off('unhandledRejection', onUnhandled).off('uncaughtExceptionMonitor', onUnhandled);
});

const methodNamed = (name: string) => methods.find((method) => method.name === name) as DescMethod;
const requestOf = ({ input }: DescMethod, json: JsonObject) =>
  Buffer.from(toBinary(input, fromJson(input, json, { registry: contract.registry })));
const callValid = (name: string, json: JsonObject, options: CallOptions = {}) =>
  caller.call(methodNamed(name), requestOf(methodNamed(name), json), { token: admin, ...options });

/** Creates the resources that the generated requests name, unless an earlier request has deleted them permanently. */
beforeEach(async () => {
  await callValid('CreateAgent', { agent: { name: 'trader', agentType: 'trader' } });
  await callValid('CreateCredential', {
    credential: { name: 'desk', provider: 'openai' },
    apiKey: 'sk-fuzz-0123456789',
  });
  const config = { provider: 'openai', modelName: 'gpt-4o', credentialName: 'desk' };
  await callValid('CreateConfig', { agent: { name: 'trader' }, config });
  await callValid('CreateBudget', { budget: { ...budget, name: 'desk' } });
  await callValid('CreateExperiment', { agent: { name: 'trader' }, experiment: { ...experiment, name: 'model' } });
});

afterEach(async () => {
  expect(unhandled.splice(0)).toEqual([]);
  expect(target.errors.splice(0)).toEqual([]);
  expect(await callValid('ListAgents', { pageSize: 1 })).toMatchObject({ code: 'OK' });
});

const cases = methods.map((method) => [`${method.parent.name}/${method.name}`, method] as const);

const generatedOf = ({ input }: DescMethod) => fc.oneof(messageOf(input, 'plausible'), messageOf(input, 'arbitrary'));
const requestsOf = (method: DescMethod) => {
  const decodable = fc.oneof(
    { arbitrary: nearValidOf(method), weight: 3 },
    { arbitrary: generatedOf(method), weight: 2 },
  );
  return fc.oneof({ arbitrary: decodable, weight: 4 }, { arbitrary: mutated(decodable), weight: 2 });
};

/* Valid requests, for code that only valid requests reach. */

const agent: JsonObject = { name: 'trader' };
const model: JsonObject = { provider: 'openai', modelName: 'gpt-4o' };
const apiKey = 'sk-fuzz-0123456789';
const publicKey = Buffer.alloc(32, 9).toString('base64');
const traders = () => target.store.state.configsOf(target.store.state.agentNamed('trader')?.id ?? 8);
const ids = () => traders().map((config) => config.id);
const id = () => ids().at(-1) ?? 1;
const agentId = () => target.store.state.agentNamed('trader')?.id ?? 8;
const tokenId = () => [...target.store.state.tokensInOrder.after()].at(-1)?.token_id ?? 'al_aaaaaaaaaa';

const examples: Readonly<Record<string, () => JsonObject>> = {
  CreateToken: () => ({ name: 'fuzz', role: 'ROLE_VIEWER' }),
  GetToken: () => ({ id: tokenId() }),
  CreateConfig: () => ({ agent, config: { ...model, temperature: 0.5 } }),
  GetConfig: () => ({ id: id() }),
  UpdateConfig: () => ({ config: { id: id(), temperature: 0.5 } }),
  DeleteConfig: () => ({ id: id() }),
  UpsertPrimaryConfig: () => ({ agent, config: model }),
  BulkAssignConfig: () => ({ agents: [agent], config: { maxTokens: 100 } }),
  ReorderConfigs: () => ({ agent, configIds: ids() }),
  ValidateConfig: () => ({ agent, config: model }),
  CheckConfigHealth: () => ({ id: id() }),
  ResolveConfig: () => ({ agent }),
  GetConfigRevision: () => ({ id: id(), atRevision: String(target.store.state.revision) }),
  RollbackConfig: () => ({ id: id(), toRevision: String(traders().at(-1)?.revision ?? 1) }),
  WatchConfigs: () => ({ agents: [agent] }),
  AcknowledgeRevision: () => ({}),
  CreateAgent: () => ({ agent: { name: unique('fuzz'), agentType: 'analyst' } }),
  GetAgent: () => ({ agent }),
  UpdateAgent: () => ({ agent: { id: agentId(), description: 'fuzzed' } }),
  CreateCredential: () => ({ credential: { name: unique('fuzz'), provider: 'openai' }, apiKey }),
  UpdateCredential: () => ({ credential: { name: 'desk' }, apiKey }),
  LeaseApiKeys: () => ({ agent, publicKey }),
  GetProvider: () => ({ name: 'openai' }),
  CreateProvider: () => ({
    provider: { name: unique('fuzz').toLowerCase(), dialect: 'DIALECT_OPENAI', baseUrl: 'https://llm.example.com/v1' },
  }),
  UpdateProvider: () => ({ provider: { name: 'openai', displayName: 'Fuzzed' } }),
  GetModel: () => ({ provider: 'openai', name: 'gpt-4o' }),
  CreateModel: () => ({ model: { provider: 'openai', name: unique('fuzz') } }),
  UpdateModel: () => ({ model: { provider: 'openai', name: 'gpt-4o', displayName: 'Fuzzed' } }),
  ValidateApiKey: () => ({ provider: 'openai', apiKey }),
  CreateBudget: () => ({ budget: { ...budget, name: unique('fuzz') } }),
  GetBudget: () => ({ name: 'desk' }),
  UpdateBudget: () => ({ budget: { name: 'desk', limitNanoUsd: '2000000000' } }),
  GetBudgetState: () => ({ name: 'desk' }),
  Reserve: () => ({ agent, reservationId: randomUUID() }),
  RecordUsage: () => ({ records: [record()] }),
  QueryUsage: () => range,
  WhatIf: () => ({ ...range, ...otherModel }),
  RepriceUsage: () => ({ ...range, reason: 'fuzz' }),
  SetPrice: () => ({ ...otherModel, price: { validFrom: '2026-01-01T00:00:00Z', inputMicroUsdPerMillion: '1' } }),
  CreateExperiment: () => ({ agent, experiment: { ...experiment, name: unique('fuzz') } }),
  GetExperiment: () => ({ agent, name: 'model' }),
  UpdateExperiment: () => ({ agent, experiment: { name: 'model', hypothesis: 'fuzzed' } }),
  GetResults: () => ({ agent, name: 'model' }),
  RecordOutcome: () => ({
    outcomes: [{ outcomeId: randomUUID(), agent: 'trader', subject: 's', name: 'hit', boolean: true }],
  }),
};

const range = { since: '2026-01-01T00:00:00Z', until: '2026-12-01T00:00:00Z' };
const otherModel = { provider: 'openai', modelName: 'gpt-4o' };
const budget: JsonObject = {
  scope: 'BUDGET_SCOPE_ALL',
  period: 'BUDGET_PERIOD_TOTAL',
  limitNanoUsd: '1000000000000',
  action: 'BUDGET_ACTION_WARN',
};
const experiment: JsonObject = {
  variants: [
    { name: 'now', control: true, weightBasisPoints: 5000 },
    { name: 'cool', weightBasisPoints: 5000, overrides: { temperature: 0.1 } },
  ],
  primaryMetric: { kind: 'EXPERIMENT_METRIC_KIND_COST_PER_CALL' },
};
const record = () => ({
  agent: 'trader',
  attempt: { attemptId: randomUUID(), ...otherModel, startedAt: new Date().toISOString(), usage: { inputTokens: 1 } },
});

/** A valid request with up to two fields that can be invalid. */
function nearValidOf(method: DescMethod): fc.Arbitrary<Buffer> {
  return fc.array(fieldOf(method.input), { maxLength: 2 }).map((extraFields) => {
    const bytes = Buffer.concat([requestOf(method, examples[method.name]?.() ?? {}), ...extraFields]);
    // Re-encoded, because decoders differ in whether a second occurrence of a message field is merged into the first.
    try {
      return Buffer.from(toBinary(method.input, fromBinary(method.input, bytes)));
    } catch {
      return bytes;
    }
  });
}

async function fuzz(method: DescMethod, options: CallOptions, share = 1): Promise<void> {
  const property = fc.asyncProperty(requestsOf(method), async (bytes) => {
    const ending = await caller.call(method, bytes, { deadlineMs: DEADLINE_MS, ...options });
    const counts = endings.get(method.name) ?? new Map<string, number>();
    endings.set(method.name, counts.set(ending.code, (counts.get(ending.code) ?? 0) + 1));
    expect(responseDefect(method, ending)).toBeUndefined();
  });
  await fc.assert(property, runs(share));
}

describe('responseDefect', () => {
  const method = methodNamed('GetAgent');
  const valid = { code: 'NOT_FOUND', message: 'no', bodies: [] } as const;
  it.each([
    ['INTERNAL', { ...valid, code: 'INTERNAL' }],
    ['UNKNOWN', { ...valid, code: 'UNKNOWN' }],
    ['no details', { ...valid, details: undefined }],
    ['empty details', { ...valid, details: Buffer.alloc(0) }],
    ['details larger than 4 KiB', { ...valid, details: Buffer.alloc(3_100) }],
  ] as const)('reports a response with %s', (_, ending) => {
    expect(responseDefect(method, { details: undefined, ...ending })).toEqual(expect.any(String));
  });
});

describe('over gRPC, while the store has no tokens', { timeout: TIMEOUT }, () => {
  it.each(cases)('%s returns a valid response or error for any request', async (_, method) => {
    // The first token would end anonymous access.
    if (method.name !== 'CreateToken') await fuzz(method, {});
  });
});

describe('over gRPC, with an administrator token', { timeout: TIMEOUT }, () => {
  beforeAll(async () => {
    admin = (await grant(target.store, { role: 'ROLE_ADMIN' })).text;
  });

  it.each(cases)('%s returns a valid response or error for any request', (_, method) => fuzz(method, { token: admin }));

  it.each(cases)('%s returns UNAUTHENTICATED for any request without a token', async (_, method) => {
    const property = fc.asyncProperty(requestsOf(method), async (bytes) => {
      const ending = await caller.call(method, bytes, { deadlineMs: DEADLINE_MS });
      expect(ending).toMatchObject({ code: 'UNAUTHENTICATED', bodies: [] });
      expect(responseDefect(method, ending)).toBeUndefined();
    });
    await fc.assert(property, runs(0.3));
  });

  it('the service reads requests of up to 4 MiB and rejects larger ones', async () => {
    const method = methodNamed('ListAgents');
    for (const [bytes, code] of [
      [limits.maxRequestBytes - 16, 'OK'],
      [limits.maxRequestBytes + 1, 'RESOURCE_EXHAUSTED'],
    ] as const) {
      // An unknown field of 4 MiB.
      const head = Buffer.from([0xfa, 0x7f, 0x80, 0x80, 0x80, 0x82, 0x00]);
      head.writeUInt8(0x80 | ((bytes - 7) & 0x7f), 2);
      head.writeUInt8(0x80 | (((bytes - 7) >> 7) & 0x7f), 3);
      head.writeUInt8(0x80 | (((bytes - 7) >> 14) & 0x7f), 4);
      head.writeUInt8(0x80 | (((bytes - 7) >> 21) & 0x7f), 5);
      const request = Buffer.concat([head, Buffer.alloc(bytes - 7)]);
      expect(await caller.call(method, request, { token: admin })).toMatchObject({ code });
    }
  });
});

describe('over HTTP, with an administrator token', { timeout: TIMEOUT }, () => {
  const invoke = () => Promise.reject(new Error('only the routes are used'));
  const served = methods
    .filter(({ methodKind }) => methodKind === 'unary')
    .map((one) => [pathOf(one), invoke] as const);
  const { routes } = createRouter(contract, new Map(served));
  const routeCases = routes.map((route) => [`${route.httpMethod} ${shape(route)}`, route] as const);

  it.each(routeCases)('%s returns a valid response or error for any request of its method', async (_, route) => {
    const property = fc.asyncProperty(
      fc.oneof(nearValidOf(route.method), generatedOf(route.method)),
      fc.boolean(),
      async (bytes, withQuery) => {
        const json = jsonOf(route.method, bytes);
        fc.pre(json !== undefined);
        await sendTo(route, json as JsonObject, undefined, withQuery);
      },
    );
    await fc.assert(property, { ...runs(0.7), maxSkipsPerRun: 1_000 });
  });

  it.each(routeCases)('%s returns a valid response or error for any body', async (_, route) => {
    const property = fc.asyncProperty(invalidJson, fc.string({ unit: 'binary', maxLength: 20 }), (text, value) =>
      sendTo(route, { agent: { name: value, id: value }, id: value, name: value, pageToken: value }, text),
    );
    await fc.assert(property, runs(0.7));
  });

  async function sendTo(route: Route, json: JsonObject, text?: string, withQuery = true): Promise<void> {
    const values = route.variables.map((_, at) => valueAt(json, route.template.variables[at] as string));
    const path = withQuery ? pathWith(route, values) + queryOf(route, json) : pathWith(route, values);
    const body = bodyOf(route, json, text);
    const response = await send(target.httpPort, route.httpMethod, path, {
      ...(body !== undefined && { body }),
      headers: { authorization: `Bearer ${admin}`, 'content-type': 'application/json', 'grpc-timeout': '5S' },
    });
    expect(httpResponseDefect(response)).toBeUndefined();
  }
});

describe('over HTTP, without a token', { timeout: TIMEOUT }, () => {
  it('every path and method is rejected before the body is read', async () => {
    const paths = ['/v1/agents', '/v1/agents/8', '/v1/credentials', '/v1/tokens', '/v1/key-leases', '/v1/encryption'];
    const httpMethods = fc.constantFrom('GET', 'POST', 'PATCH', 'DELETE');
    const property = fc.asyncProperty(httpMethods, fc.constantFrom(...paths), invalidJson, async (verb, path, body) => {
      const headers = { 'content-type': 'application/json' };
      const response = await send(target.httpPort, verb, path, { headers, ...(verb !== 'GET' && { body }) });
      expect([401, 404, 405]).toContain(response.status);
      expect(httpResponseDefect(response)).toBeUndefined();
    });
    await fc.assert(property, runs(3));
  });
});

describe('after the fuzzing', { timeout: TIMEOUT }, () => {
  it('more than 70 % of the methods have returned OK at least once', () => {
    const succeeded = methods.filter(({ name }) => endings.get(name)?.has('OK')).length;
    if (process.env['FUZZ_TALLY']) console.table(tally());
    expect(succeeded).toBeGreaterThan(methods.length * 0.7);
  });

  it('the change log replays to the state in memory and has no gaps', async () => {
    expect(target.store.state.revision).toBeGreaterThan(100);
    const replayed = await replay(target.database);
    expect(contents(replayed)).toEqual(contents(target.store.state));
    for (const rows of ['credentialsInOrder', 'tokensInOrder'] as const)
      expect([...replayed[rows].after()]).toEqual([...target.store.state[rows].after()]);
    expect(await gapsInLog(target.database)).toEqual([]);
  });
});

/** The counts for a table that shows the coverage of the fuzzing (FUZZ_TALLY). */
const tally = () => Object.fromEntries([...endings].map(([name, counts]) => [name, Object.fromEntries(counts)]));

/* Conversion of generated requests to HTTP requests with JSON. */

function shape({ template, variables }: Route): string {
  return writeTemplate(
    template,
    variables.map((_, at) => template.variables[at] as string),
  );
}

/** The request in JSON; undefined when JSON cannot represent it. */
function jsonOf({ input }: DescMethod, bytes: Buffer): JsonObject | undefined {
  try {
    return toJson(input, fromBinary(input, bytes), { registry: contract.registry }) as JsonObject;
  } catch {
    return undefined;
  }
}

const camel = (name: string) => name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());

function valueAt(json: JsonObject, path: string): string {
  let at: JsonValue | undefined = json;
  for (const name of path.split('.')) at = (at as JsonObject | undefined)?.[camel(name)];
  return at === undefined ? '7' : String(at);
}

/** The path with values for its variables. Node rejects lone surrogates, and a variable matches no empty segment. */
function pathWith({ template: { parts } }: Route, values: readonly string[]): string {
  const remaining = values.map((value) => encodeURIComponent(value.slice(0, 2_000).toWellFormed()) || '%20');
  return parts.map((part) => part ?? `/${remaining.shift()}`).join('');
}

function queryOf({ body, httpMethod }: Route, json: JsonObject): string {
  if (body === '*' || httpMethod === 'POST') return '';
  const pairs = Object.entries(json).flatMap(([name, value]) =>
    value !== null && typeof value === 'object' && !Array.isArray(value)
      ? Object.entries(value).map(([inner, one]) => [`${name}.${inner}`, one] as const)
      : ([value].flat() as JsonValue[]).slice(0, 50).map((one) => [name, one] as const),
  );
  const text = pairs.map(
    ([name, value]) => `${name}=${encodeURIComponent(String(value).slice(0, 2_000).toWellFormed())}`,
  );
  return text.length > 0 ? `?${text.join('&').slice(0, 8_000)}` : '';
}

function bodyOf({ body }: Route, json: JsonObject, text: string | undefined): string | undefined {
  if (body === '') return undefined;
  return text ?? JSON.stringify(body === '*' ? json : (json[camel(body)] ?? {}));
}

/** The HTTP statuses of the contract's codes, without those of INTERNAL and UNKNOWN. */
const STATUSES = [200, 400, 401, 403, 404, 405, 409, 413, 415, 421, 429, 431, 501, 503, 504];

function httpResponseDefect({ status, text, headers }: HttpResponse): string | undefined {
  if (!STATUSES.includes(status)) return `HTTP ${status}: ${text.slice(0, 500)}`;
  // Node rejects headers that are too long, without a body.
  if (status === 431 || status === 200) return undefined;
  if (!/^application\/json/.test(String(headers['content-type'])))
    return `HTTP ${status} as ${headers['content-type']}`;
  const { error } = JSON.parse(text) as { error: { code: number; message: string; details: JsonObject[] } };
  if (error.code !== status || error.message === '') return `HTTP ${status}: ${text.slice(0, 500)}`;
  return Buffer.byteLength(text) > 2 * limits.maxStatusBytes ? `HTTP ${status} in ${text.length} bytes` : undefined;
}
