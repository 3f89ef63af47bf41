import type { Knex } from 'knex';
import { errorCode } from '../error_properties.js';
import { ServiceError } from '../errors.js';

/*
 * Maps database errors to service errors. Knex puts SQL into messages and PostgreSQL quotes values in them, so the
 * original text is never returned to a caller.
 */

/**
 * SQLSTATE classes and codes of errors that are not caused by the request: no connection, failed login, missing
 * privilege, missing tables, no disk space. After an operator has removed the cause, a retry succeeds.
 */
const UNAVAILABLE = /^(08|28|53|57P|25006|3D000|3F000|42501|42P01|55000|57014|58030|NO_STORE)/;
/** Codes of conflicts with a concurrent transaction. */
const CONFLICT = /^(40001|40P01|55P03|25P03)$/;
const NETWORK = /^(ECONN|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH)/;
/** Messages of pg and Knex, which have no code, about a connection that was lost or could not be acquired. */
const LOST =
  /Connection terminated|timeout expired|connection (is )?(closed|ended)|Timeout acquiring a connection|not queryable|aborted/i;

const codeOf = (error: unknown): string => errorCode(error) ?? '';

/** Whether the connection was lost, so that the outcome of its last statement is unknown. */
export function isLostConnection(error: unknown): boolean {
  const code = codeOf(error);
  return NETWORK.test(code) || /^(08|57P)/.test(code) || (code === '' && LOST.test(String(error)));
}

/** Whether the database rejects writes: read-only after a failover, disk full, or a privilege revoked. */
export const rejectsWrites = (error: unknown): boolean => /^(25006|42501|53100|58030)$/.test(codeOf(error));

/** The tables of the store have been emptied or replaced while the service ran. */
export class StoreLostError extends Error {
  override readonly name = 'StoreLostError';
  readonly code = 'NO_STORE';
}

/** Whether the database rejected the stored values, so that a retry fails in the same way. */
export const isAboutValues = (error: unknown): boolean => /^(22|23|54)/.test(codeOf(error));

/** Converts a database error to the ServiceError for callers. Other errors are returned unchanged. */
export function databaseFailure(error: unknown): unknown {
  if (error instanceof ServiceError) return error;
  const code = codeOf(error);
  if (CONFLICT.test(code)) return ServiceError.of('WRITE_CONFLICT', {}, { cause: error });
  if (UNAVAILABLE.test(code) || isLostConnection(error))
    return ServiceError.of('DATABASE_UNAVAILABLE', {}, { cause: error });
  return error;
}

/** Runs a query outside of a write and converts its errors. */
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
