import { createCipheriv, createDecipheriv, randomBytes, scrypt, scryptSync } from 'node:crypto';

/** The beginning of every file, with the number of the format. */
const MAGIC = Buffer.from('agentllm-held-1\n');
const SALT = 16;
const NONCE = 12;
const TAG = 16;
const HEAD = MAGIC.length + SALT + NONCE;
const CIPHER = 'aes-256-gcm';
/**
 * The secret may be a password that can be guessed, so the key derivation is slow: each guess costs 32 MiB and about
 * 0.1 s. A fast derivation (HKDF) would suffice only for 32 random bytes, and the client cannot detect whether a text
 * is random.
 */
const COST = { N: 2 ** 15, r: 8, p: 1, maxmem: 64 * 1024 * 1024 };
const KEY_BYTES = 32;

/** The key that is derived from the secret and a salt. */
interface Derived {
  readonly salt: Buffer;
  readonly key: Buffer;
}

/** Authenticated encryption: only content that was encrypted with the same secret and is unchanged can be decrypted. */
export class CacheCipher {
  private derived: Derived | undefined;

  constructor(private readonly secret: string | Uint8Array) {}

  async encrypt(content: Uint8Array): Promise<Buffer> {
    this.derived ??= await this.derive(randomBytes(SALT));
    const { salt, key } = this.derived;
    const nonce = randomBytes(NONCE);
    const head = Buffer.concat([MAGIC, salt, nonce]);
    const cipher = createCipheriv(CIPHER, key, nonce).setAAD(head);
    const ciphertext = [cipher.update(content), cipher.final()];
    return Buffer.concat([head, cipher.getAuthTag(), ...ciphertext]);
  }

  /** Decrypts a file; throws an Error with the reason. Synchronous, because connect() needs the content. */
  open(bytes: Buffer): Buffer {
    if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) throw new Error('it has another format');
    if (bytes.length < HEAD + TAG) throw new Error('it is truncated');
    const salt = bytes.subarray(MAGIC.length, MAGIC.length + SALT);
    const key = scryptSync(this.secret, salt, KEY_BYTES, COST);
    const decipher = createDecipheriv(CIPHER, key, bytes.subarray(HEAD - NONCE, HEAD))
      .setAAD(bytes.subarray(0, HEAD))
      .setAuthTag(bytes.subarray(HEAD, HEAD + TAG));
    try {
      const content = Buffer.concat([decipher.update(bytes.subarray(HEAD + TAG)), decipher.final()]);
      // The derived key is reused for all writes of this process; every file has a different nonce.
      this.derived = { salt: Buffer.from(salt), key };
      return content;
    } catch {
      throw new Error('it is damaged, or encrypted with another key');
    }
  }

  private derive(salt: Buffer): Promise<Derived> {
    return new Promise((resolve, reject) =>
      scrypt(this.secret, salt, KEY_BYTES, COST, (error, key) => (error ? reject(error) : resolve({ salt, key }))),
    );
  }
}
