import type { Principal } from '../domain/access.js';
import { databaseFailure } from '../store/failure.js';
import type { Store } from '../store/store.js';
import {
  acknowledgeElsewhere,
  confirmWatchers,
  removeWatchers,
  upsertWatchers,
  type WatcherRow,
} from '../store/watchers.js';
import { inSlices } from '../time_slice.js';
import { isWithin } from './filter.js';
import type { Watch } from './watch.js';
import type { Watches } from './watches.js';

const FLUSH_MS = 1_000;
/** Every row is confirmed this often: well within the time after which it would count as gone. */
const CONFIRM_MS = 15_000;
/** Acknowledgements for other replicas that wait for the database at most; later ones come again. */
const MOST_ELSEWHERE = 10_000;
/** For how long since it was told: a stream is entered within a second or two, and a process that does not watch has no row. */
const KEEP_ELSEWHERE_MS = 10_000;
/** How soon what found no row is said again: a write that waits for adoption has the table brought up to date all the time. */
const AGAIN_MS = 500;
const ROWS_AT_ONCE = 1_000;

/** Who says what processes have applied. */
type Teller = Pick<Principal, 'actor' | 'agents'>;
const ANYBODY: Teller = { actor: '', agents: undefined };

/** What a process with its stream on another replica has applied; times in ms of `performance.now()`. */
interface Elsewhere {
  readonly clientId: string;
  readonly revision: number;
  /** Agents by name, beyond which the teller may not know of streams; undefined: it may of all. */
  readonly agents: ReadonlySet<string> | undefined;
  readonly until: number;
  readonly next: number;
}

/** What was said of a watch in the table. */
interface Known {
  readonly row: WatcherRow;
  readonly at: number;
}

/**
 * Tells the `watchers` table of the streams of this replica, all of them in one statement a second and only what has
 * changed. It is no configuration: it takes no revision, and while the database is away it waits.
 */
export class WatcherRegistry {
  private readonly known = new Map<Watch, Known>();
  private readonly ended: Pick<WatcherRow, 'client_id' | 'stream_id'>[] = [];
  private readonly elsewhere = new Map<string, Elsewhere>();
  private readonly timer: NodeJS.Timeout;
  private turn: Promise<void> = Promise.resolve();
  private closed = false;
  private next: Promise<void> | undefined;

  constructor(
    private readonly store: Store,
    private readonly watches: Watches,
  ) {
    this.timer = setInterval(() => void this.flush().catch(() => {}), FLUSH_MS).unref();
  }

  /**
   * Notes that a process has applied everything up to a revision.
   * @param teller who says so; of a process that watches what that one may not, nothing is noted.
   */
  acknowledge(clientId: string, revision: number, teller: Teller = ANYBODY): void {
    const watch = this.watches.ofClient(clientId);
    if (!watch) {
      this.acknowledgeElsewhere(clientId, revision, teller);
      return;
    }
    if (teller.agents && !isWithin(this.store.state, watch.filter, teller.agents)) return;
    watch.applied = Math.max(watch.applied ?? 0, Math.min(revision, this.store.state.revision));
  }

  /** What one says in a process's name is not joined with what another does, who may do it for other agents. */
  private acknowledgeElsewhere(clientId: string, revision: number, { actor, agents }: Teller): void {
    const key = `${actor} ${clientId}`;
    const known = this.elsewhere.get(key);
    if (!known && this.elsewhere.size >= (agents ? MOST_ELSEWHERE / 2 : MOST_ELSEWHERE)) return;
    this.elsewhere.set(key, {
      clientId,
      // What is more than the store has is cut by the statement; what is more than a number holds would make it fail.
      revision: Math.max(known?.revision ?? 0, Math.min(revision, Number.MAX_SAFE_INTEGER)),
      agents,
      until: performance.now() + KEEP_ELSEWHERE_MS,
      next: 0,
    });
  }

  /** Brings the table up to date. One runs, and one waits for all who ask meanwhile. Rejects while the database is away. */
  flush(): Promise<void> {
    if (this.closed) return this.turn;
    this.next ??= this.turn.then(() => {
      this.next = undefined;
      return this.write();
    });
    this.turn = this.next.catch(() => {});
    return this.next;
  }

  /**
   * Says no more. The rows of the streams that end with the service stay until they expire: their processes come back,
   * and a write that waits for adoption meanwhile must not take them for gone.
   */
  close(): Promise<void> {
    this.closed = true;
    clearInterval(this.timer);
    return this.turn;
  }

