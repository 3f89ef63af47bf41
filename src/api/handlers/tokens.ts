import {
  type AccessServiceService,
  type CreateTokenRequest,
  CreateTokenResponse,
  type GetCallerResponse,
  type ListTokensRequest,
  ListTokensResponse,
  type Token as TokenMessage,
  TokenState,
} from '../../../gen/ts/agentllm/v1/access_service.js';
import { Permission } from '../../../gen/ts/agentllm/v1/options.js';
import { may, type Principal } from '../../domain/access.js';
import type { Token } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { makeToken, planRevocation, planToken, stateOfToken, tokenOf, tokenProblems } from '../../domain/token.js';
import { tokenMessage, tokenRequestOf } from '../../domain/token_message.js';
import { Problems } from '../../problems.js';
import { usesOf } from '../../store/tokens.js';
import type { AccessLog } from '../dispatch/access_log.js';
import type { Call, HandlerResult, Handlers } from '../dispatch/method.js';
import { checkPage, pageFrom, pageResponse, valuesFrom } from '../messages/pages.js';
import type { ReadBackend, WriteBackend } from './backend.js';
import { read, write } from './read_write.js';
import { requireText } from './requests.js';

/** The components that AccessService uses. */
export type AccessBackend = ReadBackend & WriteBackend & { readonly accessLog: Pick<AccessLog, 'lastUse'> };

/** The handlers of AccessService. */
export function accessService(backend: AccessBackend): Handlers<typeof AccessServiceService> {
  return {
    createToken: (call) => createToken(backend, call),

    getToken: (call) =>
      read(backend, call, async (state) => {
        requireText({ id: call.request.id });
        const revision = BigInt(state.revision);
        const token = tokenOf(state, call.request.id);
        const messageOf = await messagesOf(backend, [token]);
        return { token: messageOf(token), revision };
      }),

    listTokens: (call) => read(backend, call, (state) => listTokens(backend, state, call.request)),

    revokeToken: (call) =>
      write(backend, call, {
        plan(state, draft, problems) {
          if (call.request.id === '') problems.add('id', 'is required');
          problems.throwIfAny();
          return planRevocation(state, draft, call.request.id);
        },
        respond: (token, revision) => ({ token: tokenMessage(token, new Date()), revision }),
      }),

    getCaller: (call) => read(backend, call, (state) => callerMessage(call.principal, state)),
  };
}

/**
 * Creates a token. Its text is added to the response after the commit, because a stored response must not contain it.
 */
async function createToken(
  backend: AccessBackend,
  call: Call<CreateTokenRequest, CreateTokenResponse>,
): Promise<HandlerResult<CreateTokenResponse>> {
  const created = makeToken();
  const spec = tokenRequestOf(call.request);
  const bytes = await write(backend, call, {
    plan(state, draft, problems) {
      for (const [field, problem] of tokenProblems(spec)) problems.add(field, problem);
      problems.throwIfAny();
      return planToken(state, draft, spec, created);
    },
    respond: (token, revision) => ({ token: tokenMessage(token, new Date()), revision, text: '' }),
  });
  const isNew = CreateTokenResponse.decode(bytes).token?.id === created.id;
  if (!isNew || spec.certificate_identity !== '') return bytes;
  return Buffer.concat([
    bytes,
    CreateTokenResponse.encode(CreateTokenResponse.fromPartial({ text: created.text })).finish(),
  ]);
}

async function listTokens(backend: AccessBackend, state: State, request: ListTokensRequest): Promise<Buffer> {
  const problems = new Problems();
  checkPage(problems, request);
  problems.throwIfAny();
  const now = new Date();
  const start = pageFrom(request, ['tokens', request.show_ended]);
  const keyOf = (token: Token) => [token.id];
  const found = valuesFrom(start, {
    values: state.tokensInOrder,
    keyOf,
    keep: (token) => request.show_ended || stateOfToken(token, now) === TokenState.ACTIVE,
  });
  const { revision } = state;
  const messageOf = await messagesOf(backend, found);
  return pageResponse(start, found, {
    type: ListTokensResponse,
    revision,
    keyOf,
    rowOf: (token) => ({ tokens: [messageOf(token)] }),
  });
}

/**
 * Creates the messages of tokens with the time of their last use, which is omitted while the database is unavailable.
 */
async function messagesOf(
  { store, accessLog }: AccessBackend,
  tokens: readonly Token[],
): Promise<(token: Token) => TokenMessage> {
  const uses = await usesOf(store, tokens).catch(() => undefined);
  const now = new Date();
  return (token) => {
    const [stored, local] = [uses?.get(token.id), accessLog.lastUse(token)];
    const last_used_at = uses && (stored && local ? (stored > local ? stored : local) : (stored ?? local));
    return tokenMessage(token, now, last_used_at);
  };
}

function callerMessage({ actor, role, token }: Principal, { revision }: State): GetCallerResponse {
  return {
    actor,
    revision: BigInt(revision),
    role,
    permissions: Object.values(Permission).filter(
      (permission) =>
        permission !== Permission.UNSPECIFIED && permission !== Permission.UNRECOGNIZED && may(role, permission),
    ),
    agents: [...(token?.agents ?? [])],
    all_agents: role === 'ROLE_AGENT' && token?.agents === null,
    expires_at: token?.expires_at ?? undefined,
  };
}
