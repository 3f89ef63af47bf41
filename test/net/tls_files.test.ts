import { execFile } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { chmod, mkdir, rm } from 'node:fs/promises';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import { readFiles, TlsFilesError } from '../../src/net/tls_files.js';
import { DAY_MS, type Files, makeAuthority, makeExpired, makeServer, type Pair, useFiles } from './support.js';

let authority: Pair;
let valid: Pair;
beforeAll(async () => {
  authority = await makeAuthority(30);
  valid = await makeServer(authority);
});

/** The problems of the files, one per line, without the directory; empty when the files are valid. */
async function problems({ path, directory }: Files, withCa = false, now = new Date()): Promise<string[]> {
  const TLS_CLIENT_CA_FILE = withCa ? path('ca.pem') : undefined;
  const files = { TLS_CERT_FILE: path('server.pem'), TLS_KEY_FILE: path('server.key'), TLS_CLIENT_CA_FILE };
  try {
    (await readFiles(files)).check(now);
    return [];
  } catch (error) {
    expect(error).toBeInstanceOf(TlsFilesError);
    const { message } = error as Error;
    expect(message).not.toMatch(/-----|MIG|MHc/);
    return message.replaceAll(`${directory}/`, '').split('\n');
  }
}

describe('readFiles', () => {
  it('accepts valid files', async () => {
    const files = await useFiles();
    await files.putPair('server', valid);
    await files.put('ca.pem', authority.cert);
    expect(await problems(files, true)).toEqual([]);
  });

  it('accepts a chain after the certificate, and comments', async () => {
    const files = await useFiles();
    await files.putPair('server', { cert: `Subject: me\n${valid.cert}\n${authority.cert}`, key: `note\n${valid.key}` });
    expect(await problems(files)).toEqual([]);
  });

  it('reports every missing file', async () => {
    const files = await useFiles();
    expect(await problems(files, true)).toEqual([
      'TLS_CERT_FILE server.pem does not exist',
      'TLS_KEY_FILE server.key does not exist',
      'TLS_CLIENT_CA_FILE ca.pem does not exist',
    ]);
  });

  it.each<[string, (files: Files) => Promise<unknown>, string]>([
    [
      'an empty certificate file',
      (f) => f.put('server.pem', ''),
      'TLS_CERT_FILE server.pem holds no certificate in PEM',
    ],
    [
      'a key that is not PEM',
      (f) => f.put('server.key', 'secret'),
      'TLS_KEY_FILE server.key holds no private key in PEM',
    ],
    [
      'a directory as the certificate file',
      (f) => rm(f.path('server.pem')).then(() => mkdir(f.path('server.pem'))),
      'TLS_CERT_FILE server.pem cannot be read (EISDIR)',
    ],
    [
      'a key as the certificate file',
      (f) => f.put('server.pem', valid.key),
      'TLS_CERT_FILE server.pem holds a private key where a certificate should be',
    ],
    [
      'a corrupt certificate',
      (f) => f.put('server.pem', valid.cert.slice(0, 200) + valid.cert.slice(264)),
      'TLS_CERT_FILE server.pem cannot be used (',
    ],
    [
      'the key of another certificate',
      async (f) => f.put('server.key', (await makeServer(authority)).key),
      'TLS_KEY_FILE server.key is not the key of the certificate in TLS_CERT_FILE server.pem',
    ],
    [
      'a chain in the wrong order',
      (f) => f.put('server.pem', authority.cert + valid.cert),
      'TLS_KEY_FILE server.key is the key of a later certificate in TLS_CERT_FILE server.pem: it must be the first',
    ],
    [
      'an encrypted key',
      (f) => f.put('server.key', encrypted()),
      'TLS_KEY_FILE server.key is encrypted with a passphrase',
    ],
    [
      'a key as the client authority',
      (f) => f.put('ca.pem', valid.key),
      'TLS_CLIENT_CA_FILE ca.pem holds a private key where',
    ],
    [
      'an expired client authority',
      (f) => f.put('ca.pem', makeExpired().cert),
      'TLS_CLIENT_CA_FILE ca.pem holds only certificates that have expired',
    ],
    ['an expired certificate', (f) => f.putPair('server', makeExpired()), 'TLS_CERT_FILE server.pem has expired at '],
    ['a key that is too short', putShortKey, 'TLS_CERT_FILE server.pem cannot be used (ee key too small)'],
  ])('rejects %s', async (_, corrupt, problem) => {
    const files = await useFiles();
    await files.putPair('server', valid);
    await files.put('ca.pem', authority.cert);
    await corrupt(files);
    const [first, ...others] = await problems(files, true);
    expect(first).toContain(problem);
    expect(others).toEqual([]);
  });

  it('rejects a certificate that is not yet valid', async () => {
    const files = await useFiles();
    await files.putPair('server', valid);
    const [problem] = await problems(files, false, new Date(Date.now() - DAY_MS));
    expect(problem).toMatch(/^TLS_CERT_FILE server.pem is valid only from .*: is the clock of this machine right\?$/);
  });

  it.skipIf(process.getuid?.() === 0)('rejects a file that it has no permission to read', async () => {
    const files = await useFiles();
    await files.putPair('server', valid);
    await chmod(files.path('server.key'), 0);
    expect(await problems(files)).toEqual(['TLS_KEY_FILE server.key cannot be read (EACCES)']);
  });
});

const encrypted = () =>
  generateKeyPairSync('ec', { namedCurve: 'P-256' })
    .privateKey.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' })
    .toString();

async function putShortKey({ path }: Files): Promise<void> {
  const out = ['-keyout', path('server.key'), '-out', path('server.pem')];
  const options = ['-x509', '-newkey', 'rsa:512', '-nodes', '-subj', '/CN=short'];
  await promisify(execFile)('openssl', ['req', ...options, ...out]);
}
