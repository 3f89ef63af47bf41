import type { Knex } from 'knex';
import { timestamps } from './columns.js';
import { addForeignKey, createOrImport, dropTables } from './import_tables.js';

// The revision `add_trading_session_risk` of the Python system.

export const TABLES = ['risk_metrics', 'trading_sessions'];

async function createTradingSessions(knex: Knex): Promise<void> {
  await createOrImport(knex, 'trading_sessions', (table) => {
    table.increments('id');
    table.integer('portfolio_id').notNullable().index('ix_trading_sessions_portfolio_id');
    table.string('session_type', 20).notNullable().index('ix_trading_sessions_session_type');
    table.string('status', 20).notNullable().index('ix_trading_sessions_status');
    table.string('name', 255);
    table.string('description', 1000);
    table.double('max_position_size');
    table.double('max_portfolio_exposure');
    table.double('stop_loss_percentage');
    table.double('take_profit_percentage');
    table.double('starting_capital').notNullable();
    table.double('current_capital').notNullable();
    table.double('total_pnl').notNullable().defaultTo(0);
    table.integer('total_trades').notNullable().defaultTo(0);
    table.integer('winning_trades').notNullable().defaultTo(0);
    table.integer('losing_trades').notNullable().defaultTo(0);
    table.timestamp('started_at');
    table.timestamp('stopped_at');
    timestamps(knex, table);
    table.text('metadata_json');
  });
  await addForeignKey(knex, 'trading_sessions', 'portfolio_id', 'portfolios');
}

async function createRiskMetrics(knex: Knex): Promise<void> {
  await createOrImport(knex, 'risk_metrics', (table) => {
    table.increments('id');
    table.integer('portfolio_id').notNullable().index('ix_risk_metrics_portfolio_id');
    table.integer('session_id').index('ix_risk_metrics_session_id');
    table.double('var_1d_95');
    table.double('var_1d_99');
    table.double('var_5d_95');
    table.double('var_5d_99');
    table.double('portfolio_value').notNullable();
    table.double('portfolio_volatility');
    table.double('sharpe_ratio');
    table.double('max_drawdown');
    table.double('largest_position_weight');
    table.double('top5_concentration');
    table.integer('number_of_positions').notNullable().defaultTo(0);
    table.double('total_exposure').notNullable().defaultTo(0);
    table.double('long_exposure').notNullable().defaultTo(0);
    table.double('short_exposure').notNullable().defaultTo(0);
    table.double('net_exposure').notNullable().defaultTo(0);
    table.double('market_beta');
    table.double('correlation_to_spy');
    table.timestamp('measured_at').notNullable().defaultTo(knex.fn.now()).index('ix_risk_metrics_measured_at');
    timestamps(knex, table);
    table.text('metadata_json');
  });
  await addForeignKey(knex, 'risk_metrics', 'portfolio_id', 'portfolios');
  await addForeignKey(knex, 'risk_metrics', 'session_id', 'trading_sessions');
}

export async function up(knex: Knex): Promise<void> {
  await createTradingSessions(knex);
  await createRiskMetrics(knex);
}

export async function down(knex: Knex): Promise<void> {
  await dropTables(knex, TABLES);
}
