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
 * What callers leave behind: when their tokens were used, and that they were refused. Noting it costs a call nothing; it
 * is entered in the database a moment later, and while that is away what is new takes the place of what waits.
 */
export class AccessLog implements AccessEvents {
  private readonly uses = new Map<number, Use>();
  /** Uses since the last flush, by the rows of the tokens. */
  private unsaid = new Set<number>();
  /** When the audit was told of a token last. */
  private readonly told = new Map<number, number>();
  private readonly refusals = new Map<string, number>();
  private readonly rates = {
    known: new TokenBucket(limits.refusalsPerMinute.known),
    anonymous: new TokenBucket(limits.refusalsPerMinute.anonymous),
  };
  private readonly timer: NodeJS.Timeout;
  private turn: Promise<void> = Promise.resolve();
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
    const known = this.uses.get(id);
    if (known?.token === token) known.at = at;
    else this.uses.set(id, { token, at });
    this.unsaid.add(id);
    if (!known) void this.flush();
  }

  refused(actor: string, method: string, reason: string): void {
    if (this.closed) return;
    const now = performance.now();
    const key = `${actor} ${method} ${reason}`;
    if (now - (this.refusals.get(key) ?? Number.NEGATIVE_INFINITY) < MINUTE_MS) return;
    if (!this.rates[actor === anonymous.actor ? 'anonymous' : 'known'].take()) return;
    for (const [one, at] of this.refusals) if (now - at >= MINUTE_MS) this.refusals.delete(one);
    this.refusals.set(key, now);
    this.log.warn({ caller: actor, method, reason }, 'a call was refused');
    void this.enter({ kind: AuditEventKind.CALL_REFUSED, actor, method, outcome: reason });
  }

  /** When a token was used here last. */
  lastUse({ id }: Token): Date | undefined {
    const use = this.uses.get(id);
    return use && new Date(use.at);
  }

  /** Enters what is not entered yet; resolves when it is, or the database is away. */
  flush(): Promise<void> {
    this.turn = this.turn.then(() => this.write());
    return this.turn;
  }

  /** Enters what is left, and nothing after it; a database that is away is not waited for. */
  async close(): Promise<void> {
    this.closed = true;
    clearInterval(this.timer);
    await Promise.race([this.flush(), sleep(limits.auditWaitMs, undefined, { ref: false })]);
  }

  private async write(): Promise<void> {
    const ids = [...this.unsaid];
    if (ids.length === 0) return;
    this.unsaid = new Set();
    const uses = ids.map((id) => this.uses.get(id) as Use);
    try {
      await recordTokenUses(this.store, new Map(uses.map(({ token, at }) => [token.id, new Date(at)])));
    } catch {
      for (const id of ids) this.unsaid.add(id);
      return;
    }
    for (const { token, at } of uses) await this.tell(token, at);
  }

  private async tell(token: Token, at: number): Promise<void> {
    if (at - (this.told.get(token.id) ?? Number.NEGATIVE_INFINITY) < DAY_MS) return;
    const event = { kind: AuditEventKind.TOKEN_USE, actor: actorOf(token), method: '', outcome: 'used' };
    if (await this.enter(event)) this.told.set(token.id, at);
  }

  /** Whether it was entered. */
  private async enter(event: Pick<NewEvent, 'kind' | 'actor' | 'method' | 'outcome'>): Promise<boolean> {
    try {
      await insertEvent(this.store, { ...event, agent_id: null, config_id: null, provider: '' });
      return true;
    } catch (error) {
      this.log.warn({ err: error, event }, 'an event could not be entered in the audit');
      return false;
    }
  }
}
