import { resolve as absolute } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { z } from 'zod';
import { noResponse, runInService } from '../../admin/client.js';
import type { AdminRequest, Output } from '../../admin/protocol.js';
import { readSettings, type Settings } from '../../config.js';
import { StartError } from '../../errors.js';
import { openConfigured } from '../../main.js';
import { holdsDatabase } from '../../store/embedded/data_directory.js';
import { DirectoryInUseError } from '../../store/embedded/directory_lock.js';
import { Store } from '../../store/store.js';
import { terminal } from '../kit/print.js';

/** A starting service locks its directory some seconds before it accepts commands. Other commands are short. */
const WAIT_FOR_OWNER_MS = 10_000;
const RETRY_INTERVAL_MS = 200;

/** The context of a command: the store of the running service, or a store that was opened for the command. */
export interface TaskContext {
  readonly store: Store;
  /** The settings of the process that owns the database. */
  readonly settings: Settings;
  readonly output: Output;
}

/** A command that uses the database. */
export interface Task<Options> {
  /** The name as it is typed. */
  readonly name: string;
  readonly options: z.ZodType<Options>;
  /** Why a running service refuses it; absent when it can run in a service. */
  readonly notInService?: string;
  /** A command that only reads does not create a database: it uses an empty one in memory, or fails. */
  readonly withoutDatabase?: 'empty' | 'refused';
  /** What to do without a database, for a command that fails. */
  readonly instead?: string;
  run(context: TaskContext, options: Options): Promise<void>;
}

/** Runs a command in the service that owns the database, or opens the database. */
export async function runTask<Options extends Record<string, unknown>>(
  task: Task<Options>,
  options: Options,
  sayTo = terminal,
): Promise<void> {
  const settings = readSettings(process.env);
  const runHere = async () => {
    const absence = task.withoutDatabase && (await absentDatabase(settings));
    if (absence && task.withoutDatabase === 'refused')
      throw new StartError([absence, task.instead].filter(Boolean).join(': '));
    if (absence && options['json'] !== true) sayTo.out(absence);
    const database = await openConfigured(absence ? { ...settings, DATA_DIR: 'memory:' } : settings);
    try {
      await task.run({ store: new Store(database), settings, output: sayTo }, options);
    } finally {
      await database.close();
    }
  };
  await inServiceOr(settings, { command: task.name, options }, runHere, sayTo);
}

/** Whether the database is in a directory, which a service can own. */
export const inDirectory = ({ DATABASE_URL, DATA_DIR }: Settings): boolean => !DATABASE_URL && DATA_DIR !== 'memory:';

/** The message that there is no database yet; undefined when there is one, and on a PostgreSQL server. */
export async function absentDatabase(settings: Settings): Promise<string | undefined> {
  if (!inDirectory(settings) || (await holdsDatabase(settings.DATA_DIR))) return undefined;
  return `There is no database in ${absolute(settings.DATA_DIR)} yet`;
}

/** Runs a command in the service that owns the embedded database; runs it here when no service does. */
export async function inServiceOr(
  settings: Settings,
  request: AdminRequest,
  here: () => Promise<void>,
  sayTo = terminal,
): Promise<void> {
  if (!inDirectory(settings)) return here();
  const deadline = performance.now() + WAIT_FOR_OWNER_MS;
  for (;;) {
    const exit = await runInService(settings.DATA_DIR, request, sayTo);
    if (exit !== undefined) {
      process.exitCode = exit;
      return;
    }
    try {
      return await here();
    } catch (error) {
      if (!(error instanceof DirectoryInUseError)) throw error;
      if (performance.now() > deadline) throw await noResponse(settings.DATA_DIR);
    }
    await delay(RETRY_INTERVAL_MS);
  }
}
