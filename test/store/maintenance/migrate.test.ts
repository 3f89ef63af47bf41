import { EventEmitter, once } from 'node:events';
import knex, { type Knex } from 'knex';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { type Migration, migrations } from '../../../migrations/index.js';
import { newProvider } from '../../../src/domain/catalogue.js';
import { type Engine, openEngine } from '../../../src/store/embedded/engine.js';
import { type MigratableDatabase, migrator, SchemaMismatchError } from '../../../src/store/maintenance/migrate.js';
import { MigrationLockTimeoutError } from '../../../src/store/maintenance/migration_lock.js';
import { loadState } from '../../../src/store/write/change_log.js';
import { transact } from '../../../src/store/write/transact.js';
import { readCatalogue, readTables } from '../../support/catalogue.js';
import { useMigrators } from '../../support/migrators.js';
import { contents, openStore, replay } from '../../support/store.js';

// The tests run many processes and servers on few cores.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const NAMES = migrations.map(({ name }) => name);

const { connect, createDatabase, emptyDatabase, migratedDatabase } = useMigrators();

async function rollBackAll(database: MigratableDatabase): Promise<string[]> {
  const { down } = migrator(database);
  const rolledBack: string[] = [];
  for (let name = await down(); name !== undefined; name = await down()) rolledBack.push(name);
  return rolledBack;
}

