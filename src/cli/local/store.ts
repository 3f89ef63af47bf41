import { Command } from 'commander';
import { z } from 'zod';
import { StartError } from '../../errors.js';
import { holdsStore, renewStoreIdentity } from '../../store/maintenance/store_identity.js';
import { runTask, type Task, type TaskContext } from './store_task.js';

const options = z.object({ json: z.boolean().default(false) });
type Options = z.output<typeof options>;

export const renewTask: Task<Options> = { name: 'store renew', options, run: renew };

/** `agentllm store renew`: for a database that was restored by other means than `agentllm restore`. */
export function storeCommand(): Command {
  const command = new Command('store').description('manage the identity of the store');
  command
    .command('renew')
    .description('give the store a new identity, after its database was restored from a dump')
    .option('--json', 'print JSON', false)
    .action((input: Options) => runTask(renewTask, input));
  return command;
}

async function renew({ store, output }: TaskContext, { json }: Options): Promise<void> {
  if (!(await holdsStore(store.database.knex)))
    throw new StartError('There is no store in this database yet: agentllm serve or agentllm migrate up creates it.');
  const { revision, identity } = await renewStoreIdentity(store);
  if (json) output.out(JSON.stringify({ identity, revision }));
  else
    output.out(
      `the identity of the store is now ${identity}, at revision ${revision}; earlier etags are no longer valid`,
    );
}
