import { onAbort } from '../abort.js';
import { Backoff } from './backoff.js';
import type { Connection } from './connection.js';
import { AgentLLMError } from './error.js';
import { LEASE_METHOD, Lease, type LeaseWish, type WantedKey } from './lease.js';
import type { View } from './view.js';
import { waitFor } from './wait.js';
import type { Warn } from './warning.js';

/** What a change means for leases. */
export interface LeaseChange {
  /** It takes back a key that is held. */
  readonly taken: boolean;
  /** What happened before it is not known in its parts. */
  readonly gap: boolean;
  /** It may take back a key that is under way. */
  readonly doubtful: boolean;
}

/** A key that the service says is not there, or cannot be read, may be there when it is asked again. */
const ASK_AGAIN_MS = 5_000;
/** A change may take back what is under way, and then the next. */
const MOST_ATTEMPTS = 5;
const AHEAD_MS = 10_000;

/** The lease of one agent: one request at a time, renewed while it is used, dropped when its time is over. */
export class AgentLeases {
  private current: Lease | undefined;
  private running: Promise<Lease> | undefined;
  /** Whether it runs although nobody waits. */
  private isAhead = false;
  /** A lease of an earlier revision has something in it that was taken back. */
  private least = 0n;
  /** Another one means that revisions and agents have other numbers. */
  private generation = 0;
  /** Whether a key was asked for since it was leased. */
  private used = false;
  /** When the last one ended. */
  private endedAt: Date | undefined;
  private warned = false;
  private timer: NodeJS.Timeout | undefined;
  private readonly backoff = new Backoff();
  private readonly ending = new AbortController();

  constructor(
    readonly agentId: number,
    public name: string,
    private readonly parts: LeaseManagerOptions,
  ) {}

  async keyFor(wanted: WantedKey, signal: AbortSignal | undefined): Promise<string> {
    const lease = this.usable(wanted) ?? (await waitFor(this.wanted(), signal, LEASE_METHOD));
    const key = lease.keyFor(wanted);
    if (key === undefined) throw lease.lackOf(wanted.config_id);
    return key;
  }

  uses(credentials: ReadonlySet<string | undefined>, providers: ReadonlySet<string | undefined>): boolean {
    return this.current?.uses(credentials, providers) ?? false;
  }

  changed(view: View, revision: bigint, { taken, gap, doubtful }: LeaseChange): void {
    if (doubtful && revision > this.least) this.least = revision;
    const { current } = this;
    if (!current || current.revision >= revision) return;
    if (taken || !current.stands(view, this.name, gap)) this.drop();
  }

  /** Drops everything; what is under way is asked for anew. */
  clear(): void {
    this.generation++;
    this.least = 0n;
    this.drop();
  }

  /** Drops everything, and what is under way fails. */
  end(): void {
    this.ending.abort();
    this.drop();
  }

  /** What is held, unless it lacks a key that may be there by now. */
  private usable({ config_id }: WantedKey): Lease | undefined {
    const lease = this.held();
    if (!lease) return undefined;
    const isOld =
      lease.ageMs > ASK_AGAIN_MS || (!lease.cannotRead(config_id) && lease.revision < this.parts.revision());
    if (!lease.has(config_id) && isOld) return this.drop();
    const isFirst = !this.used;
    this.used = true;
    if (isFirst && lease.dueInMs <= 0) this.renew();
    return lease;
  }

  /** What is held and may be used. */
  private held(): Lease | undefined {
    const { current } = this;
    if (!current || current.remainingMs > 0) return current;
    // A machine that slept has a timer that is late.
    return this.expire();
  }

  private drop(): undefined {
    clearTimeout(this.timer);
    this.current = undefined;
  }

  private expire(): undefined {
    this.endedAt = this.current?.endsAt;
    return this.drop();
  }

  /** For somebody who waits: a request that was made ahead gives up sooner. */
  private async wanted(): Promise<Lease> {
    const ahead = this.isAhead ? await this.running?.catch(() => undefined) : undefined;
    return ahead ?? this.lease(false);
  }

  /** The one request that is under way, for all who wait. */
  private lease(ahead: boolean): Promise<Lease> {
    if (this.running) return this.running;
    this.isAhead = ahead;
    this.running = this.request(ahead).finally(() => {
      this.running = undefined;
      this.isAhead = false;
    });
    return this.running;
  }