describe('the migrator', () => {
  it('applies every migration to an empty database in order and reports each after its commit', async () => {
    const database = await emptyDatabase();
    const { up, status } = migrator(database);
    expect(await status()).toEqual({ current: undefined, applied: [], pending: NAMES, unknown: [] });
    const steps: string[] = [];
    expect(await up((name) => steps.push(name))).toEqual(NAMES);
    expect(steps).toEqual(NAMES);
    expect(await status()).toEqual({ current: NAMES.at(-1), applied: NAMES, pending: [], unknown: [] });
    expect(await up()).toEqual([]);
  });

  it('creates every table of the original Python system and of agentllm', async () => {
    const { knex: database } = await migratedDatabase();
    expect(await readTables(database)).toEqual([
      'agent_configs',
      'agent_llm_configs',
      'api_tokens',
      'audit_events',
      'config_health',
      'config_revisions',
      'encryption_keys',
      'executions',
      'idempotent_answers',
      'llm_budget_counters',
      'llm_budget_reservations',
      'llm_budgets',
      'llm_credentials',
      'llm_experiment_assignments',
      'llm_experiment_exposures',
      'llm_experiment_latency',
      'llm_experiment_outcome_sums',
      'llm_experiment_outcomes',
      'llm_experiment_runs',
      'llm_experiment_subject_outcomes',
      'llm_experiment_variants',
      'llm_experiments',
      'llm_models',
      'llm_prices',
      'llm_providers',
      'llm_usage_adjustments',
      'llm_usage_attempt_ids',
      'llm_usage_attempts',
      ...Array.from({ length: 13 }, (_, slot) => `llm_usage_attempts_${String(slot).padStart(2, '0')}`),
      'llm_usage_hourly',
      'llm_usage_losses',
      'portfolios',
      'positions',
      'risk_metrics',
      'run_logs',
      'store_seeds',
      'store_state',
      'trades',
      'trading_sessions',
      'vendor_configs',
      'watchers',
    ]);
  });

  it('rolls back one migration at a time, and none when none is applied', async () => {
    const database = await migratedDatabase();
    expect(await rollBackAll(database)).toEqual(NAMES.toReversed());
    expect(await readTables(database.knex)).toEqual([]);
    expect(await migrator(database).down()).toBeUndefined();
  });

  it('restores an identical database catalogue when all migrations are rolled back and reapplied', async () => {
    const database = await migratedDatabase();
    const before = await readCatalogue(database.knex);
    expect(before.length).toBeGreaterThan(300);
    await rollBackAll(database);
    await migrator(database).up();
    expect(await readCatalogue(database.knex)).toEqual(before);
  });

  it.each(NAMES.map((name, index) => [name, index] as const))(
    'restores the database catalogue when %s is rolled back and reapplied',
    async (_name, index) => {
      const database = await migratedDatabase(index);
      const before = index === 0 ? undefined : await readCatalogue(database.knex);
      const { up, down } = migrator(database, { migrations: migrations.slice(0, index + 1) });
      await up();
      const after = await readCatalogue(database.knex);
      await down();
      if (before === undefined) expect(await readTables(database.knex)).toEqual([]);
      else expect(await readCatalogue(database.knex)).toEqual(before);
      await up();
      expect(await readCatalogue(database.knex)).toEqual(after);
    },
  );

  it('keeps agents and configs when migrations are rolled back to the Python schema and reapplied', async () => {
    const database = await migratedDatabase();
    const agentId = await insertAgent(database.knex);
    await insertConfig(database.knex, agentId, { cost_per_1k_input_tokens: 0.03, price_given: true, revision: 7 });
    await insertConfig(database.knex, agentId, { provider: 'claude', revision: 8 });
    const { down, status, up } = migrator(database);
    while ((await status()).current !== '0004_add_agent_llm_configs') await down();
    await up();
    const rows = await database.knex('agent_llm_configs').select('price_given', 'revision', 'priority').orderBy('id');
    expect(rows).toEqual([
      { price_given: true, revision: '0', priority: 0 },
      { price_given: false, revision: '0', priority: 0 },
    ]);
  });

  it('gives each provider the wire API of its dialect, and keeps Responses when it is rolled back', async () => {
    const before = NAMES.indexOf('0017_wire_api');
    const { knex: database, ...rest } = await migratedDatabase(before);
    const dialects = ['OPENAI', 'OPENAI_COMPATIBLE', 'OPENAI_RESPONSES', 'ANTHROPIC'];
    const row = (dialect: string) => ({
      name: dialect.toLowerCase(),
      dialect: `DIALECT_${dialect}`,
      base_url: 'https://x',
    });
    await database('llm_providers').insert(dialects.map(row));
    const { up, down } = migrator({ ...rest, knex: database }, { migrations: migrations.slice(0, before + 1) });
    await up();
    const apis = () => database('llm_providers').orderBy('id').select('dialect', 'wire_api');
    expect((await apis()).map(({ wire_api }) => wire_api)).toEqual([
      'WIRE_API_CHAT_COMPLETIONS',
      'WIRE_API_CHAT_COMPLETIONS',
      'WIRE_API_RESPONSES',
      'WIRE_API_MESSAGES',
    ]);
    await database('llm_providers').where({ name: 'openai_compatible' }).update({ wire_api: 'WIRE_API_RESPONSES' });
    await down();
    expect(await database('llm_providers').orderBy('id').pluck('dialect')).toEqual([
      'DIALECT_OPENAI',
      'DIALECT_OPENAI_RESPONSES',
      'DIALECT_OPENAI_RESPONSES',
      'DIALECT_ANTHROPIC',
    ]);
    await up();
    expect((await apis())[1]).toEqual({ dialect: 'DIALECT_OPENAI_RESPONSES', wire_api: 'WIRE_API_RESPONSES' });
  });

  it('lists the history with the times of the applied migrations', async () => {
    const database = await migratedDatabase(2);
    const history = await migrator(database).history();
    expect(history.map(({ name }) => name)).toEqual(NAMES);
    expect(history.map(({ appliedAt }) => appliedAt instanceof Date)).toEqual([
      true,
      true,
      ...NAMES.slice(2).map(() => false),
    ]);
  });
});

