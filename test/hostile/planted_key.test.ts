import { execFile } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { type DescMethod, fromJson, type JsonObject, toBinary } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { CreateTokenResponse } from '../../gen/ts/agentllm/v1/access_service.js';
import { AgentLLMConfig } from '../../gen/ts/agentllm/v1/agent_llm_config.js';
import { CreateConfigResponse } from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { LeaseApiKeysResponse } from '../../gen/ts/agentllm/v1/credential_service.js';
import { connect as connectClient } from '../../src/client/index.js';
import { generateKey } from '../../src/domain/fernet.js';
import { makeLeaseKeyPair, openSealedKey } from '../../src/domain/lease.js';
import { openDatabase } from '../../src/store/database.js';
import { frame, rawCall } from '../grpc/http2_client.js';
import { send } from '../http/support.js';
import { type Handler, startFakeProvider } from '../providers/fake_provider.js';
import { contract, methods } from '../support/access.js';
import { agentllm, startCommand, useDirectories } from '../support/command.js';
import { findPgTools } from '../support/pg_tools.js';
import { startPostgres } from '../support/postgres.js';
import { connectPg } from '../support/sql.js';
import { formsOf, Scanner } from './scanner.js';
import { Caller, type CallOptions, type Ending } from './whole_service.js';

/*
 * Keys with a mark in them go through everything that a key can go through, and then the mark is looked for everywhere:
 * fault row 39. The service is a process of its own, so that its log is the real one.
 */

const mark = (what: string) => `CANARY${randomBytes(9).toString('hex')}${what}`;
const MARKS = {
  own: mark('own'),
  replaced: mark('replaced'),
  credential: mark('credential'),
  adhoc: mark('adhoc'),
  environment: mark('environment'),
  refused: mark('refused'),
  bearer: mark('bearer'),
};
const key = (which: keyof typeof MARKS) => `sk-${MARKS[which]}`;
const OLD_KEY = generateKey();
const NEW_KEY = generateKey();
const AGENT = 'planted_agent';
const AGENT_REF = { name: AGENT };
const directories = useDirectories();

/** A provider that puts the key that it was given wherever it can, and lets it pass. */
const echo: Handler = (request, response) => {
  const given = String(request.headers['authorization'] ?? '').replace('Bearer ', '');
  const failing = given.includes('adhoc');
  response.writeHead(failing ? 401 : 200, {
    'content-type': 'application/json',
    'x-request-id': given,
    'retry-after': given,
    'www-authenticate': given,
  });
  const data = [{ id: 'gpt-4o' }, { id: given }];
  response.end(
    JSON.stringify(failing ? { error: { message: given, code: given, type: given } } : { object: 'list', data }),
  );
};

