import { createCipheriv, createDecipheriv, createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

/*
 * Fernet as specified (version 0x80, AES-128-CBC with PKCS#7, HMAC-SHA256,
 * base64url), compatible with every other implementation. The bytes of a key never
 * leave this file: elsewhere, a key is an object that encrypts and decrypts.
 */

const VERSION = 0x80;
const IV_AT = 9;
const BODY_AT = 25;
const MAC_LENGTH = 32;
const SHORTEST = BODY_AT + 16 + MAC_LENGTH;

/** One Fernet key: 16 bytes to sign, 16 to encrypt. */
export class FernetKey {
  /** Identifies the key without revealing it: the first 12 hexadecimal digits of a hash. */
  readonly id: string;
  readonly #signing: Buffer;
  readonly #encryption: Buffer;

  private constructor(bytes: Buffer) {
    this.#signing = bytes.subarray(0, 16);
    this.#encryption = bytes.subarray(16);
    this.id = createHash('sha256').update('agentllm key id').update(bytes).digest('hex').slice(0, 12);
  }

  /** Reads 32 bytes in URL-safe or standard base64; undefined for anything else. */
  static parse(text: string): FernetKey | undefined {
    if (!/^[A-Za-z0-9_+/-]{43}=?$/.test(text)) return undefined;
    const bytes = Buffer.from(text, 'base64');
    return bytes.length === 32 ? new FernetKey(bytes) : undefined;
  }

  encrypt(plaintext: Uint8Array, now: Date, iv: Uint8Array = randomBytes(16)): string {
    const head = Buffer.alloc(IV_AT);
    head[0] = VERSION;
    head.writeBigUInt64BE(BigInt(Math.floor(now.getTime() / 1000)), 1);
    const cipher = createCipheriv('aes-128-cbc', this.#encryption, iv);
    const signed = Buffer.concat([head, iv, cipher.update(plaintext), cipher.final()]);
    return base64(Buffer.concat([signed, this.#mac(signed)]));
  }

  /** The plaintext of a ciphertext; undefined if it was not encrypted with this key. */
  decrypt(ciphertext: string): Buffer | undefined {
    const bytes = Buffer.from(ciphertext, 'base64');
    if (bytes.length < SHORTEST || bytes[0] !== VERSION || base64(bytes) !== padded(ciphertext)) return undefined;
    const signed = bytes.subarray(0, -MAC_LENGTH);
    if (!timingSafeEqual(this.#mac(signed), bytes.subarray(-MAC_LENGTH))) return undefined;
    const decipher = createDecipheriv('aes-128-cbc', this.#encryption, bytes.subarray(IV_AT, BODY_AT));
    try {
      return Buffer.concat([decipher.update(signed.subarray(BODY_AT)), decipher.final()]);
    } catch {
      return undefined;
    }
  }

  #mac(signed: Uint8Array): Buffer {
    return createHmac('sha256', this.#signing).update(signed).digest();
  }
}

/** A new key in the format of ENCRYPTION_KEY. */
export const generateKey = (): string => base64(randomBytes(32));

/** URL-safe base64 with padding, as Python's urlsafe_b64encode writes it. */
const base64 = (bytes: Uint8Array): string => padded(Buffer.from(bytes).toString('base64url'));

const padded = (text: string): string => {
  const unpadded = text.replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');
  return unpadded + '='.repeat((4 - (unpadded.length % 4)) % 4);
};
