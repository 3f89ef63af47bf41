import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { openDatabase } from '../../src/store/database.js';
import { agentllm } from '../support/command.js';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { connectPg } from '../support/sql.js';

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let postgres: TestPostgres;
let admin: pg.Client;
let directory: string;
const listeners: Server[] = [];

beforeAll(async () => {
  postgres = await startPostgres();
  admin = await connectPg(postgres.url);
  directory = mkdtempSync(join(tmpdir(), 'agentllm-tls-'));
  await admin.query(`create role guest login password 'guest'; create role noone nologin password 'noone'`);
});
afterAll(async () => {
  for (const listener of listeners) listener.close();
  await admin?.end();
  await postgres?.stop();
  rmSync(directory, { recursive: true, force: true });
});

const open = (url: string, acquireTimeoutMs = 2_000) =>
  openDatabase({ url, poolSize: 1, acquireTimeoutMs, dataDir: 'memory:' });

const connectionErrorOf = async (url: string): Promise<string> => {
  try {
    await (await open(url)).close();
    return 'connected';
  } catch (error) {
    expect((error as Error).name, String(error)).toBe('StartError');
    return (error as Error).message;
  }
};

const urlWith = (
  parts: Partial<Record<'username' | 'password' | 'port' | 'pathname' | 'search' | 'hostname', string>>,
) => Object.assign(new URL(postgres.url), parts).href;

/** A fake server that sends a reply of PostgreSQL to the first message of every connection; returns its URL. */
async function startFakePostgres(reply: (write: (bytes: Buffer) => void, end: () => void) => void): Promise<string> {
  const listener = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.once('data', () =>
      reply(
        (bytes) => socket.write(bytes),
        () => socket.end(),
      ),
    );
  });
  listeners.push(listener);
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  return urlWith({ port: String((listener.address() as AddressInfo).port) });
}

