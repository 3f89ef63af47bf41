import { randomBytes } from 'node:crypto';
import { withClient } from './sql.js';

/** The content of a new database: nothing, the tables of this version, or the tables with the seeded rows. */
export type Content = 'empty' | 'migrated' | 'seeded';

const templateOf = (content: Content) => (content === 'empty' ? 'template1' : `store_${content}`);

/** Creates a database with a unique name and returns its URL. */
export async function createDatabase(server: string, content: Content): Promise<string> {
  const name = `test_${randomBytes(6).toString('hex')}`;
  await execute(server, `create database ${name} template ${templateOf(content)}`);
  return urlOf(server, name);
}

/** Drops a database and ends its open sessions. */
export async function dropDatabase(server: string, database: string): Promise<void> {
  await execute(server, `drop database if exists ${new URL(database).pathname.slice(1)} with (force)`);
}

/** Prepares the databases that `createDatabase` copies. `fill` gets the URL of each, whose sessions it must end. */
export async function createTemplates(
  server: string,
  fill: (database: string, content: Exclude<Content, 'empty'>) => Promise<void>,
): Promise<void> {
  for (const content of ['migrated', 'seeded'] as const) {
    const name = templateOf(content);
    await execute(server, `create database ${name} template ${content === 'seeded' ? 'store_migrated' : 'template1'}`);
    await fill(urlOf(server, name), content);
    // A session of autovacuum in the template would delay copies.
    await execute(server, `alter database ${name} allow_connections false`);
  }
}

const urlOf = (server: string, name: string) => Object.assign(new URL(server), { pathname: `/${name}` }).href;

const execute = (server: string, statement: string) => withClient(server, (client) => client.query(statement));
