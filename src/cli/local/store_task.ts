import { resolve as absolute } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { z } from 'zod';
import { noResponse, runInService } from '../../admin/client.js';
import type { AdminRequest, Say } from '../../admin/protocol.js';
import { readSettings, type Settings } from '../../config.js';
import { StartError } from '../../errors.js';
import { openConfigured } from '../../main.js';
import { holdsDatabase } from '../../store/embedded/data_directory.js';
import { DirectoryInUseError } from '../../store/embedded/directory_lock.js';
import { Store } from '../../store/store.js';
import { say } from '../kit/print.js';

/** A service that starts owns its directory some seconds before it takes commands, and other commands are short. */
const WAIT_FOR_OWNER_MS = 10_000;
const TRY_AGAIN_MS = 200;

/** Where a command runs: on the store of the running service, or on one that was opened for it. */
export interface Place {
  readonly store: Store;
  /** The settings of the process that has the database. */
  readonly settings: Settings;
  readonly say: Say;
}

/** A command that needs the database. */
export interface Task<Options> {
  /** As it is typed. */
  readonly name: string;
  readonly options: z.ZodType<Options>;
  /** Why it does not run in a service, for what takes the database from under it. */
  readonly notInService?: string;
  /** What only reads makes no database where there is none: it looks at an empty one in memory, or refuses. */
  readonly withoutDatabase?: 'empty' | 'refused';
  /** What to do where there is none, for one that is refused. */
  readonly instead?: string;
  run(place: Place, options: Options): Promise<void>;
}

/** Runs a command where its database is open, or opens it. */
export async function runTask<Options extends Record<string, unknown>>(
  task: Task<Options>,
  options: Options,
  sayTo = say,
): Promise<void> {
  const settings = readSettings(process.env);
  const here = async () => {
    const absent = task.withoutDatabase && (await absentDatabase(settings));
    if (absent && task.withoutDatabase === 'refused')
      throw new StartError([absent, task.instead].filter(Boolean).join(': '));
    if (absent && options['json'] !== true) sayTo.out(absent);
    const database = await openConfigured(absent ? { ...settings, DATA_DIR: 'memory:' } : settings);
    try {
      await task.run({ store: new Store(database), settings, say: sayTo }, options);
    } finally {
      await database.close();
    }
  };
  await inServiceOr(settings, { command: task.name, options }, here, sayTo);
}

/** Whether the database is in a directory, which may belong to a service. */
export const inDirectory = ({ DATABASE_URL, DATA_DIR }: Settings): boolean => !DATABASE_URL && DATA_DIR !== 'memory:';

/** That there is no database yet, as a sentence; undefined where there is one, and on a server. */
export async function absentDatabase(settings: Settings): Promise<string | undefined> {
  if (!inDirectory(settings) || (await holdsDatabase(settings.DATA_DIR))) return undefined;
  return `There is no database in ${absolute(settings.DATA_DIR)} yet`;
}

/** Has the service run a command that owns the embedded database; runs it here when nobody does. */
export async function inServiceOr(
  settings: Settings,
  request: AdminRequest,
  here: () => Promise<void>,
  sayTo = say,
): Promise<void> {
  if (!inDirectory(settings)) return here();
  const giveUpAt = performance.now() + WAIT_FOR_OWNER_MS;
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
      if (performance.now() > giveUpAt) throw await noResponse(settings.DATA_DIR);
    }
    await delay(TRY_AGAIN_MS);
  }
}
