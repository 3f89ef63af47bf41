import { createPublicKey, diffieHellman, generateKeyPairSync, type KeyObject, type webcrypto } from 'node:crypto';
import { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from '@hpke/core';

/*
 * API keys on their way to agent processes: HPKE (RFC 9180) in base mode, as the comment of ApiKeyLease in the proto has
 * it. Whoever records what travels has nothing; whoever stands in between and answers in the place of the service could
 * put a public key of its own in the request, and is kept out by TLS alone.
 */

/** What a sealed key is for. Changed in any part, it does not open. */
export interface LeaseBinding {
  readonly store_id: string;
  readonly lease_id: string;
  readonly agent_id: number;
  readonly config_id: number;
  /** Canonical name. */
  readonly provider: string;
  /** Where the key may be sent. */
  readonly origin: string;
  readonly key_revision: bigint;
  readonly lifetime_ms: number;
}

/** A key as it travels. */
export interface SealedKey {
  readonly encapsulated_key: Uint8Array;
  readonly ciphertext: Uint8Array;
}

/** A key pair for one request; the private one cannot be taken out of it. */
export interface LeaseKeyPair {
  readonly publicKey: Uint8Array;
  readonly pair: webcrypto.CryptoKeyPair;
}

/** The one suite: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. */
export const leaseSuite = new CipherSuite({
  kem: new DhkemX25519HkdfSha256(),
  kdf: new HkdfSha256(),
  aead: new Aes256Gcm(),
});

const PUBLIC_KEY_BYTES = 32;
const bytesOf = (text: string) => new TextEncoder().encode(text);
const INFO = bytesOf('agentllm api key lease v1');

/** The binding as it is authenticated: a line for each part, none at the end. */
export function bindingText(binding: LeaseBinding): string {
  const { store_id, lease_id, agent_id, config_id, provider, origin, key_revision, lifetime_ms } = binding;
  const lines = [
    ['store', store_id],
    ['lease', lease_id],
    ['agent', agent_id],
    ['config', config_id],
    ['provider', provider],
    ['origin', origin],
    ['key_revision', key_revision],
    ['lifetime_ms', lifetime_ms],
  ];
  return lines.map(([name, value]) => `${name}=${value}`).join('\n');
}

/** Any key will do, and making one takes longer than everything else. */
let probe: KeyObject | undefined;

/** Why bytes are no public key that something can be sealed for, or undefined. */
export function publicKeyProblem(bytes: Uint8Array): string | undefined {
  if (bytes.length !== PUBLIC_KEY_BYTES) return `must be the ${PUBLIC_KEY_BYTES} bytes of an X25519 public key`;
  const x = Buffer.from(bytes).toString('base64url');
  try {
    const publicKey = createPublicKey({ key: { kty: 'OKP', crv: 'X25519', x }, format: 'jwk' });
    // With a point of low order everybody knows the secret, whatever the other key is: OpenSSL refuses it.
    probe ??= generateKeyPairSync('x25519').privateKey;
    diffieHellman({ privateKey: probe, publicKey });
    return undefined;
  } catch {
    return 'must be an X25519 public key, not a point of low order';
  }
}

/** Makes a key pair for one request. */
export async function makeLeaseKeyPair(): Promise<LeaseKeyPair> {
  const { subtle } = globalThis.crypto;
  const pair = (await subtle.generateKey('X25519', false, ['deriveBits'])) as webcrypto.CryptoKeyPair;
  return { publicKey: new Uint8Array(await subtle.exportKey('raw', pair.publicKey)), pair };
}

/** Seals an API key for whoever has the private key. */
export async function sealKey(publicKey: Uint8Array, key: string, binding: LeaseBinding): Promise<SealedKey> {
  const recipientPublicKey = await leaseSuite.kem.deserializePublicKey(publicKey);
  const sender = await leaseSuite.createSenderContext({ recipientPublicKey, info: INFO });
  const ciphertext = await sender.seal(bytesOf(key), bytesOf(bindingText(binding)));
  return { encapsulated_key: new Uint8Array(sender.enc), ciphertext: new Uint8Array(ciphertext) };
}

/** Opens a sealed key; throws when it was sealed for another key pair or another binding. */
export async function openSealedKey(
  { pair }: Pick<LeaseKeyPair, 'pair'>,
  { encapsulated_key: enc, ciphertext }: SealedKey,
  binding: LeaseBinding,
): Promise<string> {
  const recipient = await leaseSuite.createRecipientContext({ recipientKey: pair, enc, info: INFO });
  const opened = new Uint8Array(await recipient.open(ciphertext, bytesOf(bindingText(binding))));
  const key = new TextDecoder().decode(opened);
  opened.fill(0);
  return key;
}
