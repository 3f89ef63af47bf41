import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { migrations } from '../../../migrations/index.js';
import { bindingOf } from '../../../src/domain/credential.js';
import { generateKey } from '../../../src/domain/fernet.js';
import { Keyring } from '../../../src/domain/keyring.js';
import type { Config } from '../../../src/domain/rows.js';
import { type Database, openDatabase } from '../../../src/store/database.js';
import { migrator } from '../../../src/store/maintenance/migrate.js';
import { seed } from '../../../src/store/maintenance/seed.js';
import { loadState } from '../../../src/store/write/change_log.js';
import { readCatalogue, readTables } from '../../support/catalogue.js';
import { startPostgres, type TestPostgres } from '../../support/postgres.js';
import {
  AGENTS,
  type Applied,
  CONFIGS,
  encryptInPython,
  makePythonDatabase,
  ORPHANS,
  RECORDED,
  type Row,
  readRows,
  TABLES,
  TIMES,
} from '../../support/python_system.js';
import { runCommand } from '../../support/run_command.js';
import { failure, startService, type TestService } from '../../support/service.js';
import { withClient } from '../../support/sql.js';
import { contents, gapsInLog, openStore, replay } from '../../support/store.js';

let server: TestPostgres;
beforeAll(async () => {
  server = await startPostgres();
});
afterAll(() => server.stop());

async function pythonDatabase(applied: Applied = 4): Promise<string> {
  const url = await server.createDatabase();
  await makePythonDatabase(url, applied);
  return url;
}

async function onDatabase<T>(url: string, work: (database: Database) => Promise<T>): Promise<T> {
  const database = await openDatabase({ url, poolSize: 1, acquireTimeoutMs: 5_000, dataDir: 'memory:' });
  try {
    return await work(database);
  } finally {
    await database.close();
  }
}

const migrate = (url: string) => onDatabase(url, (database) => migrator(database).up());
const execute = (url: string, sql: string) => withClient(url, (client) => client.query(sql));

async function onService<T>(
  url: string,
  work: (service: TestService) => Promise<T>,
  env: Readonly<Record<string, string>> = {},
): Promise<T> {
  const service = await startService({ DATABASE_URL: url, ...env });
  try {
    return await work(service);
  } finally {
    await service.stop();
  }
}

const tablesOf = (applied: Applied) => TABLES.slice(0, applied).flat();

async function readAll(url: string, tables: readonly string[]): Promise<Record<string, Row[]>> {
  const all: Record<string, Row[]> = {};
  for (const table of tables) all[table] = await readRows(url, table);
  return all;
}

/** The rows after the import, reduced to the columns that they had before it. */
const sameColumns = (before: readonly Row[], after: readonly Row[]) =>
  after.map((row, at) => Object.fromEntries(Object.keys(before[at] ?? {}).map((column) => [column, row[column]])));

