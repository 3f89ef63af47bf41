import type { Knex } from 'knex';

// Recorded attempts, their sums for each hour, day and month of UTC, adjustments, and reports of dropped attempts. None
// of these rows has a revision.

/**
 * The attempts are partitioned by month into a fixed ring of partitions: a month and the month 13 months later share a
 * partition. No partition is created later, because a role that only uses the schema may not create tables, and because
 * the schema must be the same after `down` and `up`. An old month is deleted by TRUNCATE of its partition, or by DELETE
 * if the partition also contains attempts that must be kept (with a retention above 12 months).
 */
export const USAGE_PARTITIONS = 13;
const MONTH = `(extract(year from started_at at time zone 'UTC')::int * 12
  + extract(month from started_at at time zone 'UTC')::int)`;
/** The name of the partition of a slot. */
export const usagePartition = (slot: number): string => `llm_usage_attempts_${String(slot).padStart(2, '0')}`;
const SLOTS = Array.from({ length: USAGE_PARTITIONS }, (_, slot) => slot);

/**
 * A unique index of a partitioned table must contain the partition key, so it would accept the same attempt again with
 * another start. This table ensures that ids are unique. The writer inserts ids first, and stores and sums only
 * attempts with a new id. The table needs no index by time, because the ids of a month are read from its partition.
 */
async function createAttemptIds(knex: Knex): Promise<void> {
  await knex.schema.createTable('llm_usage_attempt_ids', (table) => {
    table.uuid('attempt_id').primary();
  });
}

/** The columns contain the values that reports read. `record` is the complete encoded UsageRecord, as reported. */
async function createAttempts(knex: Knex): Promise<void> {
  await knex.raw(`create table llm_usage_attempts (
    slot smallint not null,
    started_at timestamptz not null,
    attempt_id uuid not null,
    recorded_at timestamptz not null default now(),
    agent_id integer not null,
    agent_name varchar(255) not null,
    config_id integer,
    provider varchar(50) not null,
    model_name varchar(100) not null,
    experiment varchar(100) not null default '',
    variant varchar(100) not null default '',
    run_id varchar(100) not null default '',
    outcome varchar(40) not null,
    fallback boolean not null,
    input_tokens integer,
    input_no_cache_tokens integer,
    input_cache_read_tokens integer,
    input_cache_write_tokens integer,
    input_cache_write_long_tokens integer,
    output_tokens integer,
    output_reasoning_tokens integer,
    cost_nano_usd bigint,
    unpriced_reason varchar(40),
    price_revision bigint not null default 0,
    price_from_config boolean not null default false,
    record bytea not null,
    constraint llm_usage_attempts_pkey primary key (slot, started_at, attempt_id),
    constraint ck_llm_usage_attempts_slot check (slot = ${MONTH} % ${USAGE_PARTITIONS}),
    constraint ck_llm_usage_attempts_cost check ((cost_nano_usd is null) = (unpriced_reason is not null) and cost_nano_usd >= 0)
  ) partition by list (slot)`);
  for (const slot of SLOTS)
    await knex.raw(`create table ${usagePartition(slot)} partition of llm_usage_attempts for values in (${slot})`);
  // Lists of the attempts of one agent are read in this order.
  await knex.raw(
    'create index ix_llm_usage_attempts_agent_id on llm_usage_attempts (agent_id, started_at, attempt_id)',
  );
}

/**
 * The tables of sums, by their unit. Longer ranges are read from larger units, so the duration of a report does not
 * grow with its range.
 */
const SUMS = { hour: 'llm_usage_hourly', day: 'llm_usage_daily', month: 'llm_usage_monthly' } as const;

/**
 * The key has the dimensions of QueryUsage. `config_id` is 0 for the default model of an agent, because null is never
 * equal to null in a key. A writer updates the rows of a batch in the order of the key, so that two writers do not wait
 * for each other. The sum of costs is numeric, because a bigint could overflow and fail a batch if a reporter sent very
 * large counts for a long time.
 */