describe('the migrated schema', () => {
  it('contains every column of agent_llm_configs with its default', async () => {
    const { knex: database } = await migratedDatabase(4);
    expect(await columnsOf(database, 'agent_llm_configs')).toEqual([
      ['id', 'integer', 'not null', "nextval('agent_llm_configs_id_seq'::regclass)"],
      ['agent_id', 'integer', 'not null', null],
      ['provider', 'character varying(50)', 'not null', null],
      ['model_name', 'character varying(100)', 'not null', null],
      ['temperature', 'double precision', 'null', "'0.7'::double precision"],
      ['max_tokens', 'integer', 'null', null],
      ['top_p', 'double precision', 'null', null],
      ['api_key_encrypted', 'character varying(500)', 'null', null],
      ['fallback_provider', 'character varying(50)', 'null', null],
      ['fallback_model', 'character varying(100)', 'null', null],
      ['cost_per_1k_input_tokens', 'double precision', 'not null', "'0'::double precision"],
      ['cost_per_1k_output_tokens', 'double precision', 'not null', "'0'::double precision"],
      ['enabled', 'boolean', 'not null', 'true'],
      ['created_at', 'timestamp with time zone', 'not null', 'CURRENT_TIMESTAMP'],
      ['updated_at', 'timestamp with time zone', 'not null', 'CURRENT_TIMESTAMP'],
      ['metadata_json', 'text', 'null', null],
    ]);
  });

  it('sets the defaults of agent_llm_configs when a row is inserted without values', async () => {
    const { knex: database } = await migratedDatabase();
    const agentId = await insertAgent(database);
    const config = await insertConfig(database, agentId, {});
    expect(config).toMatchObject({
      temperature: 0.7,
      max_tokens: null,
      top_p: null,
      api_key_encrypted: null,
      fallback_provider: null,
      fallback_model: null,
      cost_per_1k_input_tokens: 0,
      cost_per_1k_output_tokens: 0,
      enabled: true,
      created_at: expect.any(Date),
      updated_at: expect.any(Date),
      metadata_json: null,
      priority: 0,
      revision: '0',
      extra_params: null,
      price_given: false,
      key_id: null,
      credential_id: null,
    });
  });

  it('contains the indexes and the foreign key of agent_llm_configs, extended by later migrations', async () => {
    const database = await migratedDatabase(4);
    const pythonIndexes = [
      ['agent_llm_configs_pkey', '(id)'],
      ['ix_agent_llm_configs_agent_id', '(agent_id)'],
      ['ix_agent_llm_configs_enabled', '(enabled)'],
      ['ix_agent_llm_configs_provider', '(provider)'],
    ];
    expect(await indexesOf(database.knex, 'agent_llm_configs')).toEqual(pythonIndexes);
    await migrator(database).up();
    expect(await indexesOf(database.knex, 'agent_llm_configs')).toEqual(
      [
        ...pythonIndexes,
        ['ix_agent_llm_configs_chain', '(agent_id, enabled, priority, id)'],
        ['ix_agent_llm_configs_credential_id', '(credential_id)'],
      ].sort(),
    );
    const { rows } = await database.knex.raw<{ rows: unknown[] }>(
      `select conname, pg_get_constraintdef(oid) as definition from pg_constraint
       where contype = 'f' and conrelid = 'agent_llm_configs'::regclass order by conname`,
    );
    expect(rows).toEqual([
      {
        conname: 'agent_llm_configs_agent_id_fkey',
        definition: 'FOREIGN KEY (agent_id) REFERENCES agent_configs(id)',
      },
      {
        conname: 'agent_llm_configs_credential_id_fkey',
        definition: 'FOREIGN KEY (credential_id) REFERENCES llm_credentials(id)',
      },
    ]);
  });

  it('rejects a config of an unknown agent and the deletion of an agent that has configs', async () => {
    const { knex: database } = await migratedDatabase();
    await expect(insertConfig(database, 999, {})).rejects.toMatchObject({ code: '23503' });
    const agentId = await insertAgent(database);
    await insertConfig(database, agentId, {});
    await expect(database('agent_configs').where({ id: agentId }).delete()).rejects.toMatchObject({ code: '23503' });
  });

  it('contains agent_configs as after the second Python migration, with unique names', async () => {
    const { knex: database } = await migratedDatabase(2);
    const id = await insertAgent(database);
    expect(await database('agent_configs').where({ id }).first()).toMatchObject({
      role: 'analyst',
      llm_provider: 'openai',
      llm_model: 'gpt-4o-mini',
      llm_type: 'quick',
      temperature: 0.7,
      max_tokens: null,
      requires_memory: false,
      is_reserved: true,
      is_active: true,
      version: '1.0.0',
    });
    expect((await indexesOf(database, 'agent_configs')).map(([name]) => name)).toEqual([
      'agent_configs_pkey',
      'ix_agent_configs_agent_type',
      'ix_agent_configs_is_active',
      'ix_agent_configs_name',
      'ix_agent_configs_role',
      'ix_agent_configs_slot_name',
    ]);
    await expect(insertAgent(database)).rejects.toMatchObject({ code: '23505', constraint: 'ix_agent_configs_name' });
  });

  it('contains an index on the column of every foreign key', async () => {
    const { knex: database } = await migratedDatabase();
    const { rows } = await database.raw<{ rows: unknown[] }>(
      `select c.conrelid::regclass::text as table, c.conname from pg_constraint c
       where c.contype = 'f' and not exists (
         select from pg_index i where i.indrelid = c.conrelid and i.indkey[0] = c.conkey[1])`,
    );
    expect(rows).toEqual([]);
  });
});

