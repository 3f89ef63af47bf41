import type { Knex } from 'knex';
import { timestamps } from './columns.js';

// Budgets, the amounts of their periods, and reservations. Budgets are configuration; amounts and reservations have no
// revision.

const SCOPES = ['ALL', 'AGENT', 'AGENT_TYPE', 'RUN'];
const PERIODS = ['DAY', 'MONTH', 'ROLLING_HOURS', 'TOTAL'];
const ACTIONS = ['WARN', 'STEP_DOWN', 'BLOCK'];
const oneOf = (column: string, prefix: string, values: readonly string[]) =>
  `${column} in (${values.map((value) => `'${prefix}_${value}'`).join(', ')})`;

async function createBudgets(knex: Knex): Promise<void> {
  await knex.schema.createTable('llm_budgets', (table) => {
    table.increments('id');
    table.string('name', 100).notNullable();
    table.string('description', 1000);
    table.string('scope', 40).notNullable();
    table
      .integer('agent_id')
      .references('id')
      .inTable('agent_configs')
      .withKeyName('llm_budgets_agent_id_fkey')
      .index('ix_llm_budgets_agent_id');
    table.string('agent_type', 50).notNullable().defaultTo('');
    table.string('period', 40).notNullable();
    table.string('time_zone', 64).notNullable().defaultTo('');
    table.integer('rolling_hours');
    table.bigInteger('limit_nano_usd').notNullable();
    table.string('action', 40).notNullable();
    table.string('step_down_provider', 50);
    table.string('step_down_model', 100);
    table.integer('warn_percent').notNullable().defaultTo(80);
    table.boolean('enabled').notNullable().defaultTo(true);
    timestamps(knex, table);
    table.bigInteger('revision').notNullable().defaultTo(0);
    table.unique(['name'], { indexName: 'uq_llm_budgets_name' });
    for (const [name, condition] of Object.entries({
      name: `name <> ''`,
      scope: oneOf('scope', 'BUDGET_SCOPE', SCOPES),
      period: oneOf('period', 'BUDGET_PERIOD', PERIODS),
      action: oneOf('action', 'BUDGET_ACTION', ACTIONS),
      agent_id: `(scope = 'BUDGET_SCOPE_AGENT') = (agent_id is not null)`,
      agent_type: `(scope = 'BUDGET_SCOPE_AGENT_TYPE') = (agent_type <> '')`,
      rolling_hours: `(period = 'BUDGET_PERIOD_ROLLING_HOURS') = (rolling_hours is not null) and rolling_hours between 1 and 744`,
      limit: 'limit_nano_usd between 1 and 1000000000000000000',
      step_down: `(action = 'BUDGET_ACTION_STEP_DOWN') = (step_down_provider is not null)
        and (step_down_provider is null) = (step_down_model is null)`,
      warn_percent: 'warn_percent between 1 and 100',
    }))
      table.check(condition, undefined, `ck_llm_budgets_${name}`);
  });
}

/**
 * All amounts that decide about a reservation are in one row for each budget, run and period. A statement that waits
 * for the lock of a row reads the newest version of this row, but reads other rows as of the start of the statement. A
 * sum over several rows could therefore miss an amount that a concurrent transaction has just reserved.
 *
 * For this reason the hours of a rolling budget are one array: `spent_by_hour[hour % rolling_hours + 1]` is the cost of
 * an hour, counted in hours since 1970. The newest hour in the array is `newest_hour`; a slot whose hour is not in the
 * window counts as 0. For a rolling or total budget, `period_start` is the creation of the budget.
 *
 * Reserve locks the rows of all budgets in the order of the key, checks each of them, and adds the amount to all or to
 * none, in one statement:
 *
 *   with wanted (budget_id, run_id, period_start, limit_nano_usd) as (select … from unnest(…)),
 *        locked as (select …, limit_nano_usd - spent - reserved_nano_usd as room from llm_budget_counters join wanted
 *                   order by budget_id, run_id, period_start for update of llm_budget_counters),
 *        fits as (select count(*) = (select count(*) from wanted) and min(room) >= amount as yes from locked),
 *        held as (update llm_budget_counters set reserved_nano_usd = reserved_nano_usd + amount … where yes),
 *        reserved as (insert into llm_budget_reservations select … where yes)
 *   select …
 *
 * If a row does not exist yet, it is inserted (ON CONFLICT DO NOTHING), and the statement is repeated.
 */
