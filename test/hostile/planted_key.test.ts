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
import { until } from '../support/until.js';
import { formsOf, Scanner } from './scanner.js';
import { Caller, type CallOptions, type Ending } from './whole_service.js';

/*
 * Uses API keys that contain a mark in every operation on keys, and then searches for the mark in all output and files
 * (fault row 39). The service runs in a separate process, so that its log is the real one.
 */

const createMark = (name: string) => `CANARY${randomBytes(9).toString('hex')}${name}`;
const MARKS = {
  own: createMark('own'),
  replaced: createMark('replaced'),
  credential: createMark('credential'),
  adhoc: createMark('adhoc'),
  environment: createMark('environment'),
  refused: createMark('refused'),
  bearer: createMark('bearer'),
};
const key = (which: keyof typeof MARKS) => `sk-${MARKS[which]}`;
const OLD_KEY = generateKey();
const NEW_KEY = generateKey();
const AGENT = 'planted_agent';
const AGENT_REF = { name: AGENT };
const directories = useDirectories();

/** A provider that repeats the received key in every possible place of its response, and accepts it. */
const echo: Handler = (request, response) => {
  const receivedKey = String(request.headers['authorization'] ?? '').replace('Bearer ', '');
  const failing = receivedKey.includes('adhoc');
  response.writeHead(failing ? 401 : 200, {
    'content-type': 'application/json',
    'x-request-id': receivedKey,
    'retry-after': receivedKey,
    'www-authenticate': receivedKey,
  });
  const data = [{ id: 'gpt-4o' }, { id: receivedKey }];
  response.end(
    JSON.stringify(
      failing ? { error: { message: receivedKey, code: receivedKey, type: receivedKey } } : { object: 'list', data },
    ),
  );
};

