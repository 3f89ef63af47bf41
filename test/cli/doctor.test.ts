import { createServer } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { generateKey } from '../../src/domain/fernet.js';
import { agentllm, startCommand, useDirectories } from '../support/command.js';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { connect } from '../support/service.js';

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
    expect(stdout).toMatch(/^ok {4}database {3}PostgreSQL \d+\S* embedded, in .*answers in \d+ ms$/m);
    expect(stdout).toMatch(/^ok {4}schema {5}The schema is current, at \d{4}_/m);
    expect(stdout).toMatch(/^warn {2}service {4}No service answers at .*\n {17}→ Start one: agentllm serve$/m);
    expect(stdout).toMatch(/^warn {2}providers {2}openai: no OPENAI_API_KEY/m);
    expect(stdout).toMatch(/\d+ things are fine, \d+ are worth knowing\n$/);
  });

  it('names mistakes in the settings, and settings that were probably misspelt', async () => {
    const env = { DATA_DIR: await directory(), POLL_INTERVAL_MS: 'often', DATABSE_URL: 'x', GROQ_API_KEY: 'sk' };
    const { code, about } = await diagnose(env);
    expect(code).toBe(1);
    expect(about('settings')).toEqual([
      expect.objectContaining({ verdict: 'fail', finding: expect.stringContaining('POLL_INTERVAL_MS must be') }),
      { area: 'settings', verdict: 'warn', finding: 'DATABSE_URL is no setting', remedy: 'Is DATABASE_URL meant?' },
    ]);
  });

  it('says of a directory without a store what makes one, and makes none', async () => {
    const DATA_DIR = await directory();
    const { code, about } = await diagnose({ DATA_DIR });
    expect(code).toBe(0);
    expect(about('schema')).toMatchObject([{ verdict: 'warn', remedy: expect.stringContaining('agentllm serve') }]);
    expect(about('configs')).toEqual([]);
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
      { verdict: 'fail', finding: 'ENCRYPTION_KEY is not set; 1 API keys are stored' },
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

  it('asks the providers that configs use, and says what they say', async () => {
    const DATA_DIR = await directory.started();
    const server = createServer((_, response) => response.writeHead(503).end());
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const service = await startCommand({ DATA_DIR, PROVIDER_ALLOW_CIDRS: '127.0.0.0/8' });
    const clients = connect(service.port);
    const base_url = `http://127.0.0.1:${port}`;
    const dialect = 'DIALECT_OPENAI_COMPATIBLE';
    await clients.providers.createProvider({ provider: { name: 'mine', dialect, base_url } });
    const config = { provider: 'mine', model_name: 'm' };
    await clients.configs.createConfig({ agent: { name: 'trader' }, config });
    clients.close();
    const { code, about } = await diagnose({ DATA_DIR }, []);
    server.close();
    expect(code).toBe(1);
    expect(about('providers')).toMatchObject([
      { verdict: 'warn' },
      { verdict: 'fail', finding: expect.stringContaining('mine has a problem of its own (HTTP 503)') },
    ]);
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
      expect.objectContaining({ verdict: 'fail', finding: expect.stringContaining('takes no writes') }),
    );
  });
});
