import type { Knex } from 'knex';

// Adds the Responses API as a separate dialect.

const TABLE = 'llm_providers';
const NAME = 'ck_llm_providers_dialect';
const BEFORE = ['DIALECT_OPENAI', 'DIALECT_OPENAI_COMPATIBLE', 'DIALECT_ANTHROPIC'];

async function allow(knex: Knex, dialects: readonly string[]): Promise<void> {
  const list = dialects.map((dialect) => `'${dialect}'`).join(', ');
  await knex.schema.alterTable(TABLE, (table) => table.dropChecks(NAME));
  await knex.schema.alterTable(TABLE, (table) => table.check(`dialect in (${list})`, undefined, NAME));
}

export const up = (knex: Knex): Promise<void> => allow(knex, [...BEFORE, 'DIALECT_OPENAI_RESPONSES']);

/** Earlier releases use chat completions with the same providers. */
export async function down(knex: Knex): Promise<void> {
  await knex(TABLE).where({ dialect: 'DIALECT_OPENAI_RESPONSES' }).update({ dialect: 'DIALECT_OPENAI' });
  await allow(knex, BEFORE);
}
