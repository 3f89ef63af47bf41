import { makeToken, type NewToken, planToken, type TokenRequest } from '../../src/domain/token.js';
import type { Store } from '../../src/store/store.js';
import { transact } from '../../src/store/write/transact.js';

const DEFAULTS: TokenRequest = {
  name: 'test',
  role: 'ROLE_ADMIN',
  agents: [],
  all_agents: false,
  certificate_identity: '',
  lifetimeMs: undefined,
};

/** Stores a token without any access check, as `token create --local` does. */
export async function grant(store: Store, request: Partial<TokenRequest>): Promise<NewToken> {
  const token = makeToken();
  await transact(store, {
    actor: 'test',
    method: 'test',
    requestId: undefined,
    reason: undefined,
    plan: (state, draft) => planToken(state, draft, { ...DEFAULTS, ...request }, token),
    encodeResponse: () => new Uint8Array(),
    body: () => new Uint8Array(),
  });
  return token;
}

/** Moves the expiry of a token into the past, in the state of one replica. */
export function expire(store: Store, tokenId: string): void {
  const expiry = store.state.tokenNamed(tokenId)?.expires_at;
  if (!expiry) throw new Error(`token ${tokenId} does not expire`);
  expiry.setTime(Date.now() - 1_000);
}