function fatal(code: string, message: string): Buffer {
  const body = Buffer.from(`SFATAL\0VFATAL\0C${code}\0M${message}\0\0`);
  const head = Buffer.alloc(5);
  head.write('E');
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

const startRejecting = (code: string) =>
  startFakePostgres((write, end) => {
    write(fatal(code, 'sorry'));
    end();
  });

describe('the error of a failed connection', () => {
  it.each<[string, () => string | Promise<string>, RegExp]>([
    ['nothing listens', () => urlWith({ port: '1' }), /nothing listens at 127\.0\.0\.1:1/],
    [
      'the host name does not resolve',
      () => urlWith({ hostname: 'no-such-host.invalid' }),
      /host name of no-such-host\.invalid.*resolved/,
    ],
    ['the password is wrong', () => urlWith({ password: 'canary' }), /refuses the password of user "postgres"/],
    [
      'the password is missing',
      () => urlWith({ password: '' }),
      /requires a password for user "postgres" and none is given/,
    ],
    ['the role does not exist', () => urlWith({ username: 'nobody' }), /refuses the password of user "nobody"/],
    [
      'the role may not log in',
      () => urlWith({ username: 'noone', password: 'noone' }),
      /no role "noone" that may log in/,
    ],
    ['the database does not exist', () => urlWith({ pathname: '/nowhere' }), /has no database "nowhere"/],
    ['the server does not support TLS', () => urlWith({ search: '?sslmode=require' }), /offers no TLS/],
    [
      'sslrootcert does not exist',
      () => urlWith({ search: '?sslmode=verify-full&sslrootcert=/nowhere.pem' }),
      /sslrootcert \/nowhere\.pem cannot be read \(ENOENT\)/,
    ],
    [
      'sslkey does not exist',
      () => urlWith({ search: '?sslmode=require&sslkey=/nowhere.key' }),
      /sslkey \/nowhere\.key cannot be read/,
    ],
    [
      'the socket does not exist',
      () => 'postgres://u:canary@/db?host=/nowhere&port=5432',
      /the socket \/nowhere\/\.s\.PGSQL\.5432 does not exist/,
    ],
    ['the server has no connection left', () => startRejecting('53300'), /no connection left/],
    ['the pooler does not know the database', () => startRejecting('08P01'), /PgBouncer/],
    ['the server closes the connection', () => startFakePostgres((_, end) => end()), /was closed/],
    ['the server does not respond', () => startFakePostgres(() => undefined), /does not respond in time/],
  ])('names the cause when %s', async (_cause, url, message) => {
    const error = await connectionErrorOf(await url());
    expect(error).toMatch(/^DATABASE_URL: /);
    expect(error).toMatch(message);
    expect(error).not.toMatch(/canary|is it running/);
  });

  it.each(['the connection limit is 0', 'CONNECT is revoked'])('names the cause when %s', async (restriction) => {
    const url = await postgres.createDatabase();
    const name = new URL(url).pathname.slice(1);
    const guest = Object.assign(new URL(url), { username: 'guest', password: 'guest' }).href;
    await admin.query(
      restriction === 'CONNECT is revoked'
        ? `revoke connect on database ${name} from public`
        : `alter database ${name} connection limit 0`,
    );
    expect(await connectionErrorOf(guest)).toMatch(
      restriction === 'CONNECT is revoked' ? /lacks a privilege/ : /no connection left/,
    );
  });

  it('is not returned while the server is still starting up', async () => {
    let attempts = 0;
    const starting = await startFakePostgres((write, end) => {
      attempts += 1;
      write(fatal(attempts < 3 ? '57P03' : '3D000', 'the database system is starting up'));
      end();
    });
    expect(await connectionErrorOf(starting)).toMatch(/has no database/);
    expect(attempts).toBe(3);
  });

  it('is printed by every command without a stack and without the password', async () => {
    const DATABASE_URL = urlWith({ password: 'canary', port: '1' });
    const commands = [
      ['serve'],
      ['migrate', 'up'],
      ['migrate', 'status'],
      ['seed'],
      ['token', 'list'],
      ['store', 'renew'],
    ];
    for (const command of commands) {
      const { code, stdout, stderr } = await agentllm(command, { DATABASE_URL, GRPC_ADDRESS: '127.0.0.1:0' }).ended;
      expect([code, stderr], command.join(' ')).toEqual([1, expect.stringMatching(/DATABASE_URL: nothing listens at/)]);
      expect(stdout + stderr).not.toMatch(/canary| {4}at |unexpectedly/);
    }
    const { stdout } = await agentllm(['doctor', '--offline'], { DATABASE_URL }).ended;
    expect(stdout).toMatch(/FAIL {2}database .*nothing listens at/);
  });
});

describe('TLS to PostgreSQL', () => {
  const hasOpenssl = (() => {
    try {
      execFileSync('openssl', ['version'], { stdio: 'ignore' });
      return true;
    } catch {
      return false;
    }
  })();
  if (!hasOpenssl) console.log('openssl is not installed: the TLS tests of PostgreSQL are skipped');

  beforeAll(async () => {
    if (!hasOpenssl) return;
    const [cert, key] = [join(directory, 'server.crt'), join(directory, 'server.key')];
    execFileSync(
      'openssl',
      [
        'req',
        '-x509',
        '-newkey',
        'rsa:2048',
        '-nodes',
        '-days',
        '2',
        '-subj',
        '/CN=db.example.com',
        '-keyout',
        key,
        '-out',
        cert,
      ],
      { stdio: 'ignore' },
    );
    const { rows } = await admin.query(`select current_setting('data_directory') as dir`);
    const data = rows[0].dir as string;
    // PostgreSQL requires that its user owns the files.
    for (const name of ['server.crt', 'server.key']) {
      writeFileSync(join(data, name), readFileSync(join(directory, name)), { mode: 0o600 });
      execFileSync('chown', ['--reference', data, join(data, name)]);
    }
    copyFileSync(join(data, 'pg_hba.conf'), join(directory, 'pg_hba.conf'));
    await admin.query('alter system set ssl = on');
    await admin.query('select pg_reload_conf()');
    await vi.waitFor(
      async () => expect(await connectionErrorOf(urlWith({ search: '?sslmode=no-verify' }))).toBe('connected'),
      {
        timeout: 30_000,
      },
    );
  });

  it.runIf(hasOpenssl).each([
    ['require', /certificate of .* is not signed by a known authority; .*sslrootcert=<file>.*sslmode=no-verify/],
    ['verify-full&sslrootcert=FILE', /certificate of .* is for another host name/],
    ['verify-ca&sslrootcert=FILE', /^connected$/],
    ['no-verify', /^connected$/],
  ])('accepts or rejects a self-signed certificate according to sslmode=%s', async (mode, message) => {
    const search = `?sslmode=${mode.replace('FILE', encodeURIComponent(join(directory, 'server.crt')))}`;
    expect(await connectionErrorOf(urlWith({ search }))).toMatch(message);
  });

  it.runIf(hasOpenssl)('is suggested with sslmode=require when the server accepts only TLS connections', async () => {
    const { rows } = await admin.query(`select current_setting('hba_file') as file`);
    const file = rows[0].file as string;
    const before = readFileSync(file, 'utf8');
    writeFileSync(file, `hostssl all guest all password\nhost all postgres all password\n`);
    try {
      await admin.query('select pg_reload_conf()');
      const guest = (search: string) => urlWith({ username: 'guest', password: 'guest', search });
      await vi.waitFor(
        async () => expect(await connectionErrorOf(guest(''))).toMatch(/has no entry .*add sslmode=require/),
        {
          timeout: 30_000,
        },
      );
      expect(await connectionErrorOf(guest('?sslmode=no-verify'))).toBe('connected');
    } finally {
      writeFileSync(file, before);
      await admin.query('select pg_reload_conf()');
    }
  });
});
