import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { packageFile } from '../../src/package.js';
import { speak } from '../support/scripted_models.js';
import {
  events,
  failure,
  pause,
  type ScriptedProvider,
  startScriptedProvider,
  textChunk,
} from '../support/scripted_provider.js';
import { agent, type CataloguePart, config, startFakeWatch } from './fake_watch.js';
import { installCached, installClient, nodes, packClient } from './packed.js';

/*
 * The entry points for the AI SDK and for LangChain as users get them: packed, with the SDK installed beside it, from every module system and
 * from bundles, with both lines of the AI SDK.
 */

const run = promisify(execFile);
let directory: string;
/** A project with the client and the packages of `ai` 6, and one without them. */
let project: string;
let bare: string;

/** The packages of the AI SDK, with those that they need. */
const PACKAGES = [
  'ai',
  '@ai-sdk/openai',
  '@ai-sdk/anthropic',
  '@ai-sdk/xai',
  '@ai-sdk/deepseek',
  '@ai-sdk/openai-compatible',
  '@langchain/core',
  '@langchain/openai',
];
const SEVEN = [
  'ai@7.0.173',
  '@ai-sdk/openai@4.0.118',
  '@ai-sdk/anthropic@4.0.105',
  '@ai-sdk/xai@5.0.12',
  '@ai-sdk/deepseek@3.0.56',
  '@ai-sdk/openai-compatible@3.0.92',
  'zod@4',
];

const SEVEN_MODULES = packageFile('.cache/ai7/node_modules/ai');

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'agentllm-sdk-client-'));
  project = join(directory, 'project');
  bare = join(directory, 'bare');
  const { filename } = await packClient(directory);
  await installClient(project, join(directory, filename));
  await installClient(bare, join(directory, filename));
  for (const name of closure(PACKAGES)) await link(join(project, 'node_modules'), packageFile('node_modules'), name);
}, 240_000);

afterAll(() => rm(directory, { recursive: true, force: true }));

/** Packages with all that they depend on. */
function closure(names: readonly string[]): Set<string> {
  const all = new Set<string>();
  const visit = (name: string) => {
    const file = packageFile(`node_modules/${name}/package.json`);
    if (all.has(name) || !existsSync(file)) return;
    all.add(name);
    const { dependencies = {}, peerDependencies = {} } = JSON.parse(readFileSync(file, 'utf8'));
    for (const dependency of Object.keys({ ...dependencies, ...peerDependencies })) visit(dependency);
  };
  for (const name of names) visit(name);
  return all;
}

async function link(into: string, from: string, name: string): Promise<void> {
  const path = join(into, name);
  await mkdir(dirname(path), { recursive: true });
  if (!existsSync(path)) await symlink(join(from, name), path);
}

let providers: readonly ScriptedProvider[];
let address: string;

/** A stream that breaks after the caller has got a part. */
const CUT = events([textChunk('part'), pause(100)]);

/** An agent with a hop that fails, agents with one hop of each wire form, and one whose stream breaks. */
beforeEach(async () => {
  const forms = ['OPENAI', 'OPENAI_RESPONSES', 'ANTHROPIC', 'OPENAI_COMPATIBLE', 'OPENAI'];
  const apis = ['CHAT_COMPLETIONS', 'RESPONSES', 'MESSAGES', 'CHAT_COMPLETIONS', 'CHAT_COMPLETIONS'];
  const responses = [failure(503), speak('hi ', 'there'), speak('hi ', 'there'), speak('hi ', 'there'), CUT];
  providers = await Promise.all(responses.map((respond) => startScriptedProvider(respond)));
  const catalogue = forms.map((form, at) => ({
    provider: {
      name: `form${at}`,
      dialect: `DIALECT_${form}`,
      wire_api: `WIRE_API_${apis[at]}`,
      base_url: providers[at]?.url,
      api_key_env_vars: ['LOCAL_LLM_API_KEY'],
      enabled: true,
    },
  })) as CataloguePart[];
  const watch = await startFakeWatch();
  const agents = forms.map((_, at) => {
    const hops = at === 0 ? [0, 3] : [at];
    const configs = hops.map((hop) =>
      config(hop + 1, 1, { provider: `form${hop}`, model_name: `m${hop}`, priority: hop }),
    );
    return agent(`agent${at}`, 1, { id: at + 1, configs });
  });
  watch.onStream = (stream) => stream.start().snapshot(10, agents, catalogue);
  address = watch.address;
});

