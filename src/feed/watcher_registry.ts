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
/** Interval at which every row is confirmed; well below the time after which it expires. */
const CONFIRM_MS = 15_000;
/** Maximum number of pending acknowledgements for streams of other replicas. Clients repeat dropped ones. */
const MAX_REMOTE = 10_000;
/**
 * How long an acknowledgement for a stream of another replica is retried. The row of a watch is inserted within two
 * seconds; a process without a watch has no row.
 */
const KEEP_REMOTE_MS = 10_000;
/** Minimum delay before an acknowledgement that found no row is retried. Writes that wait for adoption flush often. */
const RETRY_MS = 500;
const ROWS_PER_STATEMENT = 1_000;

/** The caller that sends an acknowledgement. */
type Acknowledger = Pick<Principal, 'actor' | 'agents'>;
const UNRESTRICTED: Acknowledger = { actor: '', agents: undefined };

/** An acknowledgement of a process whose stream is on another replica; times in ms of `performance.now()`. */
interface RemoteAck {
  readonly clientId: string;
  readonly revision: number;
  /** Names of the agents that the caller may read; undefined: all. Streams that watch other agents are not updated. */
  readonly agents: ReadonlySet<string> | undefined;
  readonly expiresAt: number;
  readonly retryAt: number;
}

/** The last row that was written for a watch. */
interface WrittenRow {
  readonly row: WatcherRow;
  readonly at: number;
}

/**
 * Writes the streams of this replica to the `watchers` table: once a second, in one statement, only rows that have
 * changed. These rows are not configuration: they take no revision, and they wait while the database is unavailable.
 */
export class WatcherRegistry {
  private readonly written = new Map<Watch, WrittenRow>();
  private readonly ended: Pick<WatcherRow, 'client_id' | 'stream_id'>[] = [];
  private readonly remoteAcks = new Map<string, RemoteAck>();
  private readonly timer: NodeJS.Timeout;
  private lastFlush: Promise<void> = Promise.resolve();
  private closed = false;
  private nextFlush: Promise<void> | undefined;

  constructor(
    private readonly store: Store,
    private readonly watches: Watches,
  ) {
    this.timer = setInterval(() => void this.flush().catch(() => {}), FLUSH_MS).unref();
  }

  /**
   * Records that a process has applied everything up to a revision.
   * @param caller of the acknowledgement; ignored when the process watches agents that the caller may not read.
   */
  acknowledge(clientId: string, revision: number, caller: Acknowledger = UNRESTRICTED): void {
    const watch = this.watches.ofClient(clientId);
    if (!watch) {
      this.acknowledgeElsewhere(clientId, revision, caller);
      return;
    }
    if (caller.agents && !isWithin(this.store.state, watch.filter, caller.agents)) return;
    watch.applied = Math.max(watch.applied ?? 0, Math.min(revision, this.store.state.revision));
  }

  /** Acknowledgements are kept per caller, because each caller may acknowledge for other agents. */
  private acknowledgeElsewhere(clientId: string, revision: number, { actor, agents }: Acknowledger): void {
    const key = `${actor} ${clientId}`;
    const earlier = this.remoteAcks.get(key);
    // Callers that are restricted to certain agents use at most half, so that they cannot displace the others.
    if (!earlier && this.remoteAcks.size >= (agents ? MAX_REMOTE / 2 : MAX_REMOTE)) return;
    this.remoteAcks.set(key, {
      clientId,
      // The statement limits the value to the revision of the store, but fails if it exceeds the range of a number.
      revision: Math.max(earlier?.revision ?? 0, Math.min(revision, Number.MAX_SAFE_INTEGER)),
      agents,
      expiresAt: performance.now() + KEEP_REMOTE_MS,
      retryAt: 0,
    });
  }

  /**
   * Updates the table. At most one flush runs and one waits; concurrent calls share the waiting one. Rejects while the
   * database is unavailable.
   */
  flush(): Promise<void> {
    if (this.closed) return this.lastFlush;
    this.nextFlush ??= this.lastFlush.then(() => {
      this.nextFlush = undefined;
      return this.write();
    });
    this.lastFlush = this.nextFlush.catch(() => {});
    return this.nextFlush;
  }

  /**
   * Stops the updates. Rows of streams that end with the service stay until they expire: their processes reconnect, and
   * a write that waits for adoption meanwhile must still count them.
   */
  close(): Promise<void> {
    this.closed = true;
    clearInterval(this.timer);
    return this.lastFlush;
  }

