import { createHash } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import type { ProviderName } from './providers.js';

const digest = (text: string, digits: number) => createHash('sha256').update(text).digest('hex').slice(0, digits);

/** Identifies a key without containing it. */
export const fingerprintOf = (key: string): string => `sha256:${digest(key, 12)}`;

/** The key of a request; undefined: it has none. */
export function keyIn(headers: IncomingHttpHeaders): string | undefined {
  const [, bearer] = /^Bearer\s+(\S+)\s*$/i.exec(headers['authorization'] ?? '') ?? [];
  const key = headers['x-api-key'];
  return (typeof key === 'string' && key) || bearer || undefined;
}

/** The form of a key that providers repeat in errors: its beginning and its end. */
export const maskedKey = (key: string): string =>
  key.length < 12 ? '*'.repeat(key.length) : `${key.slice(0, 4)}${'*'.repeat(12)}${key.slice(-4)}`;

/**
 * The credential of a request: one key at one provider. Ids, signatures and encrypted reasoning are bound to it, as at
 * the real providers, so that a client which sends them with another credential gets an error.
 */
export class Credential {
  /** A short text that differs between credentials. */
  readonly tag: string;

  constructor(
    readonly provider: ProviderName,
    /** The fingerprint of the key; undefined: the request has none. */
    readonly fingerprint: string | undefined,
  ) {
    this.tag = digest(`${provider} ${fingerprint ?? ''}`, 8);
  }

  /** An id of this credential, such as `rs_1a2b3c4d…`. */
  id(prefix: string, number: number, part = 0): string {
    return `${prefix}${this.tag}${String(number).padStart(12, '0')}${String(part).padStart(4, '0')}`;
  }

  /** The signature of a text that the model has written. */
  sign(text: string): string {
    return Buffer.from(`fake ${this.tag} ${digest(text, 32)}`).toString('base64');
  }

  hasSigned(text: string, signature: unknown): boolean {
    return signature === this.sign(text);
  }

  encrypt(text: string): string {
    return Buffer.from(`fake ${this.tag} ${text}`).toString('base64');
  }

  hasEncrypted(content: string): boolean {
    return Buffer.from(content, 'base64').toString().startsWith(`fake ${this.tag} `);
  }
}
