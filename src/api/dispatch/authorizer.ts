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

/** What Access tells of. */
export interface AccessEvents {
  /** A token or certificate was shown, and is good. */
  used(token: Token): void;
  /** A call was refused for who makes it. */
  refused(actor: string, method: string, reason: string): void;
}

/** A call, as far as it matters who makes it. */
export interface RequestedMethod {
  /** Full name of the method, for errors. */
  readonly method: string;
  readonly rule: MethodRule;
}

/** Who is refused, as far as is known. */
function nameOf({ token, identity }: Readonly<Record<string, string>>): string {
  if (token) return `token:${token}`;
  return identity && identity.length < 90 ? `cert:${identity}` : anonymous.actor;
}

const BEARER = /^bearer +([!-~]+) *$/i;

/**
 * Who may do what, from the tokens in memory: nothing here waits. What is thrown is told to the caller, and says nothing
 * of whether what it asked for exists.
 */
export class Authorizer {
  private readonly principals = new WeakMap<Token, Principal>();
  private readonly rates = new WeakMap<Token, TokenBucket>();
  private readonly leases = new WeakMap<Token, Map<number, TokenBucket>>();

  constructor(
    private readonly store: Store,
    private readonly anonymous: Anonymous,
    private readonly events: AccessEvents,
  ) {}

  /** Lets a caller in to a method; throws when it may not be called by it, or not so often. */
  admit(credentials: Credentials, asked: RequestedMethod): Principal {
    const principal = this.identify(credentials, asked.method);
    this.takeCall(principal);
    this.require(principal, asked.rule.permission, asked.method);
    return principal;
  }

  /** Whom credentials are of; throws when they are no good, or are needed and missing. */
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

  /** Throws unless somebody has a permission. */
  require(principal: Principal, permission: Permission, method: string): void {
    if (may(principal.role, permission)) return;
    // Whoever has shown nothing is told what to show.
    if (!principal.token) this.refuse(principal, method, ServiceError.of('TOKEN_REQUIRED', {}));
    const { actor, role } = principal;
    this.refuse(
      principal,
      method,
      ServiceError.of('PERMISSION_DENIED', { actor, role: roleName(role), permission, method }),
    );
  }

  /** Throws when somebody leases the keys of an agent more often than processes need that keep them while they last. */
  takeLease(principal: Principal, agentId: number): void {
    const { token, actor } = principal;
    if (!token) return;
    const rates = this.leases.get(token) ?? new Map<number, TokenBucket>();
    this.leases.set(token, rates);
    const rate = rates.get(agentId) ?? new TokenBucket(limits.leasesPerMinute, limits.leasesAtOnce);
    rates.set(agentId, rate);
    if (!rate.take())
      throw ServiceError.of('RATE_LIMITED', { actor, calls: `${limits.leasesPerMinute} leases of one agent a minute` });
  }

  /** Throws when somebody is for certain agents, and a request is not about those alone. */
  checkAgents(principal: Principal, asked: RequestedMethod, request: object): void {
    if (!principal.agents || asked.rule.agentRefs === undefined) return;
    const refs = this.refsIn(asked, request);
    if (refs.length === 0 || !refs.every((ref) => this.covers(principal, ref, false)))
      this.refuseAgents(principal, asked);
  }

  /** The agents that a request names, each once. */
  refsIn({ rule }: RequestedMethod, request: object): readonly AgentRef[] {
    const refs = (rule.agentRefs ?? []).flatMap(
      (field) => (request as Record<string, AgentRef | AgentRef[]>)[field] ?? [],
    );
    return [...new Map(refs.map((ref) => [`${ref.id} ${ref.name}`, ref])).values()];
  }

  /**
   * Throws when an open stream is about agents that its caller may not watch any more. One that is gone is still whose it
   * was: who watches it by its id is told that it is gone.
   */
  checkOpenStream(principal: Principal, asked: RequestedMethod, refs: readonly AgentRef[]): void {
    if (!refs.every((ref) => this.covers(principal, ref, true))) this.refuseAgents(principal, asked);
  }

