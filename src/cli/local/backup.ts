import { isAbsolute, resolve } from 'node:path';
import { Command } from 'commander';
import { z } from 'zod';
import { readSettings } from '../../config.js';
import { parseDatabaseUrl } from '../../domain/database_url.js';
import { StartError } from '../../errors.js';
import { makeBackup } from '../../store/maintenance/backup.js';
import { runTask, type Task, type TaskContext } from './store_task.js';

const options = z.object({
  file: z.string().refine(isAbsolute),
  force: z.boolean().default(false),
  json: z.boolean().default(false),
});
type Options = z.output<typeof options>;

export const backupTask: Task<Options> = { name: 'backup', withoutDatabase: 'refused', options, run: backup };

/** `agentllm backup FILE`: writes the embedded database to one file, also while the service runs. */
export function backupCommand(): Command {
  return new Command('backup')
    .description('write the embedded database to a file, also while the service runs')
    .argument('<file>', 'the file to write')
    .option('--force', 'replace an existing file', false)
    .option('--json', 'print JSON', false)
    .action((file: string, input: Omit<Options, 'file'>) => {
      refusePostgres('backed up with pg_dump', 'pg_dump --format=custom --no-owner --file=agentllm.dump');
      return runTask(backupTask, { ...input, file: resolve(file) });
    });
}

async function backup({ store, output }: TaskContext, { file, force, json }: Options): Promise<void> {
  const header = await makeBackup(store.database, { file, force, onStep: (text) => !json && output.err(text) });
  if (json) return output.out(JSON.stringify({ file, ...header }));
  output.out(`wrote ${file}: revision ${header.revision}, ${(header.bytes / 1e6).toFixed(1)} MB`);
}

/** Throws on PostgreSQL. The command that it prints uses the variable of the shell, so that it contains no password. */
export function refusePostgres(what: string, command: string, after = ''): void {
  const { DATABASE_URL, DATABASE_DIRECT_URL } = readSettings(process.env);
  if (!DATABASE_URL) return;
  const url = DATABASE_DIRECT_URL ? '"$DATABASE_DIRECT_URL"' : '"$DATABASE_URL"';
  const { schema } = parseDatabaseUrl(DATABASE_DIRECT_URL ?? DATABASE_URL);
  const note =
    schema === undefined
      ? ''
      : `\nRemove the parameter schema from the URL first, because the PostgreSQL tools do not accept it, and add --schema=${schema}`;
  throw new StartError(
    `DATABASE_URL names a PostgreSQL server. It is ${what}:\n  ${command} --dbname=${url}${after}${note}`,
  );
}
