import { Command } from 'commander';
import { readSettings } from '../config.js';
import { openConfigured } from '../main.js';
import { type Migrator, migrator } from '../store/migrate.js';
import { print, table } from './print.js';

/** `agentllm migrate up|down|status|history`: the document's four migration commands. */
export function migrateCommand(): Command {
  const command = new Command('migrate').description('apply, roll back and show migrations of the database');
  const add = (name: string, about: string, run: (migrations: Migrator, json: boolean) => Promise<void>) =>
    command
      .command(name)
      .description(about)
      .option('--json', 'print JSON', false)
      .action(({ json }: { json: boolean }) => withMigrator((migrations) => run(migrations, json)));
  add('up', 'apply all pending migrations', up);
  add('down', 'roll back the last migration, with what its tables hold', down);
  add('status', 'show the current migration and what is pending', status);
  add('history', 'show all migrations and when they were applied', history);
  return command;
}

async function withMigrator(run: (migrations: Migrator) => Promise<void>): Promise<void> {
  const database = await openConfigured(readSettings(process.env));
  try {
    await run(migrator(database));
  } finally {
    await database.close();
  }
}

async function up(migrations: Migrator, json: boolean): Promise<void> {
  const applied = await migrations.up((name) => !json && print(`applied ${name}`));
  if (json) print(JSON.stringify({ applied }));
  else if (applied.length === 0) print('nothing to do: the schema is current');
}

async function down(migrations: Migrator, json: boolean): Promise<void> {
  const rolledBack = (await migrations.down()) ?? null;
  if (json) print(JSON.stringify({ rolled_back: rolledBack }));
  else print(rolledBack ? `rolled back ${rolledBack}` : 'nothing to do: no migration is applied');
}

async function status(migrations: Migrator, json: boolean): Promise<void> {
  const { current, applied, pending, unknown } = await migrations.status();
  if (json) return print(JSON.stringify({ current: current ?? null, applied, pending, unknown }));
  print(`current  ${current ?? 'none'}`);
  print(`pending  ${pending.join(', ') || 'none'}`);
  if (unknown.length > 0) print(`unknown  ${unknown.join(', ')}: a newer version of agentllm applied them`);
}

async function history(migrations: Migrator, json: boolean): Promise<void> {
  const entries = await migrations.history();
  if (json)
    return print(JSON.stringify(entries.map(({ name, appliedAt }) => ({ name, applied_at: appliedAt ?? null }))));
  print(
    table(
      ['MIGRATION', 'APPLIED'],
      entries.map((e) => [e.name, e.appliedAt?.toISOString() ?? 'pending']),
    ),
  );
}
