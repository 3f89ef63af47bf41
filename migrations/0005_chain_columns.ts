import type { Knex } from 'knex';
import { isImportedTable } from './import_tables.js';

// The columns that turn the rows of the Python system into a chain: an order, revisions (for etags) and a substitution
// policy. The CHECK constraints repeat the validation of requests for rows that are written with SQL.
//
// The upper bounds also reject NaN and Infinity: PostgreSQL sorts NaN above every number, so `>= 0` alone accepts it.

const AGENT_CHECKS: Readonly<Record<string, string>> = {
  ck_agent_configs_name: `name <> ''`,
  ck_agent_configs_agent_type: `agent_type <> ''`,
  ck_agent_configs_role: `role <> ''`,
  ck_agent_configs_llm_provider: `llm_provider <> ''`,
  ck_agent_configs_llm_model: `llm_model <> ''`,
  ck_agent_configs_llm_type: `llm_type in ('quick', 'deep')`,
  ck_agent_configs_temperature: 'temperature >= 0 and temperature <= 2',
  ck_agent_configs_max_tokens: 'max_tokens >= 1',
  ck_agent_configs_substitution_policy: `substitution_policy in ('SUBSTITUTION_POLICY_NEVER',
    'SUBSTITUTION_POLICY_SAME_MODEL', 'SUBSTITUTION_POLICY_SAME_PROVIDER', 'SUBSTITUTION_POLICY_ANY')`,
};

const CONFIG_CHECKS: Readonly<Record<string, string>> = {
  ck_agent_llm_configs_provider: `provider <> ''`,
  ck_agent_llm_configs_model_name: `model_name <> ''`,
  ck_agent_llm_configs_temperature: 'temperature >= 0 and temperature <= 2',
  ck_agent_llm_configs_top_p: 'top_p >= 0 and top_p <= 1',
  ck_agent_llm_configs_max_tokens: 'max_tokens >= 1',
  ck_agent_llm_configs_input_cost: 'cost_per_1k_input_tokens >= 0 and cost_per_1k_input_tokens <= 1000000',
  ck_agent_llm_configs_output_cost: 'cost_per_1k_output_tokens >= 0 and cost_per_1k_output_tokens <= 1000000',
  ck_agent_llm_configs_fallback_pair: '(fallback_provider is null) = (fallback_model is null)',
  ck_agent_llm_configs_fallback_empty: `fallback_provider <> '' and fallback_model <> ''`,
  ck_agent_llm_configs_fallback_differs: '(fallback_provider, fallback_model) <> (provider, model_name)',
  ck_agent_llm_configs_priority: 'priority >= -1000000 and priority <= 1000000',
};

/** The CHECK constraints of each table, by name. */
export const CHECKS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  agent_configs: AGENT_CHECKS,
  agent_llm_configs: CONFIG_CHECKS,
};

/**
 * Predicates that are stricter than the constraint of the same name. They find rows that may violate it later: when
 * provider names are made canonical, a config and its fallback can get the same provider.
 */
const STRICTER: Readonly<Record<string, string>> = {
  ck_agent_llm_configs_fallback_differs: 'fallback_model <> model_name',
};

export async function up(knex: Knex): Promise<void> {
  await knex.schema.alterTable('agent_configs', (table) => {
    table.bigInteger('revision').notNullable().defaultTo(0);
    table.bigInteger('chain_revision').notNullable().defaultTo(0);
    table.string('substitution_policy', 40).notNullable().defaultTo('SUBSTITUTION_POLICY_ANY');
  });
  await knex.schema.alterTable('agent_llm_configs', (table) => {
    table.integer('priority').notNullable().defaultTo(0);
    table.bigInteger('revision').notNullable().defaultTo(0);
    table.jsonb('extra_params');
    table.boolean('price_given').notNullable().defaultTo(false);
    table.string('key_id', 64);
    table.integer('credential_id');
    table.index(['agent_id', 'enabled', 'priority', 'id'], 'ix_agent_llm_configs_chain');
  });
  // In rows that are older than the flag, a cost other than the default was entered as a price.
  await knex('agent_llm_configs')
    .where('cost_per_1k_input_tokens', '<>', 0)
    .orWhere('cost_per_1k_output_tokens', '<>', 0)
    .update({ price_given: true });
  // Ciphertexts that are older than the binding are marked too. The Python system treats an empty text as no key.
  await knex('agent_llm_configs').where({ api_key_encrypted: '' }).update({ api_key_encrypted: null });
  await knex('agent_llm_configs').whereNotNull('api_key_encrypted').update({ key_id: 'unbound' });
  for (const [table, checks] of Object.entries(CHECKS)) await addChecks(knex, table, checks);
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.alterTable('agent_llm_configs', (table) => {
    table.dropChecks(Object.keys(CONFIG_CHECKS));
    table.dropIndex(['agent_id', 'enabled', 'priority', 'id'], 'ix_agent_llm_configs_chain');
    table.dropColumns('credential_id', 'key_id', 'price_given', 'extra_params', 'revision', 'priority');
  });
  await knex.schema.alterTable('agent_configs', (table) => {
    table.dropChecks(Object.keys(AGENT_CHECKS));
    table.dropColumns('substitution_policy', 'chain_revision', 'revision');
  });
}

export async function addChecks(
  knex: Knex,
  tableName: string,
  checks: Readonly<Record<string, string>>,
): Promise<void> {
  if (await isImportedTable(knex, tableName)) return addChecksForNewRows(knex, tableName, checks);
  await knex.schema.alterTable(tableName, (table) => {
    for (const [name, predicate] of Object.entries(checks)) {
      table.check(predicate, undefined, name);
    }
  });
}

/**
 * Rows of an imported table may violate a check. NOT VALID alone would make them read-only: PostgreSQL checks a row at
 * every update, also of another column, so an agent with max_tokens 0 could not get a config. Rows that violate the
 * check now are therefore exempted by their ids.
 */
async function addChecksForNewRows(knex: Knex, table: string, checks: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, predicate] of Object.entries(checks)) {
    const violating: number[] = await knex(table)
      .whereRaw(`not (${STRICTER[name] ?? predicate})`)
      .orderBy('id')
      .pluck('id');
    const exempt = violating.length > 0 ? ` or id in (${violating.join(', ')})` : '';
    await knex.raw(`alter table ${table} add constraint ${name} check ((${predicate})${exempt}) not valid`);
  }
}