  private async write(): Promise<void> {
    const { knex } = this.store.database;
    try {
      this.dropEnded();
      const ended = this.ended.slice(0, ROWS_AT_ONCE);
      await removeWatchers(knex, ended);
      this.ended.splice(0, ended.length);
      const changed = await this.changed();
      for (let at = 0; at < changed.length; at += ROWS_AT_ONCE) await this.say(changed.slice(at, at + ROWS_AT_ONCE));
      await this.tellElsewhere();
    } catch (error) {
      throw databaseFailure(error);
    }
  }

  /** The other replica may not have entered the stream yet, so what finds no row is said again for a while. */
  private async tellElsewhere(): Promise<void> {
    const began = performance.now();
    // Those of one token have the same set.
    const byAgents = new Map<Elsewhere['agents'], (readonly [string, Elsewhere])[]>();
    for (const entry of this.elsewhere) {
      const [, { agents, next }] = entry;
      if (next > began) continue;
      const others = byAgents.get(agents);
      if (others) others.push(entry);
      else byAgents.set(agents, [entry]);
    }
    for (const [agents, all] of byAgents)
      for (let at = 0; at < all.length; at += ROWS_AT_ONCE)
        await this.tellSome(all.slice(at, at + ROWS_AT_ONCE), agents, began);
  }

  private async tellSome(
    some: readonly (readonly [string, Elsewhere])[],
    agents: Elsewhere['agents'],
    began: number,
  ): Promise<void> {
    const found = await acknowledgeElsewhere(
      this.store.database.knex,
      some.map(([, { clientId, revision }]) => [clientId, revision] as const),
      agents && [...agents],
    );
    for (const [key, said] of some) {
      // What was said meanwhile is newer, and not told yet.
      if (this.elsewhere.get(key) !== said) continue;
      if (found.has(said.clientId) || said.until <= began) this.elsewhere.delete(key);
      else this.elsewhere.set(key, { ...said, next: began + AGAIN_MS });
    }
  }

  private dropEnded(): void {
    for (const [watch, { row }] of this.known) {
      if (!watch.sink.closed) continue;
      this.ended.push({ client_id: row.client_id, stream_id: row.stream_id });
      this.known.delete(watch);
    }
  }

  /** The watches of which the table does not know how they stand, or has not heard for long. */
  private async changed(): Promise<(readonly [Watch, WatcherRow])[]> {
    const now = performance.now();
    const rows: (readonly [Watch, WatcherRow])[] = [];
    for await (const watch of inSlices([...this.watches.every])) {
      if (watch.sink.closed) continue;
      const known = this.known.get(watch);
      if (known && now - known.at < CONFIRM_MS && isAsSaid(watch, known.row)) continue;
      rows.push([watch, this.rowOf(watch)]);
    }
    return rows;
  }

  private async say(changed: readonly (readonly [Watch, WatcherRow])[]): Promise<void> {
    const { knex } = this.store.database;
    const began = changed.filter(([watch]) => !this.known.has(watch));
    // Of two streams of one process the later one counts.
    const entered = new Map(began.map(([, row]) => [row.client_id, row]));
    await upsertWatchers(knex, [...entered.values()], true);
    const rows = changed.map(([, row]) => row);
    const confirmed = await confirmWatchers(knex, rows);
    // A row may be lost while the database is away for long, or with what a failover lost.
    const lost = rows.filter(({ stream_id }) => !confirmed.has(stream_id));
    await upsertWatchers(knex, [...new Map(lost.map((row) => [row.client_id, row])).values()], false);
    const at = performance.now();
    for (const [watch, row] of changed) this.known.set(watch, { row, at });
  }

  private rowOf(watch: Watch): WatcherRow {
    const { all, names, ids } = watch.filter;
    return {
      ...watch.who,
      stream_id: watch.id,
      replica: this.store.mark,
      agents: all ? null : [...names, ...[...ids].map((id) => `#${id}`)],
      sent_revision: watch.sent,
      applied_revision: watch.applied ?? null,
      catching_up: !watch.live,
    };
  }
}

const isAsSaid = (watch: Watch, row: WatcherRow): boolean =>
  row.sent_revision === watch.sent &&
  row.applied_revision === (watch.applied ?? null) &&
  row.catching_up === !watch.live;
