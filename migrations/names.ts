/*
 * The names of the tables, indexes and sequences that each migration creates. Before the first migration runs, they are
 * compared with the contents of the schema. A test compares this list with the objects that the migrations create.
 */

import { USAGE_PARTITIONS, usagePartition } from './0020_usage.js';
import { EXPERIMENT_DATA } from './0022_experiments.js';

const usagePartitions = Array.from({ length: USAGE_PARTITIONS }, (_, slot) => usagePartition(slot));

interface Names {
  /** Tables; each has a primary key and, unless it is in WITHOUT_SEQUENCE, a sequence. */
  readonly tables?: readonly string[];
  /** Indexes, by their tables. */
  readonly indexes?: Readonly<Record<string, readonly string[]>>;
}

/** The tables that the Python system may have created. */
export const IMPORTABLE: readonly string[] = [
  'agent_configs',
  'portfolios',
  'run_logs',
  'vendor_configs',
  'positions',
  'trades',
  'executions',
  'trading_sessions',
  'risk_metrics',
  'agent_llm_configs',
];

const WITHOUT_SEQUENCE: readonly string[] = [
  'adopted_tables',
  'adopted_orphans',
  'config_revisions',
  'store_seeds',
  'store_state',
  'idempotent_answers',
  'encryption_keys',
  'config_health',
  'watchers',
  'llm_usage_attempt_ids',
  'llm_usage_attempts',
  ...usagePartitions,
  'llm_usage_horizon',
  'llm_usage_hourly',
  'llm_usage_daily',
  'llm_usage_monthly',
  'llm_usage_losses',
  'llm_budget_counters',
  'llm_budget_reservations',
  ...EXPERIMENT_DATA,
];

