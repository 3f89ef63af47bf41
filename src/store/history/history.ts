import type { Knex } from 'knex';
import type { HistoryEntry, Names } from '../../domain/history.js';
import type { Agent, Config, Entity, Experiment } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { onDatabase } from '../failure.js';
import type { Store } from '../store.js';
import { fromLog } from '../write/rows.js';
import { type BoundedRows, readBounded } from './bounded_read.js';
import { oldestKept } from './compaction.js';
import { stateAt } from './time_travel.js';

/** The columns of a history entry. */
export const ENTRY_COLUMNS = [
  'revision',
  'position',
  'entity',
  'entity_id',
  'agent_id',
  'action',
  'before',
  'after',
  'actor',
  'method',
  'request_id',
  'reason',
  'created_at',
] as const;

/** Filter and page of a history query. A field that is undefined does not filter. */
export interface HistoryQuery {
  /** Only entries of this agent and its configs. */
  readonly agentId: number | undefined;
  readonly configId: number | undefined;
  /** Only entries of these entities; empty: all. */
  readonly entities: readonly Entity[];
  /** The newest revision to return. */
  readonly until: number;
  /** Revision and position of the last entry of the previous page. */
  readonly after: readonly [number, number] | undefined;
  readonly limit: number;
}

/** Entries of the log, newest revision first; within a revision in the order of its changes. */
export function listEntries(store: Store, query: HistoryQuery): Promise<BoundedRows<HistoryEntry>> {
  return onDatabase(store, (db) =>
    readBounded(query.limit, (last, limit) =>
      entriesAfter(db, { ...query, limit, ...(last && { after: [last.revision, last.position] }) }),
    ),
  );
}

function entriesAfter(
  db: Knex,
  { agentId, configId, entities, until, after, limit }: HistoryQuery,
): PromiseLike<HistoryEntry[]> {
  const entries = db<HistoryEntry>('config_revisions')
    .select(...ENTRY_COLUMNS)
    .where('revision', '<=', after?.[0] ?? until)
    .orderBy([{ column: 'revision', order: 'desc' }, 'position'])
    .limit(limit);
  if (after) entries.where((rest) => rest.where('revision', '<', after[0]).orWhere('position', '>', after[1]));
  if (agentId !== undefined) entries.where({ agent_id: agentId });
  if (configId !== undefined) entries.where({ entity: 'config', entity_id: configId });
  if (entities.length > 0) entries.whereIn('entity', entities as Entity[]);
  return entries;
}

/** The names of the models and credentials in entries, from the log. Models and credentials are never renamed. */
export function namesIn(store: Store, entries: readonly HistoryEntry[]): Promise<Names> {
  const rows = entries.flatMap(({ before, after }) => [before, after]);
  const idsIn = (column: string) => [...new Set(rows.map((row) => row?.[column] as number | null | undefined))];
  return onDatabase(store, async (db) => ({
    credential: await namesOf(db, 'credential', idsIn('credential_id')),
    model: await namesOf(db, 'model', idsIn('model_id')),
  }));
}

async function namesOf(
  db: Knex,
  entity: 'credential' | 'model',
  ids: readonly (number | null | undefined)[],
): Promise<ReadonlyMap<number, string>> {
  const present = ids.filter((id) => typeof id === 'number');
  if (present.length === 0) return new Map();
  const rows: { entity_id: number; row: { provider: string; name: string } }[] = await db('config_revisions')
    .distinctOn('entity_id')
    .select('entity_id', db.raw('coalesce(after, before) as row'))
    .where({ entity })
    .whereRaw('entity_id = any(?::int[])', [present])
    .orderBy('entity_id');
  const nameOf = ({ provider, name }: { provider: string; name: string }) =>
    entity === 'model' ? `${provider}/${name}` : name;
  return new Map(rows.map(({ entity_id, row }) => [entity_id, nameOf(row)]));
}

/** A config at a past revision. */
export interface PastConfig {
  /** The newest entry of the config up to that revision. */
  readonly entry: HistoryEntry;
  /** The config after that entry; undefined: deleted. */
  readonly config: Config | undefined;
  /** The agent and the catalogue at that revision. */
  readonly state: State;
}

/** A revision from the log. */
export interface PastRevision {
  /** Its changes, in order. */
  readonly entries: readonly HistoryEntry[];
  /** The catalogue at the revision. */
  readonly state: State;
  /** The oldest revision that the log contains completely. */
  readonly oldest: number;
}

/** @param maxEntries maximum number of entries that are read. */
export function revisionAt(store: Store, revision: number, maxEntries: number): Promise<PastRevision> {
  return onDatabase(store, async (db) => ({
    entries: await db<HistoryEntry>('config_revisions')
      .select(...ENTRY_COLUMNS)
      .where({ revision })
      .orderBy('position')
      .limit(maxEntries),
    state: await stateAt(db, revision, { agents: [], catalogue: true }),
    // Read last, so that revisions that are compacted during the reads above are lower than this one.
    oldest: await oldestKept(db),
  }));
}

export const agentBefore = ({ before }: HistoryEntry): Agent | undefined => fromLog('agent', before);
export const experimentBefore = ({ before }: HistoryEntry): Experiment | undefined => fromLog('experiment', before);
export const configBefore = ({ before }: HistoryEntry): Config | undefined => fromLog('config', before);

/** A config at a past revision; undefined when it did not exist yet, or when the revision has been compacted. */
export function configAt(store: Store, id: number, revision: number): Promise<PastConfig | undefined> {
  return onDatabase(store, async (db) => {
    const [entry] = await db<HistoryEntry>('config_revisions')
      .select(...ENTRY_COLUMNS)
      .where({ entity: 'config', entity_id: id })
      .where('revision', '<=', revision)
      .orderBy([
        { column: 'revision', order: 'desc' },
        { column: 'position', order: 'desc' },
      ])
      .limit(1);
    if (!entry) return undefined;
    const state = await stateAt(db, revision, { agents: [entry.agent_id as number], catalogue: true });
    // Read last: the entry may be compacted during the reads above.
    if (revision < (await oldestKept(db))) return undefined;
    return { entry, config: fromLog('config', entry.after), state };
  });
}
