import type { Token } from '../domain/rows.js';
import { onDatabase } from './failure.js';
import type { Store } from './store.js';

/** When a token was used last, by its row's id. */
type Uses = ReadonlyMap<number, Date>;

/** Enters when tokens were used last; a later time that stands already stays. */
export const recordTokenUses = (store: Store, uses: Uses): Promise<void> =>
  onDatabase(store, async (db) => {
    await db.raw(
      `update api_tokens as t set last_used_at = greatest(t.last_used_at, v.used_at)
         from unnest(?::int[], ?::timestamptz[]) as v (id, used_at) where t.id = v.id`,
      [[...uses.keys()], [...uses.values()]],
    );
  });

/** When tokens were used last, as far as the replicas have said. */
export const usesOf = (store: Store, tokens: readonly Token[]): Promise<Uses> =>
  onDatabase(store, async (db) => {
    const rows: { id: number; last_used_at: Date }[] = await db('api_tokens')
      .select('id', 'last_used_at')
      .whereRaw('id = any(?::int[])', [tokens.map(({ id }) => id)])
      .whereNotNull('last_used_at');
    return new Map(rows.map(({ id, last_used_at }) => [id, last_used_at]));
  });
