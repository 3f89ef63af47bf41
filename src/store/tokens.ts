import type { Token } from '../domain/rows.js';
import { onDatabase } from './failure.js';
import type { Store } from './store.js';

/** The time of last use by token row id. */
type Uses = ReadonlyMap<number, Date>;

/** Stores times of last use. A later stored time is kept. */
export const recordTokenUses = (store: Store, uses: Uses): Promise<void> =>
  onDatabase(store, async (db) => {
    await db.raw(
      `update api_tokens as t set last_used_at = greatest(t.last_used_at, v.used_at)
         from unnest(?::int[], ?::timestamptz[]) as v (id, used_at) where t.id = v.id`,
      [[...uses.keys()], [...uses.values()]],
    );
  });

/** Reads times of last use. Replicas store them with a delay. */
export const usesOf = (store: Store, tokens: readonly Token[]): Promise<Uses> =>
  onDatabase(store, async (db) => {
    const rows: { id: number; last_used_at: Date }[] = await db('api_tokens')
      .select('id', 'last_used_at')
      .whereRaw('id = any(?::int[])', [tokens.map(({ id }) => id)])
      .whereNotNull('last_used_at');
    return new Map(rows.map(({ id, last_used_at }) => [id, last_used_at]));
  });
