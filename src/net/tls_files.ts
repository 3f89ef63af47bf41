import { createHash, createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import { StartError } from '../errors.js';

/** The paths of the certificate files, by setting. */
export interface TlsFiles {
  readonly TLS_CERT_FILE: string;
  readonly TLS_KEY_FILE: string;
  readonly TLS_CLIENT_CA_FILE: string | undefined;
}

/** The validated contents of the files. */
export interface Material {
  readonly cert: Buffer;
  readonly key: Buffer;
  /** The authorities of client certificates. */
  readonly ca: Buffer | undefined;
  readonly subject: string;
  readonly fingerprint: string;
  readonly expires: Date;
}

/** Invalid files; the message has one line for each problem. */
export class TlsFilesError extends StartError {
  override readonly name = 'TlsFilesError';
}

/** The bytes of a file, or the reason why it cannot be read. */
type Content = { readonly bytes: Buffer } | { readonly problem: string };
type Contents = { readonly [Name in keyof TlsFiles]: Content | undefined };

/** The contents of all files at one time. */
export interface Snapshot {
  /** A hash of the contents; it does not reveal them. */
  readonly digest: string;
  /** Validates the contents; throws a TlsFilesError. */
  check(now: Date): Material;
}

export async function readFiles(files: TlsFiles): Promise<Snapshot> {
  const read = async (path: string | undefined) => (path === undefined ? undefined : contentOf(path));
  const [cert, key, ca] = await Promise.all([
    read(files.TLS_CERT_FILE),
    read(files.TLS_KEY_FILE),
    read(files.TLS_CLIENT_CA_FILE),
  ]);
  const contents = { TLS_CERT_FILE: cert, TLS_KEY_FILE: key, TLS_CLIENT_CA_FILE: ca };
  return { digest: digestOf(contents), check: (now) => check(files, contents, now) };
}

async function contentOf(path: string): Promise<Content> {
  try {
    return { bytes: await readFile(path) };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return { problem: code === 'ENOENT' ? 'does not exist' : `cannot be read (${code})` };
  }
}

function digestOf(contents: Contents): string {
  const hash = createHash('sha256');
  for (const content of Object.values(contents)) {
    const bytes = content && ('bytes' in content ? content.bytes : Buffer.from(content.problem));
    hash.update(`${bytes?.length};`).update(bytes ?? '');
  }
  return hash.digest('base64');
}

function check(files: TlsFiles, contents: Contents, now: Date): Material {
  const problems: string[] = [];
  const addProblem = (name: keyof TlsFiles, problem: string) => problems.push(`${name} ${files[name]} ${problem}`);
  const validate = <T>(name: keyof TlsFiles, parse: (bytes: Buffer) => T): T | undefined => {
    const content = contents[name];
    if (content === undefined) return undefined;
    try {
      if ('problem' in content) throw new Problem(content.problem);
      return parse(content.bytes);
    } catch (error) {
      addProblem(name, error instanceof Problem ? error.message : `cannot be used (${reasonOf(error)})`);
      return undefined;
    }
  };
  const chain = validate('TLS_CERT_FILE', (bytes) => chainOf(bytes, now));
  const key = validate('TLS_KEY_FILE', keyOf);
  const ca = validate('TLS_CLIENT_CA_FILE', (bytes) => authoritiesOf(bytes, now));
  if (chain && key) validate('TLS_KEY_FILE', () => checkPair(chain, key, files.TLS_CERT_FILE));
  const [leaf] = chain ?? [];
  const [cert, pem] = [contents.TLS_CERT_FILE, contents.TLS_KEY_FILE];
  if (problems.length > 0 || !leaf || !cert || !pem || !('bytes' in cert && 'bytes' in pem))
    throw new TlsFilesError(problems.join('\n'));
  const material = { cert: cert.bytes, key: pem.bytes, ca, ...certificateInfo(leaf) };
  // Finds the remaining problems, such as a key that is too short for OpenSSL.
  if (validate('TLS_CERT_FILE', () => createSecureContext(material)) === undefined)
    throw new TlsFilesError(problems.join('\n'));
  return material;
}

/** A problem of a file. The message is a predicate, such as `does not exist`. */
class Problem extends Error {}

const BLOCK = /-----BEGIN ([A-Z0-9 ]+)-----[\s\S]*?-----END \1-----/g;
const blocksOf = (bytes: Buffer) => [...bytes.toString('latin1').matchAll(BLOCK)];
const isKey = ([, label = '']: RegExpMatchArray) => label.endsWith('PRIVATE KEY');

function certificatesOf(bytes: Buffer): X509Certificate[] {
  const blocks = blocksOf(bytes);
  const found = blocks.filter(([, label]) => label === 'CERTIFICATE').map(([pem]) => new X509Certificate(pem));
  if (found.length > 0) return found;
  throw new Problem(
    blocks.some(isKey) ? 'holds a private key where a certificate should be' : 'holds no certificate in PEM',
  );
}

function chainOf(bytes: Buffer, now: Date): X509Certificate[] {
  const chain = certificatesOf(bytes);
  const leaf = chain[0] as X509Certificate;
  if (new Date(leaf.validTo) < now) throw new Problem(`has expired at ${leaf.validTo}: replace the certificate`);
  if (new Date(leaf.validFrom) > now)
    throw new Problem(`is valid only from ${leaf.validFrom}: is the clock of this machine right?`);
  return chain;
}

function authoritiesOf(bytes: Buffer, now: Date): Buffer {
  const live = certificatesOf(bytes).filter(({ validTo }) => new Date(validTo) >= now);
  if (live.length === 0)
    throw new Problem('holds only certificates that have expired: add a valid certificate authority');
  return bytes;
}

function keyOf(bytes: Buffer): KeyObject {
  const [block] = blocksOf(bytes).filter(isKey);
  if (!block) throw new Problem('holds no private key in PEM');
  if (/ENCRYPTED/.test(block[0].slice(0, 200)))
    throw new Problem('is encrypted with a passphrase: decrypt it with openssl pkey -in <file> -out <other>');
  return createPrivateKey(block[0]);
}

function checkPair(chain: readonly X509Certificate[], key: KeyObject, certFile: string): void {
  const index = chain.findIndex((certificate) => certificate.checkPrivateKey(key));
  if (index < 0) throw new Problem(`is not the key of the certificate in TLS_CERT_FILE ${certFile}`);
  if (index > 0)
    throw new Problem(`is the key of a later certificate in TLS_CERT_FILE ${certFile}: it must be the first`);
}

function certificateInfo(leaf: X509Certificate) {
  const subject = (leaf.subject || leaf.subjectAltName || '').replace(/\n/g, ', ');
  return { subject, fingerprint: leaf.fingerprint256, expires: new Date(leaf.validTo) };
}

/** The reason that OpenSSL states; it contains no data of the files. */
function reasonOf(error: unknown): string {
  const { reason, code } = error as { reason?: string; code?: string };
  return reason ?? code ?? 'it is not well-formed';
}
