import { Command } from 'commander';
import { z } from 'zod';
import { replaceInAll } from '../../domain/shutdown.js';
import { shutdownNotices } from '../../domain/shutdown_uses.js';
import { isImported } from '../../store/maintenance/database_import.js';
import { migrator } from '../../store/maintenance/migrate.js';
import { type Seeded, seed } from '../../store/maintenance/seed.js';
import type { WrittenModel } from '../../store/maintenance/seed_model.js';
import { catchUp } from '../../store/write/change_log.js';
import { table, visible } from '../kit/print.js';
import { runTask, type Task, type TaskContext } from './store_task.js';

const options = z.object({
  json: z.boolean().default(false),
  evenImported: z.boolean().default(false),
  model: z.string().optional(),
});
type Options = z.output<typeof options>;

export const seedTask: Task<Options> = { name: 'seed', options, run: runSeeds };

/** `agentllm seed`: creates missing default agents, catalogue entries and configs. It can be repeated. */
export function seedCommand(): Command {
  return new Command('seed')
    .description('create the default agents, the catalogue and default configs for agents that have none')
    .option('--model <provider/model>', 'model of new configs and agents (default: SEED_MODEL, else openai/gpt-4)')
    .option('--even-imported', 'create agents and default configs on an imported store too', false)
    .option('--json', 'print JSON', false)
    .addHelpText('after', `\n${HELP}`)
    .action((input: Options) => runTask(seedTask, input));
}

const HELP = `Can be repeated: existing agents and configs are kept, and so are rows of the catalogue that an operator has changed.
The model must be in the catalogue, or its provider must allow unknown models.

On a store that was imported from the original Python system, only the catalogue is created: its agents can have their
own default models, and configs can be missing because they were deleted. With --even-imported, missing default agents
are created, and every agent without a config gets the model.

Examples:
  agentllm seed
  agentllm seed --model claude/claude-sonnet-5-5`;

async function runSeeds({ store, settings, output }: TaskContext, input: Options): Promise<void> {
  const { json, evenImported } = input;
  await migrator(store.database).check({ pending: true });
  await catchUp(store);
  const model = modelOf(input.model, settings.SEED_MODEL);
  const created = await seed(store, 'all', { evenImported, model });
  if (json) return output.out(JSON.stringify(created));
  output.out(
    table(
      ['SEED', 'ROWS'],
      Object.entries(created).map(([name, rows]) => [name, String(rows)]),
    ),
  );
  if (!evenImported && (await isImported(store.database.knex)))
    output.out('This store was imported: no agents and no default configs were created (--even-imported creates them)');
  if (input.model !== undefined) sayIfUnused(created, input.model, output);
  for (const notice of shutdownNotices(store.state, new Date())) output.out(visible(notice));
}

function modelOf(option: string | undefined, setting: string | undefined): WrittenModel | undefined {
  if (option !== undefined) return { text: option, from: '--model' };
  return setting === undefined ? undefined : { text: setting, from: 'SEED_MODEL' };
}

/** Existing configs are kept, so that a seed with another model may have no effect. */
function sayIfUnused({ default_configs }: Seeded, model: string, output: TaskContext['output']): void {
  if (default_configs === 0)
    output.out(`Every agent has a config already; to change the primary configs of all: ${replaceInAll('all', model)}`);
}
