import type { CreateTokenRequest, Token as TokenMessage } from '../../gen/ts/agentllm/v1/access_service.js';
import type { Token } from './rows.js';
import { lifetimeMsOf, stateOfToken, type TokenRequest } from './token.js';

/** Converts a request message to the requested properties of a token. */
export const tokenRequestOf = ({ lifetime, ...request }: CreateTokenRequest): TokenRequest => ({
  ...request,
  lifetimeMs: lifetime && lifetimeMsOf(lifetime),
});

/** A token as a message, without its hash. A token that is not stored (a dry run) has no id. */
export const tokenMessage = (token: Token, now: Date, lastUsedAt?: Date): TokenMessage => ({
  id: token.id === 0 ? '' : token.token_id,
  name: token.name,
  role: token.role,
  agents: [...(token.agents ?? [])],
  all_agents: token.role === 'ROLE_AGENT' && token.agents === null,
  certificate_identity: token.certificate_identity ?? '',
  created_at: token.created_at,
  expires_at: token.expires_at ?? undefined,
  revoked_at: token.revoked_at ?? undefined,
  last_used_at: lastUsedAt,
  state: stateOfToken(token, now),
  revision: BigInt(token.revision),
});
