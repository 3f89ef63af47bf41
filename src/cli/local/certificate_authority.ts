import 'reflect-metadata';
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  webcrypto,
} from 'node:crypto';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type JsonGeneralName,
  type JsonName,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';

/** A certificate with its key, PEM. */
export interface Pair {
  readonly cert: string;
  readonly key: string;
}

export interface LeafOptions {
  readonly kind: 'server' | 'client';
  readonly commonName?: string | undefined;
  readonly names: readonly JsonGeneralName[];
  readonly days: number;
  /** An existing key to use. */
  readonly key?: string | undefined;
}

const DAY_MS = 86_400_000;
const EC = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const NAME = 'agentllm development authority';

export const newKey = (): string =>
  generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();

/** Creates an authority that can sign leaf certificates only. */
export async function makeAuthority(days: number): Promise<Pair> {
  const key = newKey();
  const keys = await keysOf(key);
  const cert = await X509CertificateGenerator.createSelfSigned({
    ...commonFields(days),
    name: [{ CN: [NAME] }, { OU: [randomBytes(4).toString('hex')] }],
    keys,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { cert: pem(cert), key };
}

/** Creates a certificate that the authority signs. */
export async function makeLeaf(
  authority: Pair,
  { kind, commonName, names, days, key = newKey() }: LeafOptions,
): Promise<Pair> {
  const [keys, signer] = [await keysOf(key), await keysOf(authority.key)];
  const issuer = new X509Certificate(authority.cert);
  const { serverAuth, clientAuth } = ExtendedKeyUsage;
  const times = commonFields(days);
  const cert = await X509CertificateGenerator.create({
    ...times,
    notAfter: new Date(Math.min(times.notAfter.getTime(), issuer.notAfter.getTime())),
    // As JSON, because a string would be split at its commas.
    subject: (commonName === undefined ? [] : [{ CN: [commonName] }]) satisfies JsonName,
    issuer: issuer.subjectName,
    publicKey: keys.publicKey,
    signingKey: signer.privateKey,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([kind === 'server' ? serverAuth : clientAuth]),
      await AuthorityKeyIdentifierExtension.create(issuer),
      // RFC 5280, 4.1.2.6: the extension is critical if the subject is empty.
      ...(names.length > 0 ? [new SubjectAlternativeNameExtension([...names], commonName === undefined)] : []),
    ],
  });
  return { cert: pem(cert), key };
}

const commonFields = (days: number) => ({
  serialNumber: randomBytes(16)
    .toString('hex')
    .replace(/^[89a-f]/, '7'),
  // The clocks of the machines may differ by some minutes.
  notBefore: new Date(Date.now() - 5 * 60_000),
  notAfter: new Date(Date.now() + days * DAY_MS),
  signingAlgorithm: EC,
});

const pem = (cert: X509Certificate) => `${cert.toString('pem')}\n`;

async function keysOf(key: string) {
  const secret = createPrivateKey(key);
  const der = (one: KeyObject, type: 'pkcs8' | 'spki') =>
    one.export({ type, format: 'der' } as { type: 'spki'; format: 'der' });
  const { subtle } = webcrypto;
  return {
    privateKey: await subtle.importKey('pkcs8', der(secret, 'pkcs8'), EC, false, ['sign']),
    publicKey: await subtle.importKey('spki', der(createPublicKey(secret), 'spki'), EC, true, ['verify']),
  };
}
