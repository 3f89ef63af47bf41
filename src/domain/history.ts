import type { FieldChange } from '../../gen/ts/agentllm/v1/history.js';
import type { Entity } from './rows.js';

/** A row in the change log: JSON, with times as text. A row that an older version logged lacks later columns. */
export type Logged = Readonly<Record<string, unknown>>;

/** One entry of the change log. */
export interface HistoryEntry {
  readonly revision: number;
  readonly position: number;
  readonly entity: Entity;
  readonly entity_id: number;
  readonly agent_id: number | null;
  readonly action: 'create' | 'update' | 'delete';
  readonly before: Logged | null;
  readonly after: Logged | null;
  readonly actor: string;
  readonly method: string;
  readonly request_id: string | null;
  readonly reason: string | null;
  readonly created_at: Date;
}

/** The names of resources that entries refer to by id; `model` as `provider/name`. */
export interface Names {
  readonly credential: ReadonlyMap<number, string>;
  readonly model: ReadonlyMap<number, string>;
}

/** The name of the resource of an entry. It is in the row, except for prices. */
export function entryName({ entity, before, after }: HistoryEntry, names: Names): string {
  const row = after ?? before ?? {};
  if (entity === 'config') return `${row['provider']}/${row['model_name']}`;
  if (entity === 'token') return `${row['name'] ?? ''} (${row['token_id'] ?? ''})`;
  if (entity === 'model') return `${row['provider']}/${row['name']}`;
  if (entity === 'price') return names.model.get(row['model_id'] as number) ?? '';
  return String(row['name'] ?? '');
}

/** Columns that are not fields of a message, or that every write changes. */
const HIDDEN: ReadonlySet<string> = new Set([
  'id',
  'agent_id',
  'model_id',
  'revision',
  'chain_revision',
  'created_at',
  'updated_at',
  'origin',
  'token_id',
  'token_hash',
  'allocation_revision',
  'running_since',
  'ran_ms',
]);
/** Columns that are shown as the field `api_key`. */
const KEY: ReadonlySet<string> = new Set(['key_id', 'key_revision']);

/** The changed fields of an entry, ordered by name. For a created or deleted row these are all its fields. */
export function fieldChanges({ before, after }: HistoryEntry, names: Names): FieldChange[] {
  const [then, now] = [fieldsOf(before, names), fieldsOf(after, names)];
  const changes: FieldChange[] = [];
  for (const field of new Set([...then.keys(), ...now.keys()])) {
    const [before_json, after_json] = [then.get(field) ?? '', now.get(field) ?? ''];
    if (before_json !== after_json) changes.push({ field, before_json, after_json });
  }
  const key = keyChange(before, after);
  if (key) changes.push(key);
  return changes.sort((a, b) => (a.field < b.field ? -1 : 1));
}

/** The fields of a row that have a value, as JSON. */
function fieldsOf(row: Logged | null, names: Names): ReadonlyMap<string, string> {
  const fields = new Map<string, string>();
  const put = (field: string, value: unknown) => {
    if (value !== null && value !== undefined) fields.set(field, JSON.stringify(value));
  };
  for (const [column, value] of Object.entries(row ?? {})) {
    if (HIDDEN.has(column) || KEY.has(column) || value === null) continue;
    if (column === 'extra_params')
      for (const [parameter, given] of Object.entries(value as Logged)) put(`extra_params.${parameter}`, given);
    else if (column === 'credential_id') put('credential_name', credentialName(value as number, names));
    else put(column, value);
  }
  return fields;
}

/** A credential whose log entries have been removed is identified by its id. */
const credentialName = (id: number, names: Names) => names.credential.get(id) ?? `(deleted credential ${id})`;

/** How the API key of a row changed, without any part of the key. */
function keyChange(before: Logged | null, after: Logged | null): FieldChange | undefined {
  const [had, has] = [hasKey(before), hasKey(after)];
  if (!had && !has) return undefined;
  const isSameKey = had && has && before?.['key_revision'] === after?.['key_revision'];
  if (isSameKey && before?.['key_id'] === after?.['key_id']) return undefined;
  const action = isSameKey ? 'encrypted anew' : has ? (had ? 'replaced' : 'set') : 'cleared';
  return { field: 'api_key', before_json: had ? '"set"' : '', after_json: JSON.stringify(action) };
}

const hasKey = (row: Logged | null) => (row?.['key_id'] ?? null) !== null;
