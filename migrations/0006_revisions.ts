import { randomBytes, randomUUID } from 'node:crypto';
import type { Knex } from 'knex';

// The counter row, which makes revisions gapless and in commit order, and the change log.

const HASH_KEY_BYTES = 32;

async function createStoreState(knex: Knex): Promise<void> {
  await knex.schema.createTable('store_state', (table) => {
    table.smallint('id').primary().defaultTo(1);
    table.bigInteger('revision').notNullable().defaultTo(0);
    // Random values of this revision and the previous one. A reader of the log detects a restored store by them.
    table.uuid('nonce').notNullable();
    table.uuid('previous_nonce').notNullable();
    table.uuid('identity').notNullable();
    table.binary('hash_key').notNullable();
    table.check('id = 1', undefined, 'ck_store_state_one_row');
    table.check('revision >= 0', undefined, 'ck_store_state_revision');
    table.check(`octet_length(hash_key) = ${HASH_KEY_BYTES}`, undefined, 'ck_store_state_hash_key');
  });
  // Generated here, because gen_random_bytes() in the database would need an extension.
  const nonce = randomUUID();
  const hash_key = randomBytes(HASH_KEY_BYTES);
  await knex('store_state').insert({ id: 1, nonce, previous_nonce: nonce, identity: randomUUID(), hash_key });
}

// The seeds that have been applied to the store: `serve` applies each of them once.
async function createStoreSeeds(knex: Knex): Promise<void> {
  await knex.schema.createTable('store_seeds', (table) => {
    table.string('name', 50).primary();
    table.timestamp('applied_at').notNullable().defaultTo(knex.fn.now());
  });
}

async function createConfigRevisions(knex: Knex): Promise<void> {
  await knex.schema.createTable('config_revisions', (table) => {
    table.bigInteger('revision').notNullable();
    table.integer('position').notNullable();
    table.uuid('nonce').notNullable();
    table.string('entity', 20).notNullable();
    table.integer('entity_id').notNullable();
    table.string('action', 10).notNullable();
    table.jsonb('before');
    table.jsonb('after');
    table.string('actor', 100).notNullable();
    table.string('method', 100).notNullable();
    table.uuid('request_id');
    table.string('reason', 500);
    table.timestamp('created_at').notNullable().defaultTo(knex.fn.now());
    table.primary(['revision', 'position']);
    table.index(['entity', 'entity_id', 'revision'], 'ix_config_revisions_entity');
    table.check(`action in ('create', 'update', 'delete')`, undefined, 'ck_config_revisions_action');
  });
}

export async function up(knex: Knex): Promise<void> {
  await createStoreState(knex);
  await createStoreSeeds(knex);
  await createConfigRevisions(knex);
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.dropTable('config_revisions');
  await knex.schema.dropTable('store_seeds');
  await knex.schema.dropTable('store_state');
  // Revisions of rows refer to the dropped log. If they were kept, they would be greater than those of the next
  // counter, which starts at 0.
  await knex('agent_llm_configs').update({ revision: 0 });
  await knex('agent_configs').update({ revision: 0, chain_revision: 0 });
}
