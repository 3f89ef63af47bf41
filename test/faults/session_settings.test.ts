import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { openDatabase } from '../../src/store/database.js';
import { listEntries } from '../../src/store/history/history.js';
import { migrator } from '../../src/store/maintenance/migrate.js';
import { MIGRATIONS_WITH_CONCURRENT_INDEX } from '../support/concurrent_index.js';
import type { InstalledServer } from '../support/pg_tools.js';
import { asRole, nameOf, serverKinds } from '../support/servers.js';
import { connectPg } from '../support/sql.js';
import { contents, startBackend } from '../support/store.js';
import { hasPgBouncer, type PgBouncer, startPgBouncer } from './pgbouncer.js';

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

/** Defaults of a role that change what PostgreSQL returns, accepts or keeps. */
const SETTINGS: readonly (readonly [name: string, value: string])[] = [
  ['DateStyle', `'SQL, DMY'`],
  ['DateStyle', `'German'`],
  ['IntervalStyle', `'sql_standard'`],
  ['TimeZone', `'Asia/Kathmandu'`],
  ['extra_float_digits', '-10'],
  ['extra_float_digits', '3'],
  ['bytea_output', `'escape'`],
  ['search_path', 'other, public'],
  ['search_path', 'pg_temp, public'],
  ['standard_conforming_strings', 'off'],
  ['backslash_quote', 'off'],
  ['array_nulls', 'off'],
  ['transform_null_equals', 'on'],
  ['quote_all_identifiers', 'on'],
  ['client_encoding', `'LATIN1'`],
  ['default_transaction_isolation', 'serializable'],
  ['default_transaction_deferrable', 'on'],
  ['row_security', 'off'],
  ['synchronous_commit', 'off'],
  ['enable_indexscan', 'off'],
  ['lc_messages', `'C'`],
];
const FLOATS = [0.123456789012345, 0.1 + 0.2, 1e-300, 2];
const TEXT = `it's a \\backslash, ünïcödé 🙂 and "quotes"`;

/** Everything that a caller can read: the state in memory, the history and the audit log. */
async function observe(url: string) {
  const backend = await startBackend({ url });
  try {
    const { agents } = await backend.agents.listAgents({});
    const { entries } = await backend.configs.listConfigRevisions({});
    const query = { agentId: undefined, configId: undefined, entities: [], until: 1e9, after: undefined, limit: 100 };
    const { events } = await backend.audit.listAuditEvents({});
    const kept = await listEntries(backend.store, query);
    return { state: contents(backend.store.state), agents, entries, events, kept };
  } finally {
    await backend.close();
  }
}

/** Writes an agent and configs under the current settings of the role. */
async function writeAll(url: string, name: string): Promise<void> {
  const backend = await startBackend({ url });
  try {
    const { agent } = await backend.agents.createAgent({
      agent: { name, agent_type: 'analyst', description: TEXT, metadata_json: '{"a":[1,null]}' },
    });
    for (const temperature of FLOATS)
      await backend.configs.createConfig({
        agent: { id: agent?.id as number },
        config: { provider: 'openai', model_name: 'without-limits', temperature },
        allow_unknown_model: true,
        request_id: '',
      });
  } finally {
    await backend.close();
  }
}

const readStored = async (url: string, name: string) => {
  const { state } = await observe(url);
  const agent = state.agents.find((one) => one.name === name);
  const configs = state.configs.filter((one) => one.agent_id === agent?.id);
  return { description: agent?.description, temperatures: configs.map((one) => one.temperature) };
};