describe('rows of the original Python system', () => {
  it.each([1, 2, 3, 4] as const)(
    'are complete after the migrations when the Python migrations were applied up to step %i',
    async (applied) => {
      const url = await pythonDatabase(applied);
      const before = await readAll(url, tablesOf(applied));
      await migrate(url);
      const after = await readAll(url, tablesOf(applied));
      for (const [table, rows] of Object.entries(before)) {
        const kept = rows.filter(({ id }) => table !== 'agent_llm_configs' || !ORPHANS.includes(id as number));
        const expected = kept.map((row) =>
          row['temperature'] === 'NaN' ? { ...row, temperature: 0.7, top_p: null } : row,
        );
        expect(sameColumns(kept, after[table] ?? []), table).toEqual(expected);
        expect(after[table]?.length, table).toBe(kept.length);
      }
      expect(await onDatabase(url, ({ knex }) => knex('alembic_version').pluck('version_num'))).toHaveLength(1);
    },
  );

  it('keep their times to the microsecond, as UTC', async () => {
    const url = await pythonDatabase();
    await onService(url, async ({ agents }) => {
      const { agent } = await agents.getAgent({ agent: { name: 'market_analyst' } });
      expect(agent?.created_at?.toISOString()).toBe('2025-01-15T10:20:30.123Z');
      expect(agent?.updated_at?.toISOString()).toBe('2025-03-09T02:30:00.000Z');
    });
    const { rows } = await execute(
      url,
      `select (created_at at time zone 'UTC')::text as created, (updated_at at time zone 'UTC')::text as updated,
         to_char(created_at, 'TZH') as zone from agent_configs order by id limit 4`,
    );
    expect(rows).toEqual(
      TIMES.map((created, at) => ({
        created,
        updated: TIMES[(at + 1) % TIMES.length],
        // The server has another time zone.
        zone: expect.stringMatching(/^-0[45]$/),
      })),
    );
  });

  it('have the defaults of the Python system when a column was missing', async () => {
    const url = await pythonDatabase(1);
    await migrate(url);
    const [row] = await readRows(url, 'agent_configs');
    const defaults = {
      role: 'analyst',
      llm_type: 'quick',
      requires_memory: false,
      is_reserved: true,
      version: '1.0.0',
    };
    expect(row).toMatchObject({ ...defaults, prompt_template: null, slot_name: null });
  });

  it('keep additional columns, which do not prevent new rows', async () => {
    const url = await pythonDatabase();
    await onService(url, async ({ configs }) => {
      const agent = { name: 'macro_analyst' };
      await configs.createConfig({ agent, config: { provider: 'openai', model_name: 'gpt-4o' } });
    });
    const rows = await readRows(url, 'agent_llm_configs');
    expect(rows.map(({ team }) => team)).toEqual(rows.map(({ id }) => ((id as number) < 20 ? 'quant' : null)));
  });

  it('are followed by new ids when the sequence was too low', async () => {
    const url = await pythonDatabase();
    await onService(url, async ({ agents, configs }) => {
      const { agent } = await agents.createAgent({ agent: { name: 'new_one', agent_type: 'analyst' } });
      expect(agent?.id).toBe(AGENTS.length + 1);
      const { config } = await configs.createConfig({
        agent: { id: agent?.id as number },
        config: { provider: 'openai', model_name: 'gpt-4' },
      });
      // The highest id belonged to an orphan.
      expect(config?.id).toBeGreaterThan(Math.max(...ORPHANS));
    });
  });

  it('are served with canonical provider names', async () => {
    const url = await pythonDatabase();
    await onService(url, async ({ configs, agents }) => {
      const { config } = await configs.getPrimaryConfig({ agent: { name: 'market_analyst' } });
      expect(config).toMatchObject({ id: 1, provider: 'openai', model_name: 'gpt-4', temperature: 0.3 });
      const names = await Promise.all([4, 5, 6, 7, 15].map(async (id) => (await configs.getConfig({ id })).config));
      expect(names.map((config) => config?.provider)).toEqual(['claude', 'grok', 'openai', 'openai', 'llamafarm']);
      expect(names.map((config) => config?.price_given)).toEqual([false, true, true, false, true]);
      expect(names[3]).toMatchObject({ fallback_provider: 'claude', metadata_json: '{"desk": "a"}' });
      expect(names[0]?.temperature).toBe(0);
      for (const { id } of CONFIGS.filter((config) => !ORPHANS.includes(config.id)))
        expect((await configs.getConfig({ id })).config?.id).toBe(id);
      const { agent } = await agents.getAgent({ agent: { name: 'odd_analyst' } });
      expect(agent).toMatchObject({ llm_provider: 'claude', temperature: 3, max_tokens: 0 });
    });
  });

  it.each([1, 2, 3, 4] as const)(
    'are the only rows: no default agent or config is added after an import at step %i',
    async (applied) => {
      const url = await pythonDatabase(applied);
      await execute(
        url,
        `delete from agent_configs where name = 'news_analyst' and ${applied} < 4;
       update agent_configs set llm_provider = 'deepseek', llm_model = 'deepseek-chat' where name = 'risk_manager'`,
      );
      const agents = await readRows(url, 'agent_configs');
      for (const start of ['first', 'second'])
        await onService(url, async ({ configs }) => {
          const { resolved } = await configs.resolveConfig({ agent: { name: 'risk_manager' } });
          expect(resolved?.hops[0], start).toMatchObject({ provider: 'deepseek', model_name: 'deepseek-chat' });
        });
      const ids = (rows: readonly Row[]) => rows.map(({ id }) => id);
      expect(ids(await readRows(url, 'agent_configs'))).toEqual(ids(agents));
      const kept = CONFIGS.map(({ id }) => id).filter((id) => !ORPHANS.includes(id));
      expect(ids(await readRows(url, 'agent_llm_configs'))).toEqual(applied === 4 ? kept : []);
    },
  );

  it('are the only rows after an import that was interrupted at any of its steps', async () => {
    for (const steps of [1, 4, migrations.length]) {
      const url = await pythonDatabase();
      // The state after a process was killed when this number of migrations was committed.
      await onDatabase(url, (database) => migrator(database, { migrations: migrations.slice(0, steps) }).up());
      await onService(url, async () => {});
      const kept = CONFIGS.filter(({ id }) => !ORPHANS.includes(id));
      expect(await readRows(url, 'agent_llm_configs'), `after ${steps}`).toHaveLength(kept.length);
    }
  });

  it('get default configs from agentllm seed only with --even-imported', async () => {
    const url = await pythonDatabase();
    await onService(url, async () => {});
    const run = (...args: string[]) => runCommand(['seed', ...args], { DATABASE_URL: url });
    const count = async () => (await readRows(url, 'agent_llm_configs')).length;
    const before = await count();
    expect(await run()).toMatchObject({ code: 0, stdout: expect.stringMatching(/was imported.*--even-imported/) });
    expect(await count()).toBe(before);
    const agentsWithoutConfig =
      AGENTS.length - new Set(CONFIGS.filter(({ id }) => !ORPHANS.includes(id)).map((config) => config.agent_id)).size;
    expect(JSON.parse((await run('--even-imported', '--json')).stdout)).toMatchObject({
      default_configs: agentsWithoutConfig,
    });
    expect(await count()).toBe(before + agentsWithoutConfig);
  });
});