describe('the scanner', () => {
  const secret = 'CANARY0123456789abcdef';
  const isFound = (content: string | Buffer) => {
    const scanner = new Scanner({ secret });
    scanner.scan('a place', content);
    return scanner.matches.length > 0;
  };

  it.each(formsOf(secret).map(({ about, bytes }) => [about, bytes] as const))('finds a secret %s', (_, bytes) => {
    expect(isFound(Buffer.concat([Buffer.from('before '), bytes, Buffer.from(' after')]))).toBe(true);
  });

  it.each([0, 1, 2, 3, 4, 5])('finds a secret in an encoded longer text with %i bytes before it', (before) => {
    for (const after of [0, 1, 2]) {
      const whole = Buffer.from(`${'\u0001'.repeat(before)}${secret}${'~'.repeat(after)}`);
      for (const encoding of ['base64', 'base64url', 'hex'] as const)
        expect(isFound(whole.toString(encoding))).toBe(true);
      expect(isFound(Buffer.from(whole.toString('base64')).toString('base64'))).toBe(true);
    }
  });

  it('finds a secret in gzip data, in upper case and in file names', () => {
    expect(isFound(gzipSync(`x ${secret} y`))).toBe(true);
    expect(isFound(Buffer.concat([Buffer.from('a head\n'), gzipSync(secret)]))).toBe(true);
    expect(isFound(secret.toUpperCase())).toBe(true);
    const directory = mkdtempSync(join(tmpdir(), 'agentllm-scan-'));
    onTestFinished(() => rmSync(directory, { recursive: true }));
    writeFileSync(join(directory, secret), '');
    writeFileSync(
      join(directory, 'page'),
      Buffer.concat([randomBytes(9_000), Buffer.from(secret), randomBytes(9_000)]),
    );
    const scanner = new Scanner({ secret });
    scanner.scanDirectory('files', directory);
    expect(scanner.matches.map(({ place }) => place.replace(/\/.*\//, ''))).toEqual(
      expect.arrayContaining([expect.stringContaining(`name ${secret}`), expect.stringContaining('page')]),
    );
  });

  it('finds nothing in other content', () => {
    expect(isFound(randomBytes(200_000))).toBe(false);
    expect(isFound(secret.slice(0, -1))).toBe(false);
  });
});

/** Calls methods of a service and passes every response to a scanner. */
class ScannedClient {
  token: string | undefined;
  readonly codes = new Map<string, Set<string>>();

  constructor(
    private readonly caller: Caller,
    private readonly scanner: TextScanner,
  ) {}

  async call(name: string, json: JsonObject = {}, options: CallOptions = {}): Promise<Ending> {
    const method = methods.find((one) => one.name === name) as DescMethod;
    const bytes = Buffer.from(toBinary(method.input, fromJson(method.input, json, { registry: contract.registry })));
    const ending = await this.caller.call(method, bytes, { token: this.token, ...options });
    this.codes.set(name, (this.codes.get(name) ?? new Set()).add(ending.code));
    this.scan(`gRPC: ${name}`, ending);
    return ending;
  }

  /** A call that must succeed. Returns the bytes of the response. */
  async succeed(name: string, json: JsonObject = {}, options: CallOptions = {}): Promise<Buffer> {
    const { code, message, bodies } = await this.call(name, json, options);
    if (code !== 'OK') throw new Error(`${name}: ${code} ${message}`);
    return bodies.at(-1) ?? Buffer.alloc(0);
  }

  async fail(name: string, json: JsonObject, options: CallOptions = {}): Promise<void> {
    const { code } = await this.call(name, json, options);
    expect([name, code]).not.toEqual([name, 'OK']);
  }

  scan(place: string, { message, details, bodies }: Ending): void {
    // The token text in the response of CreateToken is the only secret in a response.
    if (place === 'gRPC: CreateToken') return;
    for (const part of [message, details, ...bodies]) if (part !== undefined) this.scanner.scan(place, part);
  }
}

describe.each(['embedded', 'postgres'] as const)('an API key on %s', { timeout: 240_000 }, (backend) => {
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

  it('appears only in requests to providers and in encrypted form', async () => {
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
    // A control for the search: the value of a plain field must be found in every place that shows the field.
    const plain = createMark('plain');
    const control = new Scanner({ plain });
    const scan: TextScanner['scan'] = (place, content) => {
      for (const one of [scanner, control]) one.scan(place, content);
    };
    const keyScanners: TextScanner = { scan };
    const workDirectory = await directories();
    const first = await startCommand({ ...environment, ENCRYPTION_KEY: OLD_KEY });
    const caller = new Caller(first.port);
    const client = new ScannedClient(caller, keyScanners);

    // The admin token is a secret too.
    const admin = await createAdminToken(client, backend, environment);
    client.token = admin.text;
    const tokenScanner = new Scanner({ 'the secret of a token': admin.text.slice(14) });
    const allScanners = {
      scan: (place: string, content: string | Uint8Array) =>
        void [keyScanners, tokenScanner].map((one) => one.scan(place, content)),
    };

    // A watch receives all changes.
    const watchCaller = new Caller(first.port);
    const watch = watchCaller.call(named('WatchConfigs'), requestOf('WatchConfigs', { allAgents: true }), {
      token: admin.text,
      deadlineMs: 600_000,
      maxMessages: Number.POSITIVE_INFINITY,
    });

    // Keys are stored, replaced and sent again with the same request_id.
    await client.succeed('CreateProvider', {
      provider: {
        name: 'mine',
        dialect: 'DIALECT_OPENAI',
        baseUrl: fake.provider.base_url,
        apiKeyEnvVars: ['MINE_API_KEY'],
      },
    });
    await client.succeed('CreateCredential', {
      credential: { name: 'desk', provider: 'mine' },
      apiKey: key('replaced'),
    });
    await client.succeed('UpdateCredential', {
      credential: { name: 'desk' },
      apiKey: key('credential'),
      reason: 'a key',
    });
    await client.succeed('CreateAgent', { agent: { name: AGENT, agentType: 'analyst', description: plain } });
    const model = { provider: 'mine', modelName: 'gpt-4o' };
    const create = {
      agent: AGENT_REF,
      config: model,
      allowUnknownModel: true,
      apiKey: key('replaced'),
      requestId: randomUUID(),
    };
    const { config } = CreateConfigResponse.decode(await client.succeed('CreateConfig', create));
    const { id } = AgentLLMConfig.fromPartial(config ?? {});
    await client.succeed('CreateConfig', create);
    await client.fail('CreateConfig', { ...create, apiKey: key('refused') });
    await client.succeed('UpdateConfig', { config: { id }, apiKey: key('own'), reason: 'a key' });
    const shared = { agent: AGENT_REF, config: { ...model, credentialName: 'desk' }, allowUnknownModel: true };
    await client.succeed('CreateConfig', shared);
    await client.succeed('CreateConfig', {
      agent: AGENT_REF,
      config: model,
      allowUnknownModel: true,
      validateOnly: true,
      apiKey: key('own'),
    });

    // Keys are used in checks.
    await client.succeed('CheckConfigHealth', { id });
    await client.succeed('ValidateApiKey', { provider: 'mine', apiKey: key('adhoc'), modelName: 'gpt-4o' });
    expect(JSON.stringify(fake.seen)).toContain(key('own'));
    expect(JSON.stringify(fake.seen)).toContain(key('adhoc'));

    await sendRejectedRequests(client, first, admin.text, id, scanner);
    await leaseKeys(client, id);

    // A client that caches the state of all agents in a file.
    const cache = join(workDirectory, 'held');
    await writeClientCache(first.port, admin.text, cache);
    scan('cache of a client', readFileSync(cache));

    await runCommands(first.port, admin.text, id, allScanners);
    await callAllMethods(client, id);
    await requestHttpPaths(first, admin.text, allScanners);
    await callReflection(first.port, admin.text, allScanners);

    // The encryption key is rotated: the second process has the new key first.
    first.child.kill('SIGTERM');
    const firstEnd = await first.ended;
    allScanners.scan('log: of the first', firstEnd.stdout + firstEnd.stderr);
    watchCaller.close();
    for (const body of (await watch).bodies) allScanners.scan('stream', body);
    expect((await watch).bodies.length).toBeGreaterThan(5);
    caller.close();
    if (backend === 'embedded') scanner.scanDirectory('files', database['DATA_DIR'] as string);

    const second = await startCommand({ ...environment, ENCRYPTION_KEY: `${NEW_KEY},${OLD_KEY}` });
    const secondCaller = new Caller(second.port);
    const secondClient = new ScannedClient(secondCaller, keyScanners);
    secondClient.token = admin.text;
    await secondClient.succeed('RotateEncryptionKey', {}, { maxMessages: Number.POSITIVE_INFINITY });
    const revisions = await secondClient.succeed('ListConfigRevisions', { configId: id });
    expect(revisions.length).toBeGreaterThan(100);
    await secondClient.succeed('UpdateConfig', { config: { id, temperature: 0.5 } });
    await secondClient.call('RollbackConfig', { id, toRevision: String(config?.revision ?? 1) });
    await secondClient.succeed('GetEncryptionStatus');
    await leaseKeys(secondClient, id);
    await secondClient.succeed('DeleteConfig', { id });
    await callAllMethods(secondClient, id);
    await runCommands(second.port, admin.text, id, allScanners);
    if (backend === 'embedded') {
      const backup = join(workDirectory, 'backup');
      const ended = await agentllm(['backup', backup], { ...environment, ENCRYPTION_KEY: NEW_KEY }).ended;
      expect(ended.code, ended.stderr).toBe(0);
      allScanners.scan('backup', readFileSync(backup));
    } else if (typeof tools !== 'string') {
      const dump = await promisify(execFile)(join(tools.bin, 'pg_dump'), [database['DATABASE_URL'] as string], {
        maxBuffer: 1e9,
      });
      allScanners.scan('backup', dump.stdout);
    }
    second.child.kill('SIGTERM');
    const secondEnd = await second.ended;
    allScanners.scan('log: of the second', secondEnd.stdout + secondEnd.stderr);
    secondCaller.close();

    // The files and the rows of the database.
    if (backend === 'embedded') {
      for (const one of [scanner, tokenScanner, control]) one.scanDirectory('files', database['DATA_DIR'] as string);
      allScanners.scan('files: of a client', readFileSync(cache));
    }
    for (const row of await allRows(backend, database)) allScanners.scan('rows', row);

    expect(scanner.report).toEqual([]);
    expect(tokenScanner.report).toEqual([]);
    // The search was not empty.
    const minBytes: Record<string, number> = {
      gRPC: 50_000,
      HTTP: 50_000,
      log: 50_000,
      rows: 100_000,
      stream: 500,
      CLI: 10_000,
      'cache of a client': 200,
    };
    for (const [kind, bytes] of Object.entries(minBytes))
      expect([kind, scanner.searched.get(kind)]).toEqual([kind, expect.toSatisfy((n) => n > bytes)]);
    if (backend === 'embedded') expect(scanner.searched.get('files')).toBeGreaterThan(10_000_000);
    // The control is found in every kind of place, except in encrypted ones.
    const found = new Set(control.matches.map(({ place }) => place.split(':')[0]));
    const kinds = ['gRPC', 'HTTP', 'CLI', 'stream', 'rows', ...(scanner.searched.has('backup') ? ['backup'] : [])];
    expect([...found].filter((kind) => kind !== 'files').sort()).toEqual(kinds.sort());
    expect(found.has('files')).toBe(backend === 'embedded');
    // Every method was called.
    const called = new Set([...client.codes.keys(), ...secondClient.codes.keys(), 'WatchConfigs']);
    expect(methods.map(({ name }) => name).filter((name) => !called.has(name))).toEqual([]);
    // The log has lines of the calls that had a key.
    expect(firstEnd.stderr).toContain('LeaseApiKeys');
    expect(firstEnd.stderr).toContain('ValidateApiKey');
  });
});

const named = (name: string) => methods.find((one) => one.name === name) as DescMethod;
const requestOf = (name: string, json: JsonObject): Buffer => {
  const { input } = named(name);
  return Buffer.from(toBinary(input, fromJson(input, json, { registry: contract.registry })));
};

/** Creates the first token with the command line, and a second one with CreateToken. */
async function createAdminToken(
  client: ScannedClient,
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
  await until(async () => (await client.call('GetCaller', {}, { token: text })).code === 'OK');
  // The text of the second token is only in this response.
  const json = { name: 'second', role: 'ROLE_ADMIN', requestId: randomUUID() };
  const created = CreateTokenResponse.decode(await client.succeed('CreateToken', json, { token: text }));
  expect(created.text).toMatch(/^al_[a-z2-7]{10}_[\w-]{43}$/);
  const replay = CreateTokenResponse.decode(await client.succeed('CreateToken', json, { token: text }));
  expect([replay.token?.id, replay.text]).toEqual([created.token?.id, '']);
  return { text: created.text };
}

/** Sends requests with a key that are rejected for every possible reason: no error contains the key. */
async function sendRejectedRequests(
  client: ScannedClient,
  { untilOutput }: Awaited<ReturnType<typeof startCommand>>,
  token: string,
  id: number,
  scanner: Scanner,
): Promise<void> {
  const apiKey = key('refused');
  const methodsWithKey = methods.filter(({ input }) => input.fields.some(({ name }) => name === 'api_key'));
  expect(methodsWithKey.length).toBeGreaterThan(5);
  for (const { name } of methodsWithKey)
    for (const json of [
      { apiKey },
      { apiKey: `${apiKey} ${apiKey}` },
      { apiKey: `${apiKey}\n` },
      { apiKey: apiKey.repeat(20) },
    ])
      await client.fail(name, json);
  for (const credential of [
    { name: 'desk', provider: 'mine' },
    { name: 'other', provider: 'nobody' },
  ])
    await client.fail('CreateCredential', { credential, apiKey });
  await client.fail('UpdateCredential', { credential: { name: 'desk', etag: 'W/"stale"' }, apiKey });
  await client.fail('UpdateCredential', { credential: { name: 'nobody' }, apiKey });
  await client.fail('UpdateConfig', { config: { id, etag: 'stale' }, apiKey });
  await client.fail('UpdateConfig', { config: { id, temperature: 9 }, apiKey });
  await client.fail('UpdateConfig', { config: { id }, apiKey, clearApiKey: true });
  await client.fail('UpdateConfig', { config: { id: 2_000_000_000 }, apiKey });
  await client.fail('ValidateApiKey', { provider: 'nobody', apiKey });
  await client.fail('ValidateApiKey', { provider: 'mine', apiKey }, { deadlineMs: 1 });
  // A key instead of a token.
  for (const bearer of [key('bearer'), `al_aaaaaaaaaa_${MARKS.bearer}`, `${MARKS.bearer}_x`])
    await client.fail('ListAgents', {}, { token: bearer });
  // HTTP has more forms of invalid requests.
  const http = Number((await untilOutput(/HTTP {6}[^:\s]+:(\d+)/))[1]);
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
    const response = await send(http, 'POST', path, { body, headers });
    expect([body.slice(0, 12), response.status]).toEqual([body.slice(0, 12), 400]);
    scanner.scan('HTTP: refused', response.text + JSON.stringify(response.headers));
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
    const response = await send(http, verb, target, { headers: more });
    expect([target.slice(0, 20), response.status]).toEqual([target.slice(0, 20), expect.toBeOneOf([400, 401, 403])]);
    scanner.scan('HTTP: refused', response.text + JSON.stringify(response.headers));
  }
}

/** Leases the keys and opens them: they are the stored keys, and the responses do not show them. */
async function leaseKeys(client: ScannedClient, id: number): Promise<void> {
  const pair = await makeLeaseKeyPair();
  const publicKey = Buffer.from(pair.publicKey).toString('base64');
  const { leases } = LeaseApiKeysResponse.decode(await client.succeed('LeaseApiKeys', { agent: AGENT_REF, publicKey }));
  const opened = await Promise.all(
    leases.map(({ lifetime, ...lease }) => {
      const lifetime_ms = Number(lifetime?.seconds) * 1000 + (lifetime?.nanos ?? 0) / 1e6;
      return openSealedKey(pair, lease, { ...lease, lifetime_ms });
    }),
  );
  expect(leases.map(({ config_id }) => config_id)).toContain(id);
  expect(opened).toContain(key('credential'));
  expect(opened.some((apiKey) => apiKey === key('own') || apiKey === key('replaced'))).toBe(true);
}

async function writeClientCache(port: number, token: string, path: string): Promise<void> {
  const cache = { path, key: 'a secret of the process' };
  const client = connectClient({ address: `127.0.0.1:${port}`, agents: 'all', token, cache });
  await client.ready();
  const resolved = await client.agent(AGENT).resolve();
  expect(resolved).toBeDefined();
  await sleep(300);
  await client[Symbol.asyncDispose]();
}

type TextScanner = Pick<Scanner, 'scan'>;

/** Runs the commands that show resources and scans their output. */
async function runCommands(port: number, token: string, id: number, scanner: TextScanner): Promise<void> {
  const env = { AGENTLLM_ADDRESS: `127.0.0.1:${port}`, AGENTLLM_TOKEN: token };
  const commands: readonly (readonly [string[], string?])[] = [
    [['agents', 'list']],
    [['agents', 'get', AGENT]],
    [['configs', 'list']],
    [['configs', 'get', String(id)]],
    [['configs', 'primary', AGENT]],
    [['configs', 'health', '--all']],
    [['resolve', AGENT]],
    [['rehearse', AGENT]],
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
  const ends = await inPairs(commands, async ([args, stdin]) => {
    const ended = await agentllm([...args, '--json'], env, stdin === undefined ? {} : { stdin }).ended;
    scanner.scan(`CLI: ${args.join(' ')}`, ended.stdout + ended.stderr);
    return [args.join(' '), ended.code, ended.stderr.slice(0, 200)] as const;
  });
  // Most commands succeed; which ones fail depends on what has been deleted.
  expect(ends.filter(([, code]) => code === 2)).toEqual([]);
  expect(ends.filter(([, code]) => code === 0).length).toBeGreaterThan(commands.length / 2);
}

/** Runs two at a time: each command is a process, and CI has two cores. */
async function inPairs<T, R>(items: readonly T[], run: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (let at = 0; at < items.length; at += 2) results.push(...(await Promise.all(items.slice(at, at + 2).map(run))));
  return results;
}

/** Calls every method of the contract, with a valid request for most of them. */
async function callAllMethods(client: ScannedClient, id: number): Promise<void> {
  const requests: Readonly<Record<string, JsonObject>> = {
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
    if (name === 'WatchConfigs') await client.call(name, { agents: [AGENT_REF] }, { maxMessages: 4 });
    else await client.call(name, requests[name] ?? {});
    // The largest page of each list.
    if (methodKind === 'unary' && input.fields.some((field) => field.name === 'page_size'))
      await client.call(name, { ...requests[name], pageSize: 1000 });
  }
}

/** Requests every list and every other path without variables over HTTP. */
async function requestHttpPaths(
  { untilOutput }: Awaited<ReturnType<typeof startCommand>>,
  token: string,
  scanner: TextScanner,
): Promise<void> {
  const port = Number((await untilOutput(/HTTP {6}[^:\s]+:(\d+)/))[1]);
  const headers = { authorization: `Bearer ${token}` };
  const openapi = await send(port, 'GET', '/openapi.json', { headers });
  const lists = Object.keys(openapi.json['paths'] as JsonObject).filter((path) => !path.includes('{'));
  expect(lists.length).toBeGreaterThan(8);
  for (const path of ['/metrics', '/healthz', '/readyz', '/openapi.json', '/nothing', ...lists]) {
    const response = await send(port, 'GET', path, { headers });
    scanner.scan(`HTTP: ${path}`, response.text + JSON.stringify(response.headers));
  }
}

async function callReflection(port: number, token: string, scanner: TextScanner): Promise<void> {
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
      scanner.scan('reflection', body);
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
