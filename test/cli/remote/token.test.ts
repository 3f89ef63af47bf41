import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hashOf } from '../../../src/domain/token.js';
import { agentllm, type Ended, startCommand, useDirectories } from '../../support/command.js';
import { startPostgres, type TestPostgres } from '../../support/postgres.js';
import { rowsOf } from '../support.js';

const directory = useDirectories();
const TEXT = /^(al_[a-z2-7]{10})_[\w-]{43}$/;

type Env = Readonly<Record<string, string>>;

/** Runs a command line that needs no quotes. */
const run = (line: string, env: Env): Promise<Ended> => agentllm(line.split(' '), env).ended;

async function done(line: string, env: Env): Promise<string> {
  const { code, stdout, stderr } = await run(line, env);
  expect(code, `${line}\n${stdout}${stderr}`).toBe(0);
  return stdout.trimEnd();
}

// biome-ignore lint/suspicious/noExplicitAny: tests look into answers as they come
const json = async (line: string, env: Env): Promise<any> => JSON.parse(await done(`${line} --json`, env));

async function refused(line: string, env: Env) {
  const { code, stdout, stderr } = await run(`${line} --json`, env);
  expect(stdout).toBe('');
  return [code, JSON.parse(stderr).error.reason];
}

/** A service of its own, its machine, and how others reach it. */
async function startEmbedded() {
  const DATA_DIR = await directory.started();
  const service = await startCommand({ DATA_DIR, LOG_LEVEL: 'debug' });
  const there = { AGENTLLM_ADDRESS: `127.0.0.1:${service.port}` };
  return { service, here: { DATA_DIR }, there, as: (token: string) => ({ ...there, AGENTLLM_TOKEN: token }) };
}

/** A list without when tokens were used, which is later when it is asked later. */
const ageless = (text: string) => text.replace(/just now|\d+ s ago/g, 'ago');

const idOf = (text: string): string => TEXT.exec(text)?.[1] as string;

describe('tokens of an embedded service', { timeout: 180_000 }, () => {
  it('are first made on its machine, then by its administrator, and revoked: what they are stays secret', async () => {
    const { service, here, there, as } = await startEmbedded();
    expect((await run('agents list --limit 1', there)).code).toBe(0);
    expect(await refused('token create --role admin', there)).toEqual([1, 'TOKEN_REQUIRED']);

    const first = await run('token create --role admin', here);
    const admin = first.stdout.trimEnd();
    expect([first.code, admin]).toEqual([0, expect.stringMatching(TEXT)]);
    expect(first.stderr).toContain(
      `token ${idOf(admin)} "admin": admin, until it is revoked; created in the store itself (`,
    );
    expect(first.stderr).toContain('This is the first token: from now on every caller needs a token');

    const anonymous = await run('agents list', there);
    expect(anonymous).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('agentllm token create') });

    const second = await run('token create --role operator --name desk --lifetime 90d', as(admin));
    const operator = second.stdout.trimEnd();
    expect(second.stderr).toContain(`created by ${there.AGENTLLM_ADDRESS} as token:${idOf(admin)}`);
    expect(second.stderr).not.toContain('first one');

    const said: string[] = [first.stderr, second.stderr];
    const hear = async (line: string, env: Env) => {
      const { stdout, stderr } = await run(line, env);
      said.push(stdout, stderr);
      return stdout;
    };
    for (const line of [`token show ${idOf(operator)}`, `token show ${operator}`, 'token list --all'])
      expect(ageless(await hear(line, as(admin)))).toBe(ageless(await hear(line, here)));
    expect(rowsOf(await hear('token list', here))).toMatchObject(
      [
        { ID: idOf(admin), ROLE: 'admin', AGENTS: '-', STATE: 'active', EXPIRES: 'never', 'LAST USED': /just now|ago/ },
        { ID: idOf(operator), NAME: 'desk', ROLE: 'operator', 'LAST USED': 'never' },
      ].map((row) => ({ ...row, 'LAST USED': expect.stringMatching(row['LAST USED']) })),
    );

    expect(await done('token whoami', as(operator))).toMatch(/^token:al_\w+ at 127.*\n {2}role {5}operator\n/);
    expect(await done(`token revoke ${idOf(operator)}`, as(admin))).toMatch(
      /^revoked token al_\w+ "desk" at revision 6$/,
    );
    expect(await refused('agents list', as(operator))).toEqual([1, 'TOKEN_REVOKED']);
    const { stderr } = await run('agents list', as(operator));
    said.push(stderr);
    expect(stderr).toContain('agentllm token create --local creates another');

    const audit = await hear('audit --limit 20', as(admin));
    expect(audit).toMatch(new RegExp(`agentllm +create +access +token admin \\(${idOf(admin)}\\) created: admin`));
    expect(audit).toMatch(
      new RegExp(`token:${idOf(admin)} +RevokeToken +access +token desk \\(${idOf(operator)}\\) revoked`),
    );
    expect(audit).toMatch(/anonymous +ListAgents +access +rejected: TOKEN_REQUIRED/);
    expect(audit).toMatch(new RegExp(`token:${idOf(operator)} +- +access +first use of the day`));
    await hear('audit --json', as(admin));
    await hear('history --json', as(admin));
    const all = [...said, service.output()].join('\n');
    for (const token of [admin, operator]) {
      expect(all).not.toContain(token.slice(token.indexOf('_', 3)));
      expect(all).not.toContain(hashOf(token));
    }
  });

  it('are refused in words of the command line for what they may not do', async () => {
    const { here, as } = await startEmbedded();
    const make = (line: string) => done(`token create ${line}`, here);
    const viewer = await make('--role viewer');
    const agent = await make('--role agent --agents trader,news_analyst --agents bull_researcher');
    expect(await done('configs primary trader', as(agent))).toContain('openai/gpt-4');
    expect(await refused('configs primary market_analyst', as(agent))).toEqual([1, 'AGENT_NOT_ALLOWED']);
    expect(await refused('agents list', as(agent))).toEqual([1, 'PERMISSION_DENIED']);
    expect(await refused('agents create somebody', as(viewer))).toEqual([1, 'PERMISSION_DENIED']);
    expect(await refused('token list', as(viewer))).toEqual([1, 'PERMISSION_DENIED']);
    expect(await refused('agents list', as(`al_aaaaaaaaaa_${'x'.repeat(43)}`))).toEqual([1, 'TOKEN_UNKNOWN']);
    expect(await json('token whoami', as(agent))).toMatchObject({
      role: 'ROLE_AGENT',
      agents: ['bull_researcher', 'news_analyst', 'trader'],
    });
    const file = join(here.DATA_DIR, '..', `${idOf(viewer)}.token`);
    await writeFile(file, `${viewer}\n`);
    const { AGENTLLM_ADDRESS } = as(viewer);
    expect(await done(`token whoami --token-file ${file}`, { AGENTLLM_ADDRESS })).toContain(`token:${idOf(viewer)}`);
    expect(await done('token list --local', { ...here, ...as(viewer) })).toContain(idOf(agent));
  });

  it('can be for certificates, rehearsed, asked for twice, and typed by mistake', async () => {
    const { here } = await startEmbedded();
    const rehearsed = await run('token create --role admin --dry-run', here);
    expect(rehearsed.stdout).toMatch(/^dry run at revision 3, nothing was written: token "admin": admin would be /);
    expect(await json('token list --all', here)).toMatchObject({ tokens: [] });

    const bound = await done('token create --role viewer --certificate CN=board', here);
    expect(bound).toMatch(/^al_[a-z2-7]{10}$/);
    expect(await refused('token create --role viewer --certificate CN=board', here)).toEqual([1, 'CERTIFICATE_BOUND']);

    const id = '--request-id 0b9d8f4e-6f0b-4f6e-9a51-1c1f2f3a4b5c';
    const made = await json(`token create --role operator ${id}`, here);
    expect(made).toMatchObject({ token: { role: 'ROLE_OPERATOR' }, revision: 5, text: expect.stringMatching(TEXT) });
    const again = await run(`token create --role operator ${id}`, here);
    expect(again).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining(`has already created ${made.token.id}`),
    });

    const typed = await run(`token revoke ${made.text}`, here);
    expect(typed.stdout).toMatch(new RegExp(`^revoked token ${made.token.id} "operator" at revision 6\n$`));
    expect(await done(`token revoke ${made.token.id} --reason gone`, here)).toContain('revoked token');
    const mistaken = [`token ${made.text}`, `token list --token-file ${made.text}`, `token show x${made.text}`];
    for (const line of mistaken) {
      const { code, stdout, stderr } = await run(line, here);
      expect([line, code === 0, (stdout + stderr).includes(made.text.slice(14))]).toEqual([line, false, false]);
    }
    expect(typed.stdout + typed.stderr).not.toContain(made.text.slice(14));
  });
});

