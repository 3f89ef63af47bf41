import type { Knex } from 'knex';
import { addChecks } from './0005_chain_columns.js';

// An agent without a default model has two empty columns, which the checks of 0005 reject.

const REPLACED: Readonly<Record<string, string>> = {
  ck_agent_configs_llm_provider: `llm_provider <> ''`,
  ck_agent_configs_llm_model: `llm_model <> ''`,
};

/** The checks that replace those of 0005. */
export const DEFAULT_MODEL_CHECKS: Readonly<Record<string, string>> = {
  ck_agent_configs_default_model: `(llm_provider = '') = (llm_model = '')`,
};

export async function up(knex: Knex): Promise<void> {
  await knex.schema.alterTable('agent_configs', (table) => table.dropChecks(Object.keys(REPLACED)));
  await addChecks(knex, 'agent_configs', DEFAULT_MODEL_CHECKS);
}

/** Fails when an agent has no default model, because an earlier version would give it one. */
export async function down(knex: Knex): Promise<void> {
  const empty: string[] = await knex('agent_configs')
    .where({ llm_provider: '', llm_model: '' })
    .limit(10)
    .pluck('name');
  if (empty.length > 0)
    throw new Error(
      `Agents have no default model, which the earlier version does not know: ${empty.join(', ')}. Set llm_provider and llm_model of each first.`,
    );
  await knex.schema.alterTable('agent_configs', (table) => table.dropChecks(Object.keys(DEFAULT_MODEL_CHECKS)));
  await addChecks(knex, 'agent_configs', REPLACED);
}
