import type { Knex } from 'knex';

// Columns and indexes for reading the log as history: the agent of an entry, the time, and the first complete revision.

export async function up(knex: Knex): Promise<void> {
  await knex.schema.alterTable('config_revisions', (table) => {
    table.integer('agent_id');
  });
  await knex.raw(
    `update config_revisions set agent_id =
       case entity when 'agent' then entity_id else (coalesce(after, before) ->> 'agent_id')::int end
     where entity in ('agent', 'config')`,
  );
  await knex.schema.alterTable('config_revisions', (table) => {
    table.index(['agent_id', 'revision'], 'ix_config_revisions_agent_id');
    table.index(['created_at'], 'ix_config_revisions_created_at');
  });
  await knex.schema.alterTable('store_state', (table) => {
    table.bigInteger('history_from').notNullable().defaultTo(0);
  });
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.alterTable('store_state', (table) => {
    table.dropColumn('history_from');
  });
  await knex.schema.alterTable('config_revisions', (table) => {
    table.dropIndex(['created_at'], 'ix_config_revisions_created_at');
    table.dropIndex(['agent_id', 'revision'], 'ix_config_revisions_agent_id');
    table.dropColumn('agent_id');
  });
}
