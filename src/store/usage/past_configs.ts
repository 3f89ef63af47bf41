import type { Config } from '../../domain/rows.js';
import { onDatabase } from '../failure.js';
import type { Store } from '../store.js';
import { fromLog } from '../write/rows.js';

/** A config at a revision. */
export interface ConfigVersion {
  readonly id: number;
  readonly revision: number;
}

export const versionKey = ({ id, revision }: ConfigVersion): string => `${id} ${revision}`;

/**
 * Configs at past revisions, by `versionKey`. Configs that did not exist at the revision, or whose history is
 * compacted, are left out.
 */
export async function pastConfigs(
  store: Store,
  versions: readonly ConfigVersion[],
): Promise<ReadonlyMap<string, Config>> {
  if (versions.length === 0) return new Map();
  const { rows } = await onDatabase(store, (db) =>
    db.raw<{ rows: (ConfigVersion & { after: object | null })[] }>(
      `select v.id, v.revision, r.after
         from unnest(?::int[], ?::bigint[]) as v (id, revision)
        cross join lateral (
          select after from config_revisions
           where entity = 'config' and entity_id = v.id and config_revisions.revision <= v.revision
           order by config_revisions.revision desc, position desc limit 1) as r`,
      [versions.map(({ id }) => id), versions.map(({ revision }) => revision)],
    ),
  );
  const found = rows.map((row) => [versionKey(row), fromLog('config', row.after)] as const);
  return new Map(found.filter((entry): entry is [string, Config] => entry[1] !== undefined));
}
