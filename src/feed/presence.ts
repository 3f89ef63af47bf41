import { databaseFailure } from '../store/failure.js';
import type { Store } from '../store/store.js';
import {
  acknowledgeElsewhere,
  confirmWatchers,
  enterWatchers,
  removeWatchers,
  type WatcherRow,
} from '../store/watchers.js';
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
export class Presence {
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
   * @param agents names of those that the teller is for; a process that watches others is passed over.
   */
  acknowledge(clientId: string, revision: number, agents?: ReadonlySet<string>): void {
    const watch = this.watches.ofClient(clientId);
    // What one says in a process's name is not joined with what another does, who may do it for other agents.
    const key = JSON.stringify([clientId, agents ? [...agents] : null]);
    if (watch && agents && !isWithin(this.store.state, watch.filter, agents)) return;
    if (watch) watch.applied = Math.max(watch.applied ?? 0, Math.min(revision, this.store.state.revision));
    // What is more than the store has is cut by the statement; what is more than a number holds would make it fail.
    else if (this.elsewhere.has(key) || this.elsewhere.size < MOST_ELSEWHERE)
      this.elsewhere.set(key, {
        clientId,
        revision: Math.max(this.elsewhere.get(key)?.revision ?? 0, Math.min(revision, Number.MAX_SAFE_INTEGER)),
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
      const changed = this.changed();
      for (let at = 0; at < changed.length; at += ROWS_AT_ONCE) await this.say(changed.slice(at, at + ROWS_AT_ONCE));
      await this.tellElsewhere();
    } catch (error) {
      throw databaseFailure(error);
    }
  }

  /** The other replica may not have entered the stream yet, so what finds no row is said again for a while. */
  private async tellElsewhere(): Promise<void> {
    const began = performance.now();
    const all = [...this.elsewhere].filter(([, { next }]) => next <= began);
    const found = await acknowledgeElsewhere(
      this.store.database.knex,
      all.map(([, { clientId, revision, agents }]) => [clientId, revision, agents && [...agents]] as const),
    );
    for (const [id, said] of all) {
      // What was said meanwhile is newer, and not told yet.
      if (this.elsewhere.get(id) !== said) continue;
      if (found.has(said.clientId) || said.until <= began) this.elsewhere.delete(id);
      else this.elsewhere.set(id, { ...said, next: began + AGAIN_MS });
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
  private changed(): (readonly [Watch, WatcherRow])[] {
    const now = performance.now();
    const rows: (readonly [Watch, WatcherRow])[] = [];
    for (const watch of this.watches.every) {
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
    await enterWatchers(knex, [...entered.values()], true);
    const rows = changed.map(([, row]) => row);
    const confirmed = await confirmWatchers(knex, rows);
    // A row may be lost while the database is away for long, or with what a failover lost.
    const lost = rows.filter(({ stream_id }) => !confirmed.has(stream_id));
    await enterWatchers(knex, [...new Map(lost.map((row) => [row.client_id, row])).values()], false);
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
