import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { migrations } from '../../migrations/index.js';
import { namesOf } from '../../migrations/names.js';
import { type Database, openDatabase } from '../../src/store/database.js';
import { migrator } from '../../src/store/maintenance/migrate.js';
import { agentllm } from '../support/command.js';
import type { InstalledServer } from '../support/pg_tools.js';
import { asRole, nameOf, serverKinds } from '../support/servers.js';
import { connectPg } from '../support/sql.js';

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const open = (url: string): Promise<Database> =>
  openDatabase({ url, poolSize: 2, acquireTimeoutMs: 5_000, dataDir: 'memory:' });

/** Opens and migrates the database like the start of `serve`; rejects with the error that `serve` prints. */
async function start(url: string): Promise<void> {
  const database = await open(url);
  try {
    await migrator(database).up();
  } finally {
    await database.close();
  }
}

/** The objects of a schema with their columns. */
async function objects(client: pg.Client, schema = 'public'): Promise<string[]> {
  const { rows } = await client.query(
    `select c.relname || ' ' || c.relkind::text || ' ' || coalesce(string_agg(a.attname, ',' order by a.attnum), '') as line
       from pg_class c left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
      where c.relnamespace = $1::regnamespace group by c.oid, c.relname, c.relkind
     union all select 'type ' || typname from pg_type where typnamespace = $1::regnamespace and typrelid = 0 order by 1`,
    [schema],
  );
  return rows.map(({ line }) => line);
}

/** The doctor's findings about the database and its schema. */
async function diagnose(url: string): Promise<string> {
  const { stdout } = await agentllm(['doctor', '--offline', '--json'], { DATABASE_URL: url }).ended;
  const { diagnoses } = JSON.parse(stdout) as { diagnoses: Record<string, string>[] };
  return diagnoses
    .filter(({ area, verdict }) => /database|schema/.test(area ?? '') && verdict === 'fail')
    .map(({ finding, remedy }) => `${finding} → ${remedy ?? ''}`)
    .join('\n');
}

const TABLES = migrations
  .flatMap(({ name }) => namesOf(name))
  .filter(({ kind }) => kind === 'table')
  .map(({ name }) => name);

describe.each(serverKinds())('a schema with objects of another application on $name', ({ start: startServer }) => {
  let server: InstalledServer;
  beforeAll(async () => {
    server = await startServer();
  });
  afterAll(() => server?.stop());

  /** Creates a database with the given objects; the start must be rejected and leave them unchanged. */
  async function expectRejected(sql: string, message: RegExp): Promise<void> {
    const url = await server.createDatabase();
    const client = await connectPg(url);
    try {
      await client.query(sql);
      const before = await objects(client);
      await expect(start(url)).rejects.toMatchObject({ name: 'StartError', message: expect.stringMatching(message) });
      expect(await objects(client)).toEqual(before);
    } finally {
      await client.end();
    }
  }

  it('is compared with exactly the names that the migrations create', async () => {
    const url = await server.createDatabase();
    await start(url);
    const client = await connectPg(url);
    const { rows } = await client.query(`select relname from pg_class where relnamespace = 'public'::regnamespace`);
    await client.end();
    const created = rows.map(({ relname }) => relname).filter((name: string) => !name.startsWith('knex_'));
    const listed = migrations.flatMap(({ name }) => namesOf(name)).filter(({ table }) => !table.startsWith('adopted_'));
    expect(listed.map(({ name }) => name).sort()).toEqual(created.sort());
  });

  it('is rejected with the name of the table for every table of agentllm, and nothing is created', async () => {
    const url = await server.createDatabase();
    const client = await connectPg(url);
    const before = await objects(client);
    for (const table of TABLES) {
      await client.query(`create table ${table} (theirs text)`);
      await expect(start(url), table).rejects.toMatchObject({
        name: 'StartError',
        message: expect.stringMatching(new RegExp(`\\b${table}\\b`)),
      });
      await client.query(`drop table ${table}`);
      expect(await objects(client), table).toEqual(before);
    }
    await client.end();
  });

  it.each([
    [
      'several tables',
      'create table watchers (id int); create table api_tokens (id int)',
      /table api_tokens.*table watchers/,
    ],
    ['a view', 'create view audit_events as select 1 as id', /view audit_events/],
    [
      'an index',
      'create table t (a int); create index ix_watchers_client_name on t (a)',
      /index ix_watchers_client_name/,
    ],
    ['a sequence', 'create sequence api_tokens_id_seq', /sequence api_tokens_id_seq/],
    ['a type', `create type store_state as enum ('on')`, /type store_state/],
    ['a domain', 'create domain watchers as text', /type watchers/],
    [
      'migrations of another application',
      `create table knex_migrations (id serial primary key, name text, batch int, migration_time timestamptz);
       insert into knex_migrations (name, batch) values ('20240101_users.js', 1)`,
      /another application .*table knex_migrations/,
    ],
    ['a table knex_migrations of another tool', 'create table knex_migrations (version int)', /table knex_migrations/],
  ])('is rejected for %s', async (_case, sql, message) => expectRejected(sql, message));

  it('is reported by the doctor with the names of the tables', async () => {
    const url = await server.createDatabase();
    const client = await connectPg(url);
    await client.query('create table watchers (id int)');
    await client.end();
    expect(await diagnose(url)).toMatch(/another application .*table watchers/);
  });

  it('is left unchanged when the URL selects another schema with the parameter schema', async () => {
    const url = await server.createDatabase();
    const client = await connectPg(url);
    await client.query('create table watchers (id int); create schema agentllm');
    const before = await objects(client);
    await start(`${url}?schema=agentllm`);
    expect(await objects(client)).toEqual(before);
    expect((await objects(client, 'agentllm')).length).toBeGreaterThan(50);
    await client.end();
  });
});

