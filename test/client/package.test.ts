import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { promisify } from 'node:util';
import { fromBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packageFile } from '../../src/package.js';
import { startService, type TestService } from '../support/service.js';
import { FakeLeases } from './fake_leases.js';
import { agent, config, startFakeWatch } from './fake_watch.js';
import { filesOf, installClient, nodes, type PackedClient, packClient } from './packed.js';

/*
 * The package as users get it: packed, installed into an empty project, and used there from every module system,
 * against a real service.
 */

const run = promisify(execFile);
const root = packageFile('.');
const readJson = (path: string) => JSON.parse(readFileSync(path, 'utf8'));
let directory: string;
let packed: PackedClient;
let project: string;
let installed: string;
let service: TestService;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'agentllm-client-'));
  project = join(directory, 'project');
  installed = join(project, 'node_modules/@agentllm/client');
  packed = await packClient(directory);
  await installClient(project, join(directory, packed.filename));
  service = await startService();
}, 240_000);

afterAll(async () => {
  await service?.stop();
  if (directory) await rm(directory, { recursive: true, force: true });
});

/** The first TypeScript example of the README, which has five lines. */
function example(): string {
  const [, code = ''] =
    /^```ts\n([\s\S]*?)^```$/m.exec(readFileSync(packageFile('src/client/README.md'), 'utf8')) ?? [];
  if (code.trimEnd().split('\n').length !== 5) throw new Error('the README does not start with five lines');
  return code;
}

const asCommonJs = (code: string) =>
  `${code.replace(/^import (\{.*?\}) from (.*);$/m, 'const $1 = require($2);').replace(/^(const agentllm = [\s\S]*)/m, '(async () => {\n$1})();')}`;

/** The other TypeScript examples of the README as one module, each block in its own function. */
function otherExamples(): string {
  const readme = readFileSync(packageFile('src/client/README.md'), 'utf8');
  const blocks = [...readme.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].slice(1).map(([, code = '']) => code);
  const imports = blocks.flatMap((code) => code.match(/^import .*$/gm) ?? []);
  const functions = blocks.map(
    (code, at) =>
      `export async function example${at}(agentllm: AgentLLM, controller: AbortController, etag: string) {\n${code.replaceAll(/^import .*$/gm, '')}\n}`,
  );
  return ["import type { AgentLLM } from '@agentllm/client';", ...new Set(imports), ...functions].join('\n');
}

/** Runs a file of the project with the given Node executable and returns its output; stderr must be empty. */
async function runWith(node: string, file: string, env: Readonly<Record<string, string>> = {}): Promise<string> {
  const { stdout, stderr } = await run(node, [file], {
    cwd: project,
    env: {
      PATH: process.env['PATH'],
      AGENTLLM_ADDRESS: `127.0.0.1:${service.port}`,
      CACHE_FILE: join(directory, `held_by_${basename(dirname(dirname(node)))}`),
      ...env,
    },
  });
  expect(stderr).toBe('');
  return stdout;
}

