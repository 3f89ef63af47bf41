import type { Knex } from 'knex';
import { timestamps } from './columns.js';

// Credentials, and the ids of the encryption keys that the store has used. The keys themselves are not stored.

async function createEncryptionKeys(knex: Knex): Promise<void> {
  await knex.schema.createTable('encryption_keys', (table) => {
    table.string('key_id', 64).primary();
    // A known text, encrypted with the key. An encryption key that cannot decrypt it is the wrong one.
    table.string('canary', 500).notNullable();
    table.timestamp('created_at').notNullable().defaultTo(knex.fn.now());
  });
}

async function createCredentials(knex: Knex): Promise<void> {
  await knex.schema.createTable('llm_credentials', (table) => {
    table.increments('id');
    table.string('name', 100).notNullable();
    table.string('provider', 50).notNullable();
    table.string('description', 1000);
    table.string('api_key_encrypted', 500);
    table.string('key_id', 64);
    table.bigInteger('key_revision');
    timestamps(knex, table);
    table.bigInteger('revision').notNullable().defaultTo(0);
    table.unique(['name'], { indexName: 'uq_llm_credentials_name' });
    table.check(`name <> ''`, undefined, 'ck_llm_credentials_name');
    table.check(`provider <> ''`, undefined, 'ck_llm_credentials_provider');
  });
}

export async function up(knex: Knex): Promise<void> {
  await createEncryptionKeys(knex);
  await createCredentials(knex);
  await knex.schema.alterTable('agent_llm_configs', (table) => {
    table.bigInteger('key_revision');
    table.foreign('credential_id', 'agent_llm_configs_credential_id_fkey').references('llm_credentials.id');
    table.index(['credential_id'], 'ix_agent_llm_configs_credential_id');
  });
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.alterTable('agent_llm_configs', (table) => {
    table.dropIndex(['credential_id'], 'ix_agent_llm_configs_credential_id');
    table.dropForeign(['credential_id'], 'agent_llm_configs_credential_id_fkey');
    table.dropColumn('key_revision');
  });
  await knex('agent_llm_configs').update({ credential_id: null });
  await knex.schema.dropTable('llm_credentials');
  await knex.schema.dropTable('encryption_keys');
}
