import type { Knex } from 'knex';
import { type BatchOptions, deleteInBatches } from './batched_delete.js';
import { type BoundedRows, readBounded } from './history/bounded_read.js';

/** A row of `watchers`: an agent process with an open watch, as its replica reports it. */
export interface WatcherRow {
  readonly client_id: string;
  /** Identifies the stream. The process may have a newer stream on another replica. */
  readonly stream_id: string;
  readonly client_name: string;
  readonly client_version: string;
  readonly replica: string;
  /** Names, and ids written as `#7`; null: all agents. */
  readonly agents: readonly string[] | null;
  readonly sent_revision: number;
  readonly applied_revision: number | null;
  /** Whether the watch has not caught up. */
  readonly catching_up: boolean;
}

/** A watcher as ListWatchers returns it. */
export interface SeenWatcher extends WatcherRow {
  readonly connected_at: Date;
  readonly last_seen_at: Date;
  /** Whether it has not applied a sent revision for longer than the limit. */
  readonly stale: boolean;
  /** Number of watched agents, of which `agents` contains the first ones; null: all agents. */
  readonly agent_count: number | null;
}

/** A watcher that its replica has not confirmed for this long is not listed. */
const EXPIRES = `45 seconds`;
/** A row that its replica has not confirmed for this long is deleted. */
const DELETED_AFTER = `1 hour`;

const UP_TO_DATE = 'not v.catching_up and greatest(w.applied_revision, v.applied_revision) >= v.sent_revision';

/**
 * Inserts the rows of streams.
 * @param replace true for streams that have just been opened: an existing row of the process belongs to an earlier
 *   stream and is replaced. false: an existing row belongs to a later stream and is kept.
 */
export async function upsertWatchers(db: Knex, rows: readonly WatcherRow[], replace: boolean): Promise<void> {
  if (rows.length === 0) return;
  const now = db.fn.now();
  const inserted = rows.map((row) => ({ ...row, connected_at: now, last_seen_at: now, behind_since: now }));
  const insert = db('watchers').insert(inserted).onConflict('client_id');
  await (replace ? insert.merge() : insert.ignore());
}

/** Updates the position and last_seen_at of open streams. Returns the ids of the streams that have a row. */
export async function confirmWatchers(db: Knex, rows: readonly WatcherRow[]): Promise<ReadonlySet<string>> {
  if (rows.length === 0) return new Set();
  const { rows: confirmed } = await db.raw<{ rows: { stream_id: string }[] }>(
    `update watchers as w
        set sent_revision = v.sent_revision, catching_up = v.catching_up, last_seen_at = now(),
            applied_revision = greatest(w.applied_revision, v.applied_revision),
            behind_since = case when ${UP_TO_DATE} then null else coalesce(w.behind_since, now()) end
       from unnest(?::uuid[], ?::uuid[], ?::bigint[], ?::bigint[], ?::boolean[])
            as v (client_id, stream_id, sent_revision, applied_revision, catching_up)
      where w.client_id = v.client_id and w.stream_id = v.stream_id
      returning w.stream_id`,
    [
      rows.map(({ client_id }) => client_id),
      rows.map(({ stream_id }) => stream_id),
      rows.map(({ sent_revision }) => sent_revision),
      rows.map(({ applied_revision }) => applied_revision) as number[],
      rows.map(({ catching_up }) => catching_up),
    ],
  );
  return new Set(confirmed.map(({ stream_id }) => stream_id));
}

/** Deletes the rows of ended streams, except rows that a newer stream of the process has replaced. */
export async function removeWatchers(
  db: Knex,
  ended: readonly Pick<WatcherRow, 'client_id' | 'stream_id'>[],
): Promise<void> {
  if (ended.length === 0) return;
  await db.raw(
    `delete from watchers as w using unnest(?::uuid[], ?::uuid[]) as v (client_id, stream_id)
      where w.client_id = v.client_id and w.stream_id = v.stream_id`,
    [ended.map(({ client_id }) => client_id), ended.map(({ stream_id }) => stream_id)],
  );
}

/**
 * Stores acknowledgements of processes whose streams are on other replicas. A revision above that of the store is
 * replaced by that of the store.
 * @param agents update only watchers that watch no other agents than these names; undefined: any watcher.
 * @returns the client ids whose row was updated.
 */
export async function acknowledgeElsewhere(
  db: Knex,
  applied: readonly (readonly [client_id: string, revision: number])[],
  agents: readonly string[] | undefined,
): Promise<ReadonlySet<string>> {
  const ids = agents && (await agentIds(db, agents));
  const { rows } = await db.raw<{ rows: { client_id: string }[] }>(
    `update watchers as w set applied_revision = greatest(w.applied_revision, v.revision),
            behind_since = case when not w.catching_up and v.revision >= w.sent_revision then null else w.behind_since end
       from (select client_id, least(acknowledged, (select revision from store_state)) as revision
               from unnest(?::uuid[], ?::bigint[]) as input (client_id, acknowledged)) as v
      where w.client_id = v.client_id and (?::text[] is null or w.agents <@ ?::text[])
      returning w.client_id`,
    [applied.map(([id]) => id), applied.map(([, revision]) => revision), ids ?? null, ids ?? null] as never,
  );
  return new Set(rows.map(({ client_id }) => client_id));
}