describe('the package', () => {
  it('declares its identity, three dependencies and optional peers', () => {
    const { version, dependencies, license } = readJson(packageFile('package.json'));
    const manifest = readJson(join(installed, 'package.json'));
    expect(manifest).toMatchObject({ name: '@agentllm/client', version, license, engines: { node: '>=20' } });
    expect(manifest.dependencies).toEqual({
      '@bufbuild/protobuf': `^${dependencies['@bufbuild/protobuf']}`,
      '@grpc/grpc-js': `^${dependencies['@grpc/grpc-js']}`,
      '@hpke/core': `^${dependencies['@hpke/core']}`,
    });
    for (const none of ['devDependencies', 'optionalDependencies', 'scripts', 'private'])
      expect(manifest).not.toHaveProperty(none);
    const optional = Object.entries<{ optional?: boolean }>(manifest.peerDependenciesMeta).map(
      ([name, { optional: is }]) => is && name,
    );
    expect(optional).toEqual(Object.keys(manifest.peerDependencies));
  });

  it('is smaller than 1 MB', () => {
    console.log(`@agentllm/client: ${packed.size} bytes packed, ${packed.unpackedSize} unpacked`);
    expect(packed.size).toBeLessThan(1_000_000);
  });

  it('contains the manual, the license and the proto files with their imports', () => {
    const same = (path: string, original: string) =>
      expect(readFileSync(join(installed, path), 'utf8'), path).toBe(readFileSync(packageFile(original), 'utf8'));
    same('README.md', 'src/client/README.md');
    same('LICENSE', 'LICENSE');
    for (const file of filesOf(packageFile('proto/agentllm'))) same(`proto/agentllm/${file}`, `proto/agentllm/${file}`);
    const protos = filesOf(join(installed, 'proto')).filter((file) => file.endsWith('.proto'));
    const imports = protos.flatMap((file) =>
      [...readFileSync(join(installed, 'proto', file), 'utf8').matchAll(/^import "([^"]+)";/gm)].map(([, to]) => to),
    );
    expect(imports.filter((to) => !protos.includes(to as string) && !to?.startsWith('google/protobuf/'))).toEqual([]);
  });

  it('contains no path of the machine on which it was built', () => {
    const paths = [root.replace(/\/$/, ''), homedir(), directory, tmpdir()].filter((path) => path.length > 1);
    for (const file of filesOf(installed)) {
      const text = readFileSync(join(installed, file), 'utf8');
      for (const path of paths) expect(text.includes(`${path}/`), `${file} names ${path}`).toBe(false);
    }
  });

  it.each(['esm', 'cjs'])('imports only its own files, its dependencies and Node from %s', (system) => {
    const allowed = /^(node:.*|crypto|net|@grpc\/grpc-js|@hpke\/core|@bufbuild\/protobuf(\/.*)?)$/;
    const foreign = new Set<string>();
    const seen = new Set<string>();
    const visit = (file: string) => {
      if (seen.has(file)) return;
      seen.add(file);
      const found = readFileSync(file, 'utf8').matchAll(
        /(?:\bfrom|\bimport|\brequire\(|\bimport\()\s*['"]([^'"\n]+)['"]/g,
      );
      for (const [, target = ''] of found)
        if (target.startsWith('.')) visit(resolve(dirname(file), target));
        else foreign.add(target);
    };
    for (const entry of ['index', 'ai/index', 'proto']) visit(join(installed, system, `src/client/${entry}.js`));
    expect([...foreign].filter((name) => !allowed.test(name))).toEqual([]);
    // Its models extend a class of LangChain.
    visit(join(installed, system, 'src/client/langchain/index.js'));
    expect([...foreign].filter((name) => !allowed.test(name) && !name.startsWith('@langchain/core/'))).toEqual([]);
    const scripts = filesOf(join(installed, system)).filter((file) => file.endsWith('.js'));
    expect(scripts.filter((file) => !seen.has(join(installed, system, file)))).toEqual([]);
    expect([...seen].map((file) => relative(installed, file)).filter((file) => file.startsWith('..'))).toEqual([]);
  });

  it('installs no dependency of the service', () => {
    const all = filesOf(join(project, 'node_modules')).filter((file) => /(^|\/)package\.json$/.test(file));
    const names = new Set(all.map((file) => /^((@[^/]+\/)?[^/]+)/.exec(file)?.[1]));
    for (const name of ['zod', 'knex', 'pg', 'pino', '@electric-sql/pglite', 'commander', 'prom-client'])
      expect(names).not.toContain(name);
  });

  it('has the comments of the proto files in its type declarations', () => {
    const set = fromBinary(FileDescriptorSetSchema, readFileSync(packageFile('gen/descriptor.binpb')));
    const words = (text: string) => text.replaceAll(/[\s*]+/g, ' ').trim();
    const typed = words(
      filesOf(join(installed, 'esm'))
        .filter((file) => file.endsWith('.d.ts'))
        .map((file) => readFileSync(join(installed, 'esm', file), 'utf8'))
        .join('\n'),
    );
    const comments = set.file
      // Only the service uses the options.
      .filter(({ name }) => /^agentllm\/v1\/(?!options)/.test(name))
      .flatMap(({ sourceCodeInfo }) => sourceCodeInfo?.location ?? [])
      .filter(({ leadingComments, path }) => leadingComments && isShown(path))
      .map(({ leadingComments }) => words(leadingComments));
    expect(comments.filter((comment) => !typed.includes(comment))).toEqual([]);
    expect(comments.length).toBeGreaterThan(300);
  });
});

/**
 * Whether ts-proto emits a comment at a path of field numbers of descriptor.proto: it does for messages, fields, enums,
 * enum values and methods, and not for services and oneofs.
 */
const isShown = ([part, , inner]: readonly number[]) =>
  part === 4 ? inner !== 8 : part === 5 || (part === 6 && inner === 2);

describe.each([
  ['the Node version of the tests', 0],
  ['the newest Node LTS', 1],
])('the package under %s', (_, at) => {
  let node: string;
  let missing: string | undefined;
  beforeAll(async () => {
    const chosen = (await nodes())[at];
    node = chosen?.node ?? '';
    missing = chosen?.missing;
  }, 240_000);
  /** A test that runs a program and compares its output. */
  const itPrints = (name: string, file: string, code: () => string, expected: string | RegExp) =>
    it(name, async ({ skip }) => {
      if (missing) skip(missing);
      const path = join(project, `${at}_${file}`);
      await writeFile(path, code());
      expect(await runWith(node, path)).toMatch(expected);
    });
  const EXAMPLE_OUTPUT = /^openai gpt-4 0\.7\n$/;

  itPrints('runs the five lines of the README as ESM', 'first.mjs', example, EXAMPLE_OUTPUT);
  itPrints('runs the five lines of the README as CommonJS', 'first.cjs', () => asCommonJs(example()), EXAMPLE_OUTPUT);
  itPrints(
    'prints nothing when it is imported',
    'silent.mjs',
    () =>
      "process.on('warning', (w) => console.log(w)); await import('@agentllm/client'); await import('@agentllm/client/ai'); await import('@agentllm/client/proto');",
    /^$/,
  );
  itPrints(
    'recognizes its errors from both module systems',
    'errors.mjs',
    () => `
      import { createRequire } from 'node:module';
      import { AgentLLMError, connect } from '@agentllm/client';
      const other = createRequire(import.meta.url)('@agentllm/client');
      if (other.AgentLLMError === AgentLLMError) throw new Error('one class');
      const agentllm = other.connect();
      const error = await agentllm.agents.getAgent({ agent: { name: 'trador' } }).catch((error) => error);
      console.log(error instanceof AgentLLMError, error.reason, error.metadata.suggestion);
      agentllm.close();`,
    /^true AGENT_NOT_FOUND trader\n$/,
  );
  itPrints(
    'exports the generated stubs, the retry policy and the proto files',
    'stubs.cjs',
    () => `
      const { credentials } = require('@grpc/grpc-js');
      const { AgentServiceClient, GetAgentRequest } = require('@agentllm/client/proto');
      const policy = require('@agentllm/client/service_config.json');
      const stub = new AgentServiceClient(process.env.AGENTLLM_ADDRESS, credentials.createInsecure(), {
        'grpc.service_config': JSON.stringify(policy),
      });
      stub.getAgent(GetAgentRequest.fromPartial({ agent: { name: 'trader' } }), (error, response) => {
        console.log(error ?? response.agent.name, require.resolve('@agentllm/client/proto/agentllm/v1/agent.proto').length > 0);
        stub.close();
      });`,
    /^trader true\n$/,
  );
  itPrints(
    'lets the process exit without close()',
    'open.mjs',
    () => `
      import { connect } from '@agentllm/client';
      const { agents } = connect();
      console.log((await agents.getAgent({ agent: { name: 'trader' } })).agent.name);`,
    /^trader\n$/,
  );
  const RESIDENT = `
      const client = connect({ agents: ['trader'], cache: { path: process.env.CACHE_FILE, key: 'secret' } });
      const began = client.state.status;
      await client.ready();
      const { hops } = client.agent('trader').resolve();
      const run = client.run();
      console.log(began, hops[0].provider, hops[0].model_name, run.agent('trader').resolve().hops === hops);
      await client[Symbol.asyncDispose]();`;
  const FROM_CACHE = /^STALE openai gpt-4 true\n$/;
  itPrints(
    'resolves agents as ESM',
    'resident.mjs',
    () => `import { connect } from '@agentllm/client';\n${RESIDENT}`,
    /^CONNECTING openai gpt-4 true\n$/,
  );
  itPrints(
    'resolves agents as CommonJS, starting from the cache file of the ESM client',
    'resident.cjs',
    () => `const { connect } = require('@agentllm/client');\n(async () => {${RESIDENT}})();`,
    FROM_CACHE,
  );
  it.each([
    ['ESM', 'lease.mjs', (code: string) => `import { connect } from '@agentllm/client';\n${code}`],
    [
      'CommonJS',
      'lease.cjs',
      (code: string) => `const { connect } = require('@agentllm/client');\n(async () => {${code}})();`,
    ],
  ])('opens leased keys as %s', async (_, file, wrapped) => {
    if (missing) return;
    const fake = await startFakeWatch();
    new FakeLeases(fake).keys = [{ config_id: 8, key: 'sk-leased' }];
    const configs = [config(8, 1, { has_api_key_override: true, api_key_state: 'API_KEY_STATE_SET' })];
    fake.onStream = (stream) => stream.start().snapshot(10, [agent('trader', 1, { configs })]);
    const path = join(project, `${at}_${file}`);
    const code = `
      const client = connect({ agents: ['trader'] });
      await client.ready();
      console.log(await client.agent('trader').apiKey());`;
    await writeFile(path, wrapped(code));
    expect(await runWith(node, path, { AGENTLLM_ADDRESS: fake.address })).toBe('sk-leased\n');
  });
  itPrints(
    'lets the process exit while it watches agents',
    'held.mjs',
    () => `
      import { connect } from '@agentllm/client';
      const client = connect({ agents: 'all' });
      await client.ready();
      console.log(client.agent('trader').resolve().hops[0].model_name);`,
    /^gpt-4\n$/,
  );
  itPrints(
    'works without Symbol.asyncDispose, as before Node 20.5',
    'undisposed.mjs',
    () => `
      const { asyncDispose, dispose, ...own } = Object.getOwnPropertyDescriptors(Symbol);
      const make = Symbol;
      globalThis.Symbol = Object.defineProperties((name) => make(name), own);
      const { connect } = await import('@agentllm/client');
      const agentllm = connect();
      console.log(Symbol.asyncDispose, Object.getOwnPropertySymbols(agentllm), 'undefined' in agentllm);
      await agentllm.ready();
      agentllm.close();
      const client = connect({ agents: ['trader'] });
      await client.ready();
      const run = client.run();
      console.log(run.agent('trader').resolve().hops.length, 'undefined' in client, 'undefined' in run);
      run.end();
      client.close();`,
    /^undefined \[\] false\n1 false false\n$/,
  );
});

const TYPES = `
import { type AgentLLM, type AgentLLMConfig, AgentLLMError, type ConnectOptions, connect, type Reason } from '@agentllm/client';
import type { Change, ClientState, ResidentAgentLLM, ResidentOptions, Resolution, Run } from '@agentllm/client';
import { AgentServiceClient, CheckStatus, Dialect } from '@agentllm/client/proto';
import { credentials } from '@grpc/grpc-js';

export async function right(options: ConnectOptions): Promise<AgentLLMConfig | undefined> {
  await using disposed: AgentLLM = connect({ ...options, address: process.env['NOBODY'], token: async () => 'secret' });
  const agentllm = connect('127.0.0.1:50051');
  const paths: readonly string[] = ['temperature'];
  const { config, revision, findings } = await agentllm.configs.updateConfig(
    { config: { id: 1, temperature: undefined }, update_mask: [...paths] },
    { signal: AbortSignal.timeout(10), deadlineMs: 5, headers: { 'x-trace': '1' } },
  );
  const later: bigint = revision + 1n;
  const when: Date | undefined = config?.updated_at;
  console.log(later, when, findings.length, CheckStatus, disposed.agents);
  await agentllm.agents.listAgents();
  await agentllm.providers.createProvider({ provider: { name: 'x', dialect: Dialect.OPENAI_COMPATIBLE } });
  new AgentServiceClient('127.0.0.1:50051', credentials.createInsecure()).close();
  return config;
}

export function explain(error: unknown): string {
  if (!(error instanceof AgentLLMError)) return 'something else';
  const { field, description } = error.violations[0] ?? { field: '', description: '' };
  const reason: Reason | undefined = error.reason;
  switch (reason) {
    case 'INVALID_FIELDS':
      return field + description;
    case 'AGENT_NOT_FOUND':
      return error.metadata['suggestion'] ?? error.resources.map(({ name }) => name).join();
    // @ts-expect-error no such reason
    case 'AGENT_NOT_FUND':
      return '';
    default:
      return error.code === 'UNAVAILABLE' ? String(error.retryAfterMs ?? 0 + 1) : error.message;
  }
}

export async function held(options: ResidentOptions, signal: AbortSignal): Promise<Resolution> {
  await using client: ResidentAgentLLM = connect({ ...options, agents: ['trader'], clientName: 'desk', signal });
  const all = connect({ agents: 'all', cache: { path: 'held', key: new Uint8Array(32), maxAgeMs: 1_000 } });
  await all.ready(1_000, { signal });
  const state: ClientState = all.state;
  const off: () => void = client.on('state', ({ status, since, error }) => status === 'STALE' && [since, error?.code]);
  client.on('change', ({ revision }: Change) => revision + state.revision, { signal });
  off();
  using run: Run = client.run({ pin: 'turn' });
  run.on('moved', ({ from, to, change }) => [from, to, change.cause?.actor]);
  for await (const { agents } of client.agent('trader').changes({ signal })) agents.map((name) => name.length);
  const [hop] = run.agent('trader').resolve({ providerDown: ['openai'] }).hops;
  const price: number | null | undefined = hop?.price?.price.input_micro_usd_per_million;
  const variables: readonly string[] | undefined = hop?.key.variables;
  const name: string | undefined = client.agent('trader').held?.configs[0]?.model_name;
  console.log(price, variables, name, client.warnings.length, client.clientId);
  await client.configs.getPrimaryConfig({ agent: { name: 'trader' } });
  // @ts-expect-error it is frozen
  run.agent('trader').resolve().hops.push(hop);
  // @ts-expect-error it holds none
  connect('127.0.0.1:50051').agent('trader');
  // @ts-expect-error no file without a key
  connect({ agents: 'all', cache: { path: 'held' } });
  // @ts-expect-error no such pin
  client.run({ pin: 'day' });
  // @ts-expect-error no such event
  client.on('chance', () => {});
  // @ts-expect-error neither a list nor all
  connect({ agents: 'trader' });
  return client.agent('trader').resolve();
}

export async function wrong(agentllm: AgentLLM): Promise<void> {
  // @ts-expect-error a misspelt field
  await agentllm.configs.getPrimaryConfig({ agnet: { name: 'trader' } });
  // @ts-expect-error a misspelt field of a field
  await agentllm.configs.upsertPrimaryConfig({ config: { modelName: 'gpt-4' } });
  // @ts-expect-error a number where a bigint belongs
  await agentllm.agents.listAgents({ min_revision: 5 });
  // @ts-expect-error a string where a number belongs
  await agentllm.configs.getConfig({ id: '5' });
  // @ts-expect-error a value that the enum lacks
  await agentllm.providers.createProvider({ provider: { dialect: 'OPENAI' } });
  // @ts-expect-error a method that is not there
  await agentllm.configs.getPrimary({ agent: { name: 'trader' } });
  // @ts-expect-error an option that is not there
  connect({ adress: '127.0.0.1:50051' });
  // @ts-expect-error a missing property
  const options: { address: string } & ConnectOptions = { tls: true };
  const { config } = await agentllm.configs.getPrimaryConfig({ agent: { name: 'trader' } });
  // @ts-expect-error the message may be absent
  console.log(config.provider, options);
  // @ts-expect-error the field may be absent
  const temperature: number = config?.temperature;
  // @ts-expect-error a field that is not there
  console.log(config?.modelName, temperature);
  // @ts-expect-error a code that is not there
  if (new Error() instanceof AgentLLMError && ({} as AgentLLMError).code === 'NOT_THERE') return;
  // @ts-expect-error the error is made by calls alone
  new AgentLLMError('no');
}
`;

describe('the package in TypeScript', () => {
  const strict = {
    strict: true,
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    noPropertyAccessFromIndexSignature: true,
    verbatimModuleSyntax: true,
    skipLibCheck: false,
    target: 'es2022',
    types: ['node'],
  };
  const tsc = async (name: string, compilerOptions: object, files: Readonly<Record<string, string>>) => {
    const projectDirectory = join(project, name);
    await mkdir(projectDirectory);
    for (const [file, code] of Object.entries(files)) await writeFile(join(projectDirectory, file), code);
    const config = { compilerOptions: { ...strict, ...compilerOptions, outDir: 'out' }, files: Object.keys(files) };
    await writeFile(join(projectDirectory, 'tsconfig.json'), JSON.stringify(config));
    const compiler = packageFile('node_modules/typescript/bin/tsc');
    await run(process.execPath, [compiler, '-p', projectDirectory]).catch(({ stdout }) => {
      throw new Error(`it does not compile:\n${stdout}`);
    });
    return (file: string) => join(projectDirectory, 'out', file);
  };
  beforeAll(async () => {
    // The type packages that a user installs; they are linked from the repository.
    await mkdir(join(project, 'node_modules/@types'), { recursive: true });
    for (const name of ['@types/node', 'undici-types'])
      if (!existsSync(join(project, 'node_modules', name)))
        await symlink(packageFile(`node_modules/${name}`), join(project, 'node_modules', name));
  });
  const lib = ['es2023', 'esnext.disposable'];

  it('accepts valid code and rejects invalid code with module nodenext, from ESM and CommonJS', async () => {
    const cts = example().replace(
      /^const agentllm[\s\S]*/m,
      (rest) => `async function main() {\n${rest}}\nvoid main();\n`,
    );
    const files = {
      'first.mts': example(),
      'types.mts': TYPES,
      'first.cts': cts.replace(/^import (\{.*?\}) from '(.*)';/, "import client = require('$2');\nconst $1 = client;"),
    };
    const out = await tsc('nodenext', { module: 'nodenext', moduleResolution: 'nodenext', lib }, files);
    for (const file of ['first.mjs', 'first.cjs'])
      expect(await runWith(process.execPath, out(file))).toBe('openai gpt-4 0.7\n');
  });

  it('accepts valid code and rejects invalid code with moduleResolution bundler', async () => {
    const files = { 'first.ts': example(), 'types.ts': TYPES, 'others.ts': otherExamples() };
    await tsc('bundler', { module: 'esnext', moduleResolution: 'bundler', lib }, files);
  });

  it('compiles without errors in libraries for a program that is emitted as CommonJS', async () => {
    const code = example().replace(
      /^const agentllm[\s\S]*/m,
      (rest) => `async function main() {\n${rest}}\nvoid main();\n`,
    );
    const options = { module: 'commonjs', moduleResolution: 'bundler', verbatimModuleSyntax: false };
    const out = await tsc('commonjs', options, { 'first.ts': code });
    expect(await runWith(process.execPath, out('first.js'))).toBe('openai gpt-4 0.7\n');
  });

  it('has source maps that contain the sources', () => {
    const map = readJson(join(installed, 'esm/src/client/connect.js.map'));
    expect(map.sourcesContent[0]).toBe(readFileSync(packageFile('src/client/connect.ts'), 'utf8'));
    expect(map.sources).toEqual(['src/client/connect.ts']);
  });
});