const environment = () => ({
  PATH: process.env['PATH'],
  AGENTLLM_ADDRESS: address,
  LOCAL_LLM_API_KEY: 'sk-local',
  PROVIDER_ALLOW_KEY_VARS: 'LOCAL_LLM_API_KEY',
});

/** Runs a file of a project and returns its output; standard error must be empty. */
async function output(node: string, cwd: string, file: string): Promise<string> {
  const { stdout, stderr } = await run(node, [file], { cwd, env: environment() });
  expect(stderr).toBe('');
  return stdout;
}

/** Calls the model of each agent with and without a stream, and prints what it got. */
const PROGRAM = `
  globalThis.AI_SDK_LOG_WARNINGS = false;
  const client = connect({ agents: 'all' });
  await client.ready();
  for (let at = 0; at < 4; at++) {
    const model = client.agent('agent' + at).languageModel();
    const { text, providerMetadata } = await generateText({ model, prompt: 'hello' });
    const result = streamText({ model, prompt: 'hello' });
    let streamed = '';
    for await (const part of result.textStream) streamed += part;
    const { attempts, outcome } = providerMetadata.agentllm;
    const receipt = (await result.providerMetadata).agentllm;
    console.log(model.specificationVersion, text, '|', streamed, attempts.length, outcome, receipt.usage.output_tokens);
  }
  let failure;
  const torn = streamText({ model: client.agent('agent4').languageModel(), prompt: 'hello', onError: ({ error }) => { failure = error; } });
  const types = [];
  for await (const { type } of torn.fullStream) if (type === 'text-delta' || type === 'error') types.push(type);
  console.log(types.join(), failure.name, failure.content, failure.receipt.outcome);
  await client[Symbol.asyncDispose]();`;
const IMPORTS = "import { connect } from '@agentllm/client/ai';\nimport { generateText, streamText } from 'ai';\n";
const REQUIRES =
  "const { connect } = require('@agentllm/client/ai');\nconst { generateText, streamText } = require('ai');\n";
const esm = IMPORTS + PROGRAM;
const cjs = `${REQUIRES}(async () => {${PROGRAM}})();`;

const linesOf = (version: string) => {
  const line = (attempts: number) => `${version} hi there | hi there ${attempts} RECEIPT_OUTCOME_COMPLETED 2\n`;
  return `${line(3)}${line(1).repeat(3)}text-delta,error TornStreamError part RECEIPT_OUTCOME_TORN\n`;
};

const BUNDLER = { module: 'esnext', moduleResolution: 'bundler' };

/** Compiles a program in a folder of the project; fails with the output of the compiler. */
async function compile(name: string, code: string, options: object): Promise<void> {
  for (const type of ['@types/node', 'undici-types', '@types/json-schema', 'json-schema'])
    if (existsSync(packageFile(`node_modules/${type}`)))
      await link(join(project, 'node_modules'), packageFile('node_modules'), type);
  const folder = join(project, name);
  await mkdir(folder);
  await writeFile(join(folder, 'main.mts'), code);
  const lib = ['es2023', 'esnext.disposable', 'dom'];
  const compilerOptions = { strict: true, noEmit: true, target: 'es2022', skipLibCheck: true, types: ['node'], lib };
  const config = { compilerOptions: { ...compilerOptions, ...options }, files: ['main.mts'] };
  await writeFile(join(folder, 'tsconfig.json'), JSON.stringify(config));
  const compiler = packageFile('node_modules/typescript/bin/tsc');
  await run(process.execPath, [compiler, '-p', folder]).catch(({ stdout }) => {
    throw new Error(`it does not compile:\n${stdout}`);
  });
}

