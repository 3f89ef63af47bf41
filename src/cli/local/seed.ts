import { Command } from 'commander';
import { z } from 'zod';
import { isImported } from '../../store/maintenance/database_import.js';
import { migrator } from '../../store/maintenance/migrate.js';
import { seed } from '../../store/maintenance/seed.js';
import { catchUp } from '../../store/write/change_log.js';
import { table } from '../kit/print.js';
import { runTask, type Task, type TaskContext } from './store_task.js';

const options = z.object({ json: z.boolean().default(false), evenImported: z.boolean().default(false) });
type Options = z.output<typeof options>;

export const seedTask: Task<Options> = { name: 'seed', options, run: runSeeds };

/** `agentllm seed`: creates missing default agents, catalogue entries and configs. It can be repeated. */
export function seedCommand(): Command {
  return new Command('seed')
    .description('create the default agents, the catalogue and default configs for agents that have none')
    .option('--even-imported', 'create agents and default configs on an imported store too', false)
    .option('--json', 'print JSON', false)
    .addHelpText('after', `\n${IMPORTED}`)
    .action((input: Options) => runTask(seedTask, input));
}

const IMPORTED = `On a store that was imported from the original Python system, only the catalogue is created: its agents can have their
own default models, and configs can be missing because they were deleted. With --even-imported, missing default agents
are created, and every agent without a config gets openai/gpt-4.`;

async function runSeeds({ store, output }: TaskContext, { json, evenImported }: Options): Promise<void> {
  await migrator(store.database).check({ pending: true });
  await catchUp(store);
  const created = await seed(store, 'all', { evenImported });
  if (json) return output.out(JSON.stringify(created));
  output.out(
    table(
      ['SEED', 'ROWS'],
      Object.entries(created).map(([name, rows]) => [name, String(rows)]),
    ),
  );
  if (!evenImported && (await isImported(store.database.knex)))
    output.out('This store was imported: no agents and no default configs were created (--even-imported creates them)');
}
