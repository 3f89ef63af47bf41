import { ServiceError } from '../../errors.js';
import type { Log } from '../../log.js';

let calls = 0;

/** What a caller may know of a failure that it must not see; the rest goes to the log. */
export function internalError(thrown: unknown, method: string, log: Log): ServiceError {
  const call = `${process.pid.toString(36)}-${(++calls).toString(36)}`;
  log.error({ call, method, err: thrown }, 'call failed inside the service');
  return ServiceError.of('INTERNAL', { call });
}
