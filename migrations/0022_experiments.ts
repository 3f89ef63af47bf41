import type { Knex } from 'knex';
import { timestamps } from './columns.js';

// Experiments, and the sums that their results are computed from. Experiments are configuration; the sums have no
// revision. The sums do not refer to `llm_experiments` with a foreign key: with a foreign key, deleting an experiment
// would delete millions of rows while the revision counter is locked. Maintenance deletes the rows of experiments that
// no longer exist.

const STATES = ['DRAFT', 'RUNNING', 'PAUSED', 'CONCLUDED'].map((state) => `'EXPERIMENT_STATE_${state}'`);
const ACTIVE = `state in ('EXPERIMENT_STATE_RUNNING', 'EXPERIMENT_STATE_PAUSED')`;

async function createExperiments(knex: Knex): Promise<void> {
  await knex.schema.createTable('llm_experiments', (table) => {
    table.increments('id');
    table
      .integer('agent_id')
      .notNullable()
      .references('id')
      .inTable('agent_configs')
      .withKeyName('llm_experiments_agent_id_fkey');
    table.string('name', 100).notNullable();
    table.string('hypothesis', 1000);
    table.string('subject_kind', 50).notNullable();
    table.string('salt', 32).notNullable();
    table.string('state', 40).notNullable();
    // The variants with their buckets are one value, because they change together and are always read together.
    table.jsonb('variants').notNullable();
    table.jsonb('primary_metric').notNullable();
    table.jsonb('guardrails').notNullable();
    table.integer('alpha_basis_points').notNullable();
    table.integer('smallest_effect_basis_points').notNullable();
    table.string('state_reason', 1000).notNullable().defaultTo('');
    table.string('winner', 100).notNullable().defaultTo('');
    table.timestamp('started_at');
    table.timestamp('ended_at');
    table.timestamp('running_since');
    table.bigInteger('ran_ms').notNullable().defaultTo(0);
    table.bigInteger('allocation_revision').notNullable().defaultTo(0);
    timestamps(knex, table);
    table.bigInteger('revision').notNullable().defaultTo(0);
    table.unique(['agent_id', 'name'], { indexName: 'uq_llm_experiments_name' });
    for (const [name, condition] of Object.entries({
      name: `name <> ''`,
      state: `state in (${STATES.join(', ')})`,
      salt: `salt ~ '^[0-9a-f]{32}$'`,
      alpha: 'alpha_basis_points between 1 and 5000',
      running: `(state = 'EXPERIMENT_STATE_RUNNING') = (running_since is not null)`,
      started: `(state = 'EXPERIMENT_STATE_DRAFT') = (started_at is null)`,
      ended: `(state = 'EXPERIMENT_STATE_CONCLUDED') = (ended_at is not null)`,
    }))
      table.check(condition, undefined, `ck_llm_experiments_${name}`);
  });
  // At most one experiment of an agent is running or paused.
  await knex.raw(`create unique index uq_llm_experiments_active on llm_experiments (agent_id) where ${ACTIVE}`);
}

/** The quantities of a call that are summed. */
const QUANTITIES = ['successes', 'cost_nano_usd', 'latency_ms', 'tokens'];

/**
 * One row for each subject and variant. The columns `other_…` are the part of the calls that another hop than the first
 * one served; the sums minus these columns are the view as served.
 */
async function createAssignments(knex: Knex): Promise<void> {
  await knex.schema.createTable('llm_experiment_assignments', (table) => {
    table.integer('experiment_id').notNullable();
    table.string('subject', 255).notNullable();
    table.string('variant', 100).notNullable();
    // The start of the first and of the last attempt.
    table.timestamp('first_at').notNullable();
    table.timestamp('last_at').notNullable();
    table.bigInteger('attempts').notNullable();
    for (const prefix of ['', 'other_']) {
      table.bigInteger(`${prefix}calls`).notNullable();
      for (const quantity of QUANTITIES) table.specificType(prefix + quantity, 'numeric(38, 0)').notNullable();
    }
    table.primary(['experiment_id', 'subject', 'variant'], { constraintName: 'llm_experiment_assignments_pkey' });
  });
}

/**
 * The sums over the subjects of a variant. For ratios of sums, such as the cost per call, the variance of the ratio
 * needs the squares and the products with the number of calls. A transaction adds to the sums the change that it makes
 * to each subject, so the sums are exact.
 */
