import { readdir } from 'node:fs/promises';
import { createServer } from 'node:http';
import { relative } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { generateKey } from '../../../src/domain/fernet.js';
import { startCommand, useDirectories } from '../../support/command.js';
import { startPostgres, type TestPostgres } from '../../support/postgres.js';
import { runCommand } from '../../support/run_command.js';
import { connect } from '../../support/service.js';

interface Diagnosis {
  readonly area: string;
  readonly verdict: 'ok' | 'warn' | 'fail';
  readonly finding: string;
  readonly remedy?: string;
}

const directory = useDirectories();

/** A data directory whose agents use a model that is not shut down, as after a first start with SEED_MODEL. */
async function usableStore(): Promise<string> {
  const DATA_DIR = await directory();
  await runCommand(['migrate', 'up'], { DATA_DIR });
  const { stdout } = await runCommand(['seed', '--model', 'openai/gpt-5.4'], { DATA_DIR });
  expect(stdout).toMatch(/^default_configs +12$/m);
  return DATA_DIR;
}

/** Runs `agentllm doctor --json` and parses its output. */
async function diagnose(env: Record<string, string>, args: readonly string[] = ['--offline']) {
  const { code, stdout, stderr } = await runCommand(['doctor', '--json', ...args], env);
  const { healthy, diagnoses } = JSON.parse(stdout) as { healthy: boolean; diagnoses: Diagnosis[] };
  expect(healthy).toBe(code === 0);
  const findingsOf = (area: string) => diagnoses.filter((diagnosis) => diagnosis.area === area);
  return { code, stdout, stderr, findingsOf, diagnoses };
}

