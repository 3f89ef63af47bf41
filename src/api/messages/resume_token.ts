import { ServiceError } from '../../errors.js';

/** A position in a watch: store, revision and agents. */
export interface ResumePoint {
  readonly identity: string;
  readonly revision: number;
  readonly nonce: string;
  /** The hash of the filter. */
  readonly hash: string;
}

const TOKEN = /^([0-9a-f]{8})\.([0-9a-z]{1,11})\.([0-9a-f]{0,8})\.([\w-]{10})$/;

/**
 * Writes a token. The prefixes of the identity and the nonce distinguish two stores, and two revisions with the same
 * number.
 */
export const writeResumeToken = ({ identity, revision, nonce, hash }: ResumePoint): string =>
  `${prefixOf(identity)}.${revision.toString(36)}.${prefixOf(nonce)}.${hash}`;

export function readResumeToken(token: string): ResumePoint {
  const [, identity, revision, nonce, hash] = TOKEN.exec(token) ?? [];
  const number = Number.parseInt(revision ?? '', 36);
  if (identity === undefined || nonce === undefined || hash === undefined || !Number.isSafeInteger(number))
    throw ServiceError.of('INVALID_RESUME_TOKEN', {});
  return { identity, revision: number, nonce, hash };
}

/** Whether a prefix in a token belongs to this identity or nonce. */
export const isPrefixOf = (part: string, whole: string): boolean => part === prefixOf(whole);

const prefixOf = (id: string) => id.slice(0, 8);