describe('CHECK constraints', () => {
  let database: Knex;
  let agentId: number;

  beforeAll(async () => {
    const url = await createDatabase();
    // Not opened by connect(), because this connection is used by several tests.
    database = knex({ client: 'pg', connection: { connectionString: url }, pool: { min: 0, max: 1 } });
    await migrator({ knex: database, kind: 'postgres', url }).up();
    agentId = await insertAgent(database);
  });

  afterAll(async () => {
    await database.destroy();
  });

  it.each<[string, string, Record<string, unknown>]>([
    ['temperature NaN', 'temperature', { temperature: NaN }],
    ['temperature Infinity', 'temperature', { temperature: Infinity }],
    ['temperature -Infinity', 'temperature', { temperature: -Infinity }],
    ['temperature 2.0000001', 'temperature', { temperature: 2.0000001 }],
    ['temperature -1e-9', 'temperature', { temperature: -1e-9 }],
    ['top_p NaN', 'top_p', { top_p: NaN }],
    ['top_p 1.0000001', 'top_p', { top_p: 1.0000001 }],
    ['top_p -Infinity', 'top_p', { top_p: -Infinity }],
    ['max_tokens 0', 'max_tokens', { max_tokens: 0 }],
    ['input cost NaN', 'input_cost', { cost_per_1k_input_tokens: NaN }],
    ['input cost Infinity', 'input_cost', { cost_per_1k_input_tokens: Infinity }],
    ['input cost -0.01', 'input_cost', { cost_per_1k_input_tokens: -0.01 }],
    ['output cost 1000000.1', 'output_cost', { cost_per_1k_output_tokens: 1000000.1 }],
    ['output cost -Infinity', 'output_cost', { cost_per_1k_output_tokens: -Infinity }],
    ['a fallback provider alone', 'fallback_pair', { fallback_provider: 'claude' }],
    ['a fallback model alone', 'fallback_pair', { fallback_model: 'gpt-4o' }],
    ['an empty fallback', 'fallback_empty', { fallback_provider: 'claude', fallback_model: '' }],
    ['the primary as fallback', 'fallback_differs', { fallback_provider: 'openai', fallback_model: 'gpt-4' }],
    ['priority 1000001', 'priority', { priority: 1_000_001 }],
    ['priority -1000001', 'priority', { priority: -1_000_001 }],
    ['an empty provider', 'provider', { provider: '' }],
    ['an empty model', 'model_name', { model_name: '' }],
  ])('reject %s', async (_what, constraint, values) => {
    await expect(insertConfig(database, agentId, values)).rejects.toMatchObject({
      code: '23514',
      constraint: `ck_agent_llm_configs_${constraint}`,
    });
  });

  it.each<[string, Record<string, unknown>]>([
    ['the lower bounds', { temperature: 0, top_p: 0, max_tokens: 1, priority: -1_000_000 }],
    ['the upper bounds', { temperature: 2, top_p: 1, cost_per_1k_input_tokens: 1_000_000, priority: 1_000_000 }],
    ['a temperature of NULL', { temperature: null }],
    ['a fallback of the same provider', { fallback_provider: 'openai', fallback_model: 'gpt-4o' }],
    ['a fallback of the same model', { fallback_provider: 'azure', fallback_model: 'gpt-4' }],
  ])('accept %s', async (_what, values) => {
    await expect(insertConfig(database, agentId, values)).resolves.toMatchObject(values);
  });

  it.each<[string, Record<string, unknown>]>([
    ['substitution_policy', { substitution_policy: 'SUBSTITUTION_POLICY_UNSPECIFIED' }],
    ['llm_type', { llm_type: 'slow' }],
    ['temperature', { temperature: NaN }],
    ['max_tokens', { max_tokens: 0 }],
    ['name', { name: '' }],
  ])('reject an invalid %s of an agent', async (column, values) => {
    await expect(database('agent_configs').where({ id: agentId }).update(values)).rejects.toMatchObject({
      code: '23514',
      constraint: `ck_agent_configs_${column}`,
    });
  });

  it('limit store_state to one row', async () => {
    const rows = await database('store_state').select();
    const uuid = expect.stringMatching(/^[0-9a-f-]{36}$/);
    const uuids = { identity: uuid, nonce: uuid, previous_nonce: uuid };
    expect(rows).toEqual([{ ...uuids, id: 1, revision: '0', history_from: '0', hash_key: expect.any(Buffer) }]);
    expect(rows[0].hash_key).toHaveLength(32);
    await expect(database('store_state').insert({ ...rows[0], id: 2 })).rejects.toMatchObject({
      constraint: 'ck_store_state_one_row',
    });
  });

  it('reject a provider whose lists are not JSON arrays, such as an empty JavaScript array', async () => {
    const wire_api = 'WIRE_API_CHAT_COMPLETIONS';
    const provider = { name: 'mine', dialect: 'DIALECT_OPENAI', wire_api, base_url: 'https://llm.example.com/v1' };
    await expect(database('llm_providers').insert({ ...provider, aliases: [] })).rejects.toMatchObject({
      constraint: 'ck_llm_providers_aliases',
    });
    await expect(database('llm_providers').insert({ ...provider, name: 'Mine' })).rejects.toMatchObject({
      constraint: 'ck_llm_providers_name',
    });
    await expect(
      database('llm_providers').insert({ ...provider, dialect: 'DIALECT_UNSPECIFIED' }),
    ).rejects.toMatchObject({ constraint: 'ck_llm_providers_dialect' });
  });

  it.each([
    ['DIALECT_OPENAI', 'WIRE_API_MESSAGES'],
    ['DIALECT_OPENAI_RESPONSES', 'WIRE_API_CHAT_COMPLETIONS'],
    ['DIALECT_ANTHROPIC', 'WIRE_API_CHAT_COMPLETIONS'],
    ['DIALECT_OPENAI', 'WIRE_API_UNSPECIFIED'],
  ])('reject a provider of %s with %s', async (dialect, wire_api) => {
    const provider = { name: 'paired', dialect, wire_api, base_url: 'https://llm.example.com/v1' };
    await expect(database('llm_providers').insert(provider)).rejects.toMatchObject({
      constraint: 'ck_llm_providers_wire_api',
    });
  });

  it('reject negative prices and a second price of a model with the same valid_from', async () => {
    const api = { dialect: 'DIALECT_ANTHROPIC', wire_api: 'WIRE_API_MESSAGES' };
    await database('llm_providers').insert({ name: 'priced', ...api, base_url: 'https://x' });
    const [model] = await database('llm_models').insert({ provider: 'priced', name: 'm' }).returning('id');
    const price = { model_id: model.id, valid_from: '2025-01-01T00:00:00Z', input_micro_usd_per_million: '30000000' };
    await database('llm_prices').insert(price);
    await expect(database('llm_prices').insert(price)).rejects.toMatchObject({ code: '23505' });
    await expect(
      database('llm_prices').insert({ ...price, valid_from: '2025-02-01', output_micro_usd_per_million: -1 }),
    ).rejects.toMatchObject({ constraint: 'ck_llm_prices_output' });
  });
});

