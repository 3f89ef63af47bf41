import { execFileSync } from 'node:child_process';
import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import {
  bindingText,
  type LeaseBinding,
  leaseSuite,
  makeLeaseKeyPair,
  openSealedKey,
  publicKeyProblem,
  sealKey,
} from '../../src/domain/lease.js';

const hex = (text: string) => Uint8Array.from(Buffer.from(text, 'hex'));
const hexOf = (bytes: ArrayBufferLike | Uint8Array) => Buffer.from(bytes as Uint8Array).toString('hex');

/*
 * From the vectors that accompany RFC 9180 (test-vectors.json of draft-irtf-cfrg-hpke at 5f503c5): mode 0 (base), KEM
 * 0x0020, KDF 0x0001, AEAD 0x0002, which is the suite of leases; the RFC itself prints other vectors of the list.
 */
const VECTOR = {
  info: hex('4f6465206f6e2061204772656369616e2055726e'),
  ikmE: hex('2cd7c601cefb3d42a62b04b7a9041494c06c7843818e0ce28a8f704ae7ab20f9'),
  skRm: hex('497b4502664cfea5d5af0b39934dac72242a74f8480451e1aee7d6a53320333d'),
  pkRm: hex('430f4b9859665145a6b1ba274024487bd66f03a2dd577d7753c68d7d7d00c00c'),
  enc: '6c93e09869df3402d7bf231bf540fadd35cd56be14f97178f0954db94b7fc256',
  pt: hex('4265617574792069732074727574682c20747275746820626561757479'),
  sealed: [
    ['Count-0', 'e5d84cd531cfb583096e7cfa9641bd3079cf3a91cda813c52deb5f512be9931980a41de125a925cdad859d5b7a'],
    ['Count-1', '2c43aff25343fdbff864506f0818b9d87df84ea01b1a2144d23b4d40c26bf655fdf197fe40297a8aebeed5cc2d'],
  ],
} as const;

const KEY = 'sk-CANARY-lease';
const BINDING: LeaseBinding = {
  store_id: 'f5a3c0de-0000-4000-8000-000000000001',
  lease_id: 'f5a3c0de-0000-4000-8000-000000000002',
  agent_id: 1,
  config_id: 8,
  provider: 'openai',
  origin: 'https://api.openai.com',
  key_revision: 5n,
  lifetime_ms: 600_000,
};
const AAD = `store=f5a3c0de-0000-4000-8000-000000000001
lease=f5a3c0de-0000-4000-8000-000000000002
agent=1
config=8
provider=openai
origin=https://api.openai.com
key_revision=5
lifetime_ms=600000`;

describe('the HPKE suite of leases', () => {
  it('seals to the ciphertext of the RFC 9180 vector', async () => {
    const ekm = await leaseSuite.kem.deriveKeyPair(VECTOR.ikmE);
    const recipientPublicKey = await leaseSuite.kem.deserializePublicKey(VECTOR.pkRm);
    const sender = await leaseSuite.createSenderContext({ recipientPublicKey, info: VECTOR.info, ekm });
    expect(hexOf(sender.enc)).toBe(VECTOR.enc);
    for (const [aad, ct] of VECTOR.sealed) expect(hexOf(await sender.seal(VECTOR.pt, Buffer.from(aad)))).toBe(ct);
  });

  it('opens the ciphertext of the RFC 9180 vector', async () => {
    const recipientKey = await leaseSuite.kem.deserializePrivateKey(VECTOR.skRm);
    const recipient = await leaseSuite.createRecipientContext({
      recipientKey,
      enc: hex(VECTOR.enc),
      info: VECTOR.info,
    });
    for (const [aad, ct] of VECTOR.sealed)
      expect(hexOf(await recipient.open(hex(ct), Buffer.from(aad)))).toBe(hexOf(VECTOR.pt));
  });
});

describe('a sealed key', () => {
  it('is bound to the text that the contract defines', () => expect(bindingText(BINDING)).toBe(AAD));

  it('opens with the key pair of the recipient and differs at each sealing', async () => {
    const pair = await makeLeaseKeyPair();
    const [first, second] = [await sealKey(pair.publicKey, KEY, BINDING), await sealKey(pair.publicKey, KEY, BINDING)];
    expect(await openSealedKey(pair, first, BINDING)).toBe(KEY);
    expect(await openSealedKey(pair, second, BINDING)).toBe(KEY);
    expect(first.encapsulated_key).toHaveLength(32);
    expect(first.ciphertext).not.toEqual(second.ciphertext);
    expect(Buffer.from(first.ciphertext).toString('latin1')).not.toContain('CANARY');
  });

  it.each([
    { store_id: 'f5a3c0de-0000-4000-8000-000000000009' },
    { lease_id: 'f5a3c0de-0000-4000-8000-000000000009' },
    { agent_id: 2 },
    { config_id: 9 },
    { provider: 'claude' },
    { origin: 'https://elsewhere.example' },
    { key_revision: 6n },
    { lifetime_ms: 600_001 },
  ])('does not open when the binding differs in %o', async (change) => {
    const pair = await makeLeaseKeyPair();
    const sealed = await sealKey(pair.publicKey, KEY, BINDING);
    await expect(openSealedKey(pair, sealed, { ...BINDING, ...change })).rejects.toThrow();
  });

  it('does not open with another key pair or when a bit was changed', async () => {
    const pair = await makeLeaseKeyPair();
    const sealed = await sealKey(pair.publicKey, KEY, BINDING);
    await expect(openSealedKey(await makeLeaseKeyPair(), sealed, BINDING)).rejects.toThrow();
    for (const part of ['encapsulated_key', 'ciphertext'] as const)
      for (const at of [0, sealed[part].length - 1]) {
        const bytes = Uint8Array.from(sealed[part]);
        bytes[at] = (bytes[at] as number) ^ 1;
        await expect(openSealedKey(pair, { ...sealed, [part]: bytes }, BINDING)).rejects.toThrow();
      }
  });

  it('is opened by a private key that cannot be exported', async () => {
    const { pair } = await makeLeaseKeyPair();
    expect(pair.privateKey.extractable).toBe(false);
    await expect(crypto.subtle.exportKey('jwk', pair.privateKey as never)).rejects.toThrow();
    expect(inspect(pair, { showHidden: true, depth: 9 })).not.toMatch(/[0-9a-f]{32}/i);
  });
});

