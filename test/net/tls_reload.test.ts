import { X509Certificate } from 'node:crypto';
import { mkdir, rename, symlink, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { ServerTls, type TlsSettings } from '../../src/net/tls.js';
import { until } from '../support/until.js';
import { type Files, makeAuthority, makeClient, makeServer, openLog, type Pair, useFiles } from './support.js';

let authority: Pair;
let first: Pair;
let second: Pair;
beforeAll(async () => {
  authority = await makeAuthority(30);
  first = await makeServer(authority);
  second = await makeServer(authority);
});

const fingerprint = ({ cert }: Pair) => new X509Certificate(cert).fingerprint256;

const settingsOf = ({ path }: Files, more: Partial<TlsSettings> = {}): TlsSettings => ({
  TLS_CERT_FILE: path('server.pem'),
  TLS_KEY_FILE: path('server.key'),
  TLS_CLIENT_CA_FILE: undefined,
  TLS_CLIENT_CERT: 'required',
  ...more,
});

/** A server with the certificates of the files, which are checked every 20 ms. */
async function startServer(settings: TlsSettings) {
  const { log, lines, text } = openLog();
  const tls = await ServerTls.open(settings, log, 20);
  const server = createServer(tls.options, (socket) => socket.end('hello'));
  tls.serve(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(async () => {
    server.close();
    await tls.close();
  });
  const { port } = server.address() as AddressInfo;
  /** Returns the fingerprint of the certificate that a client receives. */
  const seen = (more: { cert?: string; key?: string } = {}) =>
    new Promise<string>((resolve, reject) => {
      const socket: TLSSocket = connect({ port, host: '127.0.0.1', ca: authority.cert, ...more });
      socket.on('error', reject).on('close', () => reject(new Error('the server sent nothing')));
      socket.on('data', () => resolve(socket.getPeerCertificate().fingerprint256));
    });
  return { tls, lines, text, seen };
}

const linesWith = (lines: readonly { readonly msg: string }[], part: string) =>
  lines.filter(({ msg }) => msg.includes(part));

describe('a certificate file that changes', () => {
  it('is used for new connections, and its fingerprint is logged', async () => {
    const files = await useFiles();
    await files.putPair('server', first);
    const { seen, lines, text } = await startServer(settingsOf(files));
    expect(await seen()).toBe(fingerprint(first));
    await files.putPair('server', second);
    await until(async () => (await seen()) === fingerprint(second));
    expect(linesWith(lines, 'reloaded')).toMatchObject([{ level: 30, fingerprint: fingerprint(second) }]);
    expect(text()).not.toMatch(/-----BEGIN|PRIVATE/);
  });

  it('is reloaded through symbolic links that Kubernetes replaces', async () => {
    const files = await useFiles();
    const generation = async (name: string, { cert, key }: Pair) => {
      await mkdir(files.path(name));
      await writeFile(files.path(`${name}/server.pem`), cert);
      await writeFile(files.path(`${name}/server.key`), key);
      await symlink(name, files.path('..data.new'));
      await rename(files.path('..data.new'), files.path('..data'));
    };
    await generation('..1', first);
    for (const name of ['server.pem', 'server.key']) await symlink(`..data/${name}`, files.path(name));
    const { seen } = await startServer(settingsOf(files));
    expect(await seen()).toBe(fingerprint(first));
    await generation('..2', second);
    await until(async () => (await seen()) === fingerprint(second));
  });

  it('is logged once and not used while it is invalid, and is used when it is valid', async () => {
    const files = await useFiles();
    await files.putPair('server', first);
    const { seen, lines } = await startServer(settingsOf(files));
    await files.put('server.key', second.key);
    await until(() => linesWith(lines, 'cannot be used').length > 0);
    await delay(200);
    expect(linesWith(lines, 'cannot be used')).toMatchObject([
      { level: 50, problem: expect.stringContaining('TLS_KEY_FILE') },
    ]);
    expect(await seen()).toBe(fingerprint(first));
    await files.put('server.pem', second.cert);
    await until(async () => (await seen()) === fingerprint(second));
  });

  it('stays in use while its files are missing', async () => {
    const files = await useFiles();
    await files.putPair('server', first);
    const { seen, lines } = await startServer(settingsOf(files));
    await rename(files.path('server.pem'), files.path('elsewhere'));
    await until(() => linesWith(lines, 'cannot be used').length > 0);
    expect(await seen()).toBe(fingerprint(first));
    await rename(files.path('elsewhere'), files.path('server.pem'));
    await delay(100);
    expect(linesWith(lines, 'reloaded')).toEqual([]);
  });

  it('reloads the client authorities too', async () => {
    const files = await useFiles();
    await files.putPair('server', first);
    await files.put('ca.pem', authority.cert);
    const { seen } = await startServer(settingsOf(files, { TLS_CLIENT_CA_FILE: files.path('ca.pem') }));
    const later = await makeAuthority(30);
    const [before, after] = [await makeClient(authority, 'before'), await makeClient(later, 'after')];
    expect(await seen(before)).toBe(fingerprint(first));
    await expect(seen(after)).rejects.toThrow();
    await files.put('ca.pem', later.cert);
    await until(() =>
      seen(after).then(
        () => true,
        () => false,
      ),
    );
    await expect(seen(before)).rejects.toThrow();
  });
});

describe('a certificate that expires', () => {
  it('is logged as a warning 14 days before its expiry and not earlier', async () => {
    const files = await useFiles();
    await files.putPair('server', await makeServer(authority, 13));
    const soon = await startServer(settingsOf(files));
    expect(linesWith(soon.lines, 'expires soon')).toMatchObject([{ level: 40, file: files.path('server.pem') }]);
    await delay(100);
    expect(linesWith(soon.lines, 'expires soon')).toHaveLength(1);
    await files.putPair('server', await makeServer(authority, 15));
    await until(() => linesWith(soon.lines, 'reloaded').length > 0);
    expect(linesWith(soon.lines, 'expires soon')).toHaveLength(1);
  });
});
