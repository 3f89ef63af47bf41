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
import type { Place, Task } from './store_task.js';

type Run = (place: Place, options: unknown) => Promise<void>;

const running = <Options>(task: Task<Options>): [string, Run] => [
  task.name,
  async (place, given) => {
    const options = task.options.safeParse(given);
    if (!options.success) throw new StartError(`the options of ${task.name} are not what this service takes`);
    await task.run(place, options.data);
  },
];

const refusing = ({ name, notInService }: { readonly name: string; readonly notInService?: string }): [string, Run] => [
  name,
  async () => {
    throw new StartError(
      `The service runs on this database (process ${process.pid}): ${notInService}. Stop it first, then run agentllm ${name} again.`,
    );
  },
];

/** Every command that a service may be asked for. */
const tasks = new Map<string, Run>([
  running(migrateStatus),
  running(migrateHistory),
  running(seedTask),
  running(backupTask),
  running(renewTask),
  running(doctorTask),
  running(tokenTask),
  ...[migrateUp, migrateDown, restoreTask].map(refusing),
]);

/** Runs a command in the service that has the database, and says what went wrong as it would anywhere else. */
export async function runInService({ command, options }: AdminRequest, place: Place): Promise<number> {
  try {
    const run = tasks.get(command);
    if (!run)
      throw new StartError(`The service that runs, agentllm ${version}, has no command of this name: ${command}`);
    await run(place, options);
    return 0;
  } catch (error) {
    place.say.err(explain(error));
    return 1;
  }
}
