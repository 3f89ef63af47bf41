import { execFileSync } from 'node:child_process';
import type pg from 'pg';
import { withClient } from './sql.js';

/*
 * A database of the original Python system, which agentllm imports: tables created by Alembic, times without a zone,
 * and defaults that exist only in Python.
 */

/** The number of Alembic migrations that are applied; `4` is all of them. */
export type Applied = 1 | 2 | 3 | 4;

const REVISIONS = ['ac7a9a8391bc', 'plugin_agent_fields', 'add_trading_session_risk', 'add_agent_llm_configs'];

const STAMPS = `created_at timestamp without time zone not null, updated_at timestamp without time zone not null`;

const STEPS: readonly string[] = [
  `create table agent_configs (
     id serial, name varchar(255) not null, agent_type varchar(50) not null, llm_provider varchar(50) not null,
     llm_model varchar(100) not null, temperature double precision not null, max_tokens integer,
     config_json varchar, is_active boolean not null, ${STAMPS}, description varchar(1000), metadata_json varchar,
     primary key (id));
   create unique index ix_agent_configs_name on agent_configs (name);
   create index ix_agent_configs_agent_type on agent_configs (agent_type);
   create index ix_agent_configs_is_active on agent_configs (is_active);
   create table portfolios (
     id serial primary key, name varchar(255) not null, description varchar(1000),
     initial_capital double precision not null, current_capital double precision not null,
     currency varchar(3) not null, ${STAMPS}, metadata_json varchar);
   create unique index ix_portfolios_name on portfolios (name);
   create table run_logs (
     id serial primary key, session_id varchar(255) not null, run_type varchar(50) not null,
     status varchar(20) not null, symbols varchar(500), start_date timestamp, end_date timestamp,
     started_at timestamp not null, completed_at timestamp, duration_seconds double precision, result_summary varchar,
     error_message varchar, total_trades integer not null, successful_trades integer not null,
     total_pnl double precision, agent_config_snapshot varchar, ${STAMPS}, metadata_json varchar);
   create index ix_run_logs_session_id on run_logs (session_id);
   create table vendor_configs (
     id serial primary key, name varchar(255) not null, vendor_type varchar(50) not null,
     provider varchar(100) not null, api_endpoint varchar(500), api_key_ref varchar(255), config_json varchar,
     rate_limit_per_minute integer, rate_limit_per_day integer, is_active boolean not null, ${STAMPS},
     description varchar(1000), metadata_json varchar);
   create unique index ix_vendor_configs_name on vendor_configs (name);
   create table positions (
     id serial primary key, portfolio_id integer not null references portfolios (id), symbol varchar(20) not null,
     quantity double precision not null, average_cost double precision not null, current_price double precision,
     unrealized_pnl double precision not null, realized_pnl double precision not null,
     position_type varchar(10) not null, entry_date timestamp not null, ${STAMPS}, metadata_json varchar);
   create table trades (
     id serial primary key, portfolio_id integer not null references portfolios (id), symbol varchar(20) not null,
     action varchar(10) not null, quantity double precision not null, order_type varchar(20) not null,
     limit_price double precision, stop_price double precision, status varchar(20) not null,
     filled_quantity double precision not null, average_fill_price double precision, filled_at timestamp,
     decision_rationale varchar, confidence_score double precision, ${STAMPS}, metadata_json varchar);
   create table executions (
     id serial primary key, trade_id integer not null references trades (id), symbol varchar(20) not null,
     quantity double precision not null, price double precision not null, execution_type varchar(20) not null,
     commission double precision not null, fees double precision not null, exchange varchar(50),
     execution_id varchar(100), executed_at timestamp not null, ${STAMPS}, metadata_json varchar);
   create unique index ix_executions_execution_id on executions (execution_id);`,

  `alter table agent_configs
     add role varchar(50) not null default 'analyst', add llm_type varchar(20) not null default 'quick',
     add prompt_template text, add capabilities_json text, add required_tools_json text,
     add requires_memory boolean not null default false, add memory_name varchar(100),
     add is_reserved boolean not null default true, add slot_name varchar(50),
     add version varchar(20) not null default '1.0.0';
   create index ix_agent_configs_role on agent_configs (role);
   create index ix_agent_configs_slot_name on agent_configs (slot_name);`,

  `create table trading_sessions (
     id serial primary key, portfolio_id integer not null references portfolios (id),
     session_type varchar(20) not null, status varchar(20) not null, name varchar(255), description varchar(1000),
     max_position_size double precision, max_portfolio_exposure double precision,
     stop_loss_percentage double precision, take_profit_percentage double precision,
     starting_capital double precision not null, current_capital double precision not null,
     total_pnl double precision not null, total_trades integer not null, winning_trades integer not null,
     losing_trades integer not null, started_at timestamp, stopped_at timestamp, ${STAMPS}, metadata_json varchar);
   create table risk_metrics (
     id serial primary key, portfolio_id integer not null references portfolios (id),
     session_id integer references trading_sessions (id), var_1d_95 double precision, var_1d_99 double precision,
     var_5d_95 double precision, var_5d_99 double precision, portfolio_value double precision not null,
     portfolio_volatility double precision, sharpe_ratio double precision, max_drawdown double precision,
     largest_position_weight double precision, top5_concentration double precision,
     number_of_positions integer not null, total_exposure double precision not null,
     long_exposure double precision not null, short_exposure double precision not null,
     net_exposure double precision not null, market_beta double precision, correlation_to_spy double precision,
     measured_at timestamp not null, ${STAMPS}, metadata_json varchar);
   create index ix_risk_metrics_measured_at on risk_metrics (measured_at);`,

  // Without the foreign key, which some databases do not have, and with a column of a later version.
  `create table agent_llm_configs (
     id serial primary key, agent_id integer not null, provider varchar(50) not null,
     model_name varchar(100) not null, temperature double precision not null default 0.7, max_tokens integer,
     top_p double precision, api_key_encrypted varchar(500), fallback_provider varchar(50),
     fallback_model varchar(100), cost_per_1k_input_tokens double precision not null default 0.0,
     cost_per_1k_output_tokens double precision not null default 0.0, enabled boolean not null default true,
     created_at timestamp not null default now(), updated_at timestamp not null default now(), metadata_json varchar,
     team varchar(20) not null);
   create index ix_agent_llm_configs_agent_id on agent_llm_configs (agent_id);
   create index ix_agent_llm_configs_provider on agent_llm_configs (provider);`,
];

