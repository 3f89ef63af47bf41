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

const refusalOf = async (url: string): Promise<string> => {
  try {
    await (await open(url)).close();
    return 'connected';
  } catch (error) {
    expect((error as Error).name, String(error)).toBe('StartError');
    return (error as Error).message;
  }
};

const at = (parts: Partial<Record<'username' | 'password' | 'port' | 'pathname' | 'search' | 'hostname', string>>) =>
  Object.assign(new URL(postgres.url), parts).href;

/** A server that does with every connection what PostgreSQL does at such a moment. */
async function pretend(reply: (write: (bytes: Buffer) => void, end: () => void) => void): Promise<string> {
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
  return at({ port: String((listener.address() as AddressInfo).port) });
}

function fatal(code: string, message: string): Buffer {
  const body = Buffer.from(`SFATAL\0VFATAL\0C${code}\0M${message}\0\0`);
  const head = Buffer.alloc(5);
  head.write('E');
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

const refusing = (code: string) =>
  pretend((write, end) => {
    write(fatal(code, 'sorry'));
    end();
  });

describe('a connection that fails', () => {
  it.each<[string, () => string | Promise<string>, RegExp]>([
    ['nothing listens', () => at({ port: '1' }), /nothing listens at 127\.0\.0\.1:1/],
    [
      'the host is not known',
      () => at({ hostname: 'no-such-host.invalid' }),
      /host name of no-such-host\.invalid.*resolved/,
    ],
    ['a wrong password', () => at({ password: 'canary' }), /refuses the password of user "postgres"/],
    ['no password', () => at({ password: '' }), /requires a password for user "postgres" and none is given/],
    ['an unknown role', () => at({ username: 'nobody' }), /refuses the password of user "nobody"/],
    [
      'a role that may not log in',
      () => at({ username: 'noone', password: 'noone' }),
      /no role "noone" that may log in/,
    ],
    ['an unknown database', () => at({ pathname: '/nowhere' }), /has no database "nowhere"/],
    ['a server without TLS', () => at({ search: '?sslmode=require' }), /offers no TLS/],
    [
      'a missing sslrootcert',
      () => at({ search: '?sslmode=verify-full&sslrootcert=/nowhere.pem' }),
      /sslrootcert \/nowhere\.pem cannot be read \(ENOENT\)/,
    ],
    [
      'a missing sslkey',
      () => at({ search: '?sslmode=require&sslkey=/nowhere.key' }),
      /sslkey \/nowhere\.key cannot be read/,
    ],
    [
      'a missing socket',
      () => 'postgres://u:canary@/db?host=/nowhere&port=5432',
      /the socket \/nowhere\/\.s\.PGSQL\.5432 does not exist/,
    ],
    ['too many connections', () => refusing('53300'), /no connection left/],
    ['a pooler that does not know the database', () => refusing('08P01'), /PgBouncer/],
    ['a server that hangs up', () => pretend((_, end) => end()), /was closed/],
    ['a server that does not respond', () => pretend(() => undefined), /does not respond in time/],
  ])('%s is named', async (_what, url, message) => {
    const said = await refusalOf(await url());
    expect(said).toMatch(/^DATABASE_URL: /);
    expect(said).toMatch(message);
    expect(said).not.toMatch(/canary|is it running/);
  });

  it.each(['connection limit', 'CONNECT'])('%s of a database is named', async (what) => {
    const url = await postgres.createDatabase();
    const name = new URL(url).pathname.slice(1);
    const guest = Object.assign(new URL(url), { username: 'guest', password: 'guest' }).href;
    await admin.query(
      what === 'CONNECT'
        ? `revoke connect on database ${name} from public`
        : `alter database ${name} connection limit 0`,
    );
    expect(await refusalOf(guest)).toMatch(what === 'CONNECT' ? /lacks a privilege/ : /no connection left/);
  });

  it('a server that starts up is waited for', async () => {
    let refusals = 0;
    const starting = await pretend((write, end) => {
      refusals += 1;
      write(fatal(refusals < 3 ? '57P03' : '3D000', 'the database system is starting up'));
      end();
    });
    expect(await refusalOf(starting)).toMatch(/has no database/);
    expect(refusals).toBe(3);
  });

  it('every command prints the cause, without a stack and without the password', async () => {
    const DATABASE_URL = at({ password: 'canary', port: '1' });
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

describe('TLS', () => {
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
    // Files in the directory of the server, as its user owns them.
    for (const name of ['server.crt', 'server.key']) {
      writeFileSync(join(data, name), readFileSync(join(directory, name)), { mode: 0o600 });
      execFileSync('chown', ['--reference', data, join(data, name)]);
    }
    copyFileSync(join(data, 'pg_hba.conf'), join(directory, 'pg_hba.conf'));
    await admin.query('alter system set ssl = on');
    await admin.query('select pg_reload_conf()');
    await vi.waitFor(async () => expect(await refusalOf(at({ search: '?sslmode=no-verify' }))).toBe('connected'), {
      timeout: 5_000,
    });
  });

  it.runIf(hasOpenssl).each([
    ['require', /certificate of .* is not signed by a known authority; .*sslrootcert=<file>.*sslmode=no-verify/],
    ['verify-full&sslrootcert=FILE', /certificate of .* is for another host name/],
    ['verify-ca&sslrootcert=FILE', /^connected$/],
    ['no-verify', /^connected$/],
  ])('sslmode=%s with a self-signed certificate', async (mode, message) => {
    const search = `?sslmode=${mode.replace('FILE', encodeURIComponent(join(directory, 'server.crt')))}`;
    expect(await refusalOf(at({ search }))).toMatch(message);
  });

  it.runIf(hasOpenssl)('a server that admits only TLS names sslmode', async () => {
    const { rows } = await admin.query(`select current_setting('hba_file') as file`);
    const file = rows[0].file as string;
    const before = readFileSync(file, 'utf8');
    writeFileSync(file, `hostssl all guest all password\nhost all postgres all password\n`);
    try {
      await admin.query('select pg_reload_conf()');
      const guest = (search: string) => at({ username: 'guest', password: 'guest', search });
      await vi.waitFor(async () => expect(await refusalOf(guest(''))).toMatch(/has no entry .*add sslmode=require/), {
        timeout: 5_000,
      });
      expect(await refusalOf(guest('?sslmode=no-verify'))).toBe('connected');
    } finally {
      writeFileSync(file, before);
      await admin.query('select pg_reload_conf()');
    }
  });
});
