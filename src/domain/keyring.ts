import { createHash } from 'node:crypto';
import { FernetKey } from './fernet.js';

/** Whose key a token is: a token that is copied to another row or provider is refused. */
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

/** What became of a token: its key, or why there is none. */
export type Opened =
  | { readonly key: string; readonly keyId: string }
  | { readonly unreadable: 'no key decrypts it' | 'it belongs to another row or provider' };

const KINDS = { config: 1, credential: 2 } as const;
const TAG_AT = 9;
const HEADER = 17;

/**
 * The keys of ENCRYPTION_KEY: the first encrypts, all decrypt. What is encrypted
 * begins with a header of fixed length that says whose key it is.
 */
export class Keyring {
  private constructor(private readonly keys: readonly [FernetKey, ...FernetKey[]]) {}

  /** Reads a comma-separated list; throws with the place of the first key that is none, never with its text. */
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

  open(token: string, binding: Binding): Opened {
    const found = this.decrypt(token);
    if (!found) return { unreadable: 'no key decrypts it' };
    if (!found.plaintext.subarray(0, HEADER).equals(headerOf(binding)))
      return { unreadable: 'it belongs to another row or provider' };
    return { key: found.plaintext.subarray(HEADER).toString(), keyId: found.keyId };
  }

  /**
   * Opens a token that the Python system wrote: it is bound to no row, and one
   * generation of that system base64-encoded its tokens once more.
   */
  openUnbound(token: string): Opened {
    const inner = Buffer.from(token, 'base64').toString('latin1');
    const found = this.decrypt(token) ?? (/^gAAAA/.test(inner) ? this.decrypt(inner) : undefined);
    return found ? { key: found.plaintext.toString(), keyId: found.keyId } : { unreadable: 'no key decrypts it' };
  }

  /** Encrypts a text that is no key of anybody: the canary that tells a wrong ENCRYPTION_KEY at the start. */
  canary(now: Date): string {
    return this.keys[0].encrypt(Buffer.from(CANARY), now);
  }

  readsCanary(token: string): boolean {
    return this.decrypt(token)?.plaintext.toString() === CANARY;
  }

  private decrypt(token: string): { plaintext: Buffer; keyId: string } | undefined {
    for (const key of this.keys) {
      const plaintext = key.decrypt(token);
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