describe('a command line that is wrong', () => {
  const env = { DATA_DIR: '/nowhere/at/all' };
  it.each([
    ['token create --role king', /--role king +must be one of admin, operator, viewer, agent/],
    ['token create --role viewer --lifetime 90', /--lifetime 90 +must be a time such as/],
    ['token list --local --address 127.0.0.1:1', /--local +calls no service: omit --address/],
    ['token revoke al_aaaaaaaaaa --wait 1000', /--wait +needs a service/],
  ])('%s', async (line, says) => {
    expect(await run(line, env)).toMatchObject({ code: 2, stdout: '', stderr: expect.stringMatching(says) });
  });

  it('says what is wrong with a request under the options that caused it, also without a service', async () => {
    const { here } = await startEmbedded();
    const { code, stderr } = await run('token create --agents trader --lifetime 1s', here);
    expect([code, stderr]).toEqual([
      2,
      expect.stringMatching(/3 problems\n {2}--role[^\n]*\n {2}--agents[^\n]*\n {2}--life/),
    ]);
    expect((await run('token show al_aaaaaaaaaa', here)).code).toBe(3);
  });

  it('makes no database where there is none, and says what to do', async () => {
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

  it('are made and revoked in the database itself, and the service hears of it', async () => {
    const here = { DATABASE_URL: await postgres.createDatabase('seeded') };
    const service = await startCommand(here);
    const there = { AGENTLLM_ADDRESS: `127.0.0.1:${service.port}` };
    const made = await run('token create --role admin', here);
    expect(made.stderr).toContain(`created in the store itself (PostgreSQL at ${new URL(here.DATABASE_URL).host})`);
    expect(made.stderr).toContain('This is the first token');
    const as = { ...there, AGENTLLM_TOKEN: made.stdout.trimEnd() };
    await until(async () => (await run('token whoami', there)).code === 1);
    expect(await done('token whoami', as)).toContain('admin');
    await until(async () => rowsOf(await done('token list', here))[0]?.['LAST USED'] !== 'never');
    await done(`token revoke ${idOf(as.AGENTLLM_TOKEN)}`, here);
    await until(async () => (await run('token whoami', as)).code === 1);
    expect(await refused('token whoami', as)).toEqual([1, 'TOKEN_REVOKED']);
    expect(rowsOf(await done('token list --all', here))).toMatchObject([{ STATE: 'revoked' }]);
  });
});

async function until(holds: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 30; tries++) {
    if (await holds()) return;
    await delay(100);
  }
  throw new Error('it never holds');
}
