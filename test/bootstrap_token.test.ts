import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bootstrapToken } from '../src/bootstrap_token.js';
import { connect } from '../src/client/index.js';
import { hashOf, makeToken } from '../src/domain/token.js';
import { createLog } from '../src/log.js';
import { agentllm, startCommand, useDirectories } from './support/command.js';
import { startPostgres, type TestPostgres } from './support/postgres.js';
import { openStore } from './support/store.js';

/* BOOTSTRAP_TOKEN_FILE: the first token of a service in a container. */

const directory = useDirectories();

/** The caller that a service identifies by a token. */
async function callerOf(port: number, token: string) {
  const client = connect({ address: `127.0.0.1:${port}`, token });
  try {
    return await client.access.getCaller();
  } finally {
    client.close();
  }
}
const read = (file: string) => readFileSync(file, 'utf8').trim();

// Each test starts the service several times.
describe('BOOTSTRAP_TOKEN_FILE', { timeout: 120_000 }, () => {
  it('is created with an administrator token, with mode 0600 and not logged, when it does not exist', async () => {
    const DATA_DIR = await directory.started();
    const BOOTSTRAP_TOKEN_FILE = join(DATA_DIR, 'admin.token');
    const running = await startCommand({ DATA_DIR, BOOTSTRAP_TOKEN_FILE, LOG_LEVEL: 'trace' });
    const token = read(BOOTSTRAP_TOKEN_FILE);
    expect(statSync(BOOTSTRAP_TOKEN_FILE).mode & 0o777).toBe(0o600);
    expect(await callerOf(running.port, token)).toMatchObject({ role: 'ROLE_ADMIN' });
    expect(running.output()).toContain('with tokens');
    // After the prefix and the id; a secret may itself contain an underscore.
    expect(running.output()).not.toContain(/^al_[^_]+_(.+)$/.exec(token)?.[1]);
  });

  it.each([
    ['a line end', (text: string) => `${text}\n`],
    ['a byte order mark and a Windows line end', (text: string) => `\ufeff${text}\r\n`],
  ])(
    'provides the first token when its text has %s and the service listens on all interfaces',
    async (_description, contentOf) => {
      const DATA_DIR = await directory.started();
      const BOOTSTRAP_TOKEN_FILE = join(DATA_DIR, 'admin.token');
      const text = (await agentllm(['token', 'generate']).ended).stdout.trim();
      writeFileSync(BOOTSTRAP_TOKEN_FILE, contentOf(text));
      const env = { DATA_DIR, BOOTSTRAP_TOKEN_FILE, GRPC_ADDRESS: '0.0.0.0:0' };
      const running = await startCommand(env, ['--allow-plaintext']);
      expect(await callerOf(running.port, text)).toMatchObject({ role: 'ROLE_ADMIN' });
      expect(read(BOOTSTRAP_TOKEN_FILE).replace('\ufeff', '')).toBe(text);
    },
  );

  it('is written in place when it is an empty file, for example a mount', async () => {
    const DATA_DIR = await directory.started();
    const BOOTSTRAP_TOKEN_FILE = join(DATA_DIR, 'admin.token');
    writeFileSync(BOOTSTRAP_TOKEN_FILE, '');
    const { ino } = statSync(BOOTSTRAP_TOKEN_FILE);
    const running = await startCommand({ DATA_DIR, BOOTSTRAP_TOKEN_FILE });
    expect(await callerOf(running.port, read(BOOTSTRAP_TOKEN_FILE))).toMatchObject({ role: 'ROLE_ADMIN' });
    expect(statSync(BOOTSTRAP_TOKEN_FILE).ino).toBe(ino);
  });

  it('has no effect on later starts: neither a deleted file nor a revoked token is created again', async () => {
    const DATA_DIR = await directory.started();
    const BOOTSTRAP_TOKEN_FILE = join(DATA_DIR, 'admin.token');
    const first = await startCommand({ DATA_DIR, BOOTSTRAP_TOKEN_FILE });
    const token = read(BOOTSTRAP_TOKEN_FILE);
    const revoked = await agentllm(['token', 'revoke', token.slice(0, 13), '--local'], { DATA_DIR }).ended;
    expect(revoked.code, revoked.stderr).toBe(0);
    first.child.kill('SIGTERM');
    await first.ended;
    const again = await startCommand({ DATA_DIR, BOOTSTRAP_TOKEN_FILE });
    await expect(callerOf(again.port, token)).rejects.toMatchObject({ reason: 'TOKEN_REVOKED' });
    again.child.kill('SIGTERM');
    await again.ended;
    const other = join(DATA_DIR, 'other.token');
    await startCommand({ DATA_DIR, BOOTSTRAP_TOKEN_FILE: other });
    expect(existsSync(other)).toBe(false);
  });

  it('provides the first token when the start that wrote it was killed before the token was stored', async () => {
    // Such a start leaves a file with a token that no store has.
    const DATA_DIR = await directory.started();
    const BOOTSTRAP_TOKEN_FILE = join(DATA_DIR, 'admin.token');
    const { text } = makeToken();
    writeFileSync(BOOTSTRAP_TOKEN_FILE, `${text}\n`, { mode: 0o600 });
    const running = await startCommand({ DATA_DIR, BOOTSTRAP_TOKEN_FILE });
    expect(await callerOf(running.port, text)).toMatchObject({ role: 'ROLE_ADMIN' });
  });

  it.each([
    ['does not hold a token', (file: string) => writeFileSync(file, 'hunter2\n'), 'does not hold a token'],
    ['is a directory', (file: string) => mkdirSync(file), 'cannot be read (EISDIR)'],
    ['is in a directory that does not exist', () => {}, 'cannot be written (ENOENT)'],
  ])('is rejected without its content in the message when it %s', async (problem, create, message) => {
    const DATA_DIR = await directory.started();
    const BOOTSTRAP_TOKEN_FILE = join(DATA_DIR, problem.includes('does not exist') ? 'nowhere/token' : 'token');
    create(BOOTSTRAP_TOKEN_FILE);
    const { code, stderr } = await agentllm(['serve'], { DATA_DIR, BOOTSTRAP_TOKEN_FILE }).ended;
    expect(code).toBe(1);
    expect(stderr).toContain(`BOOTSTRAP_TOKEN_FILE ${BOOTSTRAP_TOKEN_FILE} ${message}`);
    expect(stderr).not.toContain('hunter2');
  });
});

