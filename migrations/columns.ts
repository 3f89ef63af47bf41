import type { Knex } from 'knex';

/** `created_at` and `updated_at` as every table of the document has them: set by the database's clock. */
export function timestamps(knex: Knex, table: Knex.CreateTableBuilder): void {
  table.timestamp('created_at').notNullable().defaultTo(knex.fn.now());
  table.timestamp('updated_at').notNullable().defaultTo(knex.fn.now());
}
