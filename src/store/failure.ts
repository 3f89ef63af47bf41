import type { Knex } from 'knex';
import { ServiceError } from '../errors.js';

/*
 * What a database failure means to a caller. Knex puts the SQL into messages and
 * PostgreSQL echoes values, so nothing of the original text is passed on.
 */

/**
 * SQLSTATE classes and codes with which the database says that it cannot serve now: no connection, no login, no
 * privilege, no tables, no room. An operator can remove each of these causes, and then a retry succeeds.
 */
const UNAVAILABLE = /^(08|28|53|57P|25006|3D000|3F000|42501|42P01|55000|57014|58030|NO_STORE)/;
/** Codes of writes that lost against another one. */
const CONFLICT = /^(40001|40P01|55P03|25P03)$/;
const NETWORK = /^(ECONN|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH)/;
/** What pg and Knex say, without a code, of a connection that broke or was not to be had. */
const LOST =
  /Connection terminated|timeout expired|connection (is )?(closed|ended)|Timeout acquiring a connection|not queryable|aborted/i;

const codeOf = (error: unknown): string => {
  const code = (error as { code?: unknown } | undefined)?.code;
  return typeof code === 'string' ? code : '';
};

/** Whether a connection broke, so that nobody knows how far its last statement got. */
export function isLostConnection(error: unknown): boolean {
  const code = codeOf(error);
  return NETWORK.test(code) || /^(08|57P)/.test(code) || (code === '' && LOST.test(String(error)));
}

/** Whether a database that can be read takes no writes: read-only after a failover, out of disk, or a right revoked. */
export const takesNoWrites = (error: unknown): boolean => /^(25006|42501|53100|58030)$/.test(codeOf(error));

/** The tables of the store have been emptied or replaced while the service ran. */
export class StoreLostError extends Error {
  override readonly name = 'StoreLostError';
  readonly code = 'NO_STORE';
}

/** Whether the database has something against what was to be stored, not against storing it now. */
export const isAboutValues = (error: unknown): boolean => /^(22|23|54)/.test(codeOf(error));

/** A failure of the database as the error that callers see; everything else passes unchanged. */
export function databaseFailure(error: unknown): unknown {
  if (error instanceof ServiceError) return error;
  const code = codeOf(error);
  if (CONFLICT.test(code)) return ServiceError.of('WRITE_CONFLICT', {}, { cause: error });
  if (UNAVAILABLE.test(code) || isLostConnection(error))
    return ServiceError.of('DATABASE_UNAVAILABLE', {}, { cause: error });
  return error;
}

/** Asks the database outside of any write. */
export async function onDatabase<T>(
  store: { readonly database: { readonly knex: Knex } },
  run: (db: Knex) => PromiseLike<T>,
): Promise<T> {
  try {
    return await run(store.database.knex);
  } catch (error) {
    throw databaseFailure(error);
  }
}
