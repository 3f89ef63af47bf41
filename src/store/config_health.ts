import type { Knex } from 'knex';
import type { CheckStatus, HopCheck } from '../../gen/ts/agentllm/v1/check.js';
import { errorCode } from '../error_properties.js';
import { ServiceError } from '../errors.js';
import { onDatabase } from './failure.js';
import type { Store } from './store.js';

/** A row of `config_health`. */
export interface Health {
  readonly config_id: number;
  /** Revision of the config that was checked. */
  readonly config_revision: number;
  readonly hops: readonly HopCheck[];
  readonly checked_at: Date;
}

/**
 * Stores the result of a check of a config. The result for a later revision of the config is not replaced.
 * @returns the time of the check, by the clock of the database.
 */
export async function saveHealth(store: Store, health: Omit<Health, 'checked_at'>): Promise<Date> {
  const { config_id, config_revision, hops } = health;
  const row = {
    config_id,
    config_revision,
    statuses: hops.map(({ status }) => status),
    hops: JSON.stringify(hops),
    checked_at: store.database.knex.fn.now(),
  };
  const [saved] = await onDatabase(store, (db) =>
    db('config_health')
      .insert(row)
      .onConflict('config_id')
      .merge()
      .where('config_health.config_revision', '<=', config_revision)
      .returning('checked_at'),
  ).catch((error) => {
    // The config was deleted during the check.
    if (errorCode(error) !== '23503') throw error;
    const id = String(config_id);
    throw ServiceError.of('CONFIG_NOT_FOUND', { id }, { resources: [{ type: 'config', name: id }] });
  });
  return saved?.checked_at ?? (await onDatabase(store, readClock));
}

async function readClock(db: Knex): Promise<Date> {
  const { rows } = await db.raw('select now() as now');
  return rows[0].now;
}

/** Filter and page of the stored results. */
export interface HealthQuery {
  /** Only these configs; undefined: all. */
  readonly ids: readonly number[] | undefined;
  /** Only configs with a hop in one of these states; empty: any state. */
  readonly statuses: readonly CheckStatus[];
  /** Only configs with a higher id. */
  readonly after: number;
  readonly limit: number;
}

/** Stored results, ordered by config id. */
export function listHealth(store: Store, { ids, statuses, after, limit }: HealthQuery): Promise<Health[]> {
  return onDatabase(store, (db) => {
    const query = db('config_health')
      .select('config_id', 'config_revision', 'hops', 'checked_at')
      .where('config_id', '>', after)
      .orderBy('config_id')
      .limit(limit);
    if (ids) query.whereRaw('config_id = any(?::int[])', [ids as number[]]);
    if (statuses.length > 0) query.whereRaw('statuses && ?::text[]', [statuses as string[]]);
    return query;
  });
}