describe('the schema of an imported database', () => {
  /**
   * The catalogue lines that must equal those of a fresh database: without column numbers, and without the expressions
   * of checks, because they name exempt rows.
   */
  const comparable = (lines: readonly string[]) =>
    lines
      .filter((line) => !/alembic_version|adopted_(tables|orphans)|^column agent_llm_configs \d+ team /.test(line))
      .map((line) => line.replace(/^(column \S+) \d+/, '$1').replace(/^(constraint \S+ ck_\S+) .*/, '$1'))
      .sort();

  it.each([1, 2, 3, 4] as const)('equals that of a fresh database after an import at step %i', async (applied) => {
    const url = await pythonDatabase(applied);
    if (applied === 4) await execute(url, 'drop table vendor_configs');
    await migrate(url);
    const fresh = await server.createDatabase();
    await migrate(fresh);
    const read = (from: string) => onDatabase(from, async ({ knex }) => comparable(await readCatalogue(knex)));
    expect(await read(url)).toEqual(await read(fresh));
  });

  it('has the foreign keys of tables that agentllm does not serve, which imported rows can violate', async () => {
    const url = await pythonDatabase();
    await execute(
      url,
      `alter table positions drop constraint positions_portfolio_id_fkey; update positions set portfolio_id = 7;
       alter table trades drop column order_type`,
    );
    await migrate(url);
    const { findings } = await onDatabase(url, (database) => migrator(database).readImport());
    expect(findings).toContain('positions: portfolio_id refers to no row of portfolios in row 1');
    await expect(execute(url, 'update positions set portfolio_id = 8')).rejects.toMatchObject({ code: '23503' });
    expect((await readRows(url, 'positions'))[0]).toMatchObject({ portfolio_id: 7 });
    expect((await readRows(url, 'trades'))[0]).toMatchObject({ order_type: 'market' });
  });

  it('applies every check to new rows and validates none for imported rows', async () => {
    const url = await pythonDatabase();
    await migrate(url);
    const { rows } = await execute(
      url,
      `select conname, convalidated from pg_constraint where contype = 'c'
       and conrelid in ('agent_configs'::regclass, 'agent_llm_configs'::regclass)`,
    );
    expect(rows.length).toBeGreaterThan(15);
    expect(rows.filter(({ convalidated }) => convalidated)).toEqual([]);
    const invalidInsert = `insert into agent_llm_configs (agent_id, provider, model_name, temperature) values (1, 'openai', 'x', 5)`;
    await expect(execute(url, invalidInsert)).rejects.toMatchObject({ code: '23514' });
  });

  it.each([
    ['identities instead of sequences', 'generated always as identity'],
    ['no default at all', ''],
  ])('has sequences when ids had %s', async (_what, identity) => {
    const url = await pythonDatabase();
    await execute(
      url,
      `alter table agent_configs alter id drop default; drop sequence agent_configs_id_seq;
       ${identity && `alter table agent_configs alter id add ${identity}`}`,
    );
    await onService(url, async ({ agents }) => {
      const { agent } = await agents.createAgent({ agent: { name: 'new_one', agent_type: 'analyst' } });
      expect(agent?.id).toBe(AGENTS.length + 1);
    });
  });

  it('keeps the type of a column when its values are too long for the type of agentllm', async () => {
    const url = await pythonDatabase();
    await execute(
      url,
      `alter table agent_configs alter description type varchar;
       update agent_configs set description = repeat('x', 2000) where id = 1`,
    );
    await migrate(url);
    expect((await readRows(url, 'agent_configs'))[0]?.['description']).toHaveLength(2000);
    const { findings } = await onDatabase(url, (database) => migrator(database).readImport());
    expect(findings).toContainEqual(
      expect.stringMatching(/^agent_configs: column description stays character varying/),
    );
  });
});