describe('agentllm doctor', () => {
  it('exits with 0 and prints each check when the store is valid', async () => {
    const DATA_DIR = await usableStore();
    const { code, stdout } = await runCommand(['doctor', '--offline'], { DATA_DIR });
    expect(code).toBe(0);
    expect(stdout).toMatch(/^ok {4}database {3}PostgreSQL \d+\S* embedded, in .*responds in \d+ ms$/m);
    expect(stdout).toMatch(/^ok {4}schema {5}The schema is current, at \d{4}_/m);
    expect(stdout).toMatch(/^warn {2}service {4}No service responds at .*\n {17}→ Start one: agentllm serve$/m);
    expect(stdout).toMatch(/^warn {2}providers {2}openai: no OPENAI_API_KEY/m);
    expect(stdout).toMatch(/\d+ checks passed, \d+ warnings\n$/);
  });

  it('fails when agents use a model that is shut down, and names the command that changes it', async () => {
    const DATA_DIR = await directory.started();
    const service = await startCommand({ DATA_DIR });
    const AGENTLLM_ADDRESS = `127.0.0.1:${service.port}`;
    const shutDown = {
      area: 'configs',
      verdict: 'fail',
      finding: 'openai/gpt-4 was shut down on 2026-10-23; 12 agents use it',
      remedy: 'agentllm configs bulk --all --model openai/gpt-5.6-sol',
    };
    const before = await diagnose({ DATA_DIR });
    expect([before.code, before.findingsOf('configs')]).toMatchObject([1, expect.arrayContaining([shutDown])]);
    // The default models are not used, but will be shut down too.
    expect(before.findingsOf('configs').at(-1)).toMatchObject({
      verdict: 'warn',
      finding: expect.stringMatching(
        /^12 other uses of models that are deprecated or shut down within 90 days, such as/,
      ),
      remedy: 'See agentllm models retiring',
    });
    const { code } = await runCommand(shutDown.remedy.split(' ').slice(1), { AGENTLLM_ADDRESS });
    expect(code).toBe(0);
    const after = await diagnose({ DATA_DIR });
    expect([after.code, after.findingsOf('configs').map(({ verdict }) => verdict)]).toEqual([0, ['ok', 'warn']]);
  });

  it('warns when agents use a model that will be shut down, with the days that are left', async () => {
    const DATA_DIR = await usableStore();
    const service = await startCommand({ DATA_DIR });
    const clients = connect(service.port);
    const retires_at = new Date(Date.now() + 9.5 * 86_400_000);
    await clients.providers.createModel({
      model: { provider: 'openai', name: 'going', retires_at, replaced_by: 'gpt-5.4' },
    });
    const config = { provider: 'openai', model_name: 'going' };
    await clients.configs.updateConfig({ config: { id: 8, ...config } });
    clients.close();
    const { code, findingsOf } = await diagnose({ DATA_DIR });
    expect([code, findingsOf('configs')[1]]).toEqual([
      0,
      {
        area: 'configs',
        verdict: 'warn',
        finding: `openai/going will be shut down on ${retires_at.toISOString().slice(0, 10)}, in 10 days; agent trader uses it`,
        remedy: 'agentllm configs update 8 --model openai/gpt-5.4',
      },
    ]);
  });

  it('reports a variant of an experiment that would fail, and the shutdown of its model', async () => {
    const DATA_DIR = await usableStore();
    const service = await startCommand({ DATA_DIR });
    const clients = connect(service.port);
    const provider = { name: 'own', base_url: 'https://llm.example.com/v1' };
    await clients.providers.createProvider({ provider: { ...provider, dialect: 'DIALECT_OPENAI_COMPATIBLE' } });
    const retires_at = new Date(Date.now() + 9.5 * 86_400_000);
    await clients.providers.createModel({ model: { provider: 'own', name: 'going', retires_at } });
    const experiment = { agent: { name: 'trader' }, name: 'x' };
    await clients.experiments.createExperiment({
      agent: experiment.agent,
      experiment: {
        name: 'x',
        variants: [
          { name: 'now', control: true, weight_basis_points: 5000 },
          { name: 'new', weight_basis_points: 5000, overrides: { provider: 'own', model_name: 'going' } },
        ],
        primary_metric: { kind: 'EXPERIMENT_METRIC_KIND_SUCCESS_RATE' },
      },
    });
    const findings = async () => {
      const { code, findingsOf } = await diagnose({ DATA_DIR });
      return [code, ...findingsOf('configs')];
    };
    const ok = expect.objectContaining({ verdict: 'ok' });
    const draft = expect.objectContaining({
      verdict: 'warn',
      finding: expect.stringMatching(/^1 other use of models .*, such as .* drafts of experiments$/),
    });
    expect(await findings()).toEqual([0, ok, draft]);
    await clients.experiments.startExperiment(experiment);
    const shutdown = expect.objectContaining({
      verdict: 'warn',
      finding: expect.stringMatching(/^own\/going will be shut down on .*; agent trader uses it$/),
      remedy: 'See agentllm models retiring',
    });
    expect(await findings()).toEqual([0, ok, shutdown]);
    const { findingsOf } = await diagnose({ DATA_DIR });
    expect(findingsOf('providers')).toContainEqual({
      area: 'providers',
      verdict: 'ok',
      finding: 'own: no key is used',
    });
    await clients.providers.updateProvider({ provider: { name: 'own', enabled: false } });
    const failing = {
      area: 'configs',
      verdict: 'fail',
      finding: '1 agent with a variant of an experiment that would fail: trader',
      remedy: 'See agentllm resolve <agent> --subject <subject>',
    };
    expect(await findings()).toEqual([1, failing, shutdown]);
    clients.close();
  });

  it('reports invalid settings and settings that are probably misspelt', async () => {
    const env = { DATA_DIR: await directory(), POLL_INTERVAL_MS: 'often', DATABSE_URL: 'x', GROQ_API_KEY: 'sk' };
    const { code, findingsOf } = await diagnose(env);
    expect(code).toBe(1);
    expect(findingsOf('settings')).toEqual([
      expect.objectContaining({ verdict: 'fail', finding: expect.stringContaining('POLL_INTERVAL_MS must be') }),
      {
        area: 'settings',
        verdict: 'warn',
        finding: 'DATABSE_URL is not a setting',
        remedy: 'Did you mean DATABASE_URL?',
      },
    ]);
  });

  it('names the command that creates a database, and creates none, when the directory has none', async () => {
    const DATA_DIR = await directory();
    const { code, findingsOf } = await diagnose({ DATA_DIR: relative(process.cwd(), DATA_DIR) });
    expect(code).toBe(0);
    expect(findingsOf('database')).toMatchObject([
      {
        verdict: 'warn',
        finding: `There is no database in ${DATA_DIR} yet`,
        remedy: expect.stringContaining('agentllm serve'),
      },
    ]);
    expect(await readdir(DATA_DIR)).toEqual([]);
  });

  it('reports a malformed ENCRYPTION_KEY also when there is no database', async () => {
    const { code, findingsOf } = await diagnose({ DATA_DIR: await directory(), ENCRYPTION_KEY: 'nonsense' });
    expect([code, findingsOf('settings')]).toMatchObject([
      1,
      [{ verdict: 'fail', finding: expect.stringContaining('ENCRYPTION_KEY is malformed') }],
    ]);
  });

  it('reports that the service at AGENTLLM_ADDRESS or --address uses another database', async () => {
    const service = await startCommand({ DATA_DIR: await directory.started() });
    const DATA_DIR = await directory();
    const AGENTLLM_ADDRESS = `127.0.0.1:${service.port}`;
    const expected = [
      {
        verdict: 'warn',
        finding: expect.stringMatching(new RegExp(`^A service responds at .* does not use ${DATA_DIR}$`)),
        remedy: 'Run agentllm doctor in its directory, or set DATA_DIR',
      },
    ];
    expect((await diagnose({ DATA_DIR, AGENTLLM_ADDRESS })).findingsOf('service')).toMatchObject(expected);
    const named = await diagnose({ DATA_DIR }, ['--offline', '--address', AGENTLLM_ADDRESS]);
    expect(named.findingsOf('service')).toMatchObject(expected);
  });

  it('reports the checks that it can run when the service with the database does not respond', async () => {
    const DATA_DIR = await directory.started();
    const service = await startCommand({ DATA_DIR });
    service.child.kill('SIGSTOP');
    const { code, findingsOf } = await diagnose({ DATA_DIR });
    expect([code, findingsOf('settings'), findingsOf('database')]).toMatchObject([
      1,
      [{ verdict: 'ok' }],
      [{ verdict: 'fail', finding: expect.stringContaining(`No response from process ${service.child.pid}`) }],
    ]);
  });

  it('distinguishes a wrong ENCRYPTION_KEY from a missing one when API keys are stored', async () => {
    const DATA_DIR = await directory.started();
    const service = await startCommand({ DATA_DIR, ENCRYPTION_KEY: generateKey() });
    const clients = connect(service.port);
    await clients.credentials.createCredential({ credential: { name: 'desk', provider: 'openai' }, api_key: 'sk-x' });
    clients.close();
    service.child.kill('SIGTERM');
    await service.ended;
    const wrongKey = await diagnose({ DATA_DIR, ENCRYPTION_KEY: generateKey() });
    expect(wrongKey.code).toBe(1);
    expect(wrongKey.findingsOf('keys')).toMatchObject([
      { verdict: 'fail', finding: expect.stringMatching(/is key .* under/) },
    ]);
    const missing = await diagnose({ DATA_DIR });
    expect(missing.findingsOf('keys')).toMatchObject([
      {
        verdict: 'fail',
        finding: 'ENCRYPTION_KEY is not set; 1 API key is stored',
        remedy: expect.stringMatching(/^Set it to the key that encrypted them \([0-9a-f]+\); a new key cannot/),
      },
    ]);
  });

  it('reports anonymous access, the caller that the token identifies, and the transport', async () => {
    const DATA_DIR = await usableStore();
    const service = await startCommand({ DATA_DIR });
    const serviceEnv = { DATA_DIR, GRPC_ADDRESS: `127.0.0.1:${service.port}` };
    expect((await diagnose(serviceEnv)).findingsOf('access')).toMatchObject([
      { verdict: 'ok', finding: 'The service is open: callers on this machine need no token, without TLS' },
    ]);
    const { stdout } = await runCommand(['token', 'create', '--role', 'admin'], { DATA_DIR });
    const AGENTLLM_TOKEN = stdout.trim();
    const [id] = /^al_[a-z2-7]{10}/.exec(AGENTLLM_TOKEN) as RegExpExecArray;
    const known = await diagnose({ ...serviceEnv, AGENTLLM_TOKEN });
    expect(known.findingsOf('access')).toMatchObject([
      { verdict: 'ok', finding: `This shell is token:${id}, admin, without TLS` },
      { verdict: 'ok', finding: '1 token of the store is valid' },
    ]);
    const unknown = await diagnose({ ...serviceEnv, AGENTLLM_TOKEN: `${AGENTLLM_TOKEN}x` });
    expect([unknown.code, unknown.findingsOf('access')[0]]).toMatchObject([1, { verdict: 'fail' }]);
    expect(known.stdout + unknown.stdout).not.toContain(AGENTLLM_TOKEN);
    const without = await diagnose(serviceEnv);
    expect([without.code, without.findingsOf('service')[0], without.findingsOf('access')[0]]).toMatchObject([
      0,
      { verdict: 'ok' },
      { verdict: 'warn', remedy: 'Set AGENTLLM_TOKEN, or use --token-file' },
    ]);
  });

  it('reports tokens that expire soon, and the absence of an administrator token', async () => {
    const DATA_DIR = await directory.started();
    await startCommand({ DATA_DIR });
    const createToken = async (...args: string[]) => runCommand(['token', 'create', ...args], { DATA_DIR });
    await createToken('--role', 'viewer', '--lifetime', '15d');
    await createToken('--role', 'operator', '--lifetime', '13d', '--name', 'desk');
    expect((await diagnose({ DATA_DIR })).findingsOf('access')).toMatchObject([
      { verdict: 'warn', finding: 'No administrator token is valid' },
      { verdict: 'warn', finding: expect.stringMatching(/^Token al_\w+ "desk" expires at 20/) },
    ]);
  });

  it('runs the checks inside the service when a service owns the database', async () => {
    const DATA_DIR = await usableStore();
    const service = await startCommand({
      DATA_DIR,
      ENCRYPTION_KEY: generateKey(),
      OPENAI_API_KEY: 'sk-of-the-service',
    });
    const { code, findingsOf, stdout } = await diagnose({ DATA_DIR, GRPC_ADDRESS: `127.0.0.1:${service.port}` });
    expect(code).toBe(0);
    expect(findingsOf('service')).toMatchObject([{ verdict: 'ok', finding: expect.stringContaining('at revision 3') }]);
    expect(findingsOf('keys')).toMatchObject([{ verdict: 'ok' }]);
    expect(findingsOf('providers')).toMatchObject([{ verdict: 'ok', finding: 'openai: OPENAI_API_KEY is used' }]);
    expect(stdout).not.toContain('sk-of-the-service');
  });

  it('calls the providers that configs use with the keys of the configs, and reports the results', async () => {
    const DATA_DIR = await directory.started();
    const receivedHeaders: unknown[] = [];
    const server = createServer(({ headers }, response) => {
      receivedHeaders.push(headers.authorization);
      response.writeHead(headers.authorization === 'Bearer sk-of-the-desk' ? 200 : 503).end('{"data":[]}');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void server.close());
    const base_url = `http://127.0.0.1:${(server.address() as { port: number }).port}`;
    const env = { DATA_DIR, PROVIDER_ALLOW_CIDRS: '127.0.0.0/8', ENCRYPTION_KEY: generateKey() };
    const service = await startCommand(env);
    const clients = connect(service.port);
    const dialect = 'DIALECT_OPENAI_COMPATIBLE' as const;
    const provider = { name: 'mine', dialect, base_url, api_key_env_vars: ['MINE_API_KEY'] };
    await clients.providers.createProvider({ provider });
    const credential = { name: 'desk', provider: 'mine' };
    await clients.credentials.createCredential({ credential, api_key: 'sk-of-the-desk' });
    const config = { provider: 'mine', model_name: 'm' };
    const agent = { name: 'trader' };
    for (const credential_name of ['desk', 'desk'])
      await clients.configs.createConfig({ agent, config: { ...config, credential_name } });
    await clients.configs.createConfig({ agent, config, api_key: 'sk-of-the-config' });
    clients.close();
    const found = [
      { verdict: 'warn', finding: expect.stringContaining('openai: no OPENAI_API_KEY') },
      { verdict: 'ok', finding: expect.stringContaining('mine (credential desk): ') },
      {
        verdict: 'fail',
        finding: expect.stringMatching(/^mine \(key of config \d+ of trader\): .*has an internal error \(HTTP 503\)/),
        remedy: 'See agentllm configs health --agent trader',
      },
    ];
    const inside = await diagnose({ DATA_DIR }, []);
    expect(inside.findingsOf('providers')).toMatchObject(found);
    expect(inside.findingsOf('providers')[0]?.finding).toContain(`of the service (process ${service.child.pid})`);
    expect(receivedHeaders).toHaveLength(2);
    service.child.kill('SIGTERM');
    await service.ended;
    const outside = await diagnose(env, []);
    expect([outside.code, outside.findingsOf('providers')]).toMatchObject([1, found]);
    expect(inside.stdout + outside.stdout).not.toMatch(/sk-of/);
  });

  it('checks at most 20 keys', async () => {
    const DATA_DIR = await directory.started();
    const service = await startCommand({ DATA_DIR, ENCRYPTION_KEY: generateKey() });
    const clients = connect(service.port);
    for (let at = 0; at < 22; at++) {
      const config = { provider: 'openai', model_name: 'gpt-4o' };
      await clients.configs.createConfig({ agent: { name: 'trader' }, config, api_key: `sk-${at}` });
    }
    clients.close();
    const { findingsOf } = await diagnose({ DATA_DIR });
    expect(findingsOf('providers')).toHaveLength(21);
    expect(findingsOf('providers').at(-1)).toMatchObject({
      verdict: 'warn',
      finding: '3 keys more in use were not checked',
      remedy: 'See agentllm configs health --all',
    });
  });
});

describe('a command that only reads', () => {
  it.each([
    [['migrate', 'status'], 0, /^There is no database in .* yet\ncurrent {2}none\n/],
    [['migrate', 'history'], 0, /^There is no database in .* yet\nMIGRATION/],
    [['backup', '/tmp/never-written.agentllm'], 1, /^agentllm: There is no database in .* yet\n$/],
  ])('creates no database: %j', async (args, code, output) => {
    const DATA_DIR = await directory();
    const ended = await runCommand(args, { DATA_DIR });
    expect([ended.code, ended.stdout + ended.stderr]).toEqual([code, expect.stringMatching(output)]);
    expect(await readdir(DATA_DIR)).toEqual([]);
  });
});

describe('agentllm doctor on PostgreSQL', () => {
  let postgres: TestPostgres;
  beforeAll(async () => {
    postgres = await startPostgres();
  });
  afterAll(() => postgres.stop());

  it('reports a database that is unavailable, has no schema, or accepts no writes', async () => {
    const unavailable = await diagnose({ DATABASE_URL: 'postgres://nobody@127.0.0.1:1/x', DATABASE_WAIT_MS: '500' });
    expect([unavailable.code, unavailable.findingsOf('database')]).toMatchObject([1, [{ verdict: 'fail' }]]);
    const DATABASE_URL = await postgres.createDatabase();
    expect((await diagnose({ DATABASE_URL })).findingsOf('schema')).toMatchObject([{ verdict: 'warn' }]);
    const readOnly = await diagnose({
      DATABASE_URL: `${DATABASE_URL}?options=-c%20default_transaction_read_only%3Don`,
    });
    expect(readOnly.findingsOf('database')).toContainEqual(
      expect.objectContaining({ verdict: 'fail', finding: expect.stringContaining('accepts no writes') }),
    );
  });
});
