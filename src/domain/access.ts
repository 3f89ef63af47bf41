import type { Role } from '../../gen/ts/agentllm/v1/access_service.js';
import type { Permission } from '../../gen/ts/agentllm/v1/options.js';
import { limits } from '../limits.js';
import type { Token } from './rows.js';

/** The identity and rights of a caller. */
export interface Principal {
  /** The name in history and audit: `token:al_k3x9q2m7wd`, `cert:spiffe://desk/trader`, `anonymous`. */
  readonly actor: string;
  readonly role: Role;
  /** Names of the agents that the role is limited to; undefined: all. */
  readonly agents: ReadonlySet<string> | undefined;
  /** undefined: the caller is anonymous. */
  readonly token: Token | undefined;
}

const READS: readonly Permission[] = [
  'PERMISSION_AGENTS_READ',
  'PERMISSION_CONFIGS_READ',
  'PERMISSION_RESOLVE',
  'PERMISSION_CATALOGUE_READ',
  'PERMISSION_CREDENTIALS_READ',
  'PERMISSION_WATCH',
  'PERMISSION_WATCHERS_READ',
  'PERMISSION_HISTORY_READ',
  'PERMISSION_AUDIT_READ',
  'PERMISSION_ENCRYPTION_READ',
  'PERMISSION_METRICS_READ',
  'PERMISSION_CALLER_READ',
  'PERMISSION_USAGE_READ',
  'PERMISSION_BUDGETS_READ',
  'PERMISSION_EXPERIMENTS_READ',
];

const OPERATES: readonly Permission[] = [
  ...READS,
  'PERMISSION_AGENTS_WRITE',
  'PERMISSION_CONFIGS_WRITE',
  'PERMISSION_CATALOGUE_WRITE',
  'PERMISSION_CREDENTIALS_WRITE',
  'PERMISSION_CHECK',
  'PERMISSION_USAGE_WRITE',
  'PERMISSION_BUDGETS_WRITE',
  'PERMISSION_EXPERIMENTS_WRITE',
];

const FOR_AGENTS: readonly Permission[] = [
  'PERMISSION_RESOLVE',
  'PERMISSION_WATCH',
  'PERMISSION_LEASE',
  'PERMISSION_CALLER_READ',
  'PERMISSION_USAGE_RECORD',
  'PERMISSION_BUDGETS_RESERVE',
  'PERMISSION_EXPERIMENTS_RECORD',
];

/** Permissions that an anonymous caller never has: they deliver API keys or manage access. */
const NEVER_ANONYMOUS: readonly Permission[] = [
  'PERMISSION_LEASE',
  'PERMISSION_ACCESS_READ',
  'PERMISSION_ACCESS_WRITE',
];

/**
 * Whether a role has a permission. A permission that no list contains is granted to administrators and anonymous
 * callers.
 */
export function may(role: Role, permission: Permission): boolean {
  if (role === 'ROLE_ADMIN') return true;
  if (role === 'ROLE_OPERATOR') return OPERATES.includes(permission);
  if (role === 'ROLE_VIEWER') return READS.includes(permission);
  if (role === 'ROLE_AGENT') return FOR_AGENTS.includes(permission);
  // Anonymous callers have no role. A role that this version does not know has no permission.
  return role === 'ROLE_UNSPECIFIED' && !NEVER_ANONYMOUS.includes(permission);
}

export const anonymous: Principal = {
  actor: 'anonymous',
  role: 'ROLE_UNSPECIFIED',
  agents: undefined,
  token: undefined,
};

/** The short name of a role, for example `viewer`. */
export const roleName = (role: Role): string => role.replace('ROLE_', '').toLowerCase();

/** The actor of a token in the history. A certificate identity that is too long is replaced by the token id. */
export function actorOf({ token_id, certificate_identity: identity }: Token): string {
  const certificate = `cert:${identity}`;
  return identity === null || certificate.length > limits.actor ? `token:${token_id}` : certificate;
}

/** The principal of a token. ROLE_UNSPECIFIED marks anonymous callers, so a row with that role gets no permission. */
export const principalOf = (token: Token): Principal => ({
  actor: actorOf(token),
  role: token.role === 'ROLE_UNSPECIFIED' ? 'UNRECOGNIZED' : token.role,
  agents: token.agents ? new Set(token.agents) : undefined,
  token,
});

/** When callers without a token or certificate are admitted: on loopback while no token exists, always, or never. */
export type Anonymous = 'loopback' | 'allowed' | 'never';
