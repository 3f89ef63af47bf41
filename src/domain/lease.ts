import { createPublicKey, diffieHellman, generateKeyPairSync, type KeyObject, type webcrypto } from 'node:crypto';
import { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from '@hpke/core';

/*
 * Sealed delivery of API keys to agent processes: HPKE (RFC 9180) in base mode, as the comment of ApiKeyLease in the
 * proto specifies. It protects keys from an attacker that records the traffic. Only TLS protects from an attacker that
 * modifies it and replaces the public key in the request.
 */

/** The authenticated context of a sealed key. The key cannot be opened if any part differs. */
export interface LeaseBinding {
  readonly store_id: string;
  readonly lease_id: string;
  readonly agent_id: number;
  readonly config_id: number;
  /** Canonical name. */
  readonly provider: string;
  /** The only origin that the key may be sent to. */
  readonly origin: string;
  readonly key_revision: bigint;
  readonly lifetime_ms: number;
}

/** A sealed key on the wire. */
export interface SealedKey {
  readonly encapsulated_key: Uint8Array;
  readonly ciphertext: Uint8Array;
}

/** A key pair for one request. The private key cannot be exported. */
export interface LeaseKeyPair {
  readonly publicKey: Uint8Array;
  readonly pair: webcrypto.CryptoKeyPair;
}

/** The only supported suite: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. */
export const leaseSuite = new CipherSuite({
  kem: new DhkemX25519HkdfSha256(),
  kdf: new HkdfSha256(),
  aead: new Aes256Gcm(),
});

const PUBLIC_KEY_BYTES = 32;
const bytesOf = (text: string) => new TextEncoder().encode(text);
const INFO = bytesOf('agentllm api key lease v1');

/** The authenticated text of a binding: one line per part, without a final line break. */
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

/** An arbitrary private key, kept because generating one is the slowest part of the check. */
let probe: KeyObject | undefined;

/** Why bytes are not a usable public key, or undefined. */
export function publicKeyProblem(bytes: Uint8Array): string | undefined {
  if (bytes.length !== PUBLIC_KEY_BYTES) return `must be the ${PUBLIC_KEY_BYTES} bytes of an X25519 public key`;
  const x = Buffer.from(bytes).toString('base64url');
  try {
    const publicKey = createPublicKey({ key: { kty: 'OKP', crv: 'X25519', x }, format: 'jwk' });
    // A point of low order makes the shared secret predictable; OpenSSL rejects it.
    probe ??= generateKeyPairSync('x25519').privateKey;
    diffieHellman({ privateKey: probe, publicKey });
    return undefined;
  } catch {
    return 'must be an X25519 public key, not a point of low order';
  }
}

/** Generates a key pair for one request. */
export async function makeLeaseKeyPair(): Promise<LeaseKeyPair> {
  const { subtle } = globalThis.crypto;
  const pair = (await subtle.generateKey('X25519', false, ['deriveBits'])) as webcrypto.CryptoKeyPair;
  return { publicKey: new Uint8Array(await subtle.exportKey('raw', pair.publicKey)), pair };
}

/** Seals an API key for the holder of the private key. */
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
