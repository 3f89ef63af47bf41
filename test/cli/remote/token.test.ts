import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hashOf } from '../../../src/domain/token.js';
import { type Ended, startCommand, useDirectories } from '../../support/command.js';
import { startPostgres, type TestPostgres } from '../../support/postgres.js';
import { runCommand } from '../../support/run_command.js';
import { until } from '../../support/until.js';
import { rowsOf } from '../support.js';

const directory = useDirectories();
const TEXT = /^(al_[a-z2-7]{10})_[\w-]{43}$/;

type Env = Readonly<Record<string, string>>;

/** Runs a command line that needs no quotes. */
const run = (line: string, env: Env): Promise<Ended> => runCommand(line.split(' '), env);

async function runSuccessfully(line: string, env: Env): Promise<string> {
  const { code, stdout, stderr } = await run(line, env);
  expect(code, `${line}\n${stdout}${stderr}`).toBe(0);
  return stdout.trimEnd();
}

// biome-ignore lint/suspicious/noExplicitAny: tests read untyped JSON output
const json = async (line: string, env: Env): Promise<any> => JSON.parse(await runSuccessfully(`${line} --json`, env));

async function rejectionOf(line: string, env: Env) {
  const { code, stdout, stderr } = await run(`${line} --json`, env);
  expect(stdout).toBe('');
  return [code, JSON.parse(stderr).error.reason];
}

/** Starts a service; returns the environments for local commands (`local`) and for calls over the port (`remote`). */
async function startEmbedded() {
  const DATA_DIR = await directory.started();
  const service = await startCommand({ DATA_DIR, LOG_LEVEL: 'debug' });
  const remote = { AGENTLLM_ADDRESS: `127.0.0.1:${service.port}` };
  return { service, local: { DATA_DIR }, remote, as: (token: string) => ({ ...remote, AGENTLLM_TOKEN: token }) };
}

/** Replaces the ages of last uses, which depend on the time of the call. */
const withoutAges = (text: string) => text.replace(/just now|\d+ s ago/g, 'ago');

const idOf = (text: string): string => TEXT.exec(text)?.[1] as string;

