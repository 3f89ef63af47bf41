import { z } from 'zod';
import {
  AccessServiceService,
  CreateTokenRequest,
  GetTokenRequest,
  ListTokensRequest,
  RevokeTokenRequest,
} from '../../../gen/ts/agentllm/v1/access_service.js';
import type { Output } from '../../admin/protocol.js';
import { callLocally, isLocalMethod, type LocalMethod } from '../../api/local_access.js';
import { type AgentLLM, AgentLLMError } from '../../client/index.js';
import { readSettings } from '../../config.js';
import { displayAddress, parseDatabaseUrl } from '../../domain/database_url.js';
import { type Reason, ServiceError, StartError } from '../../errors.js';
import { invalidFields } from '../../problems.js';
import { migrator } from '../../store/maintenance/migrate.js';
import { catchUp } from '../../store/write/change_log.js';
import { runTask, type Task, type TaskContext } from './store_task.js';

/*
 * Token management on the local store: through the admin socket of the running service, or directly in the database.
 * This access needs no token.
 */

/** The methods that work without a service. */
export type TokenMethods = Pick<AgentLLM['access'], LocalMethod>;

/** The same interface as that of the gRPC client. The messages are sent through the admin socket. */
export const localAccess: TokenMethods = {
  createToken: (request = {}) =>
    callStore('createToken', AccessServiceService.createToken, CreateTokenRequest.fromPartial(request as object)),
  getToken: (request = {}) =>
    callStore('getToken', AccessServiceService.getToken, GetTokenRequest.fromPartial(request as object)),
  listTokens: (request = {}) =>
    callStore('listTokens', AccessServiceService.listTokens, ListTokensRequest.fromPartial(request as object)),
  revokeToken: (request = {}) =>
    callStore('revokeToken', AccessServiceService.revokeToken, RevokeTokenRequest.fromPartial(request as object)),
};

/** The location of the store, for messages. */
export function storePlace(): string {
  const { DATABASE_URL, DATA_DIR } = readSettings(process.env);
  return DATABASE_URL ? `PostgreSQL at ${displayAddress(parseDatabaseUrl(DATABASE_URL))}` : DATA_DIR;
}

interface Method<Request, Response> {
  readonly path: string;
  readonly requestSerialize: (request: Request) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => Response;
}

const options = z.object({ method: z.string().max(100), request: z.base64() });
type Options = z.output<typeof options>;

const serializedError = z.object({
  reason: z.custom<Reason>((value) => typeof value === 'string'),
  metadata: z.record(z.string(), z.string()),
  violations: z.array(z.object({ field: z.string(), description: z.string() })),
});
const outcome = z.object({ response: z.base64().optional(), refusal: serializedError.optional() });

/** Calls a method of AccessService on the store. Prints the response as a line of JSON. */
export const tokenTask: Task<Options> = {
  name: 'token',
  options,
  withoutDatabase: 'refused',
  instead:
    'agentllm serve creates it at its first start. If the service uses another database, set the same DATA_DIR or DATABASE_URL, or call the service with --address',
  async run(context, call) {
    context.output.out(JSON.stringify(await outcomeOf(context, call)));
  },
};

async function outcomeOf({ store }: TaskContext, { method, request }: Options): Promise<z.output<typeof outcome>> {
  if (!isLocalMethod(method)) throw new StartError(`the running service does not have the token method ${method}`);
  await migrator(store.database).check({ pending: true });
  try {
    await catchUp(store);
    return { response: (await callLocally(store, method, Buffer.from(request, 'base64'))).toString('base64') };
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    const { reason, metadata, violations } = error;
    return { refusal: { reason, metadata, violations: [...violations] } };
  }
}

async function callStore<Request, Response>(
  name: LocalMethod,
  method: Method<Request, Response>,
  request: Request,
): Promise<Response> {
  const output: string[] = [];
  const errors: string[] = [];
  const capture: Output = { out: (line) => void output.push(line), err: (line) => void errors.push(line) };
  await runTask(tokenTask, { method: name, request: method.requestSerialize(request).toString('base64') }, capture);
  const [line] = output;
  if (line === undefined) throw new StartError(errors.join('\n').replaceAll('agentllm: ', ''));
  const { response, refusal: refused } = outcome.parse(JSON.parse(line));
  if (refused) throw AgentLLMError.like(errorOf(refused), method.path.slice(1));
  return method.responseDeserialize(Buffer.from(response ?? '', 'base64'));
}

const errorOf = ({ reason, metadata, violations }: z.output<typeof serializedError>): ServiceError =>
  reason === 'INVALID_FIELDS' ? invalidFields(violations) : ServiceError.of(reason, metadata as never);
