import { createHash, randomBytes } from 'node:crypto';
import type { Role, TokenState } from '../../gen/ts/agentllm/v1/access_service.js';
import { ServiceError } from '../errors.js';
import { limits, maxElements } from '../limits.js';
import { normalIdentity } from './certificate.js';
import type { Draft } from './draft.js';
import { normalName } from './name_index.js';
import type { Token } from './rows.js';
import type { State } from './state.js';
import { nameProblem } from './text.js';

export const newTokenRow = (): Token => ({
  id: 0,
  token_id: '',
  name: '',
  role: 'ROLE_UNSPECIFIED',
  agents: null,
  token_hash: null,
  certificate_identity: null,
  expires_at: null,
  revoked_at: null,
  created_at: new Date(0),
  updated_at: new Date(0),
  revision: 0,
});

/** A new token: its id, which everybody may see, and its text, which only its bearer has. */
export interface MadeToken {
  readonly id: string;
  readonly text: string;
}

const LETTERS = 'abcdefghijklmnopqrstuvwxyz234567';
const ID_LENGTH = 10;
const SECRET_BYTES = 32;

/** Makes a token of 256 random bits. The prefix lets scanners for leaked secrets find it. */
export function makeToken(): MadeToken {
  const id = `al_${[...randomBytes(ID_LENGTH)].map((byte) => LETTERS[byte % LETTERS.length]).join('')}`;
  return { id, text: `${id}_${randomBytes(SECRET_BYTES).toString('base64url')}` };
}

const TEXT = /^(al_[a-z2-7]{10})_[A-Za-z0-9_-]{43}$/;

/** The token of a text; undefined for what no `makeToken` has made. */
export function readToken(text: string): MadeToken | undefined {
  const id = TEXT.exec(text)?.[1];
  return id === undefined ? undefined : { id, text };
}

/** By which a token is found: 256 random bits need no salt and no slow hash. */
export const hashOf = (text: string): string => createHash('sha256').update(text).digest('hex');

/** What is asked of a new token. */
export interface TokenWish {
  readonly name: string;
  readonly role: Role;
  readonly agents: readonly string[];
  readonly all_agents: boolean;
  /** Empty: it has a text. */
  readonly certificate_identity: string;
  /** undefined: it does not end. */
  readonly lifetimeMs: number | undefined;
}

/** How long a token is to live, in ms; NaN for what is no Duration. */
export function lifetimeMsOf({ seconds, nanos }: { readonly seconds: bigint; readonly nanos: number }): number {
  return nanos >= 0 && nanos < 1e9 ? Number(seconds) * 1000 + nanos / 1e6 : Number.NaN;
}

/** The roles, as people write them. */
export const ROLES: readonly Role[] = ['ROLE_ADMIN', 'ROLE_OPERATOR', 'ROLE_VIEWER', 'ROLE_AGENT'];

/** What is wrong with a wish, by the fields of CreateTokenRequest. */
export function tokenProblems(wish: TokenWish): (readonly [field: string, problem: string | undefined])[] {
  const { lifetimeMs, certificate_identity: identity } = wish;
  const { min, max } = limits.tokenLifetime;
  const lives = lifetimeMs === undefined || (lifetimeMs >= min * 1000 && lifetimeMs <= max * 1000);
  return [
    ['name', wish.name === '' ? 'is required' : nameProblem(wish.name, limits.tokenName)],
    [
      'role',
      ROLES.includes(wish.role) ? undefined : 'is required: ROLE_ADMIN, ROLE_OPERATOR, ROLE_VIEWER or ROLE_AGENT',
    ],
    ...agentProblems(wish),
    [
      'certificate_identity',
      identity === '' || normalIdentity(identity) !== undefined
        ? undefined
        : `must be a URI, a DNS name, or CN= and a common name, 1 to ${limits.certificateIdentity} visible ASCII characters`,
    ],
    [
      'lifetime',
      lives
        ? undefined
        : Number.isNaN(lifetimeMs)
          ? 'must have nanos of 0 to 999999999'
          : `must be ${min} s to ${max / 86_400} days`,
    ],
  ];
}

function* agentProblems({ role, agents, all_agents }: TokenWish): Generator<readonly [string, string | undefined]> {
  if (role !== 'ROLE_AGENT') {
    if (agents.length > 0) yield ['agents', 'must be empty: only ROLE_AGENT is for certain agents'];
    if (all_agents) yield ['all_agents', 'must be false: only ROLE_AGENT is for certain agents'];
    return;
  }
  if (all_agents && agents.length > 0) yield ['agents', 'must be empty together with all_agents'];
  if (!all_agents && agents.length === 0) yield ['agents', 'is required: name agents, or set all_agents'];
  const most = maxElements['agentllm.v1.CreateTokenRequest.agents'];
  if (agents.length > most) yield ['agents', `must have at most ${most} elements`];
  else for (const [at, name] of agents.entries()) yield [`agents[${at}]`, nameProblem(name, limits.agentName)];
}

/** Plans a token that nothing is wrong with. */
export function planToken(state: State, draft: Draft, wish: TokenWish, made: MadeToken): Token {
  const { certificate_identity, lifetimeMs } = wish;
  // Scopes compare names exactly: an agent from before names were normalized is named as it is stored.
  const agents = wish.agents.map((name) => state.storedAgentName(name));
  const identity = normalIdentity(certificate_identity) ?? '';
  const bound = identity === '' ? undefined : state.tokenOfCertificate(identity);
  if (bound && stateOfToken(bound, draft.now) === 'TOKEN_STATE_ACTIVE')
    throw ServiceError.of(
      'CERTIFICATE_BOUND',
      { identity, token: bound.token_id },
      { resources: [{ type: 'token', name: bound.token_id }] },
    );
  return draft.create('token', {
    ...newTokenRow(),
    token_id: made.id,
    name: normalName(wish.name),
    role: wish.role,
    agents: wish.role === 'ROLE_AGENT' && !wish.all_agents ? [...new Set(agents)].sort() : null,
    token_hash: identity === '' ? hashOf(made.text) : null,
    certificate_identity: identity || null,
    expires_at: lifetimeMs === undefined ? null : new Date(draft.now.getTime() + lifetimeMs),
  });
}

/** Plans that a token ends; one that has ended so already stays as it is. */
export function planRevocation(state: State, draft: Draft, tokenId: string): Token {
  const token = tokenOf(state, tokenId);
  return token.revoked_at ? token : draft.update('token', token, { ...token, revoked_at: draft.now });
}

export function tokenOf(state: State, tokenId: string): Token {
  const token = state.tokenNamed(tokenId);
  if (token) return token;
  // What was given may be the text of a token, of which only what everybody may see is said again.
  const shown = /^al_[a-z2-7]{1,10}/.exec(tokenId)?.[0] ?? '(none of this form)';
  throw ServiceError.of('TOKEN_NOT_FOUND', { token: shown }, { resources: [{ type: 'token', name: shown }] });
}

export function stateOfToken({ revoked_at, expires_at }: Token, now: Date): TokenState {
  if (revoked_at) return 'TOKEN_STATE_REVOKED';
  return expires_at && expires_at <= now ? 'TOKEN_STATE_EXPIRED' : 'TOKEN_STATE_ACTIVE';
}