  private async request(ahead: boolean): Promise<Lease> {
    const { calls, lifetimeMs, revision } = this.parts;
    const { signal } = this.ending;
    try {
      for (let attempt = 1; attempt <= MOST_ATTEMPTS; attempt++) {
        const { generation } = this;
        const held = revision();
        const least = held > this.least ? held : this.least;
        const wish = { agentId: this.agentId, lifetimeMs, least };
        const lease = await (ahead ? this.askAhead(wish) : Lease.request(calls, wish, { signal }));
        signal.throwIfAborted();
        const isGood = lease.revision >= this.least && generation === this.generation && lease.remainingMs > 0;
        if (isGood) return this.take(lease);
      }
    } catch (error) {
      throw this.failure(error);
    }
    const message = `The stored keys of agent ${JSON.stringify(this.name)} change, or end, faster than they are leased`;
    throw AgentLLMError.here(message, { code: 'UNAVAILABLE', method: LEASE_METHOD });
  }

  /** Nobody waits for it, and a deadline of grpc-js would keep the process alive for as long as it runs. */
  private async askAhead(wish: LeaseWish): Promise<Lease> {
    const call = new AbortController();
    const timer = setTimeout(() => call.abort(), AHEAD_MS).unref();
    const release = onAbort(this.ending.signal, () => call.abort());
    const options = { signal: call.signal, deadlineMs: Number.POSITIVE_INFINITY };
    try {
      return await Lease.request(this.parts.stream, wish, options);
    } catch (cause) {
      if (!call.signal.aborted) throw cause;
      const facts = { code: 'DEADLINE_EXCEEDED', method: LEASE_METHOD, cause } as const;
      throw AgentLLMError.here(`No answer within ${AHEAD_MS} ms`, facts);
    } finally {
      clearTimeout(timer);
      release();
    }
  }

  private take(lease: Lease): Lease {
    this.drop();
    this.current = lease;
    this.used = false;
    this.warned = false;
    this.endedAt = undefined;
    this.backoff.reset();
    this.wake(lease.dueInMs, () => this.renew());
    return lease;
  }

  /** It is due: another one takes its place while it lasts, when somebody uses it. */
  private renew(): void {
    const lease = this.held();
    if (!lease) return;
    this.wake(lease.remainingMs, () => void this.held());
    if (this.used) this.lease(true).catch((error: AgentLLMError) => this.renewLater(error));
  }

  private renewLater(error: AgentLLMError): void {
    const lease = this.held();
    if (!lease || this.ending.signal.aborted) return;
    if (!this.warned) this.warn(error, lease);
    this.wake(Math.min(this.backoff.next(error.retryAfterMs), lease.remainingMs), () => this.renew());
  }

  private warn(error: AgentLLMError, { endsAt }: Lease): void {
    this.warned = true;
    const why = error.cause instanceof AgentLLMError ? error.cause.message : error.message;
    const what = `The leased keys of agent ${JSON.stringify(this.name)} end at ${endsAt.toISOString()}`;
    this.parts.warn('LEASE_NOT_RENEWED', `${what} and could not be renewed: ${why}`, error);
  }

  private wake(ms: number, act: () => void): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(act, Math.max(1, ms)).unref();
  }

  /** The failure in words that say what it means here. */
  private failure(error: unknown): unknown {
    if (this.ending.signal.aborted)
      return AgentLLMError.here('This client was closed', { code: 'CANCELLED', method: LEASE_METHOD });
    if (!(error instanceof AgentLLMError)) return error;
    if (error.reason === 'TOKEN_REQUIRED')
      return error.reworded(
        'The stored keys of agents are given to callers with a token alone: set the option token, or AGENTLLM_TOKEN',
      );
    if (error.code !== 'UNAVAILABLE' && error.code !== 'DEADLINE_EXCEEDED') return error;
    const agent = JSON.stringify(this.name);
    const what = this.endedAt
      ? `The leased keys of agent ${agent} ended at ${this.endedAt.toISOString()}, and no others can be had`
      : `The stored keys of agent ${agent} cannot be leased`;
    return error.reworded(`${what}: ${error.message}`, 'UNAVAILABLE');
  }
}

/** What leases are made with. */
export interface LeaseManagerOptions {
  /** For what somebody waits for. */
  readonly calls: Connection;
  /** For what is done ahead: keeps no process alive. */
  readonly stream: Connection;
  readonly lifetimeMs: number;
  /** The revision that is held: keys are to be at least as new. */
  readonly revision: () => bigint;
  readonly warn: Warn;
}
