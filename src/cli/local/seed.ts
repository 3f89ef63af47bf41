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

/** `agentllm seed`: creates the agents, the catalogue and the default configs that are missing; it can be repeated. */
export function seedCommand(): Command {
  return new Command('seed')
    .description('create the default agents, the catalogue and default configs for agents that have none')
    .option('--even-imported', 'create agents and default configs on a store that was imported, too', false)
    .option('--json', 'print JSON', false)
    .addHelpText('after', `\n${IMPORTED}`)
    .action((input: Options) => runTask(seedTask, input));
}

const IMPORTED = `A store that was imported from the Python system gets the catalogue only. Its agents may use other models by their own
columns, and configs may be missing because somebody deleted them. With --even-imported, the default agents that are
missing are created, and every agent without a config gets openai/gpt-4.`;

async function runSeeds({ store, say }: TaskContext, { json, evenImported }: Options): Promise<void> {
  await migrator(store.database).check({ pending: true });
  await catchUp(store);
  const created = await seed(store, 'all', { evenImported });
  if (json) return say.out(JSON.stringify(created));
  say.out(
    table(
      ['SEED', 'ROWS'],
      Object.entries(created).map(([name, rows]) => [name, String(rows)]),
    ),
  );
  if (!evenImported && (await isImported(store.database.knex)))
    say.out('This store was imported: no agents and no default configs were created (--even-imported creates them)');
}
