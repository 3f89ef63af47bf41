import { ServiceError } from '../../errors.js';
import type { Log } from '../../log.js';

let calls = 0;

/** Logs an unexpected failure and returns the error for the caller, which has only the id of the log entry. */
export function internalError(thrown: unknown, method: string, log: Log): ServiceError {
  const call = `${process.pid.toString(36)}-${(++calls).toString(36)}`;
  log.error({ call, method, err: thrown }, 'call failed inside the service');
  return ServiceError.of('INTERNAL', { call });
}