describe('a seeded store', () => {
  it('agrees with its change log after the newest migrations were rolled back and reapplied', async () => {
    const { database, store, close } = await openStore({ content: 'seeded' });
    onTestFinished(close);
    await transact(store, {
      actor: 'test',
      method: 'test',
      requestId: undefined,
      reason: undefined,
      plan: (_, draft) =>
        draft.create('provider', {
          ...newProvider(),
          name: 'gateway',
          dialect: 'DIALECT_OPENAI_COMPATIBLE',
          wire_api: 'WIRE_API_RESPONSES',
          base_url: 'https://llm.example.com',
        }),
      encodeResponse: () => new Uint8Array(),
      body: () => new Uint8Array(),
    });
    const before = contents(await loadState(database.knex));
    const { down, up, status } = migrator(database);
    while ((await status()).current !== '0016_responses_dialect') await down();
    await up();
    expect(contents(await loadState(database.knex))).toEqual(before);
    expect(contents(await replay(database))).toEqual(before);
  });
});

describe('the migration lock', () => {
  it('makes a migrator fail with MigrationLockTimeoutError when it is held longer than lockWaitMs', async () => {
    const url = await createDatabase();
    const blocked = blockingMigration();
    const holder = migrator(connect(url), { migrations: [blocked.migration] }).up();
    await blocked.started;
    const waiting = migrator(connect(url), { migrations: [blocked.migration], lockWaitMs: 250 });
    await expect(waiting.up()).rejects.toThrow(MigrationLockTimeoutError);
    blocked.release();
    expect(await holder).toEqual(['9000_slow']);
    expect(await waiting.up()).toEqual([]);
  });

  it('is acquired through DATABASE_DIRECT_URL when it is set', async () => {
    const url = await createDatabase();
    const directUrl = Object.assign(new URL(url), { pathname: '/nowhere' }).href;
    await expect(migrator({ ...connect(url), directUrl }).up()).rejects.toThrow(
      /^DATABASE_DIRECT_URL: .* has no database "nowhere"/,
    );
    expect(await migrator({ ...connect(url), directUrl: url }).up()).toEqual(NAMES);
  });

  it('does not depend on the lock row of Knex, which a killed process leaves locked', async () => {
    const database = await migratedDatabase(7);
    await database.knex('knex_migrations_lock').update({ is_locked: 1 });
    expect(await migrator(database).up()).toEqual(NAMES.slice(7));
    await database.knex('knex_migrations_lock').update({ is_locked: 1 });
    expect(await migrator({ ...database, kind: 'embedded' }).down()).toBe(NAMES.at(-1));
    expect(await database.knex('knex_migrations_lock').select('is_locked')).toEqual([{ is_locked: 0 }]);
  });
});

