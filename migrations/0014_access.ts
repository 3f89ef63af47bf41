import type { Knex } from 'knex';

// Access tokens, identified by the SHA-256 of their text, and client certificates, identified by their identity.

export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('api_tokens', (table) => {
    table.increments('id');
    table.string('token_id', 20).notNullable().unique({ indexName: 'uq_api_tokens_token_id' });
    table.string('name', 100).notNullable();
    table.string('role', 40).notNullable();
    table.jsonb('agents');
    table.string('token_hash', 64).unique({ indexName: 'uq_api_tokens_token_hash' });
    table.string('certificate_identity', 300);
    table.timestamp('expires_at');
    table.timestamp('revoked_at');
    // Written about once a minute by every replica, and therefore not part of the revisioned row.
    table.timestamp('last_used_at');
    table.timestamp('created_at').notNullable();
    table.timestamp('updated_at').notNullable();
    table.bigInteger('revision').notNullable();
  });
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.dropTable('api_tokens');
}