  private async write(): Promise<void> {
    const { knex } = this.store.database;
    try {
      this.dropEnded();
      const ended = this.ended.slice(0, ROWS_PER_STATEMENT);
      await removeWatchers(knex, ended);
      this.ended.splice(0, ended.length);
      const changed = await this.changedRows();
      for (let at = 0; at < changed.length; at += ROWS_PER_STATEMENT)
        await this.writeRows(changed.slice(at, at + ROWS_PER_STATEMENT));
      await this.writeRemoteAcks();
    } catch (error) {
      throw databaseFailure(error);
    }
  }

  /** The other replica may not have inserted the row yet, so an acknowledgement that finds none is retried. */
  private async writeRemoteAcks(): Promise<void> {
    const startedAt = performance.now();
    // Acknowledgements of one token share the same set object.
    const byAgents = new Map<RemoteAck['agents'], (readonly [string, RemoteAck])[]>();
    for (const entry of this.remoteAcks) {
      const [, { agents, retryAt }] = entry;
      if (retryAt > startedAt) continue;
      const group = byAgents.get(agents);
      if (group) group.push(entry);
      else byAgents.set(agents, [entry]);
    }
    for (const [agents, all] of byAgents)
      for (let at = 0; at < all.length; at += ROWS_PER_STATEMENT)
        await this.writeAcks(all.slice(at, at + ROWS_PER_STATEMENT), agents, startedAt);
  }

  private async writeAcks(
    acks: readonly (readonly [string, RemoteAck])[],
    agents: RemoteAck['agents'],
    startedAt: number,
  ): Promise<void> {
    const found = await acknowledgeElsewhere(
      this.store.database.knex,
      acks.map(([, { clientId, revision }]) => [clientId, revision] as const),
      agents && [...agents],
    );
    for (const [key, ack] of acks) {
      // A newer acknowledgement has arrived during the statement and is not written yet.
      if (this.remoteAcks.get(key) !== ack) continue;
      if (found.has(ack.clientId) || ack.expiresAt <= startedAt) this.remoteAcks.delete(key);
      else this.remoteAcks.set(key, { ...ack, retryAt: startedAt + RETRY_MS });
    }
  }

  private dropEnded(): void {
    for (const [watch, { row }] of this.written) {
      if (!watch.sink.closed) continue;
      this.ended.push({ client_id: row.client_id, stream_id: row.stream_id });
      this.written.delete(watch);
    }
  }

  /** The watches whose row is outdated or due for confirmation. */
  private async changedRows(): Promise<(readonly [Watch, WatcherRow])[]> {
    const now = performance.now();
    const rows: (readonly [Watch, WatcherRow])[] = [];
    for await (const watch of inSlices([...this.watches.every])) {
      if (watch.sink.closed) continue;
      const last = this.written.get(watch);
      if (last && now - last.at < CONFIRM_MS && isUpToDate(watch, last.row)) continue;
      rows.push([watch, this.rowOf(watch)]);
    }
    return rows;
  }

  private async writeRows(changed: readonly (readonly [Watch, WatcherRow])[]): Promise<void> {
    const { knex } = this.store.database;
    const opened = changed.filter(([watch]) => !this.written.has(watch));
    // The later of two streams of one process replaces the earlier one.
    const inserted = new Map(opened.map(([, row]) => [row.client_id, row]));
    await upsertWatchers(knex, [...inserted.values()], true);
    const rows = changed.map(([, row]) => row);
    const confirmed = await confirmWatchers(knex, rows);
    // A row may have expired while the database was unavailable, or been lost in a failover.
    const missing = rows.filter(({ stream_id }) => !confirmed.has(stream_id));
    await upsertWatchers(knex, [...new Map(missing.map((row) => [row.client_id, row])).values()], false);
    const at = performance.now();
    for (const [watch, row] of changed) this.written.set(watch, { row, at });
  }

  private rowOf(watch: Watch): WatcherRow {
    const { all, names, ids } = watch.filter;
    return {
      ...watch.watcher,
      stream_id: watch.id,
      replica: this.store.replicaId,
      agents: all ? null : [...names, ...[...ids].map((id) => `#${id}`)],
      sent_revision: watch.sent,
      applied_revision: watch.applied ?? null,
      catching_up: !watch.live,
    };
  }
}

const isUpToDate = (watch: Watch, row: WatcherRow): boolean =>
  row.sent_revision === watch.sent &&
  row.applied_revision === (watch.applied ?? null) &&
  row.catching_up === !watch.live;