async function createVariants(knex: Knex): Promise<void> {
  const sum = (table: Knex.CreateTableBuilder, name: string) =>
    table.specificType(name, 'numeric').notNullable().defaultTo(0);
  await knex.schema.createTable('llm_experiment_variants', (table) => {
    table.integer('experiment_id').notNullable();
    table.string('variant', 100).notNullable();
    table.bigInteger('subjects').notNullable();
    table.bigInteger('served_subjects').notNullable();
    table.bigInteger('aborted_calls').notNullable();
    table.bigInteger('unpriced_attempts').notNullable();
    for (const prefix of ['', 'served_']) {
      sum(table, `${prefix}calls`);
      sum(table, `${prefix}calls_squared`);
      for (const quantity of QUANTITIES) {
        sum(table, prefix + quantity);
        sum(table, `${prefix}${quantity}_squared`);
        sum(table, `${prefix}${quantity}_by_calls`);
      }
    }
    table.primary(['experiment_id', 'variant'], { constraintName: 'llm_experiment_variants_pkey' });
  });
  await knex.schema.createTable('llm_experiment_latency', (table) => {
    table.integer('experiment_id').notNullable();
    table.string('variant', 100).notNullable();
    table.specificType('bin', 'smallint').notNullable();
    table.bigInteger('calls').notNullable();
    table.primary(['experiment_id', 'variant', 'bin'], { constraintName: 'llm_experiment_latency_pkey' });
  });
  // The new subjects of each variant since the buckets changed, for the check of the sample ratio.
  await knex.schema.createTable('llm_experiment_exposures', (table) => {
    table.integer('experiment_id').notNullable();
    table.bigInteger('allocation_revision').notNullable();
    table.string('variant', 100).notNullable();
    table.bigInteger('subjects').notNullable();
    table.primary(['experiment_id', 'allocation_revision', 'variant'], {
      constraintName: 'llm_experiment_exposures_pkey',
    });
  });
}

async function createOutcomes(knex: Knex): Promise<void> {
  // The subjects of each run, to which outcomes of a run are attributed.
  await knex.schema.createTable('llm_experiment_runs', (table) => {
    table.integer('experiment_id').notNullable();
    table.string('run_id', 100).notNullable();
    table.string('subject', 255).notNullable();
    table.timestamp('last_at').notNullable();
    table.primary(['experiment_id', 'run_id', 'subject'], { constraintName: 'llm_experiment_runs_pkey' });
    table.index(['last_at'], 'ix_llm_experiment_runs_last_at');
  });
  await knex.schema.createTable('llm_experiment_outcomes', (table) => {
    table.uuid('outcome_id').primary();
    table.integer('experiment_id').notNullable();
    table.string('variant', 100).notNullable();
    table.string('subject', 255).notNullable();
    table.string('name', 100).notNullable();
    table.specificType('value', 'numeric').notNullable();
    table.string('run_id', 100).notNullable().defaultTo('');
    table.timestamp('observed_at').notNullable();
    table.timestamp('recorded_at').notNullable().defaultTo(knex.fn.now());
    table.string('actor', 100).notNullable();
    table.index(['experiment_id'], 'ix_llm_experiment_outcomes_experiment_id');
    table.index(['observed_at'], 'ix_llm_experiment_outcomes_observed_at');
  });
  // `mean` is rounded once and stored, so that the sums of means and of their squares stay exact.
  await knex.schema.createTable('llm_experiment_subject_outcomes', (table) => {
    table.integer('experiment_id').notNullable();
    table.string('variant', 100).notNullable();
    table.string('name', 100).notNullable();
    table.string('subject', 255).notNullable();
    table.bigInteger('outcomes').notNullable();
    table.specificType('total', 'numeric').notNullable();
    table.specificType('mean', 'numeric').notNullable();
    table.primary(['experiment_id', 'variant', 'name', 'subject'], {
      constraintName: 'llm_experiment_subject_outcomes_pkey',
    });
  });
  await knex.schema.createTable('llm_experiment_outcome_sums', (table) => {
    table.integer('experiment_id').notNullable();
    table.string('variant', 100).notNullable();
    table.string('name', 100).notNullable();
    table.bigInteger('subjects').notNullable();
    table.specificType('means', 'numeric').notNullable();
    table.specificType('means_squared', 'numeric').notNullable();
    table.primary(['experiment_id', 'variant', 'name'], { constraintName: 'llm_experiment_outcome_sums_pkey' });
  });
}

export async function up(knex: Knex): Promise<void> {
  await createExperiments(knex);
  await createAssignments(knex);
  await createVariants(knex);
  await createOutcomes(knex);
}

/** Tables that refer to an experiment by its id. */
export const EXPERIMENT_DATA = [
  'llm_experiment_outcome_sums',
  'llm_experiment_subject_outcomes',
  'llm_experiment_outcomes',
  'llm_experiment_runs',
  'llm_experiment_exposures',
  'llm_experiment_latency',
  'llm_experiment_variants',
  'llm_experiment_assignments',
] as const;

export async function down(knex: Knex): Promise<void> {
  for (const name of EXPERIMENT_DATA) await knex.schema.dropTable(name);
  await knex.schema.dropTable('llm_experiments');
}
