import type { Knex } from 'knex';
import { newestLogged } from './columns.js';

// Adds the capabilities that decide whether a model can serve a call. null is unknown.

const TABLE = 'llm_models';
const COLUMNS = ['supports_forced_tool_choice', 'supports_prefill', 'supports_structured_output'];

export async function up(knex: Knex): Promise<void> {
  await knex.schema.alterTable(TABLE, (table) => {
    for (const column of COLUMNS) table.boolean(column);
  });
  // After a rollback, the log still has the values that `down` dropped.
  const values = COLUMNS.map((column) => `${column} = (logged.after ->> '${column}')::boolean`);
  await knex.raw(
    `update ?? as t set ${values.join(', ')} from (${newestLogged('model')}) as logged where logged.entity_id = t.id`,
    [TABLE],
  );
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.alterTable(TABLE, (table) => table.dropColumns(...COLUMNS));
}