describe.each(serverKinds())(
  'a database with a missing privilege or a wrong setting on $name',
  ({ start: startServer }) => {
    let server: InstalledServer;
    let admin: pg.Client;
    beforeAll(async () => {
      server = await startServer();
      admin = await connectPg(server.url);
      await admin.query(`create role app login password 'app'`);
    });
    afterAll(async () => {
      await admin?.end();
      await server?.stop();
    });

    async function database(sql: string): Promise<{ url: string; root: pg.Client }> {
      const superuser = await server.createDatabase();
      const root = await connectPg(superuser);
      await root.query(sql.replaceAll('THIS', nameOf(superuser)));
      return { url: asRole(superuser, 'app'), root };
    }

    it.each([
      [
        'CREATE is revoked',
        'revoke create on schema public from public',
        /may not create tables in schema "public".*grant create on schema public to app/,
      ],
      [
        'USAGE is revoked',
        'revoke all on schema public from public',
        /may not use schema "public".*grant usage, create on schema public to app/,
      ],
      [
        'the search_path contains no existing schema',
        'alter role app in database THIS set search_path = nowhere',
        /No schema of the search_path .*\(nowhere\) exists.*create schema nowhere authorization app/,
      ],
      [
        'the database is read-only',
        'grant create on schema public to app; alter database THIS set default_transaction_read_only = on',
        /is read-only/,
      ],
    ])(
      'is rejected with the remedy by the start and the doctor, and nothing is created, when %s',
      async (_case, sql, message) => {
        const { url, root } = await database(sql);
        try {
          await expect(start(url)).rejects.toMatchObject({
            name: 'StartError',
            message: expect.stringMatching(message),
          });
          expect(await objects(root)).toEqual([]);
          expect((await diagnose(url)).replaceAll(' → ', '. Remedy: ')).toMatch(message);
          const { code, stderr } = await agentllm(['serve'], { DATABASE_URL: url, GRPC_ADDRESS: '127.0.0.1:0' }).ended;
          expect([code, stderr]).toEqual([1, expect.stringMatching(message)]);
          expect(stderr).not.toMatch(/failed unexpectedly| {4}at /);
        } finally {
          await root.end();
        }
      },
    );

    it('is rejected with the name of the schema when the schema of the URL does not exist', async () => {
      const { url, root } = await database('select 1');
      await root.end();
      await expect(start(`${url}?schema=nowhere`)).rejects.toThrow(
        /has no schema "nowhere". Run: create schema nowhere/,
      );
    });

    it('is rejected with the missing grant when the role may not write to the tables', async () => {
      const { url, root } = await database('grant create on schema public to app');
      await start(url);
      await root.query('reassign owned by app to postgres; grant select on all tables in schema public to app');
      const message = /lacks insert.* on table .*agent_configs.*grant insert/;
      await expect(start(url)).rejects.toThrow(message);
      expect((await diagnose(url)).replaceAll(' → ', '. Remedy: ')).toMatch(message);
      await root.query(
        'grant all on all tables in schema public to app; grant all on all sequences in schema public to app',
      );
      await start(url);
      await root.end();
    });

    it.each(['LATIN1', 'SQL_ASCII'])(
      'is rejected by the start and the doctor when its encoding is %s',
      async (encoding) => {
        const name = `db_${encoding.toLowerCase()}`;
        await admin.query(
          `create database ${name} encoding '${encoding}' lc_collate 'C' lc_ctype 'C' template template0`,
        );
        const url = Object.assign(new URL(server.url), { pathname: `/${name}` }).href;
        const message = new RegExp(
          `has the encoding ${encoding}, and agentllm needs UTF8.*encoding 'UTF8' template template0`,
        );
        await expect(start(url)).rejects.toMatchObject({ name: 'StartError', message: expect.stringMatching(message) });
        expect(await diagnose(url)).toMatch(message);
      },
    );
  },
);