describe('a public key', () => {
  it('is rejected when it is not 32 bytes long', async () => {
    expect(publicKeyProblem((await makeLeaseKeyPair()).publicKey)).toBeUndefined();
    for (const length of [0, 31, 33, 65])
      expect(publicKeyProblem(new Uint8Array(length).fill(9))).toBe('must be the 32 bytes of an X25519 public key');
  });

  // RFC 7748, section 6.1, and https://cr.yp.to/ecdh.html#validate: with these the secret is zero for every private key.
  it.each([
    '0000000000000000000000000000000000000000000000000000000000000000',
    '0100000000000000000000000000000000000000000000000000000000000000',
    'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
    '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
    'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    // The highest bit is ignored.
    '0000000000000000000000000000000000000000000000000000000000000080',
    'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b880',
    'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',
  ])('is rejected when it is a point of low order: %s', async (point) => {
    expect(publicKeyProblem(hex(point))).toBe('must be an X25519 public key, not a point of low order');
    await expect(sealKey(hex(point), KEY, BINDING)).rejects.toThrow();
  });
});

const python = (() => {
  try {
    execFileSync('python3', ['-c', 'import cryptography'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();

/** RFC 9180, sections 4 and 5, with the primitives of Python's `cryptography`: the lease code of another language. */
const HPKE = `
import sys, json, hmac, hashlib
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
KEM, SUITE, INFO = b'KEM\\x00\\x20', b'HPKE\\x00\\x20\\x00\\x01\\x00\\x02', b'agentllm api key lease v1'
def extract(salt, ikm): return hmac.new(salt or bytes(32), ikm, hashlib.sha256).digest()
def expand(prk, info, length):
    out, block, n = b'', b'', 1
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([n]), hashlib.sha256).digest(); out += block; n += 1
    return out[:length]
def l_extract(suite, salt, label, ikm): return extract(salt, b'HPKE-v1' + suite + label + ikm)
def l_expand(suite, prk, label, info, length):
    return expand(prk, length.to_bytes(2, 'big') + b'HPKE-v1' + suite + label + info, length)
def cipher(dh, enc, pk):
    shared = l_expand(KEM, l_extract(KEM, b'', b'eae_prk', dh), b'shared_secret', enc + pk, 32)
    context = b'\\0' + l_extract(SUITE, b'', b'psk_id_hash', b'') + l_extract(SUITE, b'', b'info_hash', INFO)
    secret = l_extract(SUITE, shared, b'secret', b'')
    return AESGCM(l_expand(SUITE, secret, b'key', context, 32)), l_expand(SUITE, secret, b'base_nonce', context, 12)
def open_key(sk, pk, enc, ct, aad):
    aead, nonce = cipher(sk.exchange(X25519PublicKey.from_public_bytes(enc)), enc, pk)
    return aead.decrypt(nonce, ct, aad)
def seal_key(pk, pt, aad):
    e = X25519PrivateKey.generate(); enc = e.public_key().public_bytes_raw()
    aead, nonce = cipher(e.exchange(X25519PublicKey.from_public_bytes(pk)), enc, pk)
    return enc, aead.encrypt(nonce, pt, aad)
given = json.loads(sys.argv[1])
`;

describe.runIf(python)('a lease in Python (cryptography)', () => {
  const run = (code: string, input: object) =>
    execFileSync('python3', ['-c', `${HPKE}${code}`, JSON.stringify(input)])
      .toString()
      .trim();

  it('opens a key that this package has sealed', async () => {
    const secret = `${'0'.repeat(63)}7`;
    const publicKey = run(
      'print(X25519PrivateKey.from_private_bytes(bytes.fromhex(given["sk"])).public_key().public_bytes_raw().hex())',
      { sk: secret },
    );
    const { encapsulated_key, ciphertext } = await sealKey(hex(publicKey), KEY, BINDING);
    const input = { sk: secret, pk: publicKey, enc: hexOf(encapsulated_key), ct: hexOf(ciphertext), aad: AAD };
    const opening = `
sk = X25519PrivateKey.from_private_bytes(bytes.fromhex(given['sk']))
pk, enc, ct = (bytes.fromhex(given[name]) for name in ('pk', 'enc', 'ct'))
print(open_key(sk, pk, enc, ct, given['aad'].encode()).decode())`;
    expect(run(opening, input)).toBe(KEY);
  });

  it('seals a key that this package opens', async () => {
    const pair = await makeLeaseKeyPair();
    const sealing = `
enc, ct = seal_key(bytes.fromhex(given['pk']), given['key'].encode(), given['aad'].encode())
print(enc.hex(), ct.hex())`;
    const [enc = '', ct = ''] = run(sealing, { pk: hexOf(pair.publicKey), key: KEY, aad: AAD }).split(' ');
    expect(await openSealedKey(pair, { encapsulated_key: hex(enc), ciphertext: hex(ct) }, BINDING)).toBe(KEY);
  });
});
