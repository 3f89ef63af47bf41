import type { Knex } from 'knex';
import { newestLogged } from './columns.js';

// Adds long cache writes, context tiers and time windows to prices. `tiers` and `windows` are lists of PriceTier and
// PriceWindow of the contract, with rates as numbers. Prices are immutable, so the tiers of a price never change.

const TABLE = 'llm_prices';
const RATE = 'cache_write_long_micro_usd_per_million';
const LISTS = ['tiers', 'windows'];

export async function up(knex: Knex): Promise<void> {
  await knex.schema.alterTable(TABLE, (table) => {
    table.bigInteger(RATE);
    table.check(`${RATE} >= 0 and ${RATE} <= 1000000000000`, undefined, 'ck_llm_prices_cache_write_long');
    for (const list of LISTS) {
      table.jsonb(list).notNullable().defaultTo('[]');
      table.check(`jsonb_typeof(${list}) = 'array'`, undefined, `ck_llm_prices_${list}`);
    }
  });
  // After a rollback, the log still has the values that `down` dropped.
  await knex.raw(
    `update ?? as t set ${RATE} = (logged.after ->> '${RATE}')::bigint,
       tiers = coalesce(logged.after -> 'tiers', '[]'), windows = coalesce(logged.after -> 'windows', '[]')
     from (${newestLogged('price')}) as logged where logged.entity_id = t.id and logged.after is not null`,
    [TABLE],
  );
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.alterTable(TABLE, (table) => table.dropColumns(RATE, ...LISTS));
}