describe('the entry point for the AI SDK', () => {
  it.each([
    ['ESM', 'main.mjs', esm],
    ['CommonJS', 'main.cjs', cjs],
  ])('calls models of all wire forms with `ai` 6 from %s', async (_, file, code) => {
    await writeFile(join(project, file), code);
    expect(await output(process.execPath, project, file)).toBe(linesOf('v3'));
    expect(providers.map(({ requests }) => requests.length)).toEqual([4, 2, 2, 4, 1]);
  });

  it('passes the tests of the model, of the scenarios and of the matrix of faults with `ai` 7', async ({ skip }) => {
    const { node, missing } = (await nodes())[1] ?? { node: '', missing: 'there is none' };
    if (missing) skip(missing);
    if (!existsSync(SEVEN_MODULES) && !(await installCached('ai7', ...SEVEN))) skip('ai 7 cannot be installed');
    const vitest = packageFile('node_modules/vitest/vitest.mjs');
    const { stdout } = await run(node, [vitest, 'run', '--project', 'ai7', '--maxWorkers', '1', '--reporter', 'json'], {
      cwd: packageFile('.'),
      env: { ...process.env, AI7_MODULES: packageFile('.cache/ai7/node_modules') },
      maxBuffer: 64 * 1024 * 1024,
    }).catch((error) => error);
    const { numPassedTests, testResults } = JSON.parse(stdout.slice(stdout.indexOf('{"')));
    const results: { status: string; fullName: string }[] = testResults.flatMap(
      ({ assertionResults }: { assertionResults: object[] }) => assertionResults,
    );
    expect(results.filter(({ status }) => status === 'failed').map(({ fullName }) => fullName)).toEqual([]);
    expect(numPassedTests).toBeGreaterThan(400);
  }, 300_000);

  it('calls models of all wire forms with `ai` 7 under the newest Node LTS, which gets a LanguageModelV4', async ({
    skip,
  }) => {
    const { node, missing } = (await nodes())[1] ?? { node: '', missing: 'there is none' };
    if (missing) skip(missing);
    if (!existsSync(SEVEN_MODULES) && !(await installCached('ai7', ...SEVEN))) skip('ai 7 cannot be installed');
    const seven = join(directory, 'seven');
    await mkdir(seven);
    await writeFile(join(seven, 'package.json'), '{"private":true}');
    // A copy, because Node resolves the peers of the package from its real path.
    for (const from of [join(bare, 'node_modules'), packageFile('.cache/ai7/node_modules')])
      await cp(from, join(seven, 'node_modules'), { recursive: true });
    await writeFile(join(seven, 'main.mjs'), esm);
    await writeFile(
      join(seven, 'main.cjs'),
      cjs
        .replace("const { generateText, streamText } = require('ai');\n", '')
        .replace('{\n', "{\nconst { generateText, streamText } = await import('ai');\n"),
    );
    expect(await output(node, seven, 'main.mjs')).toBe(linesOf('v4'));
    expect(await output(node, seven, 'main.cjs')).toBe(linesOf('v4'));
  }, 240_000);

  it.each(['esm', 'cjs'] as const)(
    'is bundled as %s without warnings while the peers are absent, and works with them',
    async (format) => {
      const code = `import { connect } from '@agentllm/client/ai';
      const client = connect({ agents: 'all' });
      (async () => {
        await client.ready();
        const model = client.agent('agent3').languageModel();
        const prompt = [{ role: 'user', content: [{ type: 'text', text: 'hello' }] }];
        const { content } = await model.doGenerate({ prompt });
        console.log(content[0].text);
        client.close();
      })();`;
      await writeFile(join(bare, 'bundled.mjs'), code);
      const file = format === 'esm' ? 'bundle.mjs' : 'bundle.cjs';
      const { build } = await import('esbuild');
      const { warnings } = await build({
        entryPoints: [join(bare, 'bundled.mjs')],
        outfile: join(project, file),
        bundle: true,
        platform: 'node',
        format,
        target: 'node20',
        logLevel: 'silent',
        // Bundled CommonJS dependencies call require.
        ...(format === 'esm' && {
          banner: {
            js: "import * as nodeModule from 'node:module'; const require = nodeModule.createRequire(import.meta.url);",
          },
        }),
      });
      expect(warnings).toEqual([]);
      expect(await output(process.execPath, project, file)).toBe('hi there\n');
    },
  );

  it('names the missing package and the command that installs it', async () => {
    const code = `import { connect, ChainError } from '@agentllm/client/ai';
      const client = connect({ agents: 'all' });
      await client.ready();
      const error = await client.agent('agent2').languageModel().doGenerate({ prompt: [] }).catch((error) => error);
      console.log(error instanceof ChainError, error.message);
      client.close();`;
    await writeFile(join(bare, 'missing.mjs'), code);
    expect(await output(process.execPath, bare, 'missing.mjs')).toBe(
      'true No hop of agent "agent2" produced a response: form2/m2: INVALID_REQUEST: The package @ai-sdk/anthropic is not installed; run: npm install @ai-sdk/anthropic@3\n',
    );
  });

  it('recognizes its errors from both module systems', async () => {
    const code = `import { createRequire } from 'node:module';
      import { ChainError, connect } from '@agentllm/client/ai';
      const other = createRequire(import.meta.url)('@agentllm/client/ai');
      const client = other.connect({ agents: 'all' });
      await client.ready();
      const error = await client.agent('agent2').languageModel().doGenerate({ prompt: [] }).catch((error) => error);
      console.log(other.ChainError === ChainError, error instanceof ChainError, error instanceof other.TornStreamError);
      client.close();`;
    await writeFile(join(bare, 'errors.mjs'), code);
    expect(await output(process.execPath, bare, 'errors.mjs')).toBe('false true false\n');
  });

  it('is documented by examples that compile', async () => {
    const page = readFileSync(packageFile('docs/call-a-model.md'), 'utf8');
    const blocks = [...page.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, code = '']) => code);
    expect(blocks.length).toBeGreaterThan(5);
    const imports = new Set(blocks.flatMap((code) => code.match(/^import .*$/gm) ?? []));
    const [first = '', ...others] = blocks.map((code) => code.replaceAll(/^import .*$/gm, ''));
    await compile('docs', [...imports, first, ...others.map((code) => `{\n${code}}`)].join('\n'), BUNDLER);
  });

  it.each([
    ['nodenext', { module: 'nodenext', moduleResolution: 'nodenext' }],
    ['bundler', BUNDLER],
  ])('has types that fit the AI SDK with module resolution %s', async (name, options) => {
    const code = `
      import { type ChainError, connect, type LanguageModel, type ModelOptions, registerDialect, TornStreamError } from '@agentllm/client/ai';
      import { createOpenAI } from '@ai-sdk/openai';
      import { generateText, streamText, wrapLanguageModel } from 'ai';
      const options: ModelOptions = { mode: 'whole', deadlineMs: 60_000, contentPolicyFallback: true, subject: 'run-17' };
      const client = connect({ agents: ['trader'] });
      const model: LanguageModel = client.agent('trader').languageModel(options);
      const pinned = client.run({ pin: 'run', id: 'r' }).agent('trader').languageModel();
      await generateText({ model, prompt: 'x' });
      streamText({ model: wrapLanguageModel({ model: pinned, middleware: { specificationVersion: 'v3' } }), prompt: 'x' });
      const { variant } = await client.agent('trader').recordOutcome({ name: 'hit', value: true, subject: 'run-17' });
      console.log(variant, client.agent('trader').resolve({ subject: 'run-17' }).experiment?.counted);
      registerDialect({
        provider: 'desk',
        package: '@ai-sdk/openai',
        create: (module: { createOpenAI: typeof createOpenAI }, { apiKey, baseURL, fetch, modelName }) =>
          module.createOpenAI({ apiKey, baseURL, fetch }).chat(modelName),
      });
      client.on('receipt', ({ outcome, attempts, usage }) => console.log(outcome, attempts.length, usage?.input_tokens));
      export const textOf = (error: ChainError) => (error instanceof TornStreamError ? error.content : error.receipt.agent);
      // @ts-expect-error no such option
      client.agent('trader').languageModel({ timeout: 5 });
      // @ts-expect-error the base client has no agents
      connect('127.0.0.1:50051').agent('trader');`;
    await compile(name, code, options);
  });
});