describe('a schema that does not match the code', () => {
  const NEWER = [
    '0011_history',
    '0012_watchers',
    '0013_audit_events',
    '0014_access',
    '0015_optional_default_model',
    '0016_responses_dialect',
    '0017_wire_api',
    '0018_model_capabilities',
    '0019_price_tiers',
    '0020_usage',
    '0021_budgets',
    '0022_experiments',
  ];

  it('is rejected with the names of the unknown migrations when it is newer', async () => {
    const database = await migratedDatabase();
    const before = await readCatalogue(database.knex);
    const old = migrator(database, { migrations: migrations.slice(0, -NEWER.length) });
    expect((await old.status()).unknown).toEqual(NEWER);
    for (const attempt of [old.check, old.up, old.down]) {
      const error = await attempt().then(String, (reason: unknown) => reason);
      expect(error).toBeInstanceOf(SchemaMismatchError);
      expect(error).toMatchObject({ kind: 'newer', migrations: NEWER });
      expect(String(error)).toMatch(new RegExp(`newer than this program.*${NEWER.join(', ')}`));
    }
    expect((await old.history()).slice(-NEWER.length)).toEqual(
      NEWER.map((name) => ({ name, appliedAt: expect.any(Date) })),
    );
    expect(await readCatalogue(database.knex)).toEqual(before);
  });

  it('is rejected for pending migrations only when the check requests it', async () => {
    const database = await emptyDatabase();
    const { check, up } = migrator(database);
    await expect(check()).resolves.toBeUndefined();
    await expect(check({ pending: true })).rejects.toMatchObject({ kind: 'older', migrations: NAMES });
    expect(await readCatalogue(database.knex)).toEqual([]);
    await up();
    await expect(check({ pending: true })).resolves.toBeUndefined();
  });

  it('keeps the migrations before a failing one, which is rolled back and named in the error', async () => {
    const database = await emptyDatabase();
    const printed = (['log', 'warn', 'error'] as const).map((method) => vi.spyOn(console, method));
    onTestFinished(() => {
      for (const spy of printed) spy.mockRestore();
    });
    const failing: Migration = {
      name: '9001_fails',
      up: async (trx) => {
        await trx.raw('create table half_done (id int)');
        await trx.raw('select 1 / 0');
      },
      down: async () => undefined,
    };
    const list = [...migrations.slice(0, 2), failing];
    await expect(migrator(database, { migrations: list }).up()).rejects.toMatchObject({
      message: expect.stringMatching(/^Migration 9001_fails failed: .*division by zero/),
      cause: { code: '22012' },
    });
    for (const spy of printed) expect(spy).not.toHaveBeenCalled();
    expect((await migrator(database).status()).applied).toEqual(NAMES.slice(0, 2));
    expect(await database.knex.schema.hasTable('half_done')).toBe(false);
    expect(await migrator(database).up()).toEqual(NAMES.slice(2));
  });
});

