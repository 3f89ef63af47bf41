import type { Role } from '../../gen/ts/agentllm/v1/access_service.js';
import type { Permission } from '../../gen/ts/agentllm/v1/options.js';
import { limits } from '../limits.js';
import type { Token } from './rows.js';

/** Somebody who calls. */
export interface Principal {
  /** As the history and the audit name it: `token:al_k3x9q2m7wd`, `cert:spiffe://desk/trader`, `anonymous`. */
  readonly actor: string;
  readonly role: Role;
  /** Names of the agents that it may do what its role may do for; undefined: all. */
  readonly agents: ReadonlySet<string> | undefined;
  /** undefined: nobody in particular. */
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
];

const OPERATES: readonly Permission[] = [
  ...READS,
  'PERMISSION_AGENTS_WRITE',
  'PERMISSION_CONFIGS_WRITE',
  'PERMISSION_CATALOGUE_WRITE',
  'PERMISSION_CREDENTIALS_WRITE',
  'PERMISSION_CHECK',
];

const FOR_AGENTS: readonly Permission[] = [
  'PERMISSION_RESOLVE',
  'PERMISSION_WATCH',
  'PERMISSION_LEASE',
  'PERMISSION_CALLER_READ',
];

/** What takes a key out of the service or lets somebody in: for nobody who is not known. */
const NEVER_ANONYMOUS: readonly Permission[] = [
  'PERMISSION_LEASE',
  'PERMISSION_ACCESS_READ',
  'PERMISSION_ACCESS_WRITE',
];

/** Whether a role has a permission. One that is new and stands in no list is the administrator's and the open service's. */
export function may(role: Role, permission: Permission): boolean {
  if (role === 'ROLE_ADMIN') return true;
  if (role === 'ROLE_OPERATOR') return OPERATES.includes(permission);
  if (role === 'ROLE_VIEWER') return READS.includes(permission);
  if (role === 'ROLE_AGENT') return FOR_AGENTS.includes(permission);
  // Whoever needs no token; a role of a later version than this one may do nothing.
  return role === 'ROLE_UNSPECIFIED' && !NEVER_ANONYMOUS.includes(permission);
}

export const anonymous: Principal = {
  actor: 'anonymous',
  role: 'ROLE_UNSPECIFIED',
  agents: undefined,
  token: undefined,
};

/** A role as people write it: `viewer`. */
export const roleName = (role: Role): string => role.replace('ROLE_', '').toLowerCase();

/** As whom a token stands in the history: an identity that is too long for it by the token that it is bound to. */
export function actorOf({ token_id, certificate_identity: identity }: Token): string {
  const certificate = `cert:${identity}`;
  return identity === null || certificate.length > limits.actor ? `token:${token_id}` : certificate;
}

/** Whom a token stands for. No row makes its bearer what somebody is who needs no token. */
export const principalOf = (token: Token): Principal => ({
  actor: actorOf(token),
  role: token.role === 'ROLE_UNSPECIFIED' ? 'UNRECOGNIZED' : token.role,
  agents: token.agents ? new Set(token.agents) : undefined,
  token,
});

/** Whether callers that show nothing are let in: while there are no tokens, always, or never. */
export type Anonymous = 'loopback' | 'allowed' | 'never';
