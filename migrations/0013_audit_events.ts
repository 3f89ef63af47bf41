import type { Knex } from 'knex';

// Audit events that do not change the configuration. They take no revision.

export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('audit_events', (table) => {
    table.bigIncrements('id');
    table.string('kind', 40).notNullable();
    table.timestamp('created_at').notNullable().defaultTo(knex.fn.now());
    table.string('actor', 100).notNullable();
    table.string('method', 100).notNullable();
    table.integer('agent_id');
    table.integer('config_id');
    table.string('provider', 50).notNullable().defaultTo('');
    table.string('outcome', 100).notNullable().defaultTo('');
    table.index(['created_at', 'id'], 'ix_audit_events_created_at');
    table.index(['agent_id', 'created_at'], 'ix_audit_events_agent_id');
  });
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.dropTable('audit_events');
}