async function createSums(knex: Knex, unit: keyof typeof SUMS): Promise<void> {
  const name = SUMS[unit];
  await knex.schema.createTable(name, (table) => {
    table.timestamp(unit).notNullable();
    table.integer('agent_id').notNullable();
    table.integer('config_id').notNullable();
    table.string('provider', 50).notNullable();
    table.string('model_name', 100).notNullable();
    table.string('experiment', 100).notNullable();
    table.string('variant', 100).notNullable();
    table.string('outcome', 40).notNullable();
    table.boolean('fallback').notNullable();
    // The agent's name in the newest attempt, and the start of this attempt. The name is not part of the key, because
    // an agent can be renamed. Without the start, the name would depend on the order in which attempts arrive.
    table.string('agent_name', 255).notNullable();
    table.timestamp('newest_at').notNullable();
    for (const count of ['attempts', 'unpriced_attempts', ...TOKENS]) table.bigInteger(count).notNullable();
    table.specificType('cost_nano_usd', 'numeric(38, 0)').notNullable();
    table.primary(
      [unit, 'agent_id', 'config_id', 'provider', 'model_name', 'experiment', 'variant', 'outcome', 'fallback'],
      { constraintName: `${name}_pkey` },
    );
    table.check(
      `date_trunc('${unit}', ${unit} at time zone 'UTC') = ${unit} at time zone 'UTC'`,
      undefined,
      `ck_${name}_${unit}`,
    );
    // A filter by name uses this index to find the agents that have had the name.
    if (unit === 'hour') table.index(['agent_name', 'agent_id', 'hour'], `ix_${name}_agent_name`);
  });
}

const TOKENS = [
  'input_tokens',
  'input_no_cache_tokens',
  'input_cache_read_tokens',
  'input_cache_write_tokens',
  'input_cache_write_long_tokens',
  'output_tokens',
  'output_reasoning_tokens',
];

/** An adjustment is the difference to the cost that applied before it. The sums include it. */
async function createAdjustments(knex: Knex): Promise<void> {
  await knex.schema.createTable('llm_usage_adjustments', (table) => {
    table.bigIncrements('id');
    table.uuid('attempt_id').notNullable();
    table.timestamp('started_at').notNullable();
    table.bigInteger('adjustment_nano_usd').notNullable();
    table.bigInteger('price_revision').notNullable();
    table.string('actor', 100).notNullable();
    table.string('reason', 500).notNullable();
    table.timestamp('created_at').notNullable().defaultTo(knex.fn.now());
    table.index(['attempt_id'], 'ix_llm_usage_adjustments_attempt_id');
    table.index(['started_at'], 'ix_llm_usage_adjustments_started_at');
  });
}

async function createLosses(knex: Knex): Promise<void> {
  await knex.schema.createTable('llm_usage_losses', (table) => {
    table.uuid('loss_id').primary();
    table.string('agent_name', 255).notNullable();
    table.bigInteger('attempts').notNullable();
    table.timestamp('first_at').notNullable();
    table.timestamp('last_at').notNullable();
    table.string('actor', 100).notNullable();
    table.timestamp('recorded_at').notNullable().defaultTo(knex.fn.now());
    table.index(['last_at'], 'ix_llm_usage_losses_last_at');
    table.check('attempts >= 1 and first_at <= last_at', undefined, 'ck_llm_usage_losses_range');
  });
}

/** One row: the time before which attempts have been deleted. A longer retention does not move it back. */
async function createHorizon(knex: Knex): Promise<void> {
  await knex.schema.createTable('llm_usage_horizon', (table) => {
    table.smallint('id').primary();
    table.timestamp('deleted_before').notNullable();
    table.check('id = 1', undefined, 'ck_llm_usage_horizon_id');
  });
}

export async function up(knex: Knex): Promise<void> {
  await createAttemptIds(knex);
  await createAttempts(knex);
  for (const unit of ['hour', 'day', 'month'] as const) await createSums(knex, unit);
  await createAdjustments(knex);
  await createLosses(knex);
  await createHorizon(knex);
}

export async function down(knex: Knex): Promise<void> {
  for (const table of [
    'llm_usage_horizon',
    'llm_usage_losses',
    'llm_usage_adjustments',
    ...Object.values(SUMS),
    'llm_usage_attempts',
    'llm_usage_attempt_ids',
  ])
    await knex.schema.dropTable(table);
}
