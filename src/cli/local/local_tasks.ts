import type { AdminRequest } from '../../admin/protocol.js';
import { StartError } from '../../errors.js';
import { version } from '../../package.js';
import { explain } from '../kit/failure.js';
import { backupTask } from './backup.js';
import { doctorTask } from './doctor.js';
import { tokenTask } from './local_access.js';
import { migrateDown, migrateHistory, migrateStatus, migrateUp } from './migrate.js';
import { restoreTask } from './restore.js';
import { seedTask } from './seed.js';
import { renewTask } from './store.js';
import type { Task, TaskContext } from './store_task.js';

type Run = (context: TaskContext, options: unknown) => Promise<void>;

const entry = <Options>(task: Task<Options>): [string, Run] => [
  task.name,
  async (context, values) => {
    const options = task.options.safeParse(values);
    if (!options.success) throw new StartError(`the running service does not accept these options of ${task.name}`);
    await task.run(context, options.data);
  },
];

const refusedEntry = ({
  name,
  notInService,
}: {
  readonly name: string;
  readonly notInService?: string;
}): [string, Run] => [
  name,
  async () => {
    throw new StartError(
      `The service runs on this database (process ${process.pid}): ${notInService}. Stop it first, then run agentllm ${name} again.`,
    );
  },
];

/** The commands that a running service executes or refuses. */
const tasks = new Map<string, Run>([
  entry(migrateStatus),
  entry(migrateHistory),
  entry(seedTask),
  entry(backupTask),
  entry(renewTask),
  entry(doctorTask),
  entry(tokenTask),
  ...[migrateUp, migrateDown, restoreTask].map(refusedEntry),
]);

/** Runs a command in the service that owns the database. Prints errors, and returns the exit code. */
export async function handleAdminRequest({ command, options }: AdminRequest, context: TaskContext): Promise<number> {
  try {
    const run = tasks.get(command);
    if (!run) throw new StartError(`The running service, agentllm ${version}, does not have the command ${command}`);
    await run(context, options);
    return 0;
  } catch (error) {
    context.output.err(explain(error));
    return 1;
  }
}