describe('a second start after an import', () => {
  it('changes nothing', async () => {
    const url = await pythonDatabase();
    const readSchema = () =>
      onDatabase(url, async ({ knex }) => {
        const rows: Record<string, unknown> = {};
        for (const table of await readTables(knex))
          rows[table] = (await knex(table).select()).map((row) => JSON.stringify(row)).sort();
        return { catalogue: await readCatalogue(knex), rows };
      });
    await onService(url, async () => {});
    const first = await readSchema();
    await onService(url, async () => {});
    expect(await readSchema()).toEqual(first);
  });

  it('logs every row once when two replicas start at the same time', async () => {
    const url = await pythonDatabase();
    const services = await Promise.all([1, 2].map(() => startService({ DATABASE_URL: url })));
    for (const service of services) await service.stop();
    await onDatabase(url, async (database) => {
      expect(await importEntries(database)).toHaveLength(AGENTS.length + CONFIGS.length - ORPHANS.length);
      expect(await gapsInLog(database)).toEqual([]);
    });
  });
});

const importEntries = ({ knex }: Database): Promise<Row[]> =>
  knex('config_revisions').where({ method: 'database/import' }).orderBy(['revision', 'position']);

describe('the change log of an imported database', () => {
  it('contains each imported row once and reproduces the state of the tables and the memory', async () => {
    const url = await pythonDatabase();
    const opened = await openStore({ url });
    try {
      const { database, store } = opened;
      expect(await seed(store, 'missing')).toMatchObject({ adopted: AGENTS.length + CONFIGS.length - ORPHANS.length });
      expect(await seed(store, 'all')).toEqual({ catalogue: 0 });
      const entries = await importEntries(database);
      const revision = entries[0]?.['revision'];
      for (const entry of entries)
        expect(entry).toMatchObject({ revision, action: 'create', before: null, actor: 'agentllm' });
      const ids = entries.map(({ entity, entity_id }) => `${entity} ${entity_id}`);
      expect(ids).toEqual([
        ...AGENTS.map((_, at) => `agent ${at + 1}`),
        ...CONFIGS.filter(({ id }) => !ORPHANS.includes(id)).map(({ id }) => `config ${id}`),
      ]);
      const inMemory = contents(store.state);
      expect(contents(await loadState(database.knex))).toEqual(inMemory);
      expect(contents(await replay(database))).toEqual(inMemory);
      expect(await gapsInLog(database)).toEqual([]);
    } finally {
      await opened.close();
    }
  });

  it('contains the imported rows again after its migration was rolled back and reapplied', async () => {
    const url = await pythonDatabase();
    await onService(url, async () => {});
    await onDatabase(url, async (database) => {
      const { down, up, status } = migrator(database);
      while ((await status()).current !== '0004_add_agent_llm_configs') await down();
      await up();
    });
    const opened = await openStore({ url });
    await seed(opened.store, 'missing');
    expect(contents(await replay(opened.database))).toEqual(contents(opened.store.state));
    await opened.close();
  });
});

