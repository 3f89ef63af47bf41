import type { Knex } from 'knex';
import { timestamps } from './columns.js';

// Providers, models and prices. Prices are integers in micro-USD per million tokens, so that sums are exact.

const ORIGINS = `origin in ('seed', 'operator')`;
const RATE_MAXIMUM = '1000000000000';
const RATES = ['input', 'cached_input', 'cache_write', 'output', 'reasoning'] as const;

async function createProviders(knex: Knex): Promise<void> {
  await knex.schema.createTable('llm_providers', (table) => {
    table.increments('id');
    table.string('name', 50).notNullable();
    table.string('display_name', 100);
    table.jsonb('aliases').notNullable().defaultTo('[]');
    table.string('dialect', 40).notNullable();
    table.string('base_url', 500).notNullable();
    table.jsonb('api_key_env_vars').notNullable().defaultTo('[]');
    table.boolean('built_in').notNullable().defaultTo(false);
    table.boolean('enabled').notNullable().defaultTo(true);
    table.boolean('allow_unknown_models').notNullable().defaultTo(true);
    table.jsonb('parameter_rules').notNullable().defaultTo('[]');
    table.string('origin', 20).notNullable().defaultTo('operator');
    timestamps(knex, table);
    table.bigInteger('revision').notNullable().defaultTo(0);
    table.unique(['name'], { indexName: 'uq_llm_providers_name' });
    table.check(`name ~ '^[a-z0-9][a-z0-9._-]*$'`, undefined, 'ck_llm_providers_name');
    table.check(
      `dialect in ('DIALECT_OPENAI', 'DIALECT_OPENAI_COMPATIBLE', 'DIALECT_ANTHROPIC')`,
      undefined,
      'ck_llm_providers_dialect',
    );
    table.check(`base_url <> ''`, undefined, 'ck_llm_providers_base_url');
    table.check(ORIGINS, undefined, 'ck_llm_providers_origin');
    for (const list of ['aliases', 'api_key_env_vars', 'parameter_rules']) checkIsList(table, 'llm_providers', list);
  });
}

async function createModels(knex: Knex): Promise<void> {
  await knex.schema.createTable('llm_models', (table) => {
    table.increments('id');
    table
      .string('provider', 50)
      .notNullable()
      .references('name')
      .inTable('llm_providers')
      .withKeyName('llm_models_provider_fkey');
    table.string('name', 100).notNullable();
    table.string('display_name', 100);
    table.integer('context_window_tokens');
    table.integer('max_output_tokens');
    table.boolean('supports_functions');
    table.boolean('supports_vision');
    table.boolean('supports_reasoning');
    table.jsonb('parameter_rules').notNullable().defaultTo('[]');
    table.timestamp('as_of');
    table.timestamp('retires_at');
    table.string('replaced_by', 100);
    table.boolean('built_in').notNullable().defaultTo(false);
    table.string('origin', 20).notNullable().defaultTo('operator');
    timestamps(knex, table);
    table.bigInteger('revision').notNullable().defaultTo(0);
    // Also the index for the foreign key, because `provider` is the first column.
    table.unique(['provider', 'name'], { indexName: 'uq_llm_models_provider_name' });
    table.check(`name <> ''`, undefined, 'ck_llm_models_name');
    table.check('context_window_tokens >= 1', undefined, 'ck_llm_models_context_window_tokens');
    table.check('max_output_tokens >= 1', undefined, 'ck_llm_models_max_output_tokens');
    table.check(ORIGINS, undefined, 'ck_llm_models_origin');
    checkIsList(table, 'llm_models', 'parameter_rules');
  });
}

async function createPrices(knex: Knex): Promise<void> {
  await knex.schema.createTable('llm_prices', (table) => {
    table.increments('id');
    table
      .integer('model_id')
      .notNullable()
      .references('id')
      .inTable('llm_models')
      .withKeyName('llm_prices_model_id_fkey');
    table.timestamp('valid_from').notNullable();
    for (const rate of RATES) {
      const column = `${rate}_micro_usd_per_million`;
      table.bigInteger(column);
      table.check(`${column} >= 0 and ${column} <= ${RATE_MAXIMUM}`, undefined, `ck_llm_prices_${rate}`);
    }
    table.string('source', 200).notNullable().defaultTo('');
    table.timestamp('created_at').notNullable().defaultTo(knex.fn.now());
    table.bigInteger('revision').notNullable().defaultTo(0);
    table.unique(['model_id', 'valid_from'], { indexName: 'uq_llm_prices_model_id_valid_from' });
  });
}

// `pg` converts a JavaScript array to a PostgreSQL array literal. For an empty array this is `{}`, a valid JSON object.
function checkIsList(table: Knex.CreateTableBuilder, tableName: string, column: string): void {
  table.check(`jsonb_typeof(${column}) = 'array'`, undefined, `ck_${tableName}_${column}`);
}

export async function up(knex: Knex): Promise<void> {
  await createProviders(knex);
  await createModels(knex);
  await createPrices(knex);
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.dropTable('llm_prices');
  await knex.schema.dropTable('llm_models');
  await knex.schema.dropTable('llm_providers');
  // Otherwise the catalogue would not be seeded again after the next `up`.
  await knex('store_seeds').where({ name: 'catalogue' }).delete();
}
