import { createHash } from 'node:crypto';
import { FernetKey } from './fernet.js';

/** The row and provider that a ciphertext is bound to. A ciphertext that is copied to another one cannot be opened. */
export interface Binding {
  readonly kind: 'config' | 'credential';
  /** The agent of a config; 0 for a credential, which belongs to none. */
  readonly agentId: number;
  /** Id of the config or credential. */
  readonly id: number;
  /** Canonical name of the provider that the key is for. */
  readonly provider: string;
  /** Origin of the provider's base URL: the key is sent nowhere else. */
  readonly origin: string;
}

/** The result of opening a ciphertext: its API key, or why it cannot be read. */
export type Opened =
  | { readonly key: string; readonly keyId: string }
  | { readonly unreadable: 'no key decrypts it' | 'it belongs to another row or provider' };

const KINDS = { config: 1, credential: 2 } as const;
const TAG_AT = 9;
const HEADER = 17;

/**
 * The keys of ENCRYPTION_KEY: the first encrypts, all decrypt. The plaintext
 * begins with a header of fixed length that identifies the binding.
 */
export class Keyring {
  private constructor(private readonly keys: readonly [FernetKey, ...FernetKey[]]) {}

  /**
   * Parses a comma-separated list; throws a RangeError with the position of the first invalid key, never with its text.
   */
  static parse(text: string): Keyring {
    const keys = text.split(',').map((part, at) => {
      const key = FernetKey.parse(part.trim());
      if (!key) throw new RangeError(`key ${at + 1} is not 32 bytes in base64`);
      return key;
    });
    return new Keyring(keys as [FernetKey, ...FernetKey[]]);
  }

  /** Id of the key that encrypts. */
  get primaryId(): string {
    return this.keys[0].id;
  }

  get ids(): readonly string[] {
    return this.keys.map((key) => key.id);
  }

  seal(key: string, binding: Binding, now: Date): string {
    return this.keys[0].encrypt(Buffer.concat([headerOf(binding), Buffer.from(key)]), now);
  }

  open(ciphertext: string, binding: Binding): Opened {
    const found = this.decrypt(ciphertext);
    if (!found) return { unreadable: 'no key decrypts it' };
    if (!found.plaintext.subarray(0, HEADER).equals(headerOf(binding)))
      return { unreadable: 'it belongs to another row or provider' };
    return { key: found.plaintext.subarray(HEADER).toString(), keyId: found.keyId };
  }

  /**
   * Opens a ciphertext of the original Python system, whose database can be
   * imported. It is bound to no row, and some versions of that system encoded it
   * in base64 twice.
   */
  openUnbound(ciphertext: string): Opened {
    const inner = Buffer.from(ciphertext, 'base64').toString('latin1');
    const found = this.decrypt(ciphertext) ?? (/^gAAAA/.test(inner) ? this.decrypt(inner) : undefined);
    return found ? { key: found.plaintext.toString(), keyId: found.keyId } : { unreadable: 'no key decrypts it' };
  }

  /** Encrypts a known text, the canary, which detects a wrong ENCRYPTION_KEY at start-up. */
  canary(now: Date): string {
    return this.keys[0].encrypt(Buffer.from(CANARY), now);
  }

  readsCanary(ciphertext: string): boolean {
    return this.decrypt(ciphertext)?.plaintext.toString() === CANARY;
  }

  private decrypt(ciphertext: string): { plaintext: Buffer; keyId: string } | undefined {
    for (const key of this.keys) {
      const plaintext = key.decrypt(ciphertext);
      if (plaintext) return { plaintext, keyId: key.id };
    }
    return undefined;
  }
}

const CANARY = 'agentllm canary';

function headerOf({ kind, agentId, id, provider, origin }: Binding): Buffer {
  const header = Buffer.alloc(HEADER);
  header[0] = KINDS[kind];
  header.writeInt32BE(agentId, 1);
  header.writeInt32BE(id, 5);
  createHash('sha256')
    .update(provider)
    .update('\0')
    .update(origin)
    .digest()
    .copy(header, TAG_AT, 0, HEADER - TAG_AT);
  return header;
}