describe('imported rows that violate rules', () => {
  const RULES = [
    /agent_configs: row 14 must be corrected to satisfy: temperature/,
    /agent_configs: row 14 must be corrected to satisfy: max_tokens/,
    /agent_llm_configs: row 10 must be corrected to satisfy: temperature/,
    /agent_llm_configs: row 11 must be corrected to satisfy: \(fallback_provider is null\)/,
    /agent_llm_configs: row 12 must be corrected to satisfy: provider <> ''/,
    /agent_llm_configs: row 12 must be corrected to satisfy: max_tokens/,
    /agent_llm_configs: row 15 must be corrected to satisfy: cost_per_1k_input/,
    /agent_llm_configs: row 13 must be corrected to satisfy: \(fallback_provider, fallback_model\)/,
    /agent_llm_configs: temperature was NaN or infinite in row 14 and was set to '0.7'/,
    /agent_llm_configs: top_p was NaN or infinite in row 14 and was set to NULL/,
    /agent_llm_configs: rows 20, 21 belonged to no agent and were moved to adopted_orphans/,
    /agent_llm_configs: column team, which agentllm does not fill, is nullable now/,
  ];

  it('are reported as findings until they are corrected', async () => {
    const url = await pythonDatabase();
    await onService(url, async ({ configs }) => {
      const findings = () => onDatabase(url, async (database) => (await migrator(database).readImport()).findings);
      for (const rule of RULES) expect(await findings()).toContainEqual(expect.stringMatching(rule));
      expect(await findings()).toHaveLength(RULES.length);
      await configs.updateConfig({ config: { id: 10, temperature: 1 } });
      expect(await findings()).toHaveLength(RULES.length - 1);
    });
  });

  it('can be changed in other columns, and configs can be added to their agents', async () => {
    const url = await pythonDatabase();
    await onService(url, async ({ configs }) => {
      const { config } = await configs.updateConfig({ config: { id: 10, max_tokens: 77 } });
      expect(config).toMatchObject({ temperature: 5, max_tokens: 77 });
      // The agent violates rules as well, and its chain changes.
      const agent = { name: 'odd_analyst' };
      await configs.createConfig({ agent, config: { provider: 'openai', model_name: 'gpt-4o' } });
      const rejection = await failure(configs.updateConfig({ config: { id: 1, temperature: 5 } }));
      expect(rejection.fields).toEqual(['config.temperature']);
    });
  });

  it('do not prevent a rollback to the Python schema and a reapplication of the migrations', async () => {
    const url = await pythonDatabase();
    await onService(url, async () => {});
    await onDatabase(url, async (database) => {
      const { down, up, status, readImport } = migrator(database);
      const before = await readImport();
      while ((await status()).current !== '0004_add_agent_llm_configs') await down();
      await up();
      expect(await readImport()).toEqual(before);
    });
  });
});

describe('configs of agents that do not exist', () => {
  it('are moved to adopted_orphans, without API keys in plaintext', async () => {
    const url = await pythonDatabase();
    const before = await readRows(url, 'agent_llm_configs');
    await execute(
      url,
      `update agent_llm_configs set api_key_encrypted = '${RECORDED.plain.token}' where id = 20;
       update agent_llm_configs set api_key_encrypted = 'sk-in-clear' where id = 21`,
    );
    await migrate(url);
    const { rows } = await execute(url, 'select row_id, content from adopted_orphans order by row_id');
    expect(rows.map(({ row_id }) => row_id)).toEqual(ORPHANS);
    expect(JSON.stringify(rows)).not.toContain('sk-in-clear');
    for (const { row_id, content } of rows) {
      const { created_at, updated_at, api_key_encrypted, ...rest } = before.find(({ id }) => id === row_id) as Row;
      expect(content).toMatchObject(rest);
      expect(content.created_at).toBe(`${created_at}+00:00`);
    }
    expect(rows[0].content.api_key_encrypted).toBe(RECORDED.plain.token);
    expect(rows[1].content).not.toHaveProperty('api_key_encrypted');
    const orphan = `insert into agent_llm_configs (agent_id, provider, model_name) values (99, 'openai', 'gpt-4')`;
    await expect(execute(url, orphan)).rejects.toMatchObject({ code: '23503' });
  });
});