async function createCounters(knex: Knex): Promise<void> {
  await knex.schema.createTable('llm_budget_counters', (table) => {
    table
      .integer('budget_id')
      .notNullable()
      .references('id')
      .inTable('llm_budgets')
      .withKeyName('llm_budget_counters_budget_id_fkey')
      .onDelete('CASCADE');
    table.string('run_id', 100).notNullable().defaultTo('');
    table.timestamp('period_start').notNullable();
    // Null: the period has no end, or the budget is rolling.
    table.timestamp('period_end');
    // The spent amount; for a rolling budget, the cost since its creation.
    table.specificType('spent_nano_usd', 'numeric(38, 0)').notNullable().defaultTo(0);
    // The part of the spent amount that was taken from reservations.
    table.specificType('committed_nano_usd', 'numeric(38, 0)').notNullable().defaultTo(0);
    table.bigInteger('reserved_nano_usd').notNullable().defaultTo(0);
    table.bigInteger('unpriced_attempts').notNullable().defaultTo(0);
    table.integer('open_reservations').notNullable().defaultTo(0);
    table.specificType('spent_by_hour', 'numeric(38, 0)[]');
    table.bigInteger('newest_hour');
    table.timestamp('updated_at').notNullable().defaultTo(knex.fn.now());
    table.primary(['budget_id', 'run_id', 'period_start'], { constraintName: 'llm_budget_counters_pkey' });
    // The index is used for the states on the watch, and for the deletion of old periods.
    table.index(['updated_at'], 'ix_llm_budget_counters_updated_at');
    table.check(
      `spent_nano_usd >= committed_nano_usd and committed_nano_usd >= 0 and reserved_nano_usd >= 0
        and unpriced_attempts >= 0 and open_reservations >= 0`,
      undefined,
      'ck_llm_budget_counters_amounts',
    );
    table.check('(spent_by_hour is null) = (newest_hour is null)', undefined, 'ck_llm_budget_counters_hours');
  });
}

/**
 * The budgets of a reservation and their periods are arrays, because they never change and Reserve then inserts only
 * one row. The held amount is the same in all budgets. A reservation ends at the latest at the first end of one of its
 * periods, so that the covered cost is spent in the period in which the amount is held.
 */
async function createReservations(knex: Knex): Promise<void> {
  await knex.schema.createTable('llm_budget_reservations', (table) => {
    table.uuid('reservation_id').primary();
    table.integer('agent_id').notNullable();
    table.string('run_id', 100).notNullable().defaultTo('');
    table.specificType('budget_ids', 'integer[]').notNullable();
    table.specificType('period_starts', 'timestamptz[]').notNullable();
    table.bigInteger('amount_nano_usd').notNullable();
    table.bigInteger('held_nano_usd').notNullable();
    table.integer('attempts').notNullable();
    table.string('state', 10).notNullable().defaultTo('open');
    table.string('actor', 100).notNullable();
    table.timestamp('created_at').notNullable().defaultTo(knex.fn.now());
    table.timestamp('expires_at').notNullable();
    table.timestamp('ended_at');
    table.check(`state in ('open', 'committed', 'released', 'expired')`, undefined, 'ck_llm_budget_reservations_state');
    table.check(
      `amount_nano_usd >= 0 and held_nano_usd between 0 and amount_nano_usd and (state = 'open' or held_nano_usd = 0)`,
      undefined,
      'ck_llm_budget_reservations_amounts',
    );
    table.check(`(state = 'open') = (ended_at is null)`, undefined, 'ck_llm_budget_reservations_ended_at');
    table.check(
      'cardinality(budget_ids) = cardinality(period_starts)',
      undefined,
      'ck_llm_budget_reservations_budgets',
    );
    const isOpen = knex.whereRaw(`state = 'open'`) as Knex.QueryBuilder;
    table.index(['expires_at'], 'ix_llm_budget_reservations_expires_at', { predicate: isOpen });
    table.index(['agent_id'], 'ix_llm_budget_reservations_agent_id', { predicate: isOpen });
    table.index(['ended_at'], 'ix_llm_budget_reservations_ended_at');
  });
}

export async function up(knex: Knex): Promise<void> {
  await createBudgets(knex);
  await createCounters(knex);
  await createReservations(knex);
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.dropTable('llm_budget_reservations');
  await knex.schema.dropTable('llm_budget_counters');
  await knex.schema.dropTable('llm_budgets');
}