describe('the scanner', () => {
  const secret = 'CANARY0123456789abcdef';
  const scan = (content: string | Buffer) => {
    const scanner = new Scanner({ secret });
    scanner.look('a place', content);
    return scanner.finds.length > 0;
  };

  it.each(formsOf(secret).map(({ about, bytes }) => [about, bytes] as const))('finds the mark %s', (_, bytes) => {
    expect(scan(Buffer.concat([Buffer.from('before '), bytes, Buffer.from(' behind')]))).toBe(true);
  });

  it.each([0, 1, 2, 3, 4, 5])('finds it in base64 of something longer, %i bytes before it', (before) => {
    for (const behind of [0, 1, 2]) {
      const whole = Buffer.from(`${'\u0001'.repeat(before)}${secret}${'~'.repeat(behind)}`);
      for (const encoding of ['base64', 'base64url', 'hex'] as const) expect(scan(whole.toString(encoding))).toBe(true);
      expect(scan(Buffer.from(whole.toString('base64')).toString('base64'))).toBe(true);
    }
  });

  it('finds it in packed files, in capitals, and in names of files', () => {
    expect(scan(gzipSync(`x ${secret} y`))).toBe(true);
    expect(scan(Buffer.concat([Buffer.from('a head\n'), gzipSync(secret)]))).toBe(true);
    expect(scan(secret.toUpperCase())).toBe(true);
    const directory = mkdtempSync(join(tmpdir(), 'agentllm-scan-'));
    onTestFinished(() => rmSync(directory, { recursive: true }));
    writeFileSync(join(directory, secret), '');
    writeFileSync(
      join(directory, 'page'),
      Buffer.concat([randomBytes(9_000), Buffer.from(secret), randomBytes(9_000)]),
    );
    const scanner = new Scanner({ secret });
    scanner.lookInto('files', directory);
    expect(scanner.finds.map(({ place }) => place.replace(/\/.*\//, ''))).toEqual(
      expect.arrayContaining([expect.stringContaining(`name ${secret}`), expect.stringContaining('page')]),
    );
  });

  it('finds nothing where there is nothing', () => {
    expect(scan(randomBytes(200_000))).toBe(false);
    expect(scan(secret.slice(0, -1))).toBe(false);
  });
});

/** Calls methods of a service, and lets a scanner see all that comes back. */
class Witness {
  token: string | undefined;
  readonly codes = new Map<string, Set<string>>();

  constructor(
    private readonly caller: Caller,
    private readonly scanner: Look,
  ) {}

  async call(name: string, json: JsonObject = {}, options: CallOptions = {}): Promise<Ending> {
    const method = methods.find((one) => one.name === name) as DescMethod;
    const bytes = Buffer.from(toBinary(method.input, fromJson(method.input, json, { registry: contract.registry })));
    const ending = await this.caller.call(method, bytes, { token: this.token, ...options });
    this.codes.set(name, (this.codes.get(name) ?? new Set()).add(ending.code));
    this.see(`gRPC: ${name}`, ending);
    return ending;
  }

  /** A call that must be answered, with its bytes. */
  async done(name: string, json: JsonObject = {}, options: CallOptions = {}): Promise<Buffer> {
    const { code, message, bodies } = await this.call(name, json, options);
    if (code !== 'OK') throw new Error(`${name}: ${code} ${message}`);
    return bodies.at(-1) ?? Buffer.alloc(0);
  }

  async refused(name: string, json: JsonObject, options: CallOptions = {}): Promise<void> {
    const { code } = await this.call(name, json, options);
    expect([name, code]).not.toEqual([name, 'OK']);
  }

  see(place: string, { message, details, bodies }: Ending): void {
    // What CreateToken gives out once is the one secret in an answer.
    if (place === 'gRPC: CreateToken') return;
    for (const part of [message, details, ...bodies]) if (part !== undefined) this.scanner.look(place, part);
  }
}

describe.each(['embedded', 'postgres'] as const)('a key that was planted, on %s', { timeout: 240_000 }, (backend) => {
  const tools = backend === 'postgres' ? findPgTools() : '';
  let database: Readonly<Record<string, string>>;
  let stopDatabase = async () => {};
  beforeAll(async () => {
    if (backend === 'embedded') return;
    const postgres = typeof tools === 'string' ? await startPostgres() : await tools.start();
    stopDatabase = () => postgres.stop();
    database = { DATABASE_URL: await postgres.createDatabase() };
  });
  afterAll(() => stopDatabase());

  it('is nowhere but where it was sent to', async () => {
    if (backend === 'embedded') database = { DATA_DIR: await directories.started() };
    const fake = await startFakeProvider('openai');
    fake.on('*', echo);
    const environment = {
      ...database,
      LOG_LEVEL: 'trace',
      HTTP_ADDRESS: '127.0.0.1:0',
      PROVIDER_ALLOW_CIDRS: '127.0.0.0/8',
      PROVIDER_ALLOW_KEY_VARS: 'MINE_API_KEY',
      MINE_API_KEY: key('environment'),
      OPENAI_API_KEY: `${key('environment')} with a space`,
      POLL_INTERVAL_MS: '50',
    };
    const scanner = new Scanner({
      ...MARKS,
      'the old encryption key': OLD_KEY.replace(/=+$/, ''),
      'the new encryption key': NEW_KEY.replace(/=+$/, ''),
    });
    // The search itself is searched: what stands in a plain field is found wherever that field goes.
    const plain = mark('plain');
    const control = new Scanner({ plain });
    const look: Look['look'] = (place, content) => {
      for (const one of [scanner, control]) one.look(place, content);
    };
    const seen: Look = { look };
    const workplace = await directories();
    const first = await startCommand({ ...environment, ENCRYPTION_KEY: OLD_KEY });
    const caller = new Caller(first.port);
    const witness = new Witness(caller, seen);

    // An admin, whose token is a secret of its own.
    const made = await makeAdmin(witness, backend, environment);
    witness.token = made.text;
    const secrets = new Scanner({ 'the secret of a token': made.text.slice(14) });
    const both = {
      look: (place: string, content: string | Uint8Array) =>
        void [seen, secrets].map((one) => one.look(place, content)),
    };

    // Somebody watches all of it.
    const watching = new Caller(first.port);
    const watched = watching.call(named('WatchConfigs'), requestOf('WatchConfigs', { allAgents: true }), {
      token: made.text,
      deadlineMs: 600_000,
      most: Number.POSITIVE_INFINITY,
    });

    // Stored, replaced, replayed.
    await witness.done('CreateProvider', {
      provider: {
        name: 'mine',
        dialect: 'DIALECT_OPENAI',
        baseUrl: fake.provider.base_url,
        apiKeyEnvVars: ['MINE_API_KEY'],
      },
    });
    await witness.done('CreateCredential', { credential: { name: 'desk', provider: 'mine' }, apiKey: key('replaced') });
    await witness.done('UpdateCredential', {
      credential: { name: 'desk' },
      apiKey: key('credential'),
      reason: 'a key',
    });
    await witness.done('CreateAgent', { agent: { name: AGENT, agentType: 'analyst', description: plain } });
    const model = { provider: 'mine', modelName: 'gpt-4o' };
    const again = {
      agent: AGENT_REF,
      config: model,
      allowUnknownModel: true,
      apiKey: key('replaced'),
      requestId: randomUUID(),
    };
    const { config } = CreateConfigResponse.decode(await witness.done('CreateConfig', again));
    const { id } = AgentLLMConfig.fromPartial(config ?? {});
    await witness.done('CreateConfig', again);
    await witness.refused('CreateConfig', { ...again, apiKey: key('refused') });
    await witness.done('UpdateConfig', { config: { id }, apiKey: key('own'), reason: 'a key' });
    const shared = { agent: AGENT_REF, config: { ...model, credentialName: 'desk' }, allowUnknownModel: true };
    await witness.done('CreateConfig', shared);
    await witness.done('CreateConfig', {
      agent: AGENT_REF,
      config: model,
      allowUnknownModel: true,
      validateOnly: true,
      apiKey: key('own'),
    });

    // Used.
    await witness.done('CheckConfigHealth', { id });
    await witness.done('ValidateApiKey', { provider: 'mine', apiKey: key('adhoc'), modelName: 'gpt-4o' });
    expect(JSON.stringify(fake.seen)).toContain(key('own'));
    expect(JSON.stringify(fake.seen)).toContain(key('adhoc'));

    await refuseAll(witness, first, made.text, id, scanner);
    await leaseAll(witness, id);

    // A process that holds it all, and what it keeps.
    const cache = join(workplace, 'held');
    await holdAll(first.port, made.text, cache);
    look('cache of a client', readFileSync(cache));

    await askCommandLine(first.port, made.text, id, both);
    await askAll(witness, id);
    await askHttp(first, made.text, both);
    await askReflection(first.port, made.text, both);

    // Rotated, with the new key first.
    first.child.kill('SIGTERM');
    const firstEnd = await first.ended;
    both.look('log: of the first', firstEnd.stdout + firstEnd.stderr);
    watching.close();
    for (const body of (await watched).bodies) both.look('stream', body);
    expect((await watched).bodies.length).toBeGreaterThan(5);
    caller.close();
    if (backend === 'embedded') scanner.lookInto('files', database['DATA_DIR'] as string);

    const second = await startCommand({ ...environment, ENCRYPTION_KEY: `${NEW_KEY},${OLD_KEY}` });
    const rotating = new Caller(second.port);
    const later = new Witness(rotating, seen);
    later.token = made.text;
    await later.done('RotateEncryptionKey', {}, { most: Number.POSITIVE_INFINITY });
    const revisions = await later.done('ListConfigRevisions', { configId: id });
    expect(revisions.length).toBeGreaterThan(100);
    await later.done('UpdateConfig', { config: { id, temperature: 0.5 } });
    await later.call('RollbackConfig', { id, toRevision: String(config?.revision ?? 1) });
    await later.done('GetEncryptionStatus');
    await leaseAll(later, id);
    await later.done('DeleteConfig', { id });
    await askAll(later, id);
    await askCommandLine(second.port, made.text, id, both);
    if (backend === 'embedded') {
      const backup = join(workplace, 'backup');
      const ended = await agentllm(['backup', backup], { ...environment, ENCRYPTION_KEY: NEW_KEY }).ended;
      expect(ended.code, ended.stderr).toBe(0);
      both.look('backup', readFileSync(backup));
    } else if (typeof tools !== 'string') {
      const dump = await promisify(execFile)(join(tools.bin, 'pg_dump'), [database['DATABASE_URL'] as string], {
        maxBuffer: 1e9,
      });
      both.look('backup', dump.stdout);
    }
    second.child.kill('SIGTERM');
    const secondEnd = await second.ended;
    both.look('log: of the second', secondEnd.stdout + secondEnd.stderr);
    rotating.close();

    // At rest.
    if (backend === 'embedded') {
      for (const one of [scanner, secrets, control]) one.lookInto('files', database['DATA_DIR'] as string);
      both.look('files: of a client', readFileSync(cache));
    }
    for (const row of await allRows(backend, database)) both.look('rows', row);

    expect(scanner.report).toEqual([]);
    expect(secrets.report).toEqual([]);
    // The search had something to look through.
    const least: Record<string, number> = {
      gRPC: 50_000,
      HTTP: 50_000,
      log: 50_000,
      rows: 100_000,
      stream: 500,
      CLI: 10_000,
      'cache of a client': 200,
    };
    for (const [kind, bytes] of Object.entries(least))
      expect([kind, scanner.searched.get(kind)]).toEqual([kind, expect.toSatisfy((n) => n > bytes)]);
    if (backend === 'embedded') expect(scanner.searched.get('files')).toBeGreaterThan(10_000_000);
    // What is no secret was found in every one of them, but not where all is encrypted.
    const found = new Set(control.finds.map(({ place }) => place.split(':')[0]));
    const kinds = ['gRPC', 'HTTP', 'CLI', 'stream', 'rows', ...(scanner.searched.has('backup') ? ['backup'] : [])];
    expect([...found].filter((kind) => kind !== 'files').sort()).toEqual(kinds.sort());
    expect(found.has('files')).toBe(backend === 'embedded');
    // And every method was called.
    const called = new Set([...witness.codes.keys(), ...later.codes.keys(), 'WatchConfigs']);
    expect(methods.map(({ name }) => name).filter((name) => !called.has(name))).toEqual([]);
    // And that the log would have shown it: a line of each call is there.
    expect(firstEnd.stderr).toContain('LeaseApiKeys');
    expect(firstEnd.stderr).toContain('ValidateApiKey');
  });
});

const named = (name: string) => methods.find((one) => one.name === name) as DescMethod;
const requestOf = (name: string, json: JsonObject): Buffer => {
  const { input } = named(name);
  return Buffer.from(toBinary(input, fromJson(input, json, { registry: contract.registry })));
};

/** The first token, by the way that there is for it: the command line. */
async function makeAdmin(
  witness: Witness,
  backend: string,
  env: Readonly<Record<string, string>>,
): Promise<{ text: string }> {
  const { code, stdout, stderr } = await agentllm(
    ['token', 'create', '--local', '--name', 'first', '--role', 'admin', '--json'],
    env,
  ).ended;
  expect([backend, code], stderr).toEqual([backend, 0]);
  const [text = ''] = /al_[a-z2-7]{10}_[\w-]{43}/.exec(stdout) ?? [];
  expect(stderr).not.toContain(text);
  await expect.poll(async () => (await witness.call('GetCaller', {}, { token: text })).code).toBe('OK');
  // One more, by the method: its text stands in that answer and nowhere else.
  const json = { name: 'second', role: 'ROLE_ADMIN', requestId: randomUUID() };
  const made = CreateTokenResponse.decode(await witness.done('CreateToken', json, { token: text }));
  expect(made.text).toMatch(/^al_[a-z2-7]{10}_[\w-]{43}$/);
  const replay = CreateTokenResponse.decode(await witness.done('CreateToken', json, { token: text }));
  expect([replay.token?.id, replay.text]).toEqual([made.token?.id, '']);
  return { text: made.text };
}

/** Requests with a key in them that are refused, for every reason that there is: what is said does not have it. */
async function refuseAll(
  witness: Witness,
  { says }: Awaited<ReturnType<typeof startCommand>>,
  token: string,
  id: number,
  scanner: Scanner,
): Promise<void> {
  const apiKey = key('refused');
  const takers = methods.filter(({ input }) => input.fields.some(({ name }) => name === 'api_key'));
  expect(takers.length).toBeGreaterThan(5);
  for (const { name } of takers)
    for (const json of [
      { apiKey },
      { apiKey: `${apiKey} ${apiKey}` },
      { apiKey: `${apiKey}\n` },
      { apiKey: apiKey.repeat(20) },
    ])
      await witness.refused(name, json);
  for (const credential of [
    { name: 'desk', provider: 'mine' },
    { name: 'other', provider: 'nobody' },
  ])
    await witness.refused('CreateCredential', { credential, apiKey });
  await witness.refused('UpdateCredential', { credential: { name: 'desk', etag: 'W/"stale"' }, apiKey });
  await witness.refused('UpdateCredential', { credential: { name: 'nobody' }, apiKey });
  await witness.refused('UpdateConfig', { config: { id, etag: 'stale' }, apiKey });
  await witness.refused('UpdateConfig', { config: { id, temperature: 9 }, apiKey });
  await witness.refused('UpdateConfig', { config: { id }, apiKey, clearApiKey: true });
  await witness.refused('UpdateConfig', { config: { id: 2_000_000_000 }, apiKey });
  await witness.refused('ValidateApiKey', { provider: 'nobody', apiKey });
  await witness.refused('ValidateApiKey', { provider: 'mine', apiKey }, { deadlineMs: 1 });
  // A key in the place of a token.
  for (const bearer of [key('bearer'), `al_aaaaaaaaaa_${MARKS.bearer}`, `${MARKS.bearer}_x`])
    await witness.refused('ListAgents', {}, { token: bearer });
  // Over HTTP there are more ways to say it wrong.
  const http = Number((await says(/HTTP {6}[^:\s]+:(\d+)/))[1]);
  const authorization = `Bearer ${token}`;
  const headers = { authorization, 'content-type': 'application/json' };
  const path = '/v1/providers/mine:validateApiKey';
  for (const body of [
    `{"apiKey": "${apiKey}"`,
    `{"apiKey": "${apiKey}", "apiKey": "${apiKey}"}`,
    `{"apiKey": ["${apiKey}"]}`,
    `{"apiKey": {"x":"${apiKey}"}}`,
    `{"api_key": "${apiKey}", "apiKey": "${apiKey}"}`,
    `{"apiKye": "${apiKey}"}`,
    `"${apiKey}"`,
    apiKey,
  ]) {
    const answer = await send(http, 'POST', path, { body, headers });
    expect([body.slice(0, 12), answer.status]).toEqual([body.slice(0, 12), 400]);
    scanner.look('HTTP: refused', answer.text + JSON.stringify(answer.headers));
  }
  for (const [verb, target, more] of [
    ['GET', `/v1/agents?apiKey=${apiKey}`, headers],
    ['GET', `/v1/agents?pageToken=${apiKey}`, headers],
    ['POST', `${path}?apiKey=${apiKey}`, headers],
    ['GET', '/v1/agents', { authorization: `Bearer ${key('bearer')}` }],
    ['GET', '/v1/agents', { authorization: key('bearer') }],
    ['GET', '/v1/agents', { authorization: `Basic ${Buffer.from(`x:${key('bearer')}`).toString('base64')}` }],
    ['GET', '/metrics', { authorization: `Bearer ${key('bearer')}` }],
    ['GET', '/v1/agents', { ...headers, 'x-api-key': apiKey, cookie: apiKey, origin: `http://${apiKey}.example` }],
  ] as const) {
    const answer = await send(http, verb, target, { headers: more });
    expect([target.slice(0, 20), answer.status]).toEqual([target.slice(0, 20), expect.toBeOneOf([400, 401, 403])]);
    scanner.look('HTTP: refused', answer.text + JSON.stringify(answer.headers));
  }
}

/** Leases the keys, and opens them: they are the ones, and what travels does not show them. */
async function leaseAll(witness: Witness, id: number): Promise<void> {
  const pair = await makeLeaseKeyPair();
  const publicKey = Buffer.from(pair.publicKey).toString('base64');
  const { leases } = LeaseApiKeysResponse.decode(await witness.done('LeaseApiKeys', { agent: AGENT_REF, publicKey }));
  const opened = await Promise.all(
    leases.map(({ lifetime, ...of }) => {
      const lifetime_ms = Number(lifetime?.seconds) * 1000 + (lifetime?.nanos ?? 0) / 1e6;
      return openSealedKey(pair, of, { ...of, lifetime_ms });
    }),
  );
  expect(leases.map(({ config_id }) => config_id)).toContain(id);
  expect(opened).toContain(key('credential'));
  expect(opened.some((one) => one === key('own') || one === key('replaced'))).toBe(true);
}

async function holdAll(port: number, token: string, path: string): Promise<void> {
  const cache = { path, key: 'a secret of the process' };
  const client = connectClient({ address: `127.0.0.1:${port}`, agents: 'all', token, cache });
  await client.ready();
  const resolved = await client.agent(AGENT).resolve();
  expect(resolved).toBeDefined();
  await sleep(300);
  await client[Symbol.asyncDispose]();
}

type Look = Pick<Scanner, 'look'>;

/** What the command line prints, about everything. */
async function askCommandLine(port: number, token: string, id: number, scanner: Look): Promise<void> {
  const env = { AGENTLLM_ADDRESS: `127.0.0.1:${port}`, AGENTLLM_TOKEN: token };
  const asked: readonly (readonly [string[], string?])[] = [
    [['agents', 'list']],
    [['agents', 'get', AGENT]],
    [['configs', 'list']],
    [['configs', 'get', String(id)]],
    [['configs', 'primary', AGENT]],
    [['configs', 'health', '--all']],
    [['resolve', AGENT]],
    [['history']],
    [['history', String(id)]],
    [['audit']],
    [['watchers']],
    [['credentials', 'list']],
    [['credentials', 'get', 'desk']],
    [['credentials', 'update', 'desk', '--api-key'], key('credential')],
    [['credentials', 'create', 'desk', '--provider', 'mine'], key('refused')],
    [['key', 'status']],
    [['token', 'list']],
    [['providers', 'list']],
    [['models', 'list', '--provider', 'openai']],
  ];
  const ends = await inTwos(asked, async ([args, stdin]) => {
    const ended = await agentllm([...args, '--json'], env, stdin === undefined ? {} : { stdin }).ended;
    scanner.look(`CLI: ${args.join(' ')}`, ended.stdout + ended.stderr);
    return [args.join(' '), ended.code, ended.stderr.slice(0, 200)] as const;
  });
  // Most of them are sound; which ones are refused depends on what was deleted by then.
  expect(ends.filter(([, code]) => code === 2)).toEqual([]);
  expect(ends.filter(([, code]) => code === 0).length).toBeGreaterThan(asked.length / 2);
}

/** Two at a time: each is a process, and there are two cores. */
async function inTwos<T, R>(all: readonly T[], run: (one: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (let at = 0; at < all.length; at += 2) results.push(...(await Promise.all(all.slice(at, at + 2).map(run))));
  return results;
}

/** Every method of the contract that is not about to take something away, with what it needs to answer. */
async function askAll(witness: Witness, id: number): Promise<void> {
  const known: Readonly<Record<string, JsonObject>> = {
    GetAgent: { agent: AGENT_REF },
    GetConfig: { id },
    GetPrimaryConfig: { agent: AGENT_REF },
    BatchGetPrimaryConfigs: { agents: [AGENT_REF] },
    ListConfigs: { agent: AGENT_REF },
    ResolveConfig: { agent: AGENT_REF },
    ValidateConfig: { agent: AGENT_REF, config: { provider: 'mine', modelName: 'gpt-4o' } },
    GetCredential: { name: 'desk' },
    GetProvider: { name: 'mine' },
    GetModel: { provider: 'openai', name: 'gpt-4o' },
    CheckConfigHealth: { id },
    ListConfigRevisions: { configId: id },
    GetConfigRevision: { id, atRevision: '5' },
    UpdateAgent: { agent: { name: AGENT, agentType: 'planter' } },
    UpdateProvider: { provider: { name: 'mine', displayName: 'Mine' } },
    DeleteCredential: { name: 'nobody' },
    DeleteProvider: { name: 'mine' },
    BulkAssignConfig: { agents: [AGENT_REF], config: { temperature: 0.5 }, apiKey: key('own'), validateOnly: true },
    UpsertPrimaryConfig: { agent: AGENT_REF, config: { temperature: 0.4 }, apiKey: key('own'), validateOnly: true },
    ListTokens: { showEnded: true },
    LeaseApiKeys: { agent: { name: 'nobody' }, publicKey: Buffer.alloc(32, 9).toString('base64') },
    RotateEncryptionKey: {},
  };
  for (const { name, methodKind, input } of methods) {
    if (name === 'WatchConfigs') await witness.call(name, { agents: [AGENT_REF] }, { most: 4 });
    else await witness.call(name, known[name] ?? {});
    // All pages of all lists, as far as they say something.
    if (methodKind === 'unary' && input.fields.some((field) => field.name === 'page_size'))
      await witness.call(name, { ...known[name], pageSize: 1000 });
  }
}

/** Every page, and every list, over HTTP. */
async function askHttp(
  { says }: Awaited<ReturnType<typeof startCommand>>,
  token: string,
  scanner: Look,
): Promise<void> {
  const port = Number((await says(/HTTP {6}[^:\s]+:(\d+)/))[1]);
  const headers = { authorization: `Bearer ${token}` };
  const openapi = await send(port, 'GET', '/openapi.json', { headers });
  const lists = Object.keys(openapi.json['paths'] as JsonObject).filter((path) => !path.includes('{'));
  expect(lists.length).toBeGreaterThan(8);
  for (const path of ['/metrics', '/healthz', '/readyz', '/openapi.json', '/nothing', ...lists]) {
    const answer = await send(port, 'GET', path, { headers });
    scanner.look(`HTTP: ${path}`, answer.text + JSON.stringify(answer.headers));
  }
}

async function askReflection(port: number, token: string, scanner: Look): Promise<void> {
  for (const version of ['v1', 'v1alpha'])
    for (const symbol of [
      'agentllm.v1.CredentialService',
      'agentllm.v1.AccessService',
      'agentllm.v1.ProviderService',
    ]) {
      const name = Buffer.from(symbol);
      const { result, body } = await rawCall(port, {
        path: `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`,
        headers: { authorization: `Bearer ${token}` },
        body: frame(Buffer.concat([Buffer.from([0x22, name.length]), name])),
      });
      expect(result).toBe('grpc OK');
      scanner.look('reflection', body);
    }
}

/** Every row of every table, as text and as JSON. */
async function allRows(backend: string, database: Readonly<Record<string, string>>): Promise<string[]> {
  if (backend === 'postgres') {
    const session = await connectPg(database['DATABASE_URL'] as string);
    try {
      return await rowsOf(async (sql) => (await session.query(sql)).rows);
    } finally {
      await session.end();
    }
  }
  const opened = await openDatabase({
    url: undefined,
    poolSize: 1,
    acquireTimeoutMs: 5_000,
    dataDir: database['DATA_DIR'] as string,
  });
  try {
    return await rowsOf(async (sql) => (await opened.knex.raw(sql)).rows);
  } finally {
    await opened.close();
  }
}

async function rowsOf(query: (sql: string) => Promise<readonly Record<string, string>[]>): Promise<string[]> {
  const tables = await query("select tablename from pg_tables where schemaname = 'public'");
  expect(tables.length).toBeGreaterThan(8);
  const all: string[] = [];
  for (const { tablename } of tables)
    for (const row of await query(`select t::text as line, row_to_json(t)::text as json from "${tablename}" t`))
      all.push(row['line'] as string, row['json'] as string);
  return all;
}
