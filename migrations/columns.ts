import type { Knex } from 'knex';

/** `created_at` and `updated_at` as in every table of the Python system, with the time of the database as default. */
export function timestamps(knex: Knex, table: Knex.CreateTableBuilder): void {
  table.timestamp('created_at').notNullable().defaultTo(knex.fn.now());
  table.timestamp('updated_at').notNullable().defaultTo(knex.fn.now());
}

/** A query for the newest entry of the change log about each row of an entity. */
export const newestLogged = (entity: 'provider' | 'model' | 'price'): string =>
  `select distinct on (entity_id) entity_id, after from config_revisions
     where entity = '${entity}' order by entity_id, revision desc, position desc`;