describe('a database that cannot be imported', () => {
  async function expectImportRejected(url: string, message: RegExp): Promise<void> {
    const readSchema = () => onDatabase(url, ({ knex }) => readCatalogue(knex));
    const before = await readSchema();
    await expect(migrate(url)).rejects.toMatchObject({ name: 'StartError', message: expect.stringMatching(message) });
    expect(await readSchema()).toEqual(before);
  }

  it('is not changed when several agents have one name', async () => {
    const url = await pythonDatabase();
    await execute(url, `drop index ix_agent_configs_name; update agent_configs set name = 'trader' where id in (3, 5)`);
    const rows = await readRows(url, 'agent_configs');
    await expectImportRejected(
      url,
      /column name of the table agent_configs must be unique.*"trader" \(rows 3, 5, 8\).*Rename or delete/,
    );
    expect(await readRows(url, 'agent_configs')).toEqual(rows);
    await execute(url, `update agent_configs set name = name || '_' || id where id in (3, 5)`);
    await migrate(url);
    expect(await readRows(url, 'agent_configs')).toHaveLength(AGENTS.length);
  });

  it('is not changed when it has a column with the name of a column that agentllm adds', async () => {
    const url = await pythonDatabase();
    await execute(url, 'alter table agent_llm_configs add priority varchar(10)');
    await expectImportRejected(url, /already has the columns priority.*rename column priority to old_priority/);
  });

  it('is not changed when it has tables of another system', async () => {
    const url = await server.createDatabase();
    await execute(url, 'create table trades (id uuid primary key, ticker text not null)');
    await expectImportRejected(url, /objects of another application .*table trades/);
    const partial = await server.createDatabase();
    await execute(partial, 'create table agent_llm_configs (id serial, agent_id int, provider text, model_name text)');
    await expectImportRejected(partial, /objects of another application .*table agent_llm_configs/);
    const other = await server.createDatabase();
    await execute(other, 'create table agent_configs (key text)');
    await expectImportRejected(other, /no column id, name, agent_type/);
  });

  it('is not changed when a view uses a column whose type changes', async () => {
    const url = await pythonDatabase();
    await execute(url, 'create view young as select name from agent_configs where created_at > now()');
    await expectImportRejected(url, /A view or a rule uses columns of agent_configs/);
  });
});

describe('a rollback of the migrations', () => {
  const NAMES = migrations.map(({ name }) => name);

  it('stops before imported tables unless dropImported is set', async () => {
    const url = await pythonDatabase();
    await onService(url, async () => {});
    await onDatabase(url, async (database) => {
      const { down, status, up } = migrator(database);
      while ((await status()).current !== '0004_add_agent_llm_configs') await down();
      await expect(down()).rejects.toThrow(/table agent_llm_configs.*--drop-imported/);
      expect((await status()).current).toBe('0004_add_agent_llm_configs');
      const undone: (string | undefined)[] = [];
      for (let at = 0; at < 4; at++) undone.push(await down({ dropImported: true }));
      expect(undone).toEqual(NAMES.slice(0, 4).toReversed());
      expect(await readTables(database.knex)).toEqual(['alembic_version']);
      expect(await up()).toEqual(NAMES);
      expect((await migrator(database).readImport()).tables).toEqual([]);
    });
  });

  it('drops tables that agentllm has created in an imported database', async () => {
    const url = await pythonDatabase(2);
    await migrate(url);
    await onDatabase(url, async (database) => {
      const { down, status } = migrator(database);
      while ((await status()).current !== '0002_plugin_agent_fields') await down();
      await expect(down()).rejects.toThrow(/table agent_configs/);
      expect(await readTables(database.knex)).not.toContain('trading_sessions');
    });
  });

  it('is executed and reported by agentllm migrate', async () => {
    const url = await pythonDatabase();
    const run = (...args: string[]) => runCommand(args, { DATABASE_URL: url });
    const up = await run('migrate', 'up');
    expect(up.stdout).toMatch(/^applied 0001_initial\n[\s\S]*^adopted {2}agent_configs, agent_llm_configs/m);
    expect(up.stdout).toMatch(/^finding {2}agent_llm_configs: row 10 must be corrected/m);
    expect((await run('migrate', 'status')).stdout).toMatch(/^finding {2}agent_llm_configs: row 10 must be corrected/m);
    const status = JSON.parse((await run('migrate', 'status', '--json')).stdout);
    expect(status).toMatchObject({ adopted: tablesOf(4).toSorted(), findings: expect.any(Array) });
    for (let at = NAMES.length; at > 4; at--) expect((await run('migrate', 'down')).code).toBe(0);
    expect(await run('migrate', 'down')).toMatchObject({ code: 1, stderr: expect.stringMatching(/--drop-imported/) });
    expect((await run('migrate', 'down', '--drop-imported')).stdout).toBe('rolled back 0004_add_agent_llm_configs\n');
  });
});

