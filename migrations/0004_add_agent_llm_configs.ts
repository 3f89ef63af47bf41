import type { Knex } from 'knex';
import { timestamps } from './columns.js';
import { addForeignKey, createOrImport, dropTables, moveOrphans } from './import_tables.js';

// The revision `add_agent_llm_configs` of the Python system, column by column. Migration 0005 adds the columns of
// agentllm, so that this one can be compared with the original. `temperature` is nullable with a default: NULL means
// "not sent to the model".

export const TABLES = ['agent_llm_configs'];

export async function up(knex: Knex): Promise<void> {
  const columns = (table: Knex.CreateTableBuilder) => {
    table.increments('id');
    table.integer('agent_id').notNullable().index('ix_agent_llm_configs_agent_id');
    table.string('provider', 50).notNullable().index('ix_agent_llm_configs_provider');
    table.string('model_name', 100).notNullable();
    table.double('temperature').defaultTo(0.7);
    table.integer('max_tokens');
    table.double('top_p');
    table.string('api_key_encrypted', 500);
    table.string('fallback_provider', 50);
    table.string('fallback_model', 100);
    table.double('cost_per_1k_input_tokens').notNullable().defaultTo(0.0);
    table.double('cost_per_1k_output_tokens').notNullable().defaultTo(0.0);
    table.boolean('enabled').notNullable().defaultTo(true).index('ix_agent_llm_configs_enabled');
    timestamps(knex, table);
    table.text('metadata_json');
  };
  await createOrImport(knex, 'agent_llm_configs', columns, {
    served: true,
    beforeConstraints: () => moveOrphans(knex),
  });
  await addForeignKey(knex, 'agent_llm_configs', 'agent_id', 'agent_configs');
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.alterTable('agent_llm_configs', (table) => {
    table.dropIndex('enabled', 'ix_agent_llm_configs_enabled');
    table.dropIndex('provider', 'ix_agent_llm_configs_provider');
    table.dropIndex('agent_id', 'ix_agent_llm_configs_agent_id');
  });
  await dropTables(knex, TABLES);
}
