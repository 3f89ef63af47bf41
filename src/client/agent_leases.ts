import { onAbort } from '../abort.js';
import { Backoff } from './backoff.js';
import type { Connection } from './connection.js';
import { AgentLLMError } from './error.js';
import { LEASE_METHOD, Lease, type LeaseParameters, type RequestedKey } from './lease.js';
import type { View } from './view.js';
import { waitFor } from './wait.js';
import type { Warn } from './warning.js';

/** The effect of a change on leases. */
export interface LeaseChange {
  /** The change revokes a key of the current lease. */
  readonly revoked: boolean;
  /** The change is a snapshot, so that the individual changes are not known. */
  readonly gap: boolean;
  /** The change may revoke a key that a lease request in progress returns. */
  readonly affectsRequest: boolean;
}

/** A key that the service reported as missing or unreadable is requested again after this time. */
const RETRY_MISSING_MS = 5_000;
/** A change may revoke the keys of a request in progress, and another change those of the next request. */
const MAX_ATTEMPTS = 5;
const RENEWAL_TIMEOUT_MS = 10_000;

/** The lease of one agent: one request at a time, renewed while the keys are used, dropped when it expires. */
export class AgentLeases {
  private current: Lease | undefined;
  private running: Promise<Lease> | undefined;
  /** Whether the running request is a renewal, which no caller waits for. */
  private isRenewal = false;
  /** A lease of an earlier revision may contain a revoked key. */
  private minRevision = 0n;
  /** Incremented by clear(): a lease of an earlier generation belongs to another store. */
  private generation = 0;
  /** Whether a key of the current lease was requested. */
  private used = false;
  /** When the last lease expired. */
  private expiredAt: Date | undefined;
  private warned = false;
  private timer: NodeJS.Timeout | undefined;
  private readonly backoff = new Backoff();
  private readonly ending = new AbortController();

  constructor(
    readonly agentId: number,
    public name: string,
    private readonly parts: LeaseManagerOptions,
  ) {}

  async keyFor(requested: RequestedKey, signal: AbortSignal | undefined): Promise<string> {
    const lease = this.usable(requested) ?? (await waitFor(this.leaseForCaller(), signal, LEASE_METHOD));
    const key = lease.keyFor(requested);
    if (key === undefined) throw lease.missingKey(requested.config_id);
    return key;
  }

  uses(credentials: ReadonlySet<string | undefined>, providers: ReadonlySet<string | undefined>): boolean {
    return this.current?.uses(credentials, providers) ?? false;
  }

  changed(view: View, revision: bigint, { revoked, gap, affectsRequest }: LeaseChange): void {
    if (affectsRequest && revision > this.minRevision) this.minRevision = revision;
    const { current } = this;
    if (!current || current.revision >= revision) return;
    if (revoked || !current.isValidIn(view, this.name, gap)) this.drop();
  }

  /** Drops the lease; a request in progress is repeated. */
  clear(): void {
    this.generation++;
    this.minRevision = 0n;
    this.drop();
  }

  /** Drops the lease; a request in progress fails. */
  end(): void {
    this.ending.abort();
    this.drop();
  }

  /** The current lease, unless it lacks a key that the service may have by now. */
  private usable({ config_id }: RequestedKey): Lease | undefined {
    const lease = this.unexpired();
    if (!lease) return undefined;
    const isOld =
      lease.ageMs > RETRY_MISSING_MS || (!lease.cannotRead(config_id) && lease.revision < this.parts.revision());
    if (!lease.has(config_id) && isOld) return this.drop();
    const isFirst = !this.used;
    this.used = true;
    if (isFirst && lease.dueInMs <= 0) this.renew();
    return lease;
  }

  /** The current lease, if it has not expired. */
  private unexpired(): Lease | undefined {
    const { current } = this;
    if (!current || current.remainingMs > 0) return current;
    // The timer is late if the machine slept.
    return this.expire();
  }

  private drop(): undefined {
    clearTimeout(this.timer);
    this.current = undefined;
  }

  private expire(): undefined {
    this.expiredAt = this.current?.expiresAt;
    return this.drop();
  }

  /** For a caller that waits. A running renewal has a shorter timeout, so its failure leads to another request. */
  private async leaseForCaller(): Promise<Lease> {
    const renewed = this.isRenewal ? await this.running?.catch(() => undefined) : undefined;
    return renewed ?? this.lease(false);
  }

  /** The request in progress, which all callers share. */
  private lease(isRenewal: boolean): Promise<Lease> {
    if (this.running) return this.running;
    this.isRenewal = isRenewal;
    this.running = this.request(isRenewal).finally(() => {
      this.running = undefined;
      this.isRenewal = false;
    });
    return this.running;
  }

