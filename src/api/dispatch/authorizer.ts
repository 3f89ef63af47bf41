import { TokenState } from '../../../gen/ts/agentllm/v1/access_service.js';
import type { AgentRef } from '../../../gen/ts/agentllm/v1/agent.js';
import type { Permission } from '../../../gen/ts/agentllm/v1/options.js';
import { type Anonymous, anonymous, may, type Principal, principalOf, roleName } from '../../domain/access.js';
import type { Token } from '../../domain/rows.js';
import { hashOf, stateOfToken } from '../../domain/token.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import type { Store } from '../../store/store.js';
import type { Credentials } from './call_transport.js';
import type { MethodRule } from './contract.js';
import { TokenBucket } from './token_bucket.js';

/** Receives the events of the authorizer. */
export interface AccessEvents {
  /** A caller was identified by a valid token or certificate. */
  used(token: Token): void;
  /** A call was refused because of its caller. */
  refused(actor: string, method: string, reason: string): void;
}

/** The method that a caller requests, and its rule. */
export interface RequestedMethod {
  /** Full name of the method, for errors. */
  readonly method: string;
  readonly rule: MethodRule;
}

/** The name of a refused caller, from its token id or its certificate identity; otherwise that of anonymous callers. */
function nameOf({ token, identity }: Readonly<Record<string, string>>): string {
  if (token) return `token:${token}`;
  return identity && identity.length < 90 ? `cert:${identity}` : anonymous.actor;
}

const BEARER = /^bearer +([!-~]+) *$/i;

/**
 * Authorizes calls from the tokens in memory, without waiting. The errors go to the caller, so they do not reveal
 * whether a resource exists.
 */
export class Authorizer {
  private readonly principals = new WeakMap<Token, Principal>();
  private readonly tokenHashes = new WeakMap<Credentials, string>();
  private readonly callBuckets = new WeakMap<Token, TokenBucket>();
  private readonly leaseBuckets = new WeakMap<Token, Map<number, TokenBucket>>();

  constructor(
    private readonly store: Store,
    private readonly anonymous: Anonymous,
    private readonly events: AccessEvents,
  ) {}

  /** Admits a caller to a method; throws if the caller lacks the permission or exceeds its rate limit. */
  admit(credentials: Credentials, requested: RequestedMethod): Principal {
    const principal = this.identify(credentials, requested.method);
    this.takeCall(principal);
    this.require(principal, requested.rule.permission, requested.method);
    return principal;
  }

  /** Identifies the caller by its credentials; throws if they are invalid, or required and missing. */
  identify(credentials: Credentials, method: string): Principal {
    try {
      const principal = this.principalOf(credentials);
      if (principal.token) this.events.used(principal.token);
      return principal;
    } catch (error) {
      const { reason, metadata } = error as ServiceError;
      this.events.refused(nameOf(metadata ?? {}), method, reason);
      throw error;
    }
  }

  /** Throws unless the caller has a permission. */
  require(principal: Principal, permission: Permission, method: string): void {
    if (may(principal.role, permission)) return;
    // A caller without credentials needs to know that a token is required.
    if (!principal.token) this.refuse(principal, method, ServiceError.of('TOKEN_REQUIRED', {}));
    const { actor, role } = principal;
    this.refuse(
      principal,
      method,
      ServiceError.of('PERMISSION_DENIED', { actor, role: roleName(role), permission, method }),
    );
  }

  /**
   * Throws if a token exceeds the rate limit for leases of one agent's keys. A client that reuses its leases does not
   * reach this limit.
   */
  takeLease(principal: Principal, agentId: number): void {
    const { token, actor } = principal;
    if (!token) return;
    const buckets = this.leaseBuckets.get(token) ?? new Map<number, TokenBucket>();
    this.leaseBuckets.set(token, buckets);
    const bucket = buckets.get(agentId) ?? new TokenBucket(limits.leasesPerMinute, limits.leaseBurst);
    buckets.set(agentId, bucket);
    if (!bucket.take())
      throw ServiceError.of('RATE_LIMITED', {
        actor,
        calls: `${limits.leasesPerMinute} leases of one agent a minute for one token`,
      });
  }

  /** Throws if the caller is restricted to certain agents and the request names another one. */
  checkAgents(principal: Principal, requested: RequestedMethod, request: object): void {
    if (!principal.agents || requested.rule.agentRefs === undefined) return;
    const refs = this.refsIn(requested, request);
    if (refs.length === 0 || !refs.every((ref) => this.covers(principal, ref, false)))
      this.refuseAgents(principal, requested);
  }

  /** The agents that a request names, without duplicates. */
  refsIn({ rule }: RequestedMethod, request: object): readonly AgentRef[] {
    const refs = (rule.agentRefs ?? []).flatMap(
      (field) => (request as Record<string, AgentRef | AgentRef[]>)[field] ?? [],
    );
    return [...new Map(refs.map((ref) => [`${ref.id} ${ref.name}`, ref])).values()];
  }