/** The tables that each migration creates, in an order that respects foreign keys. */
export const TABLES: readonly (readonly string[])[] = [
  ['agent_configs', 'portfolios', 'run_logs', 'vendor_configs', 'positions', 'trades', 'executions'],
  [],
  ['trading_sessions', 'risk_metrics'],
  ['agent_llm_configs'],
];

/** Times that a conversion in the zone of the server would change, two of them near clock changes. */
export const TIMES = [
  '2025-01-15 10:20:30.123456',
  '2025-03-09 02:30:00.000001',
  '2025-11-02 01:30:00',
  '1999-12-31 23:59:59.999999',
];

export const AGENTS = [
  'market_analyst',
  'social_analyst',
  'news_analyst',
  'fundamentals_analyst',
  'bull_researcher',
  'bear_researcher',
  'research_manager',
  'trader',
  'risky_analyst',
  'safe_analyst',
  'neutral_analyst',
  'risk_manager',
  // Two agents of an operator. The second one violates rules that the Python system did not enforce.
  'macro_analyst',
  'odd_analyst',
];

export interface PythonConfig {
  readonly id: number;
  readonly agent_id: number;
  readonly provider: string;
  readonly model_name: string;
  readonly [column: string]: unknown;
}

/** Configs of every kind. The ids have gaps, and the sequence of the table is lower than the highest id. */
export const CONFIGS: readonly PythonConfig[] = [
  { id: 1, agent_id: 1, provider: 'openai', model_name: 'gpt-4', temperature: 0.3, max_tokens: 2000 },
  { id: 2, agent_id: 1, provider: 'deepseek', model_name: 'deepseek-chat', enabled: false, top_p: 0 },
  { id: 4, agent_id: 2, provider: 'Anthropic', model_name: 'claude-3-opus-20240229', temperature: 0 },
  { id: 5, agent_id: 3, provider: 'xai', model_name: 'grok-beta', cost_per_1k_input_tokens: 0.005 },
  { id: 6, agent_id: 4, provider: 'OpenAI', model_name: 'gpt-4o', cost_per_1k_output_tokens: 0.01 },
  {
    id: 7,
    agent_id: 5,
    provider: 'openai',
    model_name: 'gpt-4o',
    fallback_provider: 'anthropic',
    fallback_model: 'claude-3-haiku-20240307',
    metadata_json: '{"desk": "a"}',
  },
  { id: 8, agent_id: 6, provider: 'openai', model_name: 'gpt-4', enabled: false },
  // Configs that violate rules.
  { id: 10, agent_id: 7, provider: 'openai', model_name: 'gpt-4', temperature: 5 },
  { id: 11, agent_id: 7, provider: 'openai', model_name: 'gpt-4', fallback_provider: 'claude' },
  { id: 12, agent_id: 8, provider: '', model_name: 'gpt-4', max_tokens: 0 },
  {
    id: 13,
    agent_id: 9,
    provider: 'anthropic',
    model_name: 'claude-3-haiku-20240307',
    fallback_provider: 'claude',
    fallback_model: 'claude-3-haiku-20240307',
  },
  { id: 14, agent_id: 10, provider: 'openai', model_name: 'gpt-4', temperature: 'NaN', top_p: 'Infinity' },
  { id: 15, agent_id: 10, provider: 'llamafarm', model_name: 'llama-9', cost_per_1k_input_tokens: -1 },
  // Configs whose agents do not exist.
  { id: 20, agent_id: 99, provider: 'openai', model_name: 'gpt-4' },
  { id: 21, agent_id: 98, provider: 'claude', model_name: 'claude-3-opus-20240229' },
];
export const ORPHANS = [20, 21];

