import { resolve } from 'node:path';
import { Command } from 'commander';
import { readSettings } from '../../config.js';
import { StartError } from '../../errors.js';
import { restoreBackup } from '../../store/maintenance/restore.js';
import { terminal } from '../kit/print.js';
import { refusePostgres } from './backup.js';
import { inServiceOr } from './store_task.js';

interface Options {
  readonly force: boolean;
  readonly json: boolean;
}

/** Why a running service refuses a restore. */
export const restoreTask = { name: 'restore', notInService: 'a restore replaces its database' } as const;

/** `agentllm restore FILE`: restores the embedded database from a backup, as a store with a new identity. */
export function restoreCommand(): Command {
  return new Command('restore')
    .description('restore the embedded database in DATA_DIR from a backup; the service must not run')
    .argument('<file>', 'a file from agentllm backup')
    .option('--force', 'replace an existing database; the old one is kept', false)
    .option('--json', 'print JSON', false)
    .action(runRestore);
}

async function runRestore(file: string, { force, json }: Options): Promise<void> {
  refusePostgres(
    'restored with pg_restore, into an empty database and while no service runs',
    'pg_restore --exit-on-error --single-transaction --no-owner',
    ' agentllm.dump\n  agentllm store renew',
  );
  const settings = readSettings(process.env);
  if (settings.DATA_DIR === 'memory:')
    throw new StartError('DATA_DIR is memory:, which is not persistent: set it to a directory.');
  await inServiceOr(settings, { command: restoreTask.name, options: {} }, () =>
    restore(settings.DATA_DIR, resolve(file), force, json),
  );
}

async function restore(dataDir: string, file: string, force: boolean, json: boolean): Promise<void> {
  const onStep = (text: string) => !json && terminal.err(text);
  const { header, identity, previousDatabase } = await restoreBackup({ dataDir, file, force, onStep });
  const { revision, made_at } = header;
  if (json) return terminal.out(JSON.stringify({ revision, made_at, identity, kept_aside: previousDatabase ?? null }));
  terminal.out(`restored revision ${revision} of ${made_at}; the identity of the store is now ${identity}`);
  if (previousDatabase)
    terminal.out(`the previous database is kept in ${previousDatabase}; remove it when it is not needed`);
}
