import { readdir } from 'node:fs/promises';
import { createServer } from 'node:http';
import { relative } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { generateKey } from '../../../src/domain/fernet.js';
import { agentllm, startCommand, useDirectories } from '../../support/command.js';
import { startPostgres, type TestPostgres } from '../../support/postgres.js';
import { connect } from '../../support/service.js';

interface Diagnosis {
  readonly area: string;
  readonly verdict: 'ok' | 'warn' | 'fail';
  readonly finding: string;
  readonly remedy?: string;
}

const directory = useDirectories();

/** What the doctor says, as a program reads it. */
async function diagnose(env: Record<string, string>, args: readonly string[] = ['--offline']) {
  const { code, stdout, stderr } = await agentllm(['doctor', '--json', ...args], env).ended;
  const { healthy, diagnoses } = JSON.parse(stdout) as { healthy: boolean; diagnoses: Diagnosis[] };
  expect(healthy).toBe(code === 0);
  const about = (area: string) => diagnoses.filter((one) => one.area === area);
  return { code, stdout, stderr, about, diagnoses };
}

describe('agentllm doctor', () => {
  it('finds nothing wrong with a store that has started once, and says so in words', async () => {
    const DATA_DIR = await directory.started();
    const { code, stdout } = await agentllm(['doctor', '--offline'], { DATA_DIR }).ended;
    expect(code).toBe(0);
    expect(stdout).toMatch(/^ok {4}database {3}PostgreSQL \d+\S* embedded, in .*responds in \d+ ms$/m);
    expect(stdout).toMatch(/^ok {4}schema {5}The schema is current, at \d{4}_/m);
    expect(stdout).toMatch(/^warn {2}service {4}No service responds at .*\n {17}→ Start one: agentllm serve$/m);
    expect(stdout).toMatch(/^warn {2}providers {2}openai: no OPENAI_API_KEY/m);
    expect(stdout).toMatch(/\d+ checks passed, \d+ warnings\n$/);
  });

  it('names mistakes in the settings, and settings that were probably misspelt', async () => {
    const env = { DATA_DIR: await directory(), POLL_INTERVAL_MS: 'often', DATABSE_URL: 'x', GROQ_API_KEY: 'sk' };
    const { code, about } = await diagnose(env);
    expect(code).toBe(1);
    expect(about('settings')).toEqual([
      expect.objectContaining({ verdict: 'fail', finding: expect.stringContaining('POLL_INTERVAL_MS must be') }),
      {
        area: 'settings',
        verdict: 'warn',
        finding: 'DATABSE_URL is not a setting',
        remedy: 'Did you mean DATABASE_URL?',
      },
    ]);
  });

  it('says of a directory without a database what makes one, and makes none', async () => {
    const DATA_DIR = await directory();
    const { code, about } = await diagnose({ DATA_DIR: relative(process.cwd(), DATA_DIR) });
    expect(code).toBe(0);
    expect(about('database')).toMatchObject([
      {
        verdict: 'warn',
        finding: `There is no database in ${DATA_DIR} yet`,
        remedy: expect.stringContaining('agentllm serve'),
      },
    ]);
    expect(await readdir(DATA_DIR)).toEqual([]);
  });

  it('tells an ENCRYPTION_KEY that can be none without a database, too', async () => {
    const { code, about } = await diagnose({ DATA_DIR: await directory(), ENCRYPTION_KEY: 'nonsense' });
    expect([code, about('settings')]).toMatchObject([
      1,
      [{ verdict: 'fail', finding: expect.stringContaining('ENCRYPTION_KEY is malformed') }],
    ]);
  });

  it('tells a service that has another database, by AGENTLLM_ADDRESS and by --address', async () => {
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
    expect((await diagnose({ DATA_DIR, AGENTLLM_ADDRESS })).about('service')).toMatchObject(expected);
    const named = await diagnose({ DATA_DIR }, ['--offline', '--address', AGENTLLM_ADDRESS]);
    expect(named.about('service')).toMatchObject(expected);
  });

  it('says what it knows when the service that has the database is stuck', async () => {
    const DATA_DIR = await directory.started();
    const service = await startCommand({ DATA_DIR });
    service.child.kill('SIGSTOP');
    const { code, about } = await diagnose({ DATA_DIR });
    expect([code, about('settings'), about('database')]).toMatchObject([
      1,
      [{ verdict: 'ok' }],
      [{ verdict: 'fail', finding: expect.stringContaining(`No response from process ${service.child.pid}`) }],
    ]);
  });

  it('tells a wrong ENCRYPTION_KEY from a missing one, and names keys that cannot be read', async () => {
    const DATA_DIR = await directory.started();
    const service = await startCommand({ DATA_DIR, ENCRYPTION_KEY: generateKey() });
    const clients = connect(service.port);
    await clients.credentials.createCredential({ credential: { name: 'desk', provider: 'openai' }, api_key: 'sk-x' });
    clients.close();
    service.child.kill('SIGTERM');
    await service.ended;
    const wrong = await diagnose({ DATA_DIR, ENCRYPTION_KEY: generateKey() });
    expect(wrong.code).toBe(1);
    expect(wrong.about('keys')).toMatchObject([{ verdict: 'fail', finding: expect.stringMatching(/is key .* under/) }]);
    const missing = await diagnose({ DATA_DIR });
    expect(missing.about('keys')).toMatchObject([
      {
        verdict: 'fail',
        finding: 'ENCRYPTION_KEY is not set; 1 API key is stored',
        remedy: expect.stringMatching(/^Set it to the key that encrypted them \([0-9a-f]+\); a new key cannot/),
      },
    ]);
  });

  it('says whether the service is open, as whom it takes this shell, and how it is reached', async () => {
    const DATA_DIR = await directory.started();
    const service = await startCommand({ DATA_DIR });
    const there = { DATA_DIR, GRPC_ADDRESS: `127.0.0.1:${service.port}` };
    expect((await diagnose(there)).about('access')).toMatchObject([
      { verdict: 'ok', finding: 'It is open: callers on this machine need no token, without TLS' },
    ]);
    const { stdout } = await agentllm(['token', 'create', '--role', 'admin'], { DATA_DIR }).ended;
    const AGENTLLM_TOKEN = stdout.trim();
    const [id] = /^al_[a-z2-7]{10}/.exec(AGENTLLM_TOKEN) as RegExpExecArray;
    const known = await diagnose({ ...there, AGENTLLM_TOKEN });
    expect(known.about('access')).toMatchObject([
      { verdict: 'ok', finding: `This shell is token:${id}, admin, without TLS` },
      { verdict: 'ok', finding: '1 token of the store is valid' },
    ]);
    const unknown = await diagnose({ ...there, AGENTLLM_TOKEN: `${AGENTLLM_TOKEN}x` });
    expect([unknown.code, unknown.about('access')[0]]).toMatchObject([1, { verdict: 'fail' }]);
    expect(known.stdout + unknown.stdout).not.toContain(AGENTLLM_TOKEN);
    const without = await diagnose(there);
    expect([without.code, without.about('service')[0], without.about('access')[0]]).toMatchObject([
      0,
      { verdict: 'ok' },
      { verdict: 'warn', remedy: 'Set AGENTLLM_TOKEN, or use --token-file' },
    ]);
  });

  it('names tokens that end soon, and says that nobody is an administrator', async () => {
    const DATA_DIR = await directory.started();
    await startCommand({ DATA_DIR });
    const make = async (...args: string[]) => agentllm(['token', 'create', ...args], { DATA_DIR }).ended;
    await make('--role', 'viewer', '--lifetime', '15d');
    await make('--role', 'operator', '--lifetime', '13d', '--name', 'desk');
    expect((await diagnose({ DATA_DIR })).about('access')).toMatchObject([
      { verdict: 'warn', finding: 'No administrator token is valid' },
      { verdict: 'warn', finding: expect.stringMatching(/^Token al_\w+ "desk" expires at 20/) },
    ]);
  });

  it('has the service look at itself where one owns the database', async () => {
    const DATA_DIR = await directory.started();
    const service = await startCommand({
      DATA_DIR,
      ENCRYPTION_KEY: generateKey(),
      OPENAI_API_KEY: 'sk-of-the-service',
    });
    const { code, about, stdout } = await diagnose({ DATA_DIR, GRPC_ADDRESS: `127.0.0.1:${service.port}` });
    expect(code).toBe(0);
    expect(about('service')).toMatchObject([{ verdict: 'ok', finding: expect.stringContaining('at revision 3') }]);
    expect(about('keys')).toMatchObject([{ verdict: 'ok' }]);
    expect(about('providers')).toMatchObject([{ verdict: 'ok', finding: 'openai: OPENAI_API_KEY is used' }]);
    expect(stdout).not.toContain('sk-of-the-service');
  });

  it('asks the providers that configs use, with the keys that they would use, and says what they say', async () => {
    const DATA_DIR = await directory.started();
    const given: unknown[] = [];
    const server = createServer(({ headers }, response) => {
      given.push(headers.authorization);
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
    expect(inside.about('providers')).toMatchObject(found);
    expect(inside.about('providers')[0]?.finding).toContain(`of the service (process ${service.child.pid})`);
    expect(given).toHaveLength(2);
    service.child.kill('SIGTERM');
    await service.ended;
    const beside = await diagnose(env, []);
    expect([beside.code, beside.about('providers')]).toMatchObject([1, found]);
    expect(inside.stdout + beside.stdout).not.toMatch(/sk-of/);
  });

  it('looks at no more keys than somebody would wait for', async () => {
    const DATA_DIR = await directory.started();
    const service = await startCommand({ DATA_DIR, ENCRYPTION_KEY: generateKey() });
    const clients = connect(service.port);
    for (let at = 0; at < 22; at++) {
      const config = { provider: 'openai', model_name: 'gpt-4o' };
      await clients.configs.createConfig({ agent: { name: 'trader' }, config, api_key: `sk-${at}` });
    }
    clients.close();
    const { about } = await diagnose({ DATA_DIR });
    expect(about('providers')).toHaveLength(21);
    expect(about('providers').at(-1)).toMatchObject({
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
  ])('makes no database: %j', async (args, code, says) => {
    const DATA_DIR = await directory();
    const ended = await agentllm(args, { DATA_DIR }).ended;
    expect([ended.code, ended.stdout + ended.stderr]).toEqual([code, expect.stringMatching(says)]);
    expect(await readdir(DATA_DIR)).toEqual([]);
  });
});

describe('agentllm doctor on PostgreSQL', () => {
  let postgres: TestPostgres;
  beforeAll(async () => {
    postgres = await startPostgres();
  });
  afterAll(() => postgres.stop());

  it('tells a database that is not there, one without a schema, and one that takes no writes', async () => {
    const gone = await diagnose({ DATABASE_URL: 'postgres://nobody@127.0.0.1:1/x', DATABASE_WAIT_MS: '500' });
    expect([gone.code, gone.about('database')]).toMatchObject([1, [{ verdict: 'fail' }]]);
    const DATABASE_URL = await postgres.createDatabase();
    expect((await diagnose({ DATABASE_URL })).about('schema')).toMatchObject([{ verdict: 'warn' }]);
    const readOnly = await diagnose({
      DATABASE_URL: `${DATABASE_URL}?options=-c%20default_transaction_read_only%3Don`,
    });
    expect(readOnly.about('database')).toContainEqual(
      expect.objectContaining({ verdict: 'fail', finding: expect.stringContaining('accepts no writes') }),
    );
  });
});
