import { setTimeout as sleep } from 'node:timers/promises';
import { AuditEventKind } from '../../../gen/ts/agentllm/v1/audit_service.js';
import { actorOf, anonymous } from '../../domain/access.js';
import type { Token } from '../../domain/rows.js';
import { limits } from '../../limits.js';
import type { Log } from '../../log.js';
import { insertEvent, type NewEvent } from '../../store/history/audit.js';
import type { Store } from '../../store/store.js';
import { recordTokenUses } from '../../store/tokens.js';
import type { AccessEvents } from './authorizer.js';
import { TokenBucket } from './token_bucket.js';

const DAY_MS = 86_400_000;
const MINUTE_MS = 60_000;

interface Use {
  readonly token: Token;
  at: number;
}

/**
 * Records when tokens were used and which calls were refused. A call does not wait for its record, because the records
 * are written to the database later. While the database is unavailable, a later use of a token replaces the earlier
 * one.
 */
export class AccessLog implements AccessEvents {
  private readonly uses = new Map<number, Use>();
  /** The ids of tokens that were used since the last flush. */
  private pending = new Set<number>();
  /** When the last use of a token was recorded in the audit, by token id. */
  private readonly lastAudited = new Map<number, number>();
  private readonly lastRefusals = new Map<string, number>();
  private readonly refusalLimits = {
    known: new TokenBucket(limits.refusalsPerMinute.known),
    anonymous: new TokenBucket(limits.refusalsPerMinute.anonymous),
  };
  private readonly timer: NodeJS.Timeout;
  private flushing: Promise<void> = Promise.resolve();
  private closed = false;

  constructor(
    private readonly store: Store,
    private readonly log: Log,
  ) {
    this.timer = setInterval(() => void this.flush(), limits.tokenUseMs).unref();
  }

  used(token: Token): void {
    if (this.closed) return;
    const { id } = token;
    const at = Date.now();
    const earlier = this.uses.get(id);
    if (earlier?.token === token) earlier.at = at;
    else this.uses.set(id, { token, at });
    this.pending.add(id);
    if (!earlier) void this.flush();
  }

  refused(actor: string, method: string, reason: string): void {
    if (this.closed) return;
    const now = performance.now();
    const key = `${actor} ${method} ${reason}`;
    if (now - (this.lastRefusals.get(key) ?? Number.NEGATIVE_INFINITY) < MINUTE_MS) return;
    if (!this.refusalLimits[actor === anonymous.actor ? 'anonymous' : 'known'].take()) return;
    for (const [oldKey, at] of this.lastRefusals) if (now - at >= MINUTE_MS) this.lastRefusals.delete(oldKey);
    this.lastRefusals.set(key, now);
    this.log.warn({ caller: actor, method, reason }, 'a call was refused');
    void this.record({ kind: AuditEventKind.CALL_REFUSED, actor, method, outcome: reason });
  }

  /** When a token was last used on this replica. */
  lastUse({ id }: Token): Date | undefined {
    const use = this.uses.get(id);
    return use && new Date(use.at);
  }

  /** Writes the pending uses; resolves when they are written or the database is unavailable. */
  flush(): Promise<void> {
    this.flushing = this.flushing.then(() => this.write());
    return this.flushing;
  }

  /** Writes the pending uses and records no further events; does not wait for a database that is unavailable. */
  async close(): Promise<void> {
    this.closed = true;
    clearInterval(this.timer);
    await Promise.race([this.flush(), sleep(limits.auditWaitMs, undefined, { ref: false })]);
  }

  private async write(): Promise<void> {
    const ids = [...this.pending];
    if (ids.length === 0) return;
    this.pending = new Set();
    const uses = ids.map((id) => this.uses.get(id) as Use);
    try {
      await recordTokenUses(this.store, new Map(uses.map(({ token, at }) => [token.id, new Date(at)])));
    } catch (error) {
      this.log.warn({ err: error }, 'the last uses of tokens could not be recorded; the next attempt includes them');
      for (const id of ids) this.pending.add(id);
      return;
    }
    for (const { token, at } of uses) await this.auditUse(token, at);
  }

  private async auditUse(token: Token, at: number): Promise<void> {
    if (at - (this.lastAudited.get(token.id) ?? Number.NEGATIVE_INFINITY) < DAY_MS) return;
    const event = { kind: AuditEventKind.TOKEN_USE, actor: actorOf(token), method: '', outcome: 'used' };
    if (await this.record(event)) this.lastAudited.set(token.id, at);
  }

  /** Returns whether the event was recorded. */
  private async record(event: Pick<NewEvent, 'kind' | 'actor' | 'method' | 'outcome'>): Promise<boolean> {
    try {
      await insertEvent(this.store, { ...event, agent_id: null, config_id: null, provider: '' });
      return true;
    } catch (error) {
      this.log.warn({ err: error, event }, 'an event could not be recorded in the audit');
      return false;
    }
  }
}