/** Calls the chat models of three agents, the last of which needs a package that is not installed. */
const CHAT_PROGRAM = `
  const client = connect({ agents: 'all' });
  await client.ready();
  for (const name of ['agent0', 'agent1']) {
    const model = client.agent(name).chatModel();
    const { text, response_metadata } = await model.invoke('hello');
    let streamed = '';
    for await (const chunk of await model.stream('hello')) streamed += chunk.text;
    const { attempts, outcome } = response_metadata.agentllm;
    console.log(model instanceof BaseChatModel, text, '|', streamed, attempts.length, outcome);
  }
  const error = await client.agent('agent2').chatModel().invoke('hello').catch((error) => error);
  console.log(error instanceof ChainError, error.message);
  await client[Symbol.asyncDispose]();`;
const CHAT_OUTPUT = `true hi there | hi there 3 RECEIPT_OUTCOME_COMPLETED
true hi there | hi there 1 RECEIPT_OUTCOME_COMPLETED
true No hop of agent "agent2" produced a response: form2/m2: INVALID_REQUEST: The package @langchain/anthropic is not installed; run: npm install @langchain/anthropic@1
`;

describe('the entry point for LangChain', () => {
  it.each([
    [
      'ESM',
      'chat.mjs',
      `import { ChainError, connect } from '@agentllm/client/langchain';
      import { BaseChatModel } from '@langchain/core/language_models/chat_models';
      ${CHAT_PROGRAM}`,
    ],
    [
      'CommonJS',
      'chat.cjs',
      `const { ChainError, connect } = require('@agentllm/client/langchain');
      const { BaseChatModel } = require('@langchain/core/language_models/chat_models');
      (async () => {${CHAT_PROGRAM}})();`,
    ],
  ])('calls chat models from %s, and names a missing provider package', async (_, file, code) => {
    await writeFile(join(project, file), code);
    expect(await output(process.execPath, project, file)).toBe(CHAT_OUTPUT);
  });

  it.each([
    ['chat_nodenext', { module: 'nodenext', moduleResolution: 'nodenext' }],
    ['chat_bundler', BUNDLER],
  ])('has types that fit LangChain with module resolution of %s', async (name, options) => {
    const code = `
      import { connect } from '@agentllm/client/langchain';
      import type { BaseChatModel } from '@langchain/core/language_models/chat_models';
      import { z } from 'zod';
      const client = connect({ agents: ['trader'] });
      const model: BaseChatModel = client.agent('trader').chatModel({ mode: 'whole' });
      const run = client.run({ id: 'r' }).agent('trader').chatModel();
      const { side } = await run.withStructuredOutput(z.object({ side: z.string() })).invoke('x');
      export const letters: number = side.length;
      await run.bindTools([]).withConfig({ temperature: 0 }).invoke('x');
      await model.invoke('x');
      // @ts-expect-error no such option
      client.agent('trader').chatModel({ timeout: 5 });`;
    await compile(name, code, options);
  });
});