describe('tokens of an embedded service', { timeout: 180_000 }, () => {
  it('are created locally, then by an administrator, and revoked, without their secret in any output', async () => {
    const { service, local, remote, as } = await startEmbedded();
    expect((await run('agents list --limit 1', remote)).code).toBe(0);
    expect(await rejectionOf('token create --role admin', remote)).toEqual([1, 'TOKEN_REQUIRED']);

    const first = await run('token create --role admin', local);
    const admin = first.stdout.trimEnd();
    expect([first.code, admin]).toEqual([0, expect.stringMatching(TEXT)]);
    expect(first.stderr).toContain(
      `token ${idOf(admin)} "admin": admin, until it is revoked; created in the store itself (`,
    );
    expect(first.stderr).toContain('This is the first token: from now on every caller needs a token');

    const anonymous = await run('agents list', remote);
    expect(anonymous).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('agentllm token create') });

    const second = await run('token create --role operator --name desk --lifetime 90d', as(admin));
    const operator = second.stdout.trimEnd();
    expect(second.stderr).toContain(`created by ${remote.AGENTLLM_ADDRESS} as token:${idOf(admin)}`);
    expect(second.stderr).not.toContain('first one');

    const outputs: string[] = [first.stderr, second.stderr];
    const runAndRecord = async (line: string, env: Env) => {
      const { stdout, stderr } = await run(line, env);
      outputs.push(stdout, stderr);
      return stdout;
    };
    for (const line of [`token show ${idOf(operator)}`, `token show ${operator}`, 'token list --all'])
      expect(withoutAges(await runAndRecord(line, as(admin)))).toBe(withoutAges(await runAndRecord(line, local)));
    expect(rowsOf(await runAndRecord('token list', local))).toMatchObject(
      [
        { ID: idOf(admin), ROLE: 'admin', AGENTS: '-', STATE: 'active', EXPIRES: 'never', 'LAST USED': /just now|ago/ },
        { ID: idOf(operator), NAME: 'desk', ROLE: 'operator', 'LAST USED': 'never' },
      ].map((row) => ({ ...row, 'LAST USED': expect.stringMatching(row['LAST USED']) })),
    );

    expect(await runSuccessfully('token whoami', as(operator))).toMatch(
      /^token:al_\w+ at 127.*\n {2}role {5}operator\n/,
    );
    expect(await runSuccessfully(`token revoke ${idOf(operator)}`, as(admin))).toMatch(
      /^revoked token al_\w+ "desk" at revision 6$/,
    );
    expect(await rejectionOf('agents list', as(operator))).toEqual([1, 'TOKEN_REVOKED']);
    const { stderr } = await run('agents list', as(operator));
    outputs.push(stderr);
    expect(stderr).toContain('agentllm token create --local creates another');

    const audit = await runAndRecord('audit --limit 20', as(admin));
    expect(audit).toMatch(new RegExp(`agentllm +create +access +token admin \\(${idOf(admin)}\\) created: admin`));
    expect(audit).toMatch(
      new RegExp(`token:${idOf(admin)} +RevokeToken +access +token desk \\(${idOf(operator)}\\) revoked`),
    );
    expect(audit).toMatch(/anonymous +ListAgents +access +rejected: TOKEN_REQUIRED/);
    expect(audit).toMatch(new RegExp(`token:${idOf(operator)} +- +access +first use of the day`));
    await runAndRecord('audit --json', as(admin));
    await runAndRecord('history --json', as(admin));
    const all = [...outputs, service.output()].join('\n');
    for (const token of [admin, operator]) {
      expect(all).not.toContain(token.slice(token.indexOf('_', 3)));
      expect(all).not.toContain(hashOf(token));
    }
  });

  it('are rejected with the reason when the role does not permit the command', async () => {
    const { local, as } = await startEmbedded();
    const createToken = (line: string) => runSuccessfully(`token create ${line}`, local);
    const viewer = await createToken('--role viewer');
    const agent = await createToken('--role agent --agents trader,news_analyst --agents bull_researcher');
    expect(await runSuccessfully('configs primary trader', as(agent))).toContain('openai/gpt-4');
    expect(await rejectionOf('configs primary market_analyst', as(agent))).toEqual([1, 'AGENT_NOT_ALLOWED']);
    expect(await rejectionOf('agents list', as(agent))).toEqual([1, 'PERMISSION_DENIED']);
    expect(await rejectionOf('agents create somebody', as(viewer))).toEqual([1, 'PERMISSION_DENIED']);
    expect(await rejectionOf('token list', as(viewer))).toEqual([1, 'PERMISSION_DENIED']);
    expect(await rejectionOf('agents list', as(`al_aaaaaaaaaa_${'x'.repeat(43)}`))).toEqual([1, 'TOKEN_UNKNOWN']);
    expect(await json('token whoami', as(agent))).toMatchObject({
      role: 'ROLE_AGENT',
      agents: ['bull_researcher', 'news_analyst', 'trader'],
    });
    const file = join(local.DATA_DIR, '..', `${idOf(viewer)}.token`);
    await writeFile(file, `${viewer}\n`);
    const { AGENTLLM_ADDRESS } = as(viewer);
    expect(await runSuccessfully(`token whoami --token-file ${file}`, { AGENTLLM_ADDRESS })).toContain(
      `token:${idOf(viewer)}`,
    );
    expect(await runSuccessfully('token list --local', { ...local, ...as(viewer) })).toContain(idOf(agent));
  });

  it('can be bound to certificates, are created once per request id, and are not printed when mistyped', async () => {
    const { local } = await startEmbedded();
    const dryRun = await run('token create --role admin --dry-run', local);
    expect(dryRun.stdout).toMatch(/^dry run at revision 3, nothing was written: token "admin": admin would be /);
    expect(await json('token list --all', local)).toMatchObject({ tokens: [] });

    const bound = await runSuccessfully('token create --role viewer --certificate CN=board', local);
    expect(bound).toMatch(/^al_[a-z2-7]{10}$/);
    expect(await rejectionOf('token create --role viewer --certificate CN=board', local)).toEqual([
      1,
      'CERTIFICATE_BOUND',
    ]);

    const id = '--request-id 0b9d8f4e-6f0b-4f6e-9a51-1c1f2f3a4b5c';
    const created = await json(`token create --role operator ${id}`, local);
    expect(created).toMatchObject({ token: { role: 'ROLE_OPERATOR' }, revision: 5, text: expect.stringMatching(TEXT) });
    const retried = await run(`token create --role operator ${id}`, local);
    expect(retried).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining(`has already created ${created.token.id}`),
    });

    const typed = await run(`token revoke ${created.text}`, local);
    expect(typed.stdout).toMatch(new RegExp(`^revoked token ${created.token.id} "operator" at revision 6\n$`));
    expect(await runSuccessfully(`token revoke ${created.token.id} --reason gone`, local)).toContain('revoked token');
    const mistyped = [
      `token ${created.text}`,
      `token list --token-file ${created.text}`,
      `token show x${created.text}`,
    ];
    for (const line of mistyped) {
      const { code, stdout, stderr } = await run(line, local);
      expect([line, code === 0, (stdout + stderr).includes(created.text.slice(14))]).toEqual([line, false, false]);
    }
    expect(typed.stdout + typed.stderr).not.toContain(created.text.slice(14));
  });
});