describe('replicas that start at the same time', { timeout: 120_000 }, () => {
  let server: TestPostgres;
  beforeAll(async () => {
    server = await startPostgres();
  });
  afterAll(() => server.stop());

  /** Starts replicas on one store that have not seen each other's writes, and creates the first token with each. */
  async function bootstrapTogether(file: string) {
    const url = await server.createDatabase('seeded');
    const replicas = await Promise.all([1, 2, 3].map(() => openStore({ url, pollIntervalMs: 3_600_000 })));
    try {
      await Promise.all(replicas.map(({ store }) => bootstrapToken(store, file, createLog('silent'))));
      return replicas.map(({ store }) => store.state);
    } finally {
      for (const replica of replicas) await replica.close();
    }
  }

  it.each([
    ['does not exist', undefined],
    ['is an empty mount', ''],
    ['holds only a line end', '\n'],
  ])('keep the text of the first token in their shared file when it %s', async (_, content) => {
    const file = join(await directory(), 'token');
    if (content !== undefined) writeFileSync(file, content);
    const states = await bootstrapTogether(file);
    for (const state of states) expect(state.tokenWithHash(hashOf(read(file)))).toMatchObject({ role: 'ROLE_ADMIN' });
  });

  it.each(['one file per replica', 'one shared file'])('create exactly one token when they use %s', async (files) => {
    const tokenDirectory = await directory();
    const DATABASE_URL = await server.createDatabase();
    const fileOf = (replica: number) =>
      join(tokenDirectory, files === 'one file per replica' ? `token${replica}` : 'token');
    const services = await Promise.all(
      [1, 2, 3].map((replica) => startCommand({ DATABASE_URL, BOOTSTRAP_TOKEN_FILE: fileOf(replica) })),
    );
    const written = [...new Set([1, 2, 3].map(fileOf))].filter((file) => existsSync(file));
    expect(written).toHaveLength(1);
    const token = read(written[0] as string);
    for (const { port } of services) expect(await callerOf(port, token)).toMatchObject({ role: 'ROLE_ADMIN' });
    const listed = await agentllm(['token', 'list', '--all', '--local', '--json'], { DATABASE_URL }).ended;
    expect(JSON.parse(listed.stdout).tokens).toHaveLength(1);
    expect(execFileSync('ls', [tokenDirectory], { encoding: 'utf8' }).trim().split('\n')).toHaveLength(1);
  });
});

describe('the start banner', () => {
  it('names a command that also works when AGENTLLM_ADDRESS is set', async () => {
    const DATA_DIR = await directory.started();
    const running = await startCommand({ DATA_DIR });
    const [, command] = /(agentllm token create [^;]*?) closes it/.exec(running.output()) ?? [];
    const words = (command as string).split(' ').slice(1);
    const env = { DATA_DIR, AGENTLLM_ADDRESS: `127.0.0.1:${running.port}` };
    expect(await agentllm(words, env).ended).toMatchObject({ code: 0, stdout: expect.stringMatching(/^al_/) });
  });
});
