import { createHash, randomBytes } from 'node:crypto';
import type { Role, TokenState } from '../../gen/ts/agentllm/v1/access_service.js';
import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import { maxElements } from '../max_elements.js';
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

/** A new token: its id, which is public, and its text, which only its bearer has. */
export interface NewToken {
  readonly id: string;
  readonly text: string;
}

const LETTERS = 'abcdefghijklmnopqrstuvwxyz234567';
const ID_LENGTH = 10;
const SECRET_BYTES = 32;

/** Generates a token of 256 random bits. Its prefix lets secret scanners detect it. */
export function makeToken(): NewToken {
  const id = `al_${[...randomBytes(ID_LENGTH)].map((byte) => LETTERS[byte % LETTERS.length]).join('')}`;
  return { id, text: `${id}_${randomBytes(SECRET_BYTES).toString('base64url')}` };
}

const TEXT = /^(al_[a-z2-7]{10})_[A-Za-z0-9_-]{43}$/;

/** Parses the text of a token; undefined for a text that is not in the form of `makeToken`. */
export function readToken(text: string): NewToken | undefined {
  const id = TEXT.exec(text)?.[1];
  return id === undefined ? undefined : { id, text };
}

/** The hash by which a token is looked up. 256 random bits need neither a salt nor a slow hash. */
export const hashOf = (text: string): string => createHash('sha256').update(text).digest('hex');

/** The requested properties of a new token. */
export interface TokenRequest {
  readonly name: string;
  readonly role: Role;
  readonly agents: readonly string[];
  readonly all_agents: boolean;
  /** Empty: the token is a text, not bound to a certificate. */
  readonly certificate_identity: string;
  /** undefined: the token does not expire. */
  readonly lifetimeMs: number | undefined;
}

/** The lifetime of a token in ms; NaN if the Duration is not valid. */
export function lifetimeMsOf({ seconds, nanos }: { readonly seconds: bigint; readonly nanos: number }): number {
  return nanos >= 0 && nanos < 1e9 ? Number(seconds) * 1000 + nanos / 1e6 : Number.NaN;
}

/** The roles that a token can have. */
export const ROLES: readonly Role[] = ['ROLE_ADMIN', 'ROLE_OPERATOR', 'ROLE_VIEWER', 'ROLE_AGENT'];

/** The violations of a request, by the fields of CreateTokenRequest. */
export function tokenProblems(request: TokenRequest): (readonly [field: string, problem: string | undefined])[] {
  const { lifetimeMs, certificate_identity: identity } = request;
  const { min, max } = limits.tokenLifetime;
  const inRange = lifetimeMs === undefined || (lifetimeMs >= min * 1000 && lifetimeMs <= max * 1000);
  return [
    ['name', request.name === '' ? 'is required' : nameProblem(request.name, limits.tokenName)],
    [
      'role',
      ROLES.includes(request.role) ? undefined : 'is required: ROLE_ADMIN, ROLE_OPERATOR, ROLE_VIEWER or ROLE_AGENT',
    ],
    ...agentProblems(request),
    [
      'certificate_identity',
      identity === '' || normalIdentity(identity) !== undefined
        ? undefined
        : `must be a URI, a DNS name, or CN= and a common name, 1 to ${limits.certificateIdentity} visible ASCII characters`,
    ],
    [
      'lifetime',
      inRange
        ? undefined
        : Number.isNaN(lifetimeMs)
          ? 'must have nanos of 0 to 999999999'
          : `must be ${min} s to ${max / 86_400} days`,
    ],
  ];
}

function* agentProblems({ role, agents, all_agents }: TokenRequest): Generator<readonly [string, string | undefined]> {
  if (role !== 'ROLE_AGENT') {
    if (agents.length > 0) yield ['agents', 'must be empty: only ROLE_AGENT can be limited to agents'];
    if (all_agents) yield ['all_agents', 'must be false: only ROLE_AGENT can be limited to agents'];
    return;
  }
  if (all_agents && agents.length > 0) yield ['agents', 'must be empty together with all_agents'];
  if (!all_agents && agents.length === 0) yield ['agents', 'is required: name agents, or set all_agents'];
  const maximum = maxElements['agentllm.v1.CreateTokenRequest.agents'];
  if (agents.length > maximum) yield ['agents', `must have at most ${maximum} elements`];
  else for (const [at, name] of agents.entries()) yield [`agents[${at}]`, nameProblem(name, limits.agentName)];
}

/** Plans the creation of a token from a valid request. */
export function planToken(state: State, draft: Draft, request: TokenRequest, newToken: NewToken): Token {
  const { certificate_identity, lifetimeMs } = request;
  // Scopes compare names exactly, so names that predate normalization are used as they are stored.
  const agents = request.agents.map((name) => state.storedAgentName(name));
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
    token_id: newToken.id,
    name: normalName(request.name),
    role: request.role,
    agents: request.role === 'ROLE_AGENT' && !request.all_agents ? [...new Set(agents)].sort() : null,
    token_hash: identity === '' ? hashOf(newToken.text) : null,
    certificate_identity: identity || null,
    expires_at: lifetimeMs === undefined ? null : new Date(draft.now.getTime() + lifetimeMs),
  });
}

/** Plans the revocation of a token. A revoked token does not change. */
export function planRevocation(state: State, draft: Draft, tokenId: string): Token {
  const token = tokenOf(state, tokenId);
  return token.revoked_at ? token : draft.update('token', token, { ...token, revoked_at: draft.now });
}

export function tokenOf(state: State, tokenId: string): Token {
  const token = state.tokenNamed(tokenId);
  if (token) return token;
  // The input may be the text of a token; the error contains only its public id.
  const shown = /^al_[a-z2-7]{1,10}/.exec(tokenId)?.[0] ?? '(none of this form)';
  throw ServiceError.of('TOKEN_NOT_FOUND', { token: shown }, { resources: [{ type: 'token', name: shown }] });
}

export function stateOfToken({ revoked_at, expires_at }: Token, now: Date): TokenState {
  if (revoked_at) return 'TOKEN_STATE_REVOKED';
  return expires_at && expires_at <= now ? 'TOKEN_STATE_EXPIRED' : 'TOKEN_STATE_ACTIVE';
}