  /**
   * Throws when a principal is for certain agents, and an agent had none of their names at the revision that is read.
   * @param name the agent's name at that revision; undefined: there was no such agent. Both are refused alike, because the
   * difference tells what agents there were.
   */
  checkPast(principal: Principal, asked: RequestedMethod, name: string | undefined): void {
    if (principal.agents && (name === undefined || !principal.agents.has(name))) this.refuseAgents(principal, asked);
  }

  private refuseAgents(principal: Principal, { method }: RequestedMethod): never {
    this.refuse(principal, method, ServiceError.of('AGENT_NOT_ALLOWED', { actor: principal.actor }));
  }

  /** Whom somebody who was let in earlier is now; throws when it would not be let in any more. */
  currentPrincipal(principal: Principal): Principal {
    if (!principal.token) return this.anonymousPrincipal({});
    const token = this.store.state.tokens.get(principal.token.id);
    if (!token || token.token_id !== principal.token.token_id) throw ServiceError.of('TOKEN_UNKNOWN', {});
    return this.activePrincipal(token);
  }

  private covers({ agents }: Principal, { id, name }: AgentRef, gone: boolean): boolean {
    if (id === undefined && name === undefined) return false;
    const known = id === undefined ? undefined : this.store.state.agents.get(id)?.name;
    if (id !== undefined && (known === undefined ? !gone : !agents?.has(known))) return false;
    return name === undefined || (agents?.has(this.store.state.storedAgentName(name)) ?? false);
  }

  private principalOf(credentials: Credentials): Principal {
    const { authorization, identities = [] } = credentials;
    const { state } = this.store;
    if (authorization !== undefined) {
      const text = BEARER.exec(authorization)?.[1];
      const token = text && state.tokenWithHash(hashOf(text));
      if (!token) throw ServiceError.of('TOKEN_UNKNOWN', {});
      return this.activePrincipal(token);
    }
    for (const identity of identities) {
      const token = state.tokenOfCertificate(identity);
      if (token) return this.activePrincipal(token);
    }
    return this.anonymousPrincipal(credentials);
  }

  private activePrincipal(token: Token): Principal {
    const { token_id, expires_at } = token;
    // The times are the database's, which our clock is close to.
    const state = stateOfToken(token, new Date());
    if (state === TokenState.REVOKED) throw ServiceError.of('TOKEN_REVOKED', { token: token_id });
    if (state === TokenState.EXPIRED)
      throw ServiceError.of('TOKEN_EXPIRED', { token: token_id, at: (expires_at as Date).toISOString() });
    const known = this.principals.get(token);
    if (known) return known;
    const principal = principalOf(token);
    this.principals.set(token, principal);
    return principal;
  }

  private anonymousPrincipal({ identities = [] }: Credentials): Principal {
    const open = this.anonymous === 'allowed' || (this.anonymous === 'loopback' && !this.store.state.tokensExist);
    if (open) return anonymous;
    const [identity] = identities;
    throw identity ? ServiceError.of('CERTIFICATE_NOT_BOUND', { identity }) : ServiceError.of('TOKEN_REQUIRED', {});
  }

  private takeCall(principal: Principal): void {
    const { token, actor } = principal;
    if (!token) return;
    let rate = this.rates.get(token);
    if (!rate) {
      rate = new TokenBucket(limits.callsPerSecond * 60, limits.callsAtOnce);
      this.rates.set(token, rate);
    }
    if (!rate.take())
      throw ServiceError.of('RATE_LIMITED', { actor, calls: `${limits.callsPerSecond} calls a second` });
  }

  private refuse(principal: Principal, method: string, error: ServiceError): never {
    this.events.refused(principal.actor, method, error.reason);
    throw error;
  }
}