/** The agents by name, and also by `#id`. */
async function agentIds(db: Knex, names: readonly string[]): Promise<string[]> {
  const rows: { id: number }[] = await db('agent_configs')
    .select('id')
    .whereRaw('name = any(?::text[])', [names as string[]]);
  return [...names, ...rows.map(({ id }) => `#${id}`)];
}

/** How many watchers have applied a revision and how many have not, with the first few of each by name. */
export interface Adopted {
  readonly applied_count: number;
  readonly pending_count: number;
  readonly applied: readonly AdoptedWatcher[];
  readonly pending: readonly AdoptedWatcher[];
}
type AdoptedWatcher = Pick<WatcherRow, 'client_id' | 'client_name' | 'applied_revision'>;

/**
 * Counts the watchers of these agents that have applied a revision.
 * @param maxNames maximum number of watchers that are returned by name.
 */
export async function countAdopted(
  db: Knex,
  revision: number,
  agents: readonly string[] | undefined,
  maxNames: number,
): Promise<Adopted> {
  const isApplied = 'coalesce(applied_revision, 0) >= ?';
  const watching = () => watchersOf(db, agents);
  const [counts] = await watching().select(
    db.raw(
      `count(*) filter (where ${isApplied})::int as applied, count(*) filter (where not ${isApplied})::int as pending`,
      [revision, revision],
    ),
  );
  const some = (condition: string): Promise<AdoptedWatcher[]> =>
    watching()
      .select('client_id', 'client_name', 'applied_revision')
      .whereRaw(condition, [revision])
      .orderBy(['client_name', 'client_id'])
      .limit(maxNames);
  const applied = counts.applied > 0 ? await some(isApplied) : [];
  const pending = counts.pending > 0 ? await some(`not (${isApplied})`) : [];
  return { applied_count: counts.applied, pending_count: counts.pending, applied, pending };
}

/** The watchers that have not expired, of these agents by name or `#id`; undefined: of any agent. */
function watchersOf(db: Knex, agents: readonly string[] | undefined): Knex.QueryBuilder {
  const rows = db('watchers').whereRaw(`last_seen_at > now() - interval '${EXPIRES}'`);
  if (agents) rows.where((one) => one.whereNull('agents').orWhereRaw('agents && ?::text[]', [agents as string[]]));
  return rows;
}

/** Filter and page of ListWatchers. */
export interface WatcherQuery {
  /** Only watchers of one of these agents, by name or `#id`; undefined: all. */
  readonly agents?: readonly string[];
  readonly staleOnly?: boolean;
  /** Only watchers after this name and id. */
  readonly after?: readonly [name: string, id: string];
  readonly limit: number;
  /** Maximum number of agents that are returned per watcher. */
  readonly namedAgents: number;
  readonly staleMs: number;
}

const COLUMNS = [
  'client_id',
  'stream_id',
  'client_name',
  'client_version',
  'replica',
  'sent_revision',
  'applied_revision',
  'catching_up',
  'connected_at',
  'last_seen_at',
] as const;

/** The watchers that are connected to any replica, ordered by name and id. */
export function listWatchers(db: Knex, query: WatcherQuery): Promise<BoundedRows<SeenWatcher>> {
  return readBounded(query.limit, (last, limit) =>
    watchersAfter(db, { ...query, limit, ...(last && { after: [last.client_name, last.client_id] }) }),
  );
}

function watchersAfter(db: Knex, query: WatcherQuery): PromiseLike<SeenWatcher[]> {
  const stale = `(behind_since is not null and behind_since < now() - ? * interval '1 millisecond')`;
  const rows = watchersOf(db, query.agents)
    .select(...COLUMNS, db.raw('cardinality(agents) as agent_count'))
    .select(db.raw('agents[1:?] as agents', [query.namedAgents]), db.raw(`${stale} as stale`, [query.staleMs]))
    // Bytewise order, as page tokens compare names.
    .orderByRaw('client_name collate "C", client_id');
  const { after } = query;
  if (query.staleOnly) rows.whereRaw(stale, [query.staleMs]);
  if (after) rows.whereRaw('(client_name collate "C", client_id) > (?, ?::uuid)', [...after]);
  return rows.limit(query.limit) as PromiseLike<SeenWatcher[]>;
}

/** Deletes the rows that no replica has confirmed for an hour. */
export const deleteExpiredWatchers = (db: Knex, options?: BatchOptions): Promise<void> =>
  deleteInBatches(db, 'watchers', [`last_seen_at < now() - interval '${DELETED_AFTER}'`, []], options);