  /**
   * Throws if an open stream covers an agent that its caller may no longer watch. A deleted agent stays allowed: a
   * caller that watches it by its id is notified of the deletion.
   */
  checkOpenStream(principal: Principal, requested: RequestedMethod, refs: readonly AgentRef[]): void {
    if (!refs.every((ref) => this.covers(principal, ref, true))) this.refuseAgents(principal, requested);
  }

  /**
   * Throws if the caller is restricted to certain agents and may not see an agent at a past revision.
   * @param name the agent's name at that revision; undefined: there was no such agent. Both cases have the same error,
   * because the difference would reveal which agents existed.
   */
  checkPastAgent(principal: Principal, requested: RequestedMethod, name: string | undefined): void {
    if (principal.agents && (name === undefined || !principal.agents.has(name)))
      this.refuseAgents(principal, requested);
  }

  private refuseAgents(principal: Principal, { method }: RequestedMethod): never {
    this.refuse(principal, method, ServiceError.of('AGENT_NOT_ALLOWED', { actor: principal.actor }));
  }

  /** The current principal of a caller that was admitted earlier; throws if it would no longer be admitted. */
  currentPrincipal(principal: Principal): Principal {
    if (!principal.token) return this.anonymousPrincipal({});
    const token = this.store.state.tokens.get(principal.token.id);
    if (!token || token.token_id !== principal.token.token_id) throw ServiceError.of('TOKEN_UNKNOWN', {});
    return this.activePrincipal(token);
  }

  private covers({ agents }: Principal, { id, name }: AgentRef, allowDeleted: boolean): boolean {
    if (id === undefined && name === undefined) return false;
    const agentName = id === undefined ? undefined : this.store.state.agents.get(id)?.name;
    if (id !== undefined && (agentName === undefined ? !allowDeleted : !agents?.has(agentName))) return false;
    return name === undefined || (agents?.has(this.store.state.storedAgentName(name)) ?? false);
  }

  private principalOf(credentials: Credentials): Principal {
    const { authorization, identities = [] } = credentials;
    const { state } = this.store;
    if (authorization !== undefined) {
      const hash = this.tokenHashOf(credentials);
      const token = hash && state.tokenWithHash(hash);
      if (!token) throw ServiceError.of('TOKEN_UNKNOWN', {});
      return this.activePrincipal(token);
    }
    for (const identity of identities) {
      const token = state.tokenOfCertificate(identity);
      if (token) return this.activePrincipal(token);
    }
    return this.anonymousPrincipal(credentials);
  }

  /** The hash of the token in credentials; computed once for the calls of a gRPC connection, which share an object. */
  private tokenHashOf(credentials: Credentials): string | undefined {
    const known = this.tokenHashes.get(credentials);
    if (known) return known;
    const text = BEARER.exec(credentials.authorization ?? '')?.[1];
    if (!text) return undefined;
    const hash = hashOf(text);
    this.tokenHashes.set(credentials, hash);
    return hash;
  }

  private activePrincipal(token: Token): Principal {
    const { token_id, expires_at } = token;
    // The times of a token are from the clock of the database, which is close to the local clock.
    const state = stateOfToken(token, new Date());
    if (state === TokenState.REVOKED) throw ServiceError.of('TOKEN_REVOKED', { token: token_id });
    if (state === TokenState.EXPIRED)
      throw ServiceError.of('TOKEN_EXPIRED', { token: token_id, at: (expires_at as Date).toISOString() });
    const cached = this.principals.get(token);
    if (cached) return cached;
    const principal = principalOf(token);
    this.principals.set(token, principal);
    return principal;
  }

  private anonymousPrincipal({ identities = [] }: Credentials): Principal {
    const isAdmitted = this.anonymous === 'allowed' || (this.anonymous === 'loopback' && !this.store.state.tokensExist);
    if (isAdmitted) return anonymous;
    const [identity] = identities;
    throw identity ? ServiceError.of('CERTIFICATE_NOT_BOUND', { identity }) : ServiceError.of('TOKEN_REQUIRED', {});
  }

  private takeCall(principal: Principal): void {
    const { token, actor } = principal;
    if (!token) return;
    let bucket = this.callBuckets.get(token);
    if (!bucket) {
      bucket = new TokenBucket(limits.callsPerSecond * 60, limits.callBurst);
      this.callBuckets.set(token, bucket);
    }
    if (!bucket.take())
      throw ServiceError.of('RATE_LIMITED', { actor, calls: `${limits.callsPerSecond} calls a second for one token` });
  }

  private refuse(principal: Principal, method: string, error: ServiceError): never {
    this.events.refused(principal.actor, method, error.reason);
    throw error;
  }
}
