import { AccessServiceService } from '../../gen/ts/agentllm/v1/access_service.js';
import type { Principal } from '../domain/access.js';
import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import type { Store } from '../store/store.js';
import type { Call, Handler, UnaryDefinition } from './dispatch/method.js';
import { accessService } from './handlers/tokens.js';

/** The methods of AccessService that need no service, with the names by which the history records them. */
const METHODS = {
  createToken: 'token/create',
  getToken: 'token/show',
  listTokens: 'token/list',
  revokeToken: 'token/revoke',
} as const;

export type LocalMethod = keyof typeof METHODS;

export const isLocalMethod = (name: string): name is LocalMethod => Object.hasOwn(METHODS, name);

/** The caller of local commands. It has direct access to the database, so it needs no token. */
const LOCAL: Principal = { actor: 'agentllm', role: 'ROLE_ADMIN', agents: undefined, token: undefined };

/**
 * Calls a method of AccessService on a store whose state is up to date, without a service and without authorization,
 * for the command line on the machine of the database. A write does not wait for adoption, because this process has no
 * watches.
 * @param bytes the encoded request; the result is the encoded response.
 */
export async function callLocally(store: Store, name: LocalMethod, bytes: Buffer): Promise<Buffer> {
  const definition = AccessServiceService[name] as unknown as UnaryDefinition<unknown, unknown>;
  const service = accessService({
    store,
    feed: { reached: notReached(store) },
    accessLog: { lastUse: () => undefined },
  });
  const handle = service[name] as Handler<unknown, unknown>;
  const result = await handle(callOf(definition, name, bytes));
  return result instanceof Uint8Array ? Buffer.from(result) : definition.responseSerialize(result);
}

const callOf = (
  definition: UnaryDefinition<unknown, unknown>,
  name: LocalMethod,
  bytes: Buffer,
): Call<unknown, unknown> => ({
  request: definition.requestDeserialize(bytes),
  method: METHODS[name],
  caller: LOCAL.actor,
  principal: LOCAL,
  require: () => {},
  requirePastAgent: () => {},
  recheckAccess: () => {},
  recheckCaller: () => {},
  encode: definition.requestSerialize,
  encodeResponse: definition.responseSerialize,
  signal: new AbortController().signal,
  remainingMs: limits.maxCallMs,
  isRetry: false,
});

/** Rejects at once, without a wait for the revision: the state is already that of the database. */
const notReached = (store: Store) => async (wanted: number | bigint) => {
  throw ServiceError.of('REVISION_NOT_REACHED', { wanted: String(wanted), reached: String(store.state.revision) });
};
