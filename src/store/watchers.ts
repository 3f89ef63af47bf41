import type { Knex } from 'knex';
import { type BoundedRows, readBounded } from './history/bounded_read.js';

/** One agent process that watches, as its replica knows it. */
export interface WatcherRow {
  readonly client_id: string;
  /** Of the stream, which another replica may have taken over. */
  readonly stream_id: string;
  readonly client_name: string;
  readonly client_version: string;
  readonly replica: string;
  /** Names, and ids written as `#7`; null: all agents. */
  readonly agents: readonly string[] | null;
  readonly sent_revision: number;
  readonly applied_revision: number | null;
  /** Whether it has not been given everything yet. */
  readonly catching_up: boolean;
}

/** A watcher as it is read. */
export interface SeenWatcher extends WatcherRow {
  readonly connected_at: Date;
  readonly last_seen_at: Date;
  /** Whether it has been behind for too long. */
  readonly stale: boolean;
  /** Number of its agents, of which `agents` has the first ones; null: all agents. */
  readonly agent_count: number | null;
}

/** A watcher that its replica has not confirmed for so long is gone. */
const EXPIRES = `45 seconds`;
const FORGOTTEN = `1 hour`;

const UP_TO_DATE = 'not v.catching_up and greatest(w.applied_revision, v.applied_revision) >= v.sent_revision';

/**
 * Enters streams.
 * @param moved they have just begun, so a process that has a row had its stream elsewhere before; else a row that stands is
 *   that of a later stream.
 */
export async function upsertWatchers(db: Knex, rows: readonly WatcherRow[], moved: boolean): Promise<void> {
  if (rows.length === 0) return;
  const now = db.fn.now();
  const entered = rows.map((row) => ({ ...row, connected_at: now, last_seen_at: now, behind_since: now }));
  const insert = db('watchers').insert(entered).onConflict('client_id');
  await (moved ? insert.merge() : insert.ignore());
}

/** Says that streams stand, and how far they are; returns the streams that have a row of their own. */
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

/** Takes out streams that have ended, unless their processes have another one by now. */
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
 * Notes what processes say that have their streams on other replicas; nobody has applied what there is not.
 * @param agents names of those about which alone their streams may be; undefined: about any.
 * @returns those that have such a row.
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
       from (select client_id, least(told, (select revision from store_state)) as revision
               from unnest(?::uuid[], ?::bigint[]) as told (client_id, told)) as v
      where w.client_id = v.client_id and (?::text[] is null or w.agents <@ ?::text[])
      returning w.client_id`,
    [applied.map(([id]) => id), applied.map(([, revision]) => revision), ids ?? null, ids ?? null] as never,
  );
  return new Set(rows.map(({ client_id }) => client_id));
}

/** Agents by name, and by `#id`. */
async function agentIds(db: Knex, names: readonly string[]): Promise<string[]> {
  const rows: { id: number }[] = await db('agent_configs')
    .select('id')
    .whereRaw('name = any(?::text[])', [names as string[]]);
  return [...names, ...rows.map(({ id }) => `#${id}`)];
}

/** How many watchers have applied a revision, and how many have not; a few of each by their names. */
export interface Adopted {
  readonly applied_count: number;
  readonly pending_count: number;
  readonly applied: readonly AdoptedWatcher[];
  readonly pending: readonly AdoptedWatcher[];
}
type AdoptedWatcher = Pick<WatcherRow, 'client_id' | 'client_name' | 'applied_revision'>;

/** Who of the watchers of these agents has applied a revision. */
export async function countAdopted(
  db: Knex,
  revision: number,
  agents: readonly string[] | undefined,
  named: number,
): Promise<Adopted> {
  const has = 'coalesce(applied_revision, 0) >= ?';
  const watching = () => watchersOf(db, agents);
  const [counts] = await watching().select(
    db.raw(`count(*) filter (where ${has})::int as applied, count(*) filter (where not ${has})::int as pending`, [
      revision,
      revision,
    ]),
  );
  const some = (condition: string): Promise<AdoptedWatcher[]> =>
    watching()
      .select('client_id', 'client_name', 'applied_revision')
      .whereRaw(condition, [revision])
      .orderBy(['client_name', 'client_id'])
      .limit(named);
  const applied = counts.applied > 0 ? await some(has) : [];
  const pending = counts.pending > 0 ? await some(`not (${has})`) : [];
  return { applied_count: counts.applied, pending_count: counts.pending, applied, pending };
}

/** Those that are there, of these agents by name or `#id`; undefined: of any. */
function watchersOf(db: Knex, agents: readonly string[] | undefined): Knex.QueryBuilder {
  const rows = db('watchers').whereRaw(`last_seen_at > now() - interval '${EXPIRES}'`);
  if (agents) rows.where((one) => one.whereNull('agents').orWhereRaw('agents && ?::text[]', [agents as string[]]));
  return rows;
}

/** Which watchers are asked for. */
export interface WatcherQuery {
  /** Only those that watch one of these, by name or `#id`; undefined: all. */
  readonly agents?: readonly string[];
  readonly staleOnly?: boolean;
  /** Only those behind this name and id. */
  readonly after?: readonly [name: string, id: string];
  readonly limit: number;
  /** Most agents that are read of one watcher. */
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

/** The watchers that are connected to any replica, by name and id. */
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
    // Bytes, as the page tokens compare.
    .orderByRaw('client_name collate "C", client_id');
  const { after } = query;
  if (query.staleOnly) rows.whereRaw(stale, [query.staleMs]);
  if (after) rows.whereRaw('(client_name collate "C", client_id) > (?, ?::uuid)', [...after]);
  return rows.limit(query.limit) as PromiseLike<SeenWatcher[]>;
}

/** Forgets those that no replica has confirmed for long. */
export async function deleteExpiredWatchers(db: Knex): Promise<void> {
  await db('watchers').whereRaw(`last_seen_at < now() - interval '${FORGOTTEN}'`).delete();
}
