import {
  CreateTokenRequest,
  CreateTokenResponse,
  type GetTokenRequest,
  type GetTokenResponse,
  type ListTokensRequest,
  type ListTokensResponse,
  RevokeTokenRequest,
  RevokeTokenResponse,
  type Token as TokenMessage,
  TokenState,
} from '../../gen/ts/agentllm/v1/access_service.js';
import type { Token } from '../domain/rows.js';
import type { State } from '../domain/state.js';
import { textProblem } from '../domain/text.js';
import {
  makeToken,
  type NewToken,
  planRevocation,
  planToken,
  stateOfToken,
  type TokenRequest,
  tokenOf,
  tokenProblems,
} from '../domain/token.js';
import { tokenMessage, wishOf } from '../domain/token_message.js';
import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import { invalidFields } from '../problems.js';
import type { Store } from './store.js';
import { usesOf } from './tokens.js';
import type { Write } from './write/planned_write.js';
import { rehearse, transact } from './write/transact.js';

/*
 * AccessService for whoever has the database, whom nobody has to let in: the command line on the machine of the service.
 * The state of the store is up to date when these are called.
 */

interface WriteRequest {
  readonly request_id: string;
  readonly validate_only: boolean;
  readonly reason: string;
}

type Checks = readonly (readonly [field: string, problem: string | undefined])[];

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

export async function createToken(store: Store, request: CreateTokenRequest): Promise<CreateTokenResponse> {
  const made = makeToken();
  const wish = wishOf(request);
  const bytes = await carryOut(store, request, {
    method: 'token/create',
    plan(state, draft) {
      check(request, tokenProblems(wish));
      return planToken(state, draft, wish, made);
    },
    answer: (token, revision) => CreateTokenResponse.encode(responseOf(token, revision)).finish(),
    body: () => CreateTokenRequest.encode({ ...request, request_id: '' }).finish(),
  });
  const response = CreateTokenResponse.decode(bytes);
  const isOurs = response.token?.id === made.id;
  return isOurs && wish.certificate_identity === '' ? { ...response, text: made.text } : response;
}

const FIRST: TokenRequest = {
  name: 'bootstrap',
  role: 'ROLE_ADMIN',
  agents: [],
  all_agents: false,
  certificate_identity: '',
  lifetimeMs: undefined,
};

/** Creates the first token of a store; false when the store has had one, on whichever replica. */
export async function createFirstToken(store: Store, made: NewToken): Promise<boolean> {
  let isCreated = false;
  await transact<boolean>(store, {
    actor: 'agentllm',
    method: 'token/bootstrap',
    requestId: undefined,
    reason: undefined,
    plan(state, draft) {
      if (state.tokensExist) return false;
      planToken(state, draft, FIRST, made);
      return true;
    },
    answer: (created) => {
      isCreated = created;
      return new Uint8Array();
    },
    body: () => new Uint8Array(),
  });
  return isCreated;
}

export async function revokeToken(store: Store, request: RevokeTokenRequest): Promise<RevokeTokenResponse> {
  const bytes = await carryOut(store, request, {
    method: 'token/revoke',
    plan(state, draft) {
      check(request, [['id', request.id === '' ? 'is required' : undefined]]);
      return planRevocation(state, draft, request.id);
    },
    answer: (token, revision) => RevokeTokenResponse.encode(responseOf(token, revision)).finish(),
    body: () => RevokeTokenRequest.encode({ ...request, request_id: '' }).finish(),
  });
  return RevokeTokenResponse.decode(bytes);
}

export async function getToken(store: Store, { id, min_revision }: GetTokenRequest): Promise<GetTokenResponse> {
  const { state } = store;
  checkRevision(state, min_revision);
  const [token] = await messagesOf(store, [tokenOf(state, id)]);
  return { token, revision: BigInt(state.revision) };
}

export async function listTokens(store: Store, request: ListTokensRequest): Promise<ListTokensResponse> {
  const { state } = store;
  checkRevision(state, request.min_revision);
  const now = new Date();
  const last = state.tokenNamed(request.page_token)?.id ?? 0;
  const found = [...state.tokens.values()]
    .filter((token) => token.id > last && (request.show_ended || stateOfToken(token, now) === TokenState.ACTIVE))
    .sort((a, b) => a.id - b.id);
  const page = found.slice(0, request.page_size || undefined);
  const next_page_token = page.length < found.length ? (page.at(-1)?.token_id ?? '') : '';
  return { tokens: await messagesOf(store, page), next_page_token, revision: BigInt(state.revision) };
}

function checkRevision({ revision }: State, wanted: bigint): void {
  if (wanted > BigInt(revision))
    throw ServiceError.of('REVISION_NOT_REACHED', { wanted: String(wanted), reached: String(revision) });
}

type Deed = Omit<Write<Token>, 'actor' | 'requestId' | 'reason' | 'signal'>;

function carryOut(store: Store, request: WriteRequest, deed: Deed): Promise<Uint8Array> {
  const { request_id, reason, validate_only } = request;
  const requestId = UUID.test(request_id) ? request_id.toLowerCase() : undefined;
  const write = { ...deed, actor: 'agentllm', requestId, reason: reason || undefined };
  return validate_only ? rehearse(store, write) : transact(store, write);
}

function check({ request_id, reason }: WriteRequest, checks: Checks): void {
  const all: Checks = [
    ...checks,
    ['request_id', request_id === '' || UUID.test(request_id) ? undefined : 'must be a UUID'],
    ['reason', textProblem(reason, limits.reason)],
  ];
  const violations = all.flatMap(([field, description]) => (description ? [{ field, description }] : []));
  if (violations.length > 0) throw invalidFields(violations);
}

const responseOf = (token: Token, revision: number) => ({
  token: tokenMessage(token, new Date()),
  revision: BigInt(revision),
  text: '',
  adoption: undefined,
});

async function messagesOf(store: Store, tokens: readonly Token[]): Promise<TokenMessage[]> {
  const uses = await usesOf(store, tokens);
  const now = new Date();
  return tokens.map((token) => tokenMessage(token, now, uses.get(token.id)));
}