  private async request(isRenewal: boolean): Promise<Lease> {
    const { calls, lifetimeMs, revision } = this.parts;
    const { signal } = this.ending;
    try {
      for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
        const { generation } = this;
        const held = revision();
        const minRevision = held > this.minRevision ? held : this.minRevision;
        const parameters = { agentId: this.agentId, lifetimeMs, minRevision };
        const lease = await (isRenewal
          ? this.requestRenewal(parameters)
          : Lease.request(calls, parameters, { signal }));
        signal.throwIfAborted();
        const isValid = lease.revision >= this.minRevision && generation === this.generation && lease.remainingMs > 0;
        if (isValid) return this.store(lease);
      }
    } catch (error) {
      throw this.failure(error);
    }
    const message = `The stored keys of agent ${JSON.stringify(this.name)} change, or expire, faster than they are leased`;
    throw AgentLLMError.here(message, { code: 'UNAVAILABLE', method: LEASE_METHOD });
  }

  /** No caller waits for a renewal. It has no deadline of grpc-js, whose timer would keep the process alive. */
  private async requestRenewal(parameters: LeaseParameters): Promise<Lease> {
    const call = new AbortController();
    const timer = setTimeout(() => call.abort(), RENEWAL_TIMEOUT_MS).unref();
    const release = onAbort(this.ending.signal, () => call.abort());
    const options = { signal: call.signal, deadlineMs: Number.POSITIVE_INFINITY };
    try {
      return await Lease.request(this.parts.stream, parameters, options);
    } catch (cause) {
      if (!call.signal.aborted) throw cause;
      const facts = { code: 'DEADLINE_EXCEEDED', method: LEASE_METHOD, cause } as const;
      throw AgentLLMError.here(`No response within ${RENEWAL_TIMEOUT_MS} ms`, facts);
    } finally {
      clearTimeout(timer);
      release();
    }
  }

  private store(lease: Lease): Lease {
    this.drop();
    this.current = lease;
    this.used = false;
    this.warned = false;
    this.expiredAt = undefined;
    this.backoff.reset();
    this.schedule(lease.dueInMs, () => this.renew());
    return lease;
  }

  /** Renews a lease that is due, if its keys are used; otherwise it expires. */
  private renew(): void {
    const lease = this.unexpired();
    if (!lease) return;
    this.schedule(lease.remainingMs, () => void this.unexpired());
    if (this.used) this.lease(true).catch((error: AgentLLMError) => this.renewLater(error));
  }

  private renewLater(error: AgentLLMError): void {
    const lease = this.unexpired();
    if (!lease || this.ending.signal.aborted) return;
    if (!this.warned) this.warn(error, lease);
    this.schedule(Math.min(this.backoff.next(error.retryAfterMs), lease.remainingMs), () => this.renew());
  }

  private warn(error: AgentLLMError, { expiresAt }: Lease): void {
    this.warned = true;
    const reason = error.cause instanceof AgentLLMError ? error.cause.message : error.message;
    const what = `The leased keys of agent ${JSON.stringify(this.name)} expire at ${expiresAt.toISOString()}`;
    this.parts.warn('LEASE_NOT_RENEWED', `${what} and could not be renewed: ${reason}`, error);
  }

  private schedule(ms: number, act: () => void): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(act, Math.max(1, ms)).unref();
  }

  /** Rewords a failure of the request for the caller of apiKey(). */
  private failure(error: unknown): unknown {
    if (this.ending.signal.aborted)
      return AgentLLMError.here('This client was closed', { code: 'CANCELLED', method: LEASE_METHOD });
    if (!(error instanceof AgentLLMError)) return error;
    if (error.reason === 'TOKEN_REQUIRED')
      return error.reworded(
        'The stored keys of agents are leased only to callers with a token: set the option token, or AGENTLLM_TOKEN',
      );
    if (error.code !== 'UNAVAILABLE' && error.code !== 'DEADLINE_EXCEEDED') return error;
    const agent = JSON.stringify(this.name);
    const what = this.expiredAt
      ? `The leased keys of agent ${agent} expired at ${this.expiredAt.toISOString()} and could not be renewed`
      : `The stored keys of agent ${agent} cannot be leased`;
    return error.reworded(`${what}: ${error.message}`, 'UNAVAILABLE');
  }
}

/** The components and options that leases use. */
export interface LeaseManagerOptions {
  /** For requests that a caller waits for. */
  readonly calls: Connection;
  /** For renewals; does not keep the process alive. */
  readonly stream: Connection;
  readonly lifetimeMs: number;
  /** The held revision: a lease must be at least as new. */
  readonly revision: () => bigint;
  readonly warn: Warn;
}
