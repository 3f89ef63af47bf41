import { ServiceError } from '../../errors.js';

/** A place in a stream: which store, which revision of it, and which agents. */
export interface ResumePoint {
  readonly identity: string;
  readonly revision: number;
  readonly nonce: string;
  /** Of the filter. */
  readonly mark: string;
}

const TOKEN = /^([0-9a-f]{8})\.([0-9a-z]{1,11})\.([0-9a-f]{0,8})\.([\w-]{10})$/;

/** Enough of the identity and the nonce to tell two stores, and two revisions of the same number, apart. */
export const writeResumeToken = ({ identity, revision, nonce, mark }: ResumePoint): string =>
  `${short(identity)}.${revision.toString(36)}.${short(nonce)}.${mark}`;

export function readResumeToken(token: string): ResumePoint {
  const [, identity, revision, nonce, mark] = TOKEN.exec(token) ?? [];
  const number = Number.parseInt(revision ?? '', 36);
  if (identity === undefined || nonce === undefined || mark === undefined || !Number.isSafeInteger(number))
    throw ServiceError.of('INVALID_RESUME_TOKEN', {});
  return { identity, revision: number, nonce, mark };
}

/** Whether a part of a token is of this identity, or nonce. */
export const isOf = (part: string, whole: string): boolean => part === short(whole);

const short = (id: string) => id.slice(0, 8);
