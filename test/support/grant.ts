import { makeToken, type NewToken, planToken, type TokenRequest } from '../../src/domain/token.js';
import type { Store } from '../../src/store/store.js';
import { transact } from '../../src/store/write/transact.js';

const NOTHING: TokenRequest = {
  name: 'test',
  role: 'ROLE_ADMIN',
  agents: [],
  all_agents: false,
  certificate_identity: '',
  lifetimeMs: undefined,
};

/** A token that is stored as the command line does it, past every check of access. */
export async function grant(store: Store, wish: Partial<TokenRequest>): Promise<NewToken> {
  const made = makeToken();
  await transact(store, {
    actor: 'test',
    method: 'test',
    requestId: undefined,
    reason: undefined,
    plan: (state, draft) => planToken(state, draft, { ...NOTHING, ...wish }, made),
    answer: () => new Uint8Array(),
    body: () => new Uint8Array(),
  });
  return made;
}
