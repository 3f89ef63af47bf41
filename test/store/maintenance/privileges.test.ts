import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Database, openDatabase } from '../../../src/store/database.js';
import { migrator } from '../../../src/store/maintenance/migrate.js';
import { missingForRenewal, missingPrivileges } from '../../../src/store/maintenance/privileges.js';
import { startPostgres, type TestPostgres } from '../../support/postgres.js';
import { makePythonDatabase } from '../../support/python_system.js';
import { runCommand } from '../../support/run_command.js';
import { asRole } from '../../support/servers.js';
import { startService, unique } from '../../support/service.js';
import { withClient } from '../../support/sql.js';

let server: TestPostgres;
beforeAll(async () => {
  server = await startPostgres();
});
afterAll(() => server.stop());

const execute = (url: string, sql: string) => withClient(url, (client) => client.query(sql));

async function onDatabase<T>(url: string, work: (database: Database) => Promise<T>): Promise<T> {
  const database = await openDatabase({ url, poolSize: 1, acquireTimeoutMs: 5_000, dataDir: 'memory:' });
  try {
    return await work(database);
  } finally {
    await database.close();
  }
}

/** Creates a role without privileges on tables; returns its URL of a database. */
async function newRole(superuser: string): Promise<string> {
  const role = unique('role');
  await execute(superuser, `create role ${role} login password '${role}'`);
  return asRole(superuser, role);
}

/** Creates a role that owns nothing in a database, with the grants that the service names; returns its URL. */
async function serviceRole(superuser: string): Promise<string> {
  const url = await newRole(superuser);
  const missing = await onDatabase(url, ({ knex }) => missingPrivileges(knex));
  for (const { remedy } of missing) await execute(superuser, remedy);
  return url;
}

describe('a role with exactly the named grants', () => {
  it('starts on an imported store and does not seed default agents and configs', async () => {
    const superuser = await server.createDatabase();
    await makePythonDatabase(superuser, 4);
    await onDatabase(superuser, (database) => migrator(database).up());
    const url = await serviceRole(superuser);
    const ids = async () => {
      const { rows } = await execute(
        superuser,
        `select 'agent' as entity, id from agent_configs union all select 'config', id from agent_llm_configs order by 1, 2`,
      );
      return rows;
    };
    const before = await ids();
    await (await startService({ DATABASE_URL: url })).stop();
    expect(await ids()).toEqual(before);
  });

  it('receives the grant for store renew from that command and from doctor', async () => {
    const superuser = await server.createDatabase('seeded');
    const url = await serviceRole(superuser);
    const finding = /lacks update on table config_revisions in schema "public", which agentllm store renew needs/;
    const refused = await runCommand(['store', 'renew'], { DATABASE_URL: url });
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringMatching(finding)]);
    const doctor = await runCommand(['doctor', '--offline'], { DATABASE_URL: url });
    expect(doctor.stdout).toMatch(new RegExp(`warn +schema +.*${finding.source}`, 'i'));

    const [missing] = await onDatabase(url, ({ knex }) => missingForRenewal(knex));
    await execute(superuser, missing?.remedy as string);
    const renewed = await runCommand(['store', 'renew'], { DATABASE_URL: url });
    expect([renewed.code, renewed.stdout]).toEqual([0, expect.stringContaining('the identity of the store is now')]);
  });
});

describe('a role without grants', () => {
  it('receives an error about its privileges, and not that the store or the schema is missing', async () => {
    const superuser = await server.createDatabase('seeded');
    const url = await newRole(superuser);
    for (const command of [
      ['migrate', 'status'],
      ['migrate', 'history'],
      ['store', 'renew'],
    ]) {
      const { code, stderr } = await runCommand(command, { DATABASE_URL: url });
      expect([code, stderr], command.join(' ')).toEqual([
        1,
        expect.stringMatching(/lacks (a privilege in database|update on table config_revisions)/),
      ]);
    }
  });
});
