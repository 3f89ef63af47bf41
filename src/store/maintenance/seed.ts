import { type Seed, seeds } from '../../../seeds/index.js';
import type { Store } from '../store.js';
import { transact } from '../write/transact.js';
import { importRows, isImported } from './database_import.js';

/**
 * How many rows each seed created; 0 for one that found nothing to do.
 * `adopted`: how many rows of an imported database were entered in the log, if any.
 */
export type Seeded = Readonly<Record<string, number>>;

/**
 * Runs seeds through Knex's seed runner, each as one write like any other. This
 * is safe to repeat and to do in several processes at once. An imported store
 * gets the catalogue alone: its agents and configs are those of its operator,
 * and what was deleted there stays deleted.
 * @param which `missing`: only seeds that this store never had; `all`: every seed again.
 * @param options.evenImported run the seeds of agents and configs on an imported store, too.
 */
export async function seed(
  store: Store,
  which: 'missing' | 'all',
  { evenImported = false }: { readonly evenImported?: boolean } = {},
): Promise<Seeded> {
  const { knex } = store.database;
  const had: string[] = which === 'all' ? [] : await knex('store_seeds').pluck('name');
  const missing = seeds.filter(({ name }) => !had.includes(name));
  const [catalogue, rest] = [missing.filter((one) => one.catalogue), missing.filter((one) => !one.catalogue)];
  const rows: Record<string, number> = {};
  await run(store, catalogue, rows);
  // After the catalogue, which has the canonical names of providers; before the seeds that build on the rows.
  const adopted = await importRows(store);
  if (adopted > 0) rows['adopted'] = adopted;
  if (evenImported || !(await isImported(knex))) await run(store, rest, rows);
  return rows;
}

async function run(store: Store, wanted: readonly Seed[], rows: Record<string, number>): Promise<void> {
  const { knex } = store.database;
  const seedSource = {
    getSeeds: async () => wanted.map(({ name }) => name),
    getSeed: async (name: string) => ({
      seed: async () => {
        rows[name] = await runSeed(store, wanted.find((one) => one.name === name) as Seed);
        await knex('store_seeds').insert({ name }).onConflict('name').ignore();
      },
    }),
  };
  await knex.seed.run({ seedSource });
}

async function runSeed(store: Store, { name, plan }: Seed): Promise<number> {
  let rows = 0;
  await transact(store, {
    actor: 'agentllm seed',
    method: `seed/${name}`,
    requestId: undefined,
    reason: undefined,
    plan,
    answer: (count) => {
      rows = count;
      return new Uint8Array();
    },
    body: () => new Uint8Array(),
  });
  return rows;
}