describe.each(serverKinds())('session settings of a role on $name', ({ name: serverName, start }) => {
  let server: InstalledServer;
  let admin: pg.Client;
  let url: string;
  let control: Awaited<ReturnType<typeof observe>>;
  let bouncer: PgBouncer | undefined;

  beforeAll(async () => {
    server = await start();
    const superuser = await server.createDatabase();
    admin = await connectPg(superuser);
    await admin.query(`create role app login password 'app'; alter database ${nameOf(superuser)} owner to app`);
    // A second schema, which a search_path may put first.
    await admin.query('alter schema public owner to app; create schema other authorization app');
    url = asRole(superuser, 'app');
    await writeAll(url, 'before');
    control = await observe(url);
    if (hasPgBouncer()) bouncer = await startPgBouncer(url, 3);
    else console.log('PgBouncer is not installed: its tests are skipped (apt-get install pgbouncer)');
  });

  afterAll(async () => {
    await bouncer?.stop();
    await admin?.end();
    await server?.stop();
  });

  async function withSetting(setting: string, value: string, run: () => Promise<void>): Promise<void> {
    await admin.query(`alter role app set ${setting} = ${value}`);
    try {
      await run();
    } finally {
      await admin.query('alter role app reset all');
    }
  }

  it('are at their defaults in the control, which reads the written numbers', () => {
    expect(control.state.configs.map((one) => one.temperature)).toEqual(expect.arrayContaining(FLOATS));
  });

  it.each(SETTINGS)('do not change what is read when %s = %s', async (setting, value) => {
    await withSetting(setting, value, async () => {
      // Under another search_path the start requires that the URL names the schema.
      const selectedUrl = setting === 'search_path' ? `${url}?schema=public` : url;
      expect(await observe(selectedUrl)).toEqual(control);
      // PgBouncer may reuse a session with the search_path of an earlier case, so the URL names the schema.
      if (bouncer && setting !== 'client_encoding')
        expect(await observe(bouncer.through(`${url}?schema=public`))).toEqual(control);
    });
  });

  it.skipIf(!hasPgBouncer())('leave no statement prepared in the sessions of a pooler', async () => {
    const backend = await startBackend({ url: (bouncer as PgBouncer).through(`${url}?schema=public`) });
    try {
      await backend.agents.createAgent({ agent: { name: `pooled_${serverName.length}`, agent_type: 'analyst' } });
      expect(await backend.store.database.knex('pg_prepared_statements').select('statement')).toEqual([]);
    } finally {
      await backend.close();
    }
  });

  it('do not change what is written', async () => {
    for (const [at, [setting, value]] of SETTINGS.entries()) {
      if (/enable|lc_/.test(setting)) continue;
      const name = `agent_${serverName.length}_${at}`;
      const selectedUrl = setting === 'search_path' ? `${url}?schema=public` : url;
      await withSetting(setting, value, () => writeAll(selectedUrl, name));
      expect(await readStored(url, name), `${setting} = ${value}`).toEqual({ description: TEXT, temperatures: FLOATS });
    }
    control = await observe(url);
  });

  it('do not prevent durable writes when synchronous_commit = off', async () => {
    await withSetting('synchronous_commit', 'off', async () => {
      const database = await openDatabase({ url, poolSize: 1, acquireTimeoutMs: 5_000, dataDir: 'memory:' });
      const { rows } = await database.knex.raw(`select current_setting('synchronous_commit') as value`);
      expect(rows).toEqual([{ value: 'local' }]);
      await database.close();
    });
  });

  it('do not end a statement, a transaction or a connection of the service when they contain timeouts', async () => {
    const timeouts = ['statement_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout'];
    if (serverName === 'PostgreSQL 18') timeouts.push('transaction_timeout');
    for (const timeout of timeouts) await admin.query(`alter role app set ${timeout} = 1000`);
    const database = await openDatabase({ url, poolSize: 1, acquireTimeoutMs: 5_000, dataDir: 'memory:' });
    try {
      const pid = async () => (await database.knex.raw('select pg_backend_pid() as pid, pg_sleep(1.5)')).rows[0].pid;
      const before = await pid();
      await sleep(1_500);
      await database.knex.transaction(async (tx) => {
        await tx.raw('select 1');
        await sleep(1_500);
        await tx.raw('select 1');
      });
      expect(await pid()).toBe(before);
    } finally {
      await database.close();
      await admin.query('alter role app reset all');
    }
  });

  it('do not change the statement timeout of the service, also through a pooler', async () => {
    for (const selectedUrl of [url, ...(bouncer ? [bouncer.through(url)] : [])]) {
      const options = { url: selectedUrl, poolSize: 1, acquireTimeoutMs: 5_000, dataDir: 'memory:' };
      const database = await openDatabase(options);
      database.limitStatements?.({ statementTimeoutMs: 200, silenceMs: 60_000 });
      await expect(database.knex.raw('select pg_sleep(30)')).rejects.toMatchObject({ code: '57014' });
      await expect(database.knex.transaction((tx) => tx.raw('select pg_sleep(30)'))).rejects.toMatchObject({
        code: '57014',
      });
      await database.close();
    }
  });

  it('do not affect the migrations of a first start, including one outside of a transaction', async () => {
    for (const [setting, value] of SETTINGS.filter(([name]) => /^(DateStyle|quote|standard|default)/.test(name))) {
      const fresh = asRole(await server.createDatabase(), 'app');
      const root = await connectPg(asRole(fresh, 'postgres', 'password'));
      await root.query(`alter database ${nameOf(fresh)} owner to app; alter schema public owner to app`);
      await root.end();
      await withSetting(setting, value, async () => {
        const database = await openDatabase({ url: fresh, poolSize: 2, acquireTimeoutMs: 5_000, dataDir: 'memory:' });
        const applied = await migrator(database, { migrations: MIGRATIONS_WITH_CONCURRENT_INDEX }).up();
        await database.close();
        expect(applied, setting).toHaveLength(MIGRATIONS_WITH_CONCURRENT_INDEX.length);
      });
    }
  });

  it('cause an error that names both schemas when search_path does not select that of the store', async () => {
    await withSetting('search_path', 'other', async () => {
      const opening = openDatabase({ url, poolSize: 1, acquireTimeoutMs: 5_000, dataDir: 'memory:' });
      await expect(opening).rejects.toThrow(/has a store in schema "public", .* leads to schema "other"/);
    });
  });
});