describe('an invalid token command line', () => {
  const env = { DATA_DIR: '/nowhere/at/all' };
  it.each([
    ['token create --role king', /--role king +must be one of admin, operator, viewer, agent/],
    ['token create --role viewer --lifetime 90', /--lifetime 90 +must be a time such as/],
    ['token list --local --address 127.0.0.1:1', /--local +calls no service: omit --address/],
    ['token revoke al_aaaaaaaaaa --wait 1000', /--wait +needs a service/],
  ])('is rejected: %s', async (line, expected) => {
    expect(await run(line, env)).toMatchObject({ code: 2, stdout: '', stderr: expect.stringMatching(expected) });
  });

  it('is rejected with each violation under its option when no service is called', async () => {
    const { local } = await startEmbedded();
    const { code, stderr } = await run('token create --agents trader --lifetime 1s', local);
    expect([code, stderr]).toEqual([
      2,
      expect.stringMatching(/3 problems\n {2}--role[^\n]*\n {2}--agents[^\n]*\n {2}--life/),
    ]);
    expect((await run('token show al_aaaaaaaaaa', local)).code).toBe(3);
  });

  it('creates no database when the data directory is empty', async () => {
    const DATA_DIR = await directory();
    for (const line of ['token create --role admin', 'token list', 'token revoke al_aaaaaaaaaa']) {
      const { code, stdout, stderr } = await run(line, { DATA_DIR });
      expect([code, stdout]).toEqual([1, '']);
      expect(stderr).toMatch(
        /^agentllm: There is no database in .* yet: agentllm serve creates it at its first start\./,
      );
    }
    expect(await readdir(DATA_DIR)).toEqual([]);
  });
});

describe('tokens on PostgreSQL', () => {
  let postgres: TestPostgres;
  beforeAll(async () => {
    postgres = await startPostgres();
  });
  afterAll(() => postgres.stop());

  it('are created and revoked in the database, and the running service applies the change', async () => {
    const local = { DATABASE_URL: await postgres.createDatabase('seeded') };
    const service = await startCommand(local);
    const remote = { AGENTLLM_ADDRESS: `127.0.0.1:${service.port}` };
    const created = await run('token create --role admin', local);
    expect(created.stderr).toContain(`created in the store itself (PostgreSQL at ${new URL(local.DATABASE_URL).host})`);
    expect(created.stderr).toContain('This is the first token');
    const as = { ...remote, AGENTLLM_TOKEN: created.stdout.trimEnd() };
    await until(async () => (await run('token whoami', remote)).code === 1);
    expect(await runSuccessfully('token whoami', as)).toContain('admin');
    await until(async () => rowsOf(await runSuccessfully('token list', local))[0]?.['LAST USED'] !== 'never');
    await runSuccessfully(`token revoke ${idOf(as.AGENTLLM_TOKEN)}`, local);
    await until(async () => (await run('token whoami', as)).code === 1);
    expect(await rejectionOf('token whoami', as)).toEqual([1, 'TOKEN_REVOKED']);
    expect(rowsOf(await runSuccessfully('token list --all', local))).toMatchObject([{ STATE: 'revoked' }]);
  });
});
