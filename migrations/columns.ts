import type { Knex } from 'knex';

/** `created_at` and `updated_at` as in every table of the Python system, with the time of the database as default. */
export function timestamps(knex: Knex, table: Knex.CreateTableBuilder): void {
  table.timestamp('created_at').notNullable().defaultTo(knex.fn.now());
  table.timestamp('updated_at').notNullable().defaultTo(knex.fn.now());
}