/** Creates the tables of the applied migrations and fills them. */
export async function makePythonDatabase(url: string, applied: Applied = 4): Promise<void> {
  await withClient(url, async (client) => {
    // A database whose time zone is not UTC, as on a developer's machine.
    await client.query(`do $$ begin execute format('alter database %I set timezone = ''America/New_York''',
      current_database()); end $$`);
    await client.query('create table alembic_version (version_num varchar(32) primary key)');
    await client.query('insert into alembic_version values ($1)', [REVISIONS[applied - 1]]);
    for (const step of STEPS.slice(0, applied)) await client.query(step);
    await fill(client, applied);
  });
}

async function fill(client: pg.Client, applied: Applied): Promise<void> {
  for (const [at, name] of AGENTS.entries()) {
    const odd = name === 'odd_analyst';
    await insert(client, 'agent_configs', {
      name,
      agent_type: 'analyst',
      llm_provider: odd ? 'Anthropic' : 'openai',
      llm_model: odd ? 'claude-3-opus-20240229' : 'gpt-4o-mini',
      temperature: odd ? 3 : 0.7,
      max_tokens: odd ? 0 : null,
      is_active: true,
      created_at: TIMES[at % TIMES.length],
      updated_at: TIMES[(at + 1) % TIMES.length],
      metadata_json: name === 'trader' ? '{"seat": 7}' : null,
      ...(applied >= 2 && { role: name, is_reserved: at < 12, requires_memory: at === 7 }),
    });
  }
  const stamps = { created_at: TIMES[0], updated_at: TIMES[1] };
  const money = { initial_capital: 1000.5, current_capital: 999.25, currency: 'USD' };
  await insert(client, 'portfolios', { name: 'main', ...money, ...stamps });
  const run = { session_id: 's1', run_type: 'backtest', status: 'done', total_trades: 3, successful_trades: 2 };
  await insert(client, 'run_logs', { ...run, started_at: TIMES[2], start_date: TIMES[3], ...stamps });
  const vendor = { name: 'yahoo', vendor_type: 'prices', provider: 'yahoo', is_active: true };
  await insert(client, 'vendor_configs', { ...vendor, ...stamps });
  const position = { quantity: 1.5, average_cost: 2.5, unrealized_pnl: 0, realized_pnl: 0, position_type: 'long' };
  await insert(client, 'positions', { portfolio_id: 1, symbol: 'NVDA', ...position, entry_date: TIMES[2], ...stamps });
  const trade = { action: 'buy', quantity: 1.5, order_type: 'market', status: 'filled', filled_quantity: 1.5 };
  await insert(client, 'trades', { portfolio_id: 1, symbol: 'NVDA', ...trade, filled_at: TIMES[1], ...stamps });
  const execution = { quantity: 1.5, price: 2.5, execution_type: 'fill', commission: 0, fees: 0, execution_id: 'e1' };
  await insert(client, 'executions', { trade_id: 1, symbol: 'NVDA', ...execution, executed_at: TIMES[3], ...stamps });
  if (applied < 3) return;
  const session = { starting_capital: 1, current_capital: 2, total_pnl: 1, total_trades: 1, winning_trades: 1 };
  const kinds = { session_type: 'paper', status: 'open', losing_trades: 0, started_at: TIMES[2] };
  await insert(client, 'trading_sessions', { portfolio_id: 1, ...kinds, ...session, ...stamps });
  const exposure = { total_exposure: 1, long_exposure: 1, short_exposure: 0, net_exposure: 1 };
  const risk = { portfolio_id: 1, session_id: 1, portfolio_value: 9, number_of_positions: 1, ...exposure };
  await insert(client, 'risk_metrics', { ...risk, measured_at: TIMES[1], ...stamps });
  if (applied < 4) return;
  for (const [at, config] of CONFIGS.entries()) {
    const times = { created_at: TIMES[at % TIMES.length], updated_at: TIMES[(at + 2) % TIMES.length] };
    await insert(client, 'agent_llm_configs', { team: 'quant', ...times, ...config });
  }
}

