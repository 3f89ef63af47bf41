import { Command } from 'commander';
import { readSettings } from '../config.js';
import { openConfigured } from '../main.js';
import { loadState } from '../store/log.js';
import { migrator } from '../store/migrate.js';
import { seed } from '../store/seed.js';
import { Store } from '../store/store.js';
import { print, table } from './print.js';

/** `agentllm seed`: brings the agents, the catalogue and the default configs, as often as wanted. */
export function seedCommand(): Command {
  return new Command('seed')
    .description('create the default agents, the catalogue and default configs for agents that have none')
    .option('--json', 'print JSON', false)
    .action(runSeeds);
}

async function runSeeds({ json }: { json: boolean }): Promise<void> {
  const database = await openConfigured(readSettings(process.env));
  try {
    await migrator(database).check({ pending: true });
    const store = new Store(database);
    store.replaceState(await loadState(database.knex));
    const brought = await seed(store, 'all');
    if (json) print(JSON.stringify(brought));
    else
      print(
        table(
          ['SEED', 'ROWS'],
          Object.entries(brought).map(([name, rows]) => [name, String(rows)]),
        ),
      );
  } finally {
    await database.close();
  }
}
