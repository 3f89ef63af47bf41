import type { Knex } from 'knex';

// The stored responses of writes with a request_id, so that a retry after a lost response returns the same one.

export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('idempotent_answers', (table) => {
    table.string('caller', 100).notNullable();
    table.string('method', 100).notNullable();
    table.uuid('request_id').notNullable();
    table.binary('body_hash').notNullable();
    table.binary('response').notNullable();
    table.bigInteger('revision').notNullable();
    table.timestamp('created_at').notNullable().defaultTo(knex.fn.now()).index('ix_idempotent_answers_created_at');
    table.primary(['caller', 'method', 'request_id']);
  });
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.dropTable('idempotent_answers');
}