async function insert(client: pg.Client, table: string, row: Readonly<Record<string, unknown>>): Promise<void> {
  const parameters = Object.keys(row).map((_, at) => `$${at + 1}`);
  await client.query(
    `insert into ${table} (${Object.keys(row).join(', ')}) values (${parameters.join(', ')})`,
    Object.values(row),
  );
}

export type Row = Readonly<Record<string, unknown>>;

/** All rows of a table as JSON of PostgreSQL, with times in UTC without the offset. */
export function readRows(url: string, table: string): Promise<Row[]> {
  return withClient(url, async (client) => {
    await client.query(`set timezone to 'UTC'`);
    const { rows } = await client.query<{ row: Row }>(`select to_jsonb(t) as row from ${table} t order by id`);
    return rows.map(({ row }) =>
      Object.fromEntries(
        Object.entries(row).map(([name, value]) => [
          name,
          typeof value === 'string' ? value.replace(/(T[\d:.]+)\+00:00$/, '$1') : value,
        ]),
      ),
    );
  });
}

/** Ciphertext that the Python package `cryptography` created with this key, for systems without Python. */
export const RECORDED = {
  encryptionKey: 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=',
  plain: {
    key: 'sk-recorded-plain',
    token:
      'gAAAAABnhv2gYQAAPH6vpajmr0SdxFfzVw23gIHqn5WEmKUfPjeFtWqCGWiDiA7PACBuHIS9yl4oS5higKzN2YzWh5SgZePMsxjvtxnmZANGDUMwPIoMUHM=',
  },
  twice: {
    key: 'sk-recorded-twice',
    token:
      'Z0FBQUFBQm5odjJnbHRIeENzMDVyT0d2TGZxdnJILVBzOXoxMDBzaHJhYk95bDd6Z20tbnFaRGtSSEtIOExwcXg2cm1oUGE3dFhpcWhwa1o1RUxHcFMyT2JkT3dQdzcweTQ3VzBCSjZPaDVITktEQVllWkF1TFU9',
  },
} as const;

/** Encrypts API keys in both formats of the Python system; undefined when `cryptography` is not installed. */
export function encryptInPython(encryptionKey: string, plain: string, twice: string) {
  const script = `
import base64, sys
from cryptography.fernet import Fernet
f = Fernet(sys.argv[1].encode())
print(f.encrypt(sys.argv[2].encode()).decode())
print(base64.b64encode(f.encrypt(sys.argv[3].encode())).decode())`;
  try {
    const output = execFileSync('python3', ['-c', script, encryptionKey, plain, twice], { stdio: 'pipe' });
    const [first = '', second = ''] = output.toString().trim().split('\n');
    return { plain: first, twice: second };
  } catch {
    return undefined;
  }
}
