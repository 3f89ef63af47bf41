import type { Draft } from '../../domain/draft.js';
import type { State } from '../../domain/state.js';
import { ServiceError } from '../../errors.js';
import { invalidFields, type Problems } from '../../problems.js';
import { transact, validateWrite } from '../../store/write/transact.js';
import type { Call, HandlerResult } from '../dispatch/method.js';
import { ADDED_BYTES, checkedResponse } from '../dispatch/response.js';
import type { ReadBackend, WriteBackend } from './backend.js';
import { adoptionWaitMs, minRevisionProblem, requestIdOf, type WriteRequest, writeProblems } from './requests.js';
import { withAdoption } from './wait_for_adoption.js';

interface ReadRequest {
  readonly min_revision: bigint;
}

/** Responds from the state in memory, as soon as it has reached the requested `min_revision`. */
export function read<Request extends ReadRequest, Response>(
  { store, feed }: ReadBackend,
  call: Call<Request, Response>,
  respond: (state: State) => HandlerResult<Response> | Promise<HandlerResult<Response>>,
): HandlerResult<Response> | Promise<HandlerResult<Response>> {
  const wanted = call.request.min_revision;
  if (wanted < 0n) throw invalidFields([{ field: 'min_revision', description: minRevisionProblem(wanted) as string }]);
  if (wanted <= store.state.revision) return respond(store.state);
  return feed.reached(wanted, call.signal).then(() => {
    call.recheckAccess();
    return respond(store.state);
  });
}

/** The plan and the response of a write. */
export interface Writing<Result, Response> {
  /** Fills the draft; `problems` already has the problems of the shared fields. */
  readonly plan: (state: State, draft: Draft, problems: Problems) => Result;
  /** The response without `adoption`, which is only known after the commit. */
  readonly respond: (result: Result, revision: bigint, state: State) => Omit<Response, 'adoption'>;
}

/** Executes a write, or only its checks if `validate_only` is set. */
export function write<Request extends WriteRequest, Result, Response>(
  backend: WriteBackend,
  call: Call<Request, Response>,
  writing: Writing<Result, Response>,
): Promise<Uint8Array> {
  const { request } = call;
  if (call.isRetry && request.request_id === '' && !request.validate_only)
    throw ServiceError.of('RETRY_WITHOUT_REQUEST_ID', {});
  const planned = {
    actor: call.caller,
    method: call.method,
    requestId: requestIdOf(request),
    reason: request.reason || undefined,
    // A dry run and its write must have the same request body.
    body: () => call.encode({ ...request, request_id: '', validate_only: false }),
    signal: call.signal,
    plan(state: State, draft: Draft) {
      // Checked against the state that the write changes, so that no write of a revoked token commits after the
      // revocation.
      call.recheckAccess();
      return writing.plan(state, draft, writeProblems(request));
    },
    encodeResponse: (result: Result, revision: number) =>
      // Checked before the commit, so that a write whose response cannot be sent is not committed.
      checkedResponse(
        call.encodeResponse(writing.respond(result, BigInt(revision), backend.store.state) as Response),
        ADDED_BYTES,
      ),
  };
  if (request.validate_only) return validateWrite(backend.store, planned);
  const done = transact(backend.store, planned);
  const waitMs = adoptionWaitMs(request);
  if (waitMs === undefined || !('adoptionWaits' in backend)) return done;
  return done.then((bytes) => withAdoption(backend, bytes, waitMs, call));
}
