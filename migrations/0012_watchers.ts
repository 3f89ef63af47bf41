import type { Knex } from 'knex';

// The watchers of all replicas. Rows expire, because a replica that crashes does not delete its rows.

export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('watchers', (table) => {
    table.uuid('client_id').primary();
    // Identifies the stream. A process that reconnects to another replica has a new one, and the old replica must not
    // delete its row.
    table.uuid('stream_id').notNullable();
    table.string('client_name', 100).notNullable();
    table.string('client_version', 50).notNullable();
    table.string('replica', 100).notNullable();
    // Names, and ids written as #7; null: all agents.
    table.specificType('agents', 'text[]');
    table.timestamp('connected_at').notNullable().defaultTo(knex.fn.now());
    table.timestamp('last_seen_at').notNullable().defaultTo(knex.fn.now());
    table.bigInteger('sent_revision').notNullable();
    table.bigInteger('applied_revision');
    // Since when the newest sent revision is not applied.
    table.timestamp('behind_since');
    // Whether the watch has not caught up.
    table.boolean('catching_up').notNullable();
    table.index(['client_name', 'client_id'], 'ix_watchers_client_name');
    table.index(['last_seen_at'], 'ix_watchers_last_seen_at');
  });
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.dropTable('watchers');
}
