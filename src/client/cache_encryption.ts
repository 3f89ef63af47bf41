import { createCipheriv, createDecipheriv, randomBytes, scrypt, scryptSync } from 'node:crypto';

/** Begins every file; another format has another number. */
const MAGIC = Buffer.from('agentllm-held-1\n');
const SALT = 16;
const NONCE = 12;
const TAG = 16;
const HEAD = MAGIC.length + SALT + NONCE;
const CIPHER = 'aes-256-gcm';
/**
 * A caller's secret may be something that people can remember, so it is stretched: guessing costs 32 MiB and about a
 * tenth of a second a time. A fast derivation (HKDF) would do for 32 random bytes only, and nobody can tell from a text
 * whether it is that.
 */
const COST = { N: 2 ** 15, r: 8, p: 1, maxmem: 64 * 1024 * 1024 };
const KEY_BYTES = 32;

/** A secret and a salt as a key. */
interface Derived {
  readonly salt: Buffer;
  readonly key: Buffer;
}

/** Encrypts with authentication: what opens is what was sealed with the same secret, whole and unchanged. */
export class CacheCipher {
  private derived: Derived | undefined;

  constructor(private readonly secret: string | Uint8Array) {}

  async seal(content: Uint8Array): Promise<Buffer> {
    this.derived ??= await this.derive(randomBytes(SALT));
    const { salt, key } = this.derived;
    const nonce = randomBytes(NONCE);
    const head = Buffer.concat([MAGIC, salt, nonce]);
    const cipher = createCipheriv(CIPHER, key, nonce).setAAD(head);
    const sealed = [cipher.update(content), cipher.final()];
    return Buffer.concat([head, cipher.getAuthTag(), ...sealed]);
  }

  /** Throws with the reason when it cannot be opened. At once, because a process that starts waits for it. */
  open(bytes: Buffer): Buffer {
    if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) throw new Error('it is of another format');
    if (bytes.length < HEAD + TAG) throw new Error('it is torn');
    const salt = bytes.subarray(MAGIC.length, MAGIC.length + SALT);
    const key = scryptSync(this.secret, salt, KEY_BYTES, COST);
    const decipher = createDecipheriv(CIPHER, key, bytes.subarray(HEAD - NONCE, HEAD))
      .setAAD(bytes.subarray(0, HEAD))
      .setAuthTag(bytes.subarray(HEAD, HEAD + TAG));
    try {
      const content = Buffer.concat([decipher.update(bytes.subarray(HEAD + TAG)), decipher.final()]);
      // Stretched once for the life of the process: every file has a nonce of its own.
      this.derived = { salt: Buffer.from(salt), key };
      return content;
    } catch {
      throw new Error('it is torn, or sealed with another key');
    }
  }

  private derive(salt: Buffer): Promise<Derived> {
    return new Promise((resolve, reject) =>
      scrypt(this.secret, salt, KEY_BYTES, COST, (error, key) => (error ? reject(error) : resolve({ salt, key }))),
    );
  }
}
