import { execFile } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { chmod, mkdir, rm } from 'node:fs/promises';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import { readFiles, TlsFilesError } from '../../src/net/tls_files.js';
import { DAY_MS, type Files, makeAuthority, makeExpired, makeServer, type Pair, useFiles } from './support.js';

let authority: Pair;
let good: Pair;
beforeAll(async () => {
  authority = await makeAuthority(30);
  good = await makeServer(authority);
});

/** What is wrong with files, a line each; none when they are good. The directory is left out. */
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

describe('the files of certificates', () => {
  it('are good as they are made', async () => {
    const files = await useFiles();
    await files.putPair('server', good);
    await files.put('ca.pem', authority.cert);
    expect(await problems(files, true)).toEqual([]);
  });

  it('may hold the chain behind the certificate, and notes', async () => {
    const files = await useFiles();
    await files.putPair('server', { cert: `Subject: me\n${good.cert}\n${authority.cert}`, key: `note\n${good.key}` });
    expect(await problems(files)).toEqual([]);
  });

  it('are named with what is wrong, all at once', async () => {
    const files = await useFiles();
    expect(await problems(files, true)).toEqual([
      'TLS_CERT_FILE server.pem does not exist',
      'TLS_KEY_FILE server.key does not exist',
      'TLS_CLIENT_CA_FILE ca.pem does not exist',
    ]);
  });

  it.each<[string, (files: Files) => Promise<unknown>, string]>([
    ['empty', (f) => f.put('server.pem', ''), 'TLS_CERT_FILE server.pem holds no certificate in PEM'],
    ['no PEM', (f) => f.put('server.key', 'secret'), 'TLS_KEY_FILE server.key holds no private key in PEM'],
    [
      'a directory',
      (f) => rm(f.path('server.pem')).then(() => mkdir(f.path('server.pem'))),
      'TLS_CERT_FILE server.pem cannot be read (EISDIR)',
    ],
    [
      'swapped',
      (f) => f.put('server.pem', good.key),
      'TLS_CERT_FILE server.pem holds a private key where a certificate should be',
    ],
    [
      'torn',
      (f) => f.put('server.pem', good.cert.slice(0, 200) + good.cert.slice(264)),
      'TLS_CERT_FILE server.pem cannot be used (',
    ],
    [
      'another key',
      async (f) => f.put('server.key', (await makeServer(authority)).key),
      'TLS_KEY_FILE server.key is not the key of the certificate in TLS_CERT_FILE server.pem',
    ],
    [
      'another order',
      (f) => f.put('server.pem', authority.cert + good.cert),
      'TLS_KEY_FILE server.key is the key of a later certificate in TLS_CERT_FILE server.pem: it must be the first',
    ],
    ['a passphrase', (f) => f.put('server.key', encrypted()), 'TLS_KEY_FILE server.key is encrypted with a passphrase'],
    ['no authority', (f) => f.put('ca.pem', good.key), 'TLS_CLIENT_CA_FILE ca.pem holds a private key where'],
    [
      'an expired authority',
      (f) => f.put('ca.pem', makeExpired().cert),
      'TLS_CLIENT_CA_FILE ca.pem holds only certificates that have expired',
    ],
    ['expired', (f) => f.putPair('server', makeExpired()), 'TLS_CERT_FILE server.pem has expired at '],
    ['too short a key', putShortOne, 'TLS_CERT_FILE server.pem cannot be used (ee key too small)'],
  ])('that are %s are told', async (_, spoil, problem) => {
    const files = await useFiles();
    await files.putPair('server', good);
    await files.put('ca.pem', authority.cert);
    await spoil(files);
    const [first, ...others] = await problems(files, true);
    expect(first).toContain(problem);
    expect(others).toEqual([]);
  });

  it('of the future are told', async () => {
    const files = await useFiles();
    await files.putPair('server', good);
    const [problem] = await problems(files, false, new Date(Date.now() - DAY_MS));
    expect(problem).toMatch(/^TLS_CERT_FILE server.pem is valid only from .*: is the clock of this machine right\?$/);
  });

  it.skipIf(process.getuid?.() === 0)('that may not be read are told', async () => {
    const files = await useFiles();
    await files.putPair('server', good);
    await chmod(files.path('server.key'), 0);
    expect(await problems(files)).toEqual(['TLS_KEY_FILE server.key cannot be read (EACCES)']);
  });
});

const encrypted = () =>
  generateKeyPairSync('ec', { namedCurve: 'P-256' })
    .privateKey.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' })
    .toString();

async function putShortOne({ path }: Files): Promise<void> {
  const out = ['-keyout', path('server.key'), '-out', path('server.pem')];
  const options = ['-x509', '-newkey', 'rsa:512', '-nodes', '-subj', '/CN=short'];
  await promisify(execFile)('openssl', ['req', ...options, ...out]);
}