describe('API keys of the original Python system', () => {
  const { encryptionKey } = RECORDED;
  const python = encryptInPython(encryptionKey, 'sk-live-plain', 'sk-live-twice');

  /** For each config, its API key and the ciphertext that Python stored. */
  const sealed: Record<number, { readonly key: string; readonly token: string }> = {
    1: RECORDED.plain,
    4: RECORDED.twice,
    // A row that violates rules can have a key.
    10: RECORDED.plain,
  };
  if (python) {
    sealed[5] = { key: 'sk-live-plain', token: python.plain };
    sealed[6] = { key: 'sk-live-twice', token: python.twice };
  }
  const ids = Object.keys(sealed).map(Number);

  async function withKeys(): Promise<string> {
    const url = await pythonDatabase();
    for (const [id, { token }] of Object.entries(sealed))
      await execute(url, `update agent_llm_configs set api_key_encrypted = '${token}' where id = ${id}`);
    await execute(url, `update agent_llm_configs set api_key_encrypted = '' where id = 8`);
    return url;
  }

  const statesOf = ({ configs }: TestService) =>
    Promise.all(ids.map(async (id) => (await configs.getConfig({ id })).config?.api_key_state));
  const allStates = (state: string) => ids.map(() => state);

  /** The API keys that the ciphertext of agentllm contains, by config id. */
  const keysIn = (url: string) =>
    onDatabase(url, async ({ knex }) => {
      const state = await loadState(knex);
      const keyring = Keyring.parse(encryptionKey);
      const found: Record<number, string> = {};
      const stored = knex('agent_llm_configs').whereNotNull('api_key_encrypted').orderBy('id');
      for (const { id, api_key_encrypted: token } of await stored) {
        const opened = keyring.open(token, bindingOf(state, 'config', state.configs.get(id) as Config));
        found[id] = 'key' in opened ? opened.key : opened.unreadable;
      }
      return found;
    });
  const expectedKeys = Object.fromEntries(Object.entries(sealed).map(([id, { key }]) => [id, key]));

  it('are bound to their rows at the first start with the key', async () => {
    const url = await withKeys();
    await onService(
      url,
      async (service) => {
        expect(await statesOf(service)).toEqual(allStates('API_KEY_STATE_SET'));
        expect((await service.configs.getConfig({ id: 8 })).config?.api_key_state).toBe('API_KEY_STATE_NONE');
      },
      { ENCRYPTION_KEY: encryptionKey },
    );
    expect(await keysIn(url)).toEqual(expectedKeys);
    await onDatabase(url, async (database) => {
      expect(contents(await replay(database))).toEqual(contents(await loadState(database.knex)));
    });
  });

  it('are unchanged by the binding: times, revisions, etags and history entries report no new key', async () => {
    const url = await withKeys();
    const before = await readRows(url, 'agent_llm_configs');
    const env = { ENCRYPTION_KEY: encryptionKey };
    await onService(
      url,
      async ({ configs }) => {
        for (const id of ids) {
          const { config } = await configs.getConfig({ id });
          const row = before.find((row) => row['id'] === id) as Row;
          expect(config?.updated_at).toEqual(new Date(`${String(row['updated_at']).slice(0, 23)}Z`));
          const { entries } = await configs.listConfigRevisions({ config_id: id });
          const changes = entries.flatMap(({ changes }) => changes).filter(({ field }) => field === 'api_key');
          expect(changes.map(({ after_json }) => after_json)).toEqual(['"encrypted anew"', '"set"']);
          expect(config?.revision).toBe(entries.at(-1)?.revision);
        }
      },
      env,
    );
    const times = (rows: readonly Row[]) =>
      rows
        .filter(({ id }) => !ORPHANS.includes(id as number))
        .map(({ id, created_at, updated_at }) => [id, created_at, updated_at]);
    expect(times(await readRows(url, 'agent_llm_configs'))).toEqual(times(before));
  });

  it('are reported as lost when ENCRYPTION_KEY did not contain their key at the import', async () => {
    const url = await withKeys();
    const other = generateKey();
    const binding = { kind: 'credential', agentId: 0, id: 1, provider: 'x', origin: 'x' } as const;
    const otherCiphertext = Keyring.parse(other).seal('sk-other', binding, new Date());
    await execute(url, `update agent_llm_configs set api_key_encrypted = '${otherCiphertext}' where id = 2`);
    await onService(url, async () => {}, { ENCRYPTION_KEY: encryptionKey });
    const { findings } = await onDatabase(url, (database) => migrator(database).readImport());
    expect(findings).toContainEqual(
      expect.stringMatching(/the API keys of row 2 cannot be read.*Store these API keys again/),
    );
  });

  it('are reported as unreadable while ENCRYPTION_KEY is missing or wrong, and other writes succeed', async () => {
    const url = await withKeys();
    for (const ENCRYPTION_KEY of ['', generateKey(), 'malformed']) {
      await onService(
        url,
        async (service) => {
          expect(await statesOf(service)).toEqual(allStates('API_KEY_STATE_UNREADABLE'));
          await service.configs.updateConfig({ config: { id: 1, temperature: 0.4 } });
          const { findings } = await onDatabase(url, (database) => migrator(database).readImport());
          expect(findings).toContainEqual(expect.stringMatching(/the API keys of rows 1, 4.* ENCRYPTION_KEY/));
        },
        { ENCRYPTION_KEY },
      );
    }
    await onService(
      url,
      async (service) => {
        expect(await statesOf(service)).toEqual(allStates('API_KEY_STATE_SET'));
      },
      { ENCRYPTION_KEY: encryptionKey },
    );
    expect(await keysIn(url)).toEqual(expectedKeys);
  });

  it('are encrypted when they were stored in plaintext, but only with the correct key', async () => {
    const url = await withKeys();
    await execute(url, `update agent_llm_configs set api_key_encrypted = 'sk-in-clear' where id = 2`);
    await onService(url, async () => {}, { ENCRYPTION_KEY: generateKey() });
    await onService(url, async () => {}, { ENCRYPTION_KEY: encryptionKey });
    expect(await keysIn(url)).toEqual({ ...expectedKeys, 2: 'sk-in-clear' });
  });

  it('are not bound twice when the schema is rolled back and reapplied', async () => {
    const url = await withKeys();
    await onService(url, async () => {}, { ENCRYPTION_KEY: encryptionKey });
    await onDatabase(url, async (database) => {
      const { down, up, status } = migrator(database);
      while ((await status()).current !== '0004_add_agent_llm_configs') await down();
      await up();
    });
    await onService(
      url,
      async (service) => {
        expect(await statesOf(service)).toEqual(allStates('API_KEY_STATE_SET'));
      },
      { ENCRYPTION_KEY: encryptionKey },
    );
    expect(await keysIn(url)).toEqual(expectedKeys);
  });

  it('occur in no change log entry', async () => {
    const url = await withKeys();
    await onService(url, async () => {}, { ENCRYPTION_KEY: encryptionKey });
    const { rows } = await execute(
      url,
      `select coalesce(before::text, '') || coalesce(after::text, '') as text from config_revisions`,
    );
    const text = JSON.stringify(rows);
    for (const { key, token } of Object.values(sealed)) {
      expect(text).not.toContain(key);
      expect(text).not.toContain(token);
    }
  });
});
