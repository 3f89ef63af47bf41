import type { Knex } from 'knex';

// The results of the last check of each config. They are not configuration: they take no revision, and they are deleted
// with their config.

export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('config_health', (table) => {
    table.integer('config_id').primary();
    table.bigInteger('config_revision').notNullable();
    // The status of each hop, for filters; `hops` has the complete results.
    table.specificType('statuses', 'text[]').notNullable();
    table.jsonb('hops').notNullable();
    table.timestamp('checked_at').notNullable().defaultTo(knex.fn.now());
    table.foreign('config_id', 'config_health_config_id_fkey').references('agent_llm_configs.id').onDelete('CASCADE');
  });
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.dropTable('config_health');
}
