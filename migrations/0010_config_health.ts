import type { Knex } from 'knex';

// What providers said of a config when they were asked last. It is no configuration: it takes no revision, and goes with
// its config.

export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('config_health', (table) => {
    table.integer('config_id').primary();
    table.bigInteger('config_revision').notNullable();
    // The state of each hop, to look for; the hops themselves beside it.
    table.specificType('statuses', 'text[]').notNullable();
    table.jsonb('hops').notNullable();
    table.timestamp('checked_at').notNullable().defaultTo(knex.fn.now());
    table.foreign('config_id', 'config_health_config_id_fkey').references('agent_llm_configs.id').onDelete('CASCADE');
  });
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.dropTable('config_health');
}
