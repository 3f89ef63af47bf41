import type { Knex } from 'knex';
import { isAdopted } from './adopt.js';

// What makes the document's rows a chain: an order, revisions (etags), a policy of substitution. The CHECKs are the
// second line of defence behind the validation of requests, for whatever reaches the table another way.
//
// An upper bound is what refuses NaN and Infinity: PostgreSQL sorts NaN above every number, so `>= 0` alone lets it in.

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

/** What each table is held to. */
export const CHECKS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  agent_configs: AGENT_CHECKS,
  agent_llm_configs: CONFIG_CHECKS,
};

/** Stronger than the check itself: making the names of providers canonical can make the pair equal. */
const MAY_BREAK: Readonly<Record<string, string>> = {
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
  // Rows from before the flag: whoever wrote a cost other than the default meant it as a price.
  await knex('agent_llm_configs')
    .where('cost_per_1k_input_tokens', '<>', 0)
    .orWhere('cost_per_1k_output_tokens', '<>', 0)
    .update({ price_given: true });
  // Likewise tokens from before the binding; the empty text was no key to the Python system.
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
  if (await isAdopted(knex, tableName)) return addChecksForNewRows(knex, tableName, checks);
  await knex.schema.alterTable(tableName, (table) => {
    for (const [name, predicate] of Object.entries(checks)) {
      table.check(predicate, undefined, name);
    }
  });
}

/**
 * Rows of an adopted table may break a check. NOT VALID alone would lock them up: PostgreSQL holds a row to it at every
 * update, also of another column, so an agent with max_tokens 0 could not get a config. The rows that break it now are
 * exempt by their ids.
 */
async function addChecksForNewRows(knex: Knex, table: string, checks: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, predicate] of Object.entries(checks)) {
    const broken: number[] = await knex(table)
      .whereRaw(`not (${MAY_BREAK[name] ?? predicate})`)
      .orderBy('id')
      .pluck('id');
    const exempt = broken.length > 0 ? ` or id in (${broken.join(', ')})` : '';
    await knex.raw(`alter table ${table} add constraint ${name} check ((${predicate})${exempt}) not valid`);
  }
}
