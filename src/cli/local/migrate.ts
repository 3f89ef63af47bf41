import { Command } from 'commander';
import { z } from 'zod';
import { type Migrator, migrator } from '../../store/maintenance/migrate.js';
import { table } from '../kit/print.js';
import { runTask, type Task, type TaskContext } from './store_task.js';

const options = z.object({ json: z.boolean().default(false), dropImported: z.boolean().default(false) });
type Options = z.output<typeof options>;
type Print = (text: string) => void;

const onMigrator = (run: (migrations: Migrator, print: Print, options: Options) => Promise<void>) =>
  ({
    options,
    run: ({ store, output }: TaskContext, options: Options) => run(migrator(store.database), output.out, options),
  }) as const;

const SCHEMA_IN_USE = 'it uses this schema';

export const migrateUp: Task<Options> = {
  name: 'migrate up',
  notInService: `${SCHEMA_IN_USE}, and applies what is pending when it starts`,
  ...onMigrator(up),
};
export const migrateDown: Task<Options> = { name: 'migrate down', notInService: SCHEMA_IN_USE, ...onMigrator(down) };
export const migrateStatus: Task<Options> = { name: 'migrate status', withoutDatabase: 'empty', ...onMigrator(status) };
export const migrateHistory: Task<Options> = {
  name: 'migrate history',
  withoutDatabase: 'empty',
  ...onMigrator(history),
};

/** `agentllm migrate up|down|status|history`: manages the schema of the database. */
export function migrateCommand(): Command {
  const command = new Command('migrate').description('apply, roll back and show migrations of the database');
  const add = (name: string, description: string, task: Task<Options>) =>
    command
      .command(name)
      .description(description)
      .option('--json', 'print JSON', false)
      .action((options: Options) => runTask(task, options));
  add('up', 'apply all pending migrations', migrateUp);
  add('down', 'roll back the last migration; the data in its tables is lost', migrateDown).option(
    '--drop-imported',
    'also if it drops tables of the original Python system, whose database agentllm has imported',
    false,
  );
  add('status', 'show the current migration and what is pending', migrateStatus);
  add('history', 'show all migrations and when they were applied', migrateHistory);
  return command;
}

async function up(migrations: Migrator, print: Print, { json }: Options): Promise<void> {
  const applied = await migrations.up((name) => !json && print(`applied ${name}`));
  const adopted = await readImported(migrations);
  if (json) return print(JSON.stringify({ applied, ...adopted }));
  if (applied.length === 0) print('nothing to do: the schema is current');
  else printImported(print, adopted);
}

async function down(migrations: Migrator, print: Print, { json, dropImported }: Options): Promise<void> {
  const rolledBack = (await migrations.down({ dropImported })) ?? null;
  if (json) print(JSON.stringify({ rolled_back: rolledBack }));
  else print(rolledBack ? `rolled back ${rolledBack}` : 'nothing to do: no migration is applied');
}

async function status(migrations: Migrator, print: Print, { json }: Options): Promise<void> {
  const { current, applied, pending, unknown } = await migrations.status();
  const adopted = await readImported(migrations);
  if (json) return print(JSON.stringify({ current: current ?? null, applied, pending, unknown, ...adopted }));
  print(`current  ${current ?? 'none'}`);
  print(`pending  ${pending.join(', ') || 'none'}`);
  if (unknown.length > 0) print(`unknown  ${unknown.join(', ')}: a newer version of agentllm applied them`);
  printImported(print, adopted);
}

/** The imported tables and findings; empty for a database that agentllm created. */
async function readImported(
  migrations: Migrator,
): Promise<{ adopted?: readonly string[]; findings?: readonly string[] }> {
  const { tables, findings } = await migrations.readImport();
  return tables.length > 0 ? { adopted: tables, findings } : {};
}

function printImported(print: Print, { adopted, findings = [] }: Awaited<ReturnType<typeof readImported>>): void {
  if (adopted) print(`adopted  ${adopted.join(', ')}`);
  for (const finding of findings) print(`finding  ${finding}`);
}

async function history(migrations: Migrator, print: Print, { json }: Options): Promise<void> {
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