const NAMES: Readonly<Record<string, Names>> = {
  '0001_initial': {
    tables: [...IMPORTABLE.slice(0, 7), 'adopted_tables'],
    indexes: {
      agent_configs: ['ix_agent_configs_agent_type', 'ix_agent_configs_is_active', 'ix_agent_configs_name'],
      executions: ['ix_executions_execution_id', 'ix_executions_symbol', 'ix_executions_trade_id'],
      portfolios: ['ix_portfolios_name'],
      positions: ['ix_positions_portfolio_id', 'ix_positions_symbol'],
      run_logs: ['ix_run_logs_run_type', 'ix_run_logs_session_id', 'ix_run_logs_status'],
      trades: ['ix_trades_portfolio_id', 'ix_trades_status', 'ix_trades_symbol'],
      vendor_configs: ['ix_vendor_configs_is_active', 'ix_vendor_configs_name', 'ix_vendor_configs_vendor_type'],
    },
  },
  '0002_plugin_agent_fields': { indexes: { agent_configs: ['ix_agent_configs_role', 'ix_agent_configs_slot_name'] } },
  '0003_add_trading_session_risk': {
    tables: ['trading_sessions', 'risk_metrics'],
    indexes: {
      risk_metrics: ['ix_risk_metrics_measured_at', 'ix_risk_metrics_portfolio_id', 'ix_risk_metrics_session_id'],
      trading_sessions: [
        'ix_trading_sessions_portfolio_id',
        'ix_trading_sessions_session_type',
        'ix_trading_sessions_status',
      ],
    },
  },
  '0004_add_agent_llm_configs': {
    tables: ['agent_llm_configs', 'adopted_orphans'],
    indexes: {
      agent_llm_configs: [
        'ix_agent_llm_configs_agent_id',
        'ix_agent_llm_configs_enabled',
        'ix_agent_llm_configs_provider',
      ],
    },
  },
  '0005_chain_columns': { indexes: { agent_llm_configs: ['ix_agent_llm_configs_chain'] } },
  '0006_revisions': {
    tables: ['store_state', 'store_seeds', 'config_revisions'],
    indexes: { config_revisions: ['ix_config_revisions_entity'] },
  },
  '0007_idempotency': {
    tables: ['idempotent_answers'],
    indexes: { idempotent_answers: ['ix_idempotent_answers_created_at'] },
  },
  '0008_catalogue': {
    tables: ['llm_providers', 'llm_models', 'llm_prices'],
    indexes: {
      llm_providers: ['uq_llm_providers_name'],
      llm_models: ['uq_llm_models_provider_name'],
      llm_prices: ['uq_llm_prices_model_id_valid_from'],
    },
  },
  '0009_keys': {
    tables: ['encryption_keys', 'llm_credentials'],
    indexes: {
      agent_llm_configs: ['ix_agent_llm_configs_credential_id'],
      llm_credentials: ['uq_llm_credentials_name'],
    },
  },
  '0010_config_health': { tables: ['config_health'] },
  '0011_history': {
    indexes: { config_revisions: ['ix_config_revisions_agent_id', 'ix_config_revisions_created_at'] },
  },
  '0012_watchers': {
    tables: ['watchers'],
    indexes: { watchers: ['ix_watchers_client_name', 'ix_watchers_last_seen_at'] },
  },
  '0013_audit_events': {
    tables: ['audit_events'],
    indexes: { audit_events: ['ix_audit_events_agent_id', 'ix_audit_events_created_at'] },
  },
  '0014_access': {
    tables: ['api_tokens'],
    indexes: { api_tokens: ['uq_api_tokens_token_hash', 'uq_api_tokens_token_id'] },
  },
  '0020_usage': {
    tables: [
      'llm_usage_attempt_ids',
      'llm_usage_attempts',
      ...usagePartitions,
      'llm_usage_hourly',
      'llm_usage_daily',
      'llm_usage_monthly',
      'llm_usage_adjustments',
      'llm_usage_losses',
      'llm_usage_horizon',
    ],
    indexes: {
      llm_usage_attempts: ['ix_llm_usage_attempts_agent_id'],
      // PostgreSQL names the index of each partition.
      ...Object.fromEntries(usagePartitions.map((name) => [name, [`${name}_agent_id_started_at_attempt_id_idx`]])),
      llm_usage_adjustments: ['ix_llm_usage_adjustments_attempt_id', 'ix_llm_usage_adjustments_started_at'],
      llm_usage_hourly: ['ix_llm_usage_hourly_agent_name'],
      llm_usage_losses: ['ix_llm_usage_losses_last_at'],
    },
  },
  '0021_budgets': {
    tables: ['llm_budgets', 'llm_budget_counters', 'llm_budget_reservations'],
    indexes: {
      llm_budgets: ['ix_llm_budgets_agent_id', 'uq_llm_budgets_name'],
      llm_budget_counters: ['ix_llm_budget_counters_updated_at'],
      llm_budget_reservations: [
        'ix_llm_budget_reservations_agent_id',
        'ix_llm_budget_reservations_ended_at',
        'ix_llm_budget_reservations_expires_at',
      ],
    },
  },
  '0022_experiments': {
    tables: ['llm_experiments', ...EXPERIMENT_DATA],
    indexes: {
      llm_experiments: ['uq_llm_experiments_active', 'uq_llm_experiments_name'],
      llm_experiment_runs: ['ix_llm_experiment_runs_last_at'],
      llm_experiment_outcomes: ['ix_llm_experiment_outcomes_experiment_id', 'ix_llm_experiment_outcomes_observed_at'],
    },
  },
};

/** A name that a migration creates, and the table that it belongs to. */
export interface CreatedName {
  readonly name: string;
  readonly kind: 'table' | 'index' | 'sequence';
  readonly table: string;
}

/** The names that a migration creates; empty for a migration without new names. */
export function namesOf(migration: string): CreatedName[] {
  const { tables = [], indexes = {} } = NAMES[migration] ?? {};
  return [
    ...tables.flatMap((table): CreatedName[] => [
      { name: table, kind: 'table', table },
      { name: `${table}_pkey`, kind: 'index', table },
      ...(WITHOUT_SEQUENCE.includes(table) ? [] : [{ name: `${table}_id_seq`, kind: 'sequence' as const, table }]),
    ]),
    ...Object.entries(indexes).flatMap(([table, names]) =>
      names.map((name): CreatedName => ({ name, kind: 'index', table })),
    ),
  ];
}
