import { createPrivateKey, generateKeyPairSync, type KeyObject, sign, X509Certificate } from 'node:crypto';

/*
 * Creates certificates for tests by writing DER: Node.js can read certificates but not create them, and openssl is not
 * always installed.
 */

export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

interface CertificateOptions {
  /** The host name. */
  readonly name: string;
  /** The certificate that signs; absent: self-signed. */
  readonly by?: Certificate;
  readonly authority?: boolean;
  readonly from?: Date;
  readonly until?: Date;
}

const tagged = (tag: number, ...parts: Uint8Array[]): Buffer => {
  const body = Buffer.concat(parts);
  const length = body.length < 128 ? [body.length] : [0x82, body.length >> 8, body.length & 255];
  return Buffer.concat([Buffer.from([tag, ...length]), body]);
};
const sequence = (...parts: Uint8Array[]) => tagged(0x30, ...parts);
const objectId = (hex: string) => tagged(0x06, Buffer.from(hex, 'hex'));
const bits = (bytes: Uint8Array) => tagged(0x03, Buffer.from([0]), bytes);
const bytes = (value: Uint8Array) => tagged(0x04, value);
const time = (date: Date) => tagged(0x18, Buffer.from(`${date.toISOString().replace(/[-:T]|\.\d+/g, '')}`));
const nameOf = (text: string) => sequence(tagged(0x31, sequence(objectId('550403'), tagged(0x0c, Buffer.from(text)))));

const ECDSA_SHA256 = sequence(objectId('2a8648ce3d040302'));
const TRUE = Buffer.from([0x01, 0x01, 0xff]);
const DAY = 86_400_000;

/** Creates a key and a certificate, which is valid from yesterday to tomorrow by default. */
export function makeCertificate({ name, by, authority = false, from, until }: CertificateOptions): Certificate {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const issuer = by ? new X509Certificate(by.cert).subject.replace(/^CN=/, '') : name;
  const signer: KeyObject = by ? createPrivateKey(by.key) : privateKey;
  const alternativeName = sequence(objectId('551d11'), bytes(sequence(tagged(0x82, Buffer.from(name)))));
  const constraints = sequence(objectId('551d13'), TRUE, bytes(sequence(...(authority ? [TRUE] : []))));
  const body = sequence(
    tagged(0xa0, tagged(0x02, Buffer.from([2]))),
    tagged(0x02, Buffer.from([1, ...Array.from({ length: 8 }, () => Math.floor(Math.random() * 256))])),
    ECDSA_SHA256,
    nameOf(issuer),
    sequence(time(from ?? new Date(Date.now() - DAY)), time(until ?? new Date(Date.now() + DAY))),
    nameOf(name),
    publicKey.export({ type: 'spki', format: 'der' }),
    tagged(0xa3, sequence(alternativeName, constraints)),
  );
  const certificate = sequence(body, ECDSA_SHA256, bits(sign('sha256', body, signer)));
  const base64 = certificate.toString('base64').replace(/.{64}/g, '$&\n');
  return {
    cert: `-----BEGIN CERTIFICATE-----\n${base64}\n-----END CERTIFICATE-----\n`,
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  };
}
