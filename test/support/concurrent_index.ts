import { type Migration, migrations } from '../../migrations/index.js';

/** A migration that cannot run inside a transaction and must therefore be safe to repeat. */
export const CONCURRENT_INDEX: Migration = {
  name: '9998_concurrent_index',
  config: { transaction: false },
  up: async (knex) => {
    await knex.raw('create index concurrently if not exists ix_test_concurrent on agent_llm_configs (model_name)');
  },
  down: async (knex) => {
    await knex.raw('drop index concurrently if exists ix_test_concurrent');
  },
};

/** The migrations of the service, followed by one without a transaction. */
export const MIGRATIONS_WITH_CONCURRENT_INDEX: readonly Migration[] = [...migrations, CONCURRENT_INDEX];
