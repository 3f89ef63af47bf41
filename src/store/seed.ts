import { type Seed, seeds } from '../../seeds/index.js';
import { adoptRows } from './adoption.js';
import type { Store } from './store.js';
import { transact } from './transact.js';

/**
 * How many rows each seed brought; one that found nothing to do brought none.
 * `adopted`: how many rows the database had before it was ours, when it had any.
 */
export type Seeded = Readonly<Record<string, number>>;

/**
 * Runs seeds through Knex's seed runner, each as one write like any other: safe
 * to repeat and to run in several processes at once.
 * @param which `missing`: only seeds that this store has never had, so that what
 *   a person deleted does not come back; `all`: every seed again.
 */
export async function seed(store: Store, which: 'missing' | 'all'): Promise<Seeded> {
  const { knex } = store.database;
  const had: string[] = which === 'all' ? [] : await knex('store_seeds').pluck('name');
  const wanted = seeds.filter(({ name }) => !had.includes(name));
  const brought: Record<string, number> = {};
  // Once the providers are known by whose names the rows go, and before anything is built on the rows.
  const adopt = async () => {
    const adopted = await adoptRows(store);
    if (adopted > 0) brought['adopted'] = adopted;
  };
  const seedSource = {
    getSeeds: async () => wanted.map(({ name }) => name),
    getSeed: async (name: string) => ({
      seed: async () => {
        if (name !== 'catalogue') await adopt();
        brought[name] = await runSeed(store, wanted.find((one) => one.name === name) as Seed);
        await knex('store_seeds').insert({ name }).onConflict('name').ignore();
      },
    }),
  };
  await knex.seed.run({ seedSource });
  return brought;
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
