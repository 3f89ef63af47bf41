import type { Knex } from 'knex';

// Adds the capabilities that decide whether a model can serve a call. null is unknown.

const TABLE = 'llm_models';
const COLUMNS = ['supports_forced_tool_choice', 'supports_prefill', 'supports_structured_output'];

export async function up(knex: Knex): Promise<void> {
  await knex.schema.alterTable(TABLE, (table) => {
    for (const column of COLUMNS) table.boolean(column);
  });
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.alterTable(TABLE, (table) => table.dropColumns(...COLUMNS));
}
