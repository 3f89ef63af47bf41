import type { Knex } from 'knex';
import { newestLogged } from './columns.js';

// Adds the wire API of a provider, which its dialect alone determined before.

const TABLE = 'llm_providers';
const NAME = 'ck_llm_providers_wire_api';
/** The wire APIs of each dialect; the first one is its default. */
const WIRE_APIS: Readonly<Record<string, readonly string[]>> = {
  DIALECT_OPENAI: ['WIRE_API_CHAT_COMPLETIONS', 'WIRE_API_RESPONSES'],
  DIALECT_OPENAI_COMPATIBLE: ['WIRE_API_CHAT_COMPLETIONS', 'WIRE_API_RESPONSES'],
  DIALECT_OPENAI_RESPONSES: ['WIRE_API_RESPONSES'],
  DIALECT_ANTHROPIC: ['WIRE_API_MESSAGES'],
};

export async function up(knex: Knex): Promise<void> {
  await knex.schema.alterTable(TABLE, (table) => void table.string('wire_api', 40));
  for (const [dialect, [wire_api]] of Object.entries(WIRE_APIS))
    await knex(TABLE).where({ dialect }).update({ wire_api });
  // After a rollback, the log still has the values that `down` changed.
  await knex.raw(
    `update ?? as t set dialect = logged.after ->> 'dialect', wire_api = logged.after ->> 'wire_api'
       from (${newestLogged('provider')}) as logged
       where logged.entity_id = t.id and logged.after -> 'wire_api' is not null`,
    [TABLE],
  );
  const pairs = Object.entries(WIRE_APIS).flatMap(([dialect, apis]) => apis.map((api) => `('${dialect}', '${api}')`));
  await knex.schema.alterTable(TABLE, (table) => {
    table.dropNullable('wire_api');
    table.check(`(dialect, wire_api) in (${pairs.join(', ')})`, undefined, NAME);
  });
}

/** Earlier releases send Responses only to providers with that dialect. */
export async function down(knex: Knex): Promise<void> {
  await knex.schema.alterTable(TABLE, (table) => table.dropChecks(NAME));
  await knex(TABLE).where({ wire_api: 'WIRE_API_RESPONSES' }).update({ dialect: 'DIALECT_OPENAI_RESPONSES' });
  await knex.schema.alterTable(TABLE, (table) => table.dropColumn('wire_api'));
}
