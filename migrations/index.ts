import type { Knex } from 'knex';
import * as initial from './0001_initial.js';
import * as pluginAgentFields from './0002_plugin_agent_fields.js';
import * as addTradingSessionRisk from './0003_add_trading_session_risk.js';
import * as addAgentLlmConfigs from './0004_add_agent_llm_configs.js';
import * as chainColumns from './0005_chain_columns.js';
import * as revisions from './0006_revisions.js';
import * as idempotency from './0007_idempotency.js';
import * as catalogue from './0008_catalogue.js';
import * as keys from './0009_keys.js';
import * as configHealth from './0010_config_health.js';
import * as history from './0011_history.js';
import * as watchers from './0012_watchers.js';
import * as auditEvents from './0013_audit_events.js';
import * as access from './0014_access.js';
import * as optionalDefaultModel from './0015_optional_default_model.js';
import * as responsesDialect from './0016_responses_dialect.js';
import * as wireApi from './0017_wire_api.js';
import * as modelCapabilities from './0018_model_capabilities.js';
import * as priceTiers from './0019_price_tiers.js';
import * as usage from './0020_usage.js';
import * as budgets from './0021_budgets.js';
import * as experiments from './0022_experiments.js';

/** One migration of the schema. */
export interface Migration {
  /** The name in `knex_migrations`, without a file extension, so that it is the same when compiled and from source. */
  readonly name: string;
  /**
   * `transaction: false` for a migration that PostgreSQL rejects inside a transaction (CREATE INDEX CONCURRENTLY). If
   * the process is killed, such a migration is half done and not recorded, so `up` and `down` must be safe to repeat.
   */
  readonly config?: { readonly transaction?: boolean };
  /** Tables of the Python system that `down` drops or removes columns from. They may have been imported. */
  readonly tables?: readonly string[];
  up(knex: Knex): Promise<void>;
  down(knex: Knex): Promise<void>;
}

/** Every migration, in order. New migrations are appended; existing ones never change. */
export const migrations: readonly Migration[] = [
  { name: '0001_initial', tables: initial.TABLES, up: initial.up, down: initial.down },
  {
    name: '0002_plugin_agent_fields',
    tables: ['agent_configs'],
    up: pluginAgentFields.up,
    down: pluginAgentFields.down,
  },
  {
    name: '0003_add_trading_session_risk',
    tables: addTradingSessionRisk.TABLES,
    up: addTradingSessionRisk.up,
    down: addTradingSessionRisk.down,
  },
  {
    name: '0004_add_agent_llm_configs',
    tables: addAgentLlmConfigs.TABLES,
    up: addAgentLlmConfigs.up,
    down: addAgentLlmConfigs.down,
  },
  { name: '0005_chain_columns', up: chainColumns.up, down: chainColumns.down },
  { name: '0006_revisions', up: revisions.up, down: revisions.down },
  { name: '0007_idempotency', up: idempotency.up, down: idempotency.down },
  { name: '0008_catalogue', up: catalogue.up, down: catalogue.down },
  { name: '0009_keys', up: keys.up, down: keys.down },
  { name: '0010_config_health', up: configHealth.up, down: configHealth.down },
  { name: '0011_history', up: history.up, down: history.down },
  { name: '0012_watchers', up: watchers.up, down: watchers.down },
  { name: '0013_audit_events', up: auditEvents.up, down: auditEvents.down },
  { name: '0014_access', up: access.up, down: access.down },
  { name: '0015_optional_default_model', up: optionalDefaultModel.up, down: optionalDefaultModel.down },
  { name: '0016_responses_dialect', up: responsesDialect.up, down: responsesDialect.down },
  { name: '0017_wire_api', up: wireApi.up, down: wireApi.down },
  { name: '0018_model_capabilities', up: modelCapabilities.up, down: modelCapabilities.down },
  { name: '0019_price_tiers', up: priceTiers.up, down: priceTiers.down },
  { name: '0020_usage', up: usage.up, down: usage.down },
  { name: '0021_budgets', up: budgets.up, down: budgets.down },
  { name: '0022_experiments', up: experiments.up, down: experiments.down },
];
