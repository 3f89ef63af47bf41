import type { Knex } from 'knex';
import { PLUGIN_COLUMNS } from './0002_plugin_agent_fields.js';
import { timestamps } from './columns.js';
import { addForeignKey, createOrImport, dropTables, refuseForeignTables } from './import_tables.js';

// The first revision (`ac7a9a8391bc`) of the original Python system, a trading system whose database schema agentllm
// imports. It contains all base tables. agentllm uses only `agent_configs`; the other tables belong to processes that
// share the database, and are created so that both migration chains give the same schema. Amounts of money are double
// precision as in the Python system; agentllm stores the amounts that it adds up as integers, in separate tables.
// Indexes and keys have the names that SQLAlchemy and PostgreSQL give, so that a new and an imported database have the
// same schema. A table that the Python system has created already is imported (import_tables.ts).

/** Children before parents, the order in which foreign keys allow dropping them. */
export const TABLES = [
  'executions',
  'trades',
  'positions',
  'vendor_configs',
  'run_logs',
  'portfolios',
  'agent_configs',
];

const TABLES_OF_LATER_MIGRATIONS = ['trading_sessions', 'risk_metrics', 'agent_llm_configs'];

async function createAgentConfigs(knex: Knex): Promise<void> {
  const columns = (table: Knex.CreateTableBuilder) => {
    table.increments('id');
    table.string('name', 255).notNullable();
    table.string('agent_type', 50).notNullable().index('ix_agent_configs_agent_type');
    table.string('llm_provider', 50).notNullable().defaultTo('openai');
    table.string('llm_model', 100).notNullable().defaultTo('gpt-4o-mini');
    table.double('temperature').notNullable().defaultTo(0.7);
    table.integer('max_tokens');
    table.text('config_json');
    table.boolean('is_active').notNullable().defaultTo(true).index('ix_agent_configs_is_active');
    timestamps(knex, table);
    table.string('description', 1000);
    table.text('metadata_json');
    table.unique(['name'], { indexName: 'ix_agent_configs_name', useConstraint: false });
  };
  await createOrImport(knex, 'agent_configs', columns, { others: PLUGIN_COLUMNS, served: true });
}

async function createPortfolios(knex: Knex): Promise<void> {
  await createOrImport(knex, 'portfolios', (table) => {
    table.increments('id');
    table.string('name', 255).notNullable();
    table.string('description', 1000);
    table.double('initial_capital').notNullable();
    table.double('current_capital').notNullable();
    table.string('currency', 3).notNullable().defaultTo('USD');
    timestamps(knex, table);
    table.text('metadata_json');
    table.unique(['name'], { indexName: 'ix_portfolios_name', useConstraint: false });
  });
}

async function createRunLogs(knex: Knex): Promise<void> {
  await createOrImport(knex, 'run_logs', (table) => {
    table.increments('id');
    table.string('session_id', 255).notNullable().index('ix_run_logs_session_id');
    table.string('run_type', 50).notNullable().index('ix_run_logs_run_type');
    table.string('status', 20).notNullable().index('ix_run_logs_status');
    table.string('symbols', 500);
    table.timestamp('start_date');
    table.timestamp('end_date');
    table.timestamp('started_at').notNullable().defaultTo(knex.fn.now());
    table.timestamp('completed_at');
    table.double('duration_seconds');
    table.text('result_summary');
    table.text('error_message');
    table.integer('total_trades').notNullable().defaultTo(0);
    table.integer('successful_trades').notNullable().defaultTo(0);
    table.double('total_pnl');
    table.text('agent_config_snapshot');
    timestamps(knex, table);
    table.text('metadata_json');
  });
}

async function createVendorConfigs(knex: Knex): Promise<void> {
  await createOrImport(knex, 'vendor_configs', (table) => {
    table.increments('id');
    table.string('name', 255).notNullable();
    table.string('vendor_type', 50).notNullable().index('ix_vendor_configs_vendor_type');
    table.string('provider', 100).notNullable();
    table.string('api_endpoint', 500);
    table.string('api_key_ref', 255);
    table.text('config_json');
    table.integer('rate_limit_per_minute');
    table.integer('rate_limit_per_day');
    table.boolean('is_active').notNullable().defaultTo(true).index('ix_vendor_configs_is_active');
    timestamps(knex, table);
    table.string('description', 1000);
    table.text('metadata_json');
    table.unique(['name'], { indexName: 'ix_vendor_configs_name', useConstraint: false });
  });
}

async function createPositions(knex: Knex): Promise<void> {
  await createOrImport(knex, 'positions', (table) => {
    table.increments('id');
    table.integer('portfolio_id').notNullable().index('ix_positions_portfolio_id');
    table.string('symbol', 20).notNullable().index('ix_positions_symbol');
    table.double('quantity').notNullable();
    table.double('average_cost').notNullable();
    table.double('current_price');
    table.double('unrealized_pnl').notNullable().defaultTo(0);
    table.double('realized_pnl').notNullable().defaultTo(0);
    table.string('position_type', 10).notNullable().defaultTo('long');
    table.timestamp('entry_date').notNullable().defaultTo(knex.fn.now());
    timestamps(knex, table);
    table.text('metadata_json');
  });
  await addForeignKey(knex, 'positions', 'portfolio_id', 'portfolios');
}

async function createTrades(knex: Knex): Promise<void> {
  await createOrImport(knex, 'trades', (table) => {
    table.increments('id');
    table.integer('portfolio_id').notNullable().index('ix_trades_portfolio_id');
    table.string('symbol', 20).notNullable().index('ix_trades_symbol');
    table.string('action', 10).notNullable();
    table.double('quantity').notNullable();
    table.string('order_type', 20).notNullable().defaultTo('market');
    table.double('limit_price');
    table.double('stop_price');
    table.string('status', 20).notNullable().defaultTo('pending').index('ix_trades_status');
    table.double('filled_quantity').notNullable().defaultTo(0);
    table.double('average_fill_price');
    table.timestamp('filled_at');
    table.text('decision_rationale');
    table.double('confidence_score');
    timestamps(knex, table);
    table.text('metadata_json');
  });
  await addForeignKey(knex, 'trades', 'portfolio_id', 'portfolios');
}

async function createExecutions(knex: Knex): Promise<void> {
  await createOrImport(knex, 'executions', (table) => {
    table.increments('id');
    table.integer('trade_id').notNullable().index('ix_executions_trade_id');
    table.string('symbol', 20).notNullable().index('ix_executions_symbol');
    table.double('quantity').notNullable();
    table.double('price').notNullable();
    table.string('execution_type', 20).notNullable();
    table.double('commission').notNullable().defaultTo(0);
    table.double('fees').notNullable().defaultTo(0);
    table.string('exchange', 50);
    table.string('execution_id', 100);
    table.timestamp('executed_at').notNullable().defaultTo(knex.fn.now());
    timestamps(knex, table);
    table.text('metadata_json');
    table.unique(['execution_id'], { indexName: 'ix_executions_execution_id', useConstraint: false });
  });
  await addForeignKey(knex, 'executions', 'trade_id', 'trades');
}

export async function up(knex: Knex): Promise<void> {
  await refuseForeignTables(knex, [...TABLES, ...TABLES_OF_LATER_MIGRATIONS]);
  await createAgentConfigs(knex);
  await createPortfolios(knex);
  await createRunLogs(knex);
  await createVendorConfigs(knex);
  await createPositions(knex);
  await createTrades(knex);
  await createExecutions(knex);
}

export async function down(knex: Knex): Promise<void> {
  await dropTables(knex, TABLES);
}
