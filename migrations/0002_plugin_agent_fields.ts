import type { Knex } from 'knex';
import { extendOrImport } from './import_tables.js';

// The revision `plugin_agent_fields` of the Python system. `is_reserved` defaults to true, as it does there: agents
// that exist before this migration are built in. Agents that are created through the API are stored with false.

/** The columns that this migration adds. */
export const PLUGIN_COLUMNS = [
  'role',
  'llm_type',
  'prompt_template',
  'capabilities_json',
  'required_tools_json',
  'requires_memory',
  'memory_name',
  'is_reserved',
  'slot_name',
  'version',
];

export async function up(knex: Knex): Promise<void> {
  await extendOrImport(knex, 'agent_configs', (table) => {
    table.string('role', 50).notNullable().defaultTo('analyst').index('ix_agent_configs_role');
    table.string('llm_type', 20).notNullable().defaultTo('quick');
    table.text('prompt_template');
    table.text('capabilities_json');
    table.text('required_tools_json');
    table.boolean('requires_memory').notNullable().defaultTo(false);
    table.string('memory_name', 100);
    table.boolean('is_reserved').notNullable().defaultTo(true);
    table.string('slot_name', 50).index('ix_agent_configs_slot_name');
    table.string('version', 20).notNullable().defaultTo('1.0.0');
  });
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.alterTable('agent_configs', (table) => {
    table.dropIndex('slot_name', 'ix_agent_configs_slot_name');
    table.dropIndex('role', 'ix_agent_configs_role');
    table.dropColumns(...PLUGIN_COLUMNS.toReversed());
  });
}