describe('the migrator on the embedded engine', () => {
  let engine: Engine;
  let embedded: MigratableDatabase;

  beforeAll(async () => {
    engine = await openEngine({ dataDir: undefined });
    const connection = { user: 'postgres', database: 'postgres', stream: () => engine.connect() };
    embedded = { knex: knex({ client: 'pg', connection, pool: { min: 0, max: 1 } }), kind: 'embedded' };
  });

  afterAll(async () => {
    await embedded.knex.destroy();
    await engine.close();
  });

  it('restores the catalogue, equal to that of PostgreSQL, when all migrations are reapplied', async () => {
    const { up } = migrator(embedded);
    expect(await up()).toEqual(NAMES);
    const before = await readCatalogue(embedded.knex);
    expect(await rollBackAll(embedded)).toEqual(NAMES.toReversed());
    expect(await readTables(embedded.knex)).toEqual([]);
    expect(await up()).toEqual(NAMES);
    expect(await readCatalogue(embedded.knex)).toEqual(before);
    expect(before).toEqual(await readCatalogue((await migratedDatabase()).knex));
  });

  it('reapplies each migration after its rollback', async () => {
    await rollBackAll(embedded);
    for (const index of NAMES.keys()) {
      const { up, down } = migrator(embedded, { migrations: migrations.slice(0, index + 1) });
      await up();
      const after = await readCatalogue(embedded.knex);
      expect(await down()).toBe(NAMES[index]);
      expect(await up()).toEqual([NAMES[index]]);
      expect(await readCatalogue(embedded.knex)).toEqual(after);
    }
  });

  it('enforces the same constraints as PostgreSQL', async () => {
    await migrator(embedded).up();
    const agentId = await insertAgent(embedded.knex);
    for (const temperature of [NaN, Infinity, -Infinity, 2.0000001]) {
      await expect(insertConfig(embedded.knex, agentId, { temperature })).rejects.toMatchObject({
        constraint: 'ck_agent_llm_configs_temperature',
      });
    }
    await expect(insertConfig(embedded.knex, agentId, { fallback_model: 'gpt-4o' })).rejects.toMatchObject({
      constraint: 'ck_agent_llm_configs_fallback_pair',
    });
  });
});

async function insertAgent(database: Knex): Promise<number> {
  const [row] = await database('agent_configs').insert({ name: 'trader', agent_type: 'trader' }).returning('id');
  return row.id;
}

async function insertConfig(
  database: Knex,
  agentId: number,
  values: Record<string, unknown>,
): Promise<Record<string, unknown>> {
  const config = { agent_id: agentId, provider: 'openai', model_name: 'gpt-4', ...values };
  const [row] = await database('agent_llm_configs').insert(config).returning('*');
  return row;
}

async function columnsOf(database: Knex, table: string): Promise<(string | null)[][]> {
  const { rows } = await database.raw<{ rows: Record<string, string | null>[] }>(
    `select a.attname, format_type(a.atttypid, a.atttypmod) as type,
       case when a.attnotnull then 'not null' else 'null' end as nullable,
       pg_get_expr(d.adbin, d.adrelid) as fallback
     from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
     where a.attrelid = ?::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum`,
    [table],
  );
  return rows.map((row) => Object.values(row));
}

async function indexesOf(database: Knex, table: string): Promise<string[][]> {
  const { rows } = await database.raw<{ rows: { name: string; definition: string }[] }>(
    'select indexname as name, indexdef as definition from pg_indexes where tablename = ? order by 1',
    [table],
  );
  return rows.map(({ name, definition }) => [name, definition.slice(definition.indexOf('('))]);
}

/** A migration that blocks until it is released. */
function blockingMigration(): { migration: Migration; started: Promise<void>; release: () => void } {
  const events = new EventEmitter();
  const started = once(events, 'started');
  const released = once(events, 'released');
  const migration: Migration = {
    name: '9000_slow',
    up: async () => {
      events.emit('started');
      await released;
    },
    down: async () => undefined,
  };
  return { migration, started: started.then(() => undefined), release: () => events.emit('released') };
}
