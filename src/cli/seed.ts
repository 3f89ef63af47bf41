import { Command } from 'commander';
import { z } from 'zod';
import { catchUp } from '../store/log.js';
import { migrator } from '../store/migrate.js';
import { seed } from '../store/seed.js';
import { table } from './print.js';
import { type Place, runTask, type Task } from './run.js';

const options = z.object({ json: z.boolean().default(false) });
type Options = z.output<typeof options>;

export const seedTask: Task<Options> = { name: 'seed', options, run: runSeeds };

/** `agentllm seed`: brings the agents, the catalogue and the default configs, as often as wanted. */
export function seedCommand(): Command {
  return new Command('seed')
    .description('create the default agents, the catalogue and default configs for agents that have none')
    .option('--json', 'print JSON', false)
    .action((given: Options) => runTask(seedTask, given));
}

async function runSeeds({ store, say }: Place, { json }: Options): Promise<void> {
  await migrator(store.database).check({ pending: true });
  await catchUp(store);
  const brought = await seed(store, 'all');
  if (json) return say.out(JSON.stringify(brought));
  say.out(
    table(
      ['SEED', 'ROWS'],
      Object.entries(brought).map(([name, rows]) => [name, String(rows)]),
    ),
  );
}
