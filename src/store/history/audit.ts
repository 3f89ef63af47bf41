import type { Knex } from 'knex';
import type { HistoryEntry } from '../../domain/history.js';
import { type BatchOptions, deleteInBatches } from '../batched_delete.js';
import { onDatabase } from '../failure.js';
import type { Store } from '../store.js';
import { type BoundedRows, readBounded } from './bounded_read.js';
import { ENTRY_COLUMNS } from './history.js';

/** An audit event that does not change the configuration. */
export interface NewEvent {
  /** A value of AuditEventKind. */
  readonly kind: string;
  readonly actor: string;
  readonly method: string;
  readonly agent_id: number | null;
  readonly config_id: number | null;
  readonly provider: string;
  readonly outcome: string;
}

/** A row of `audit_events`. */
export interface StoredEvent extends NewEvent {
  readonly id: number;
  readonly created_at: Date;
}

/** Stores an event with the time of the database, truncated to milliseconds, the precision of a Date. */
export const insertEvent = (store: Store, event: NewEvent): Promise<void> => insertEvents(store, [event]);

/** Stores several events, all or none. */
export const insertEvents = (store: Store, events: readonly NewEvent[]): Promise<void> =>
  onDatabase(store, async (db) => {
    const created_at = db.raw(`date_trunc('milliseconds', clock_timestamp())`);
    await db('audit_events').insert(events.map((event) => ({ ...event, created_at })));
  });

/** Deletes events older than `historyMs`, by the clock of the database. */
export async function deleteOldEvents(db: Knex, historyMs: number, options?: BatchOptions): Promise<void> {
  if (historyMs === Number.POSITIVE_INFINITY) return;
  await deleteInBatches(
    db,
    'audit_events',
    [`created_at < now() - ? * interval '1 millisecond'`, [historyMs]],
    options,
  );
}

/** The sort key of an audited event, newest first: time, source table, and the key within that table. */
export type EventPosition = readonly [ms: number, source: 'entry' | 'event', first: number, second: number];

/** Filter and page of an audit query. A field that is undefined does not filter. */
export interface AuditQuery {
  readonly agentId: number | undefined;
  /** undefined: events of all actors. */
  readonly actor: string | undefined;
  /** Whether to include entries of the history. */
  readonly entries: boolean;
  /** Kinds of events to include. */
  readonly kinds: readonly string[];
  readonly since: Date | undefined;
  readonly before: Date | undefined;
  /** The newest revision to return. */
  readonly until: number;
  readonly after: EventPosition | undefined;
  readonly limit: number;
}

/** An entry of the history, or an audit event. */
export type Audited =
  | { readonly position: EventPosition; readonly entry: HistoryEntry }
  | { readonly position: EventPosition; readonly event: StoredEvent };

type Row = Omit<HistoryEntry, 'revision'> &
  Omit<StoredEvent, 'id'> & { readonly source: 'entry' | 'event'; readonly first: number; readonly second: number };

/** Entries of the log and audit events, newest first. */
export function listAudited(store: Store, query: AuditQuery): Promise<BoundedRows<Audited>> {
  return onDatabase(store, (db) =>
    readBounded(query.limit, (last, limit) =>
      auditedAfter(db, { ...query, limit, ...(last && { after: last.position }) }),
    ),
  );
}

async function auditedAfter(db: Knex, query: AuditQuery): Promise<Audited[]> {
  const parts = [
    ...(query.entries ? [entriesOf(db, query)] : []),
    ...(query.kinds.length ? [eventsOf(db, query)] : []),
  ];
  const all = db.select('*').from(db.unionAll(parts, true).as('audited'));
  const rows: Row[] = await newestFirst(all, query.limit);
  return rows.map(auditedOf);
}

function entriesOf(db: Knex, query: AuditQuery): Knex.QueryBuilder {
  const columns = ENTRY_COLUMNS.filter((column) => column !== 'revision');
  const entries = db('config_revisions')
    .select(db.raw(`'entry' as source`), 'revision as first', db.raw('- position as second'), ...columns)
    .select(...['kind', 'config_id', 'provider', 'outcome'].map((column) => db.raw('null as ??', [column])))
    .where('revision', '<=', query.until);
  return filtered(entries, query, 'entry', ['revision', '- position']);
}

function eventsOf(db: Knex, query: AuditQuery): Knex.QueryBuilder {
  const shared: readonly string[] = ['agent_id', 'actor', 'method', 'created_at'];
  const columns = ENTRY_COLUMNS.filter((column) => column !== 'revision');
  const events = db('audit_events')
    .select(db.raw(`'event' as source`), 'id as first', db.raw('0 as second'))
    .select(...columns.map((column) => (shared.includes(column) ? column : db.raw('null as ??', [column]))))
    .select('kind', 'config_id', 'provider', 'outcome')
    .whereIn('kind', query.kinds);
  return filtered(events, query, 'event', ['id', '0']);
}

/** Restricts the rows of one source to the filter and to those after the previous page. */
function filtered(
  rows: Knex.QueryBuilder,
  { agentId, actor, since, before, after, limit }: AuditQuery,
  source: string,
  [first, second]: readonly [string, string],
): Knex.QueryBuilder {
  if (agentId !== undefined) rows.where({ agent_id: agentId });
  if (actor !== undefined) rows.where({ actor });
  if (since) rows.where('created_at', '>=', since);
  if (before) rows.where('created_at', '<', before);
  if (after) {
    const [ms, ...rest] = after;
    const time = new Date(ms);
    rows
      .where('created_at', '<=', time)
      .whereRaw(`(created_at, ?::text, ${first}, ${second}) < (?::timestamptz, ?::text, ?::bigint, ?::bigint)`, [
        source,
        time,
        ...rest,
      ]);
  }
  return newestFirst(rows, limit);
}

const newestFirst = (rows: Knex.QueryBuilder, limit: number): Knex.QueryBuilder =>
  rows.orderBy(['created_at', 'source', 'first', 'second'].map((column) => ({ column, order: 'desc' }))).limit(limit);

function auditedOf(row: Row): Audited {
  const { source, first, second, kind, config_id, provider, outcome, ...entry } = row;
  const position: EventPosition = [row.created_at.getTime(), source, first, second];
  if (source === 'entry') return { position, entry: { ...entry, revision: first } };
  const { actor, method, agent_id, created_at } = row;
  return { position, event: { id: first, kind, actor, method, agent_id, config_id, provider, outcome, created_at } };
}
