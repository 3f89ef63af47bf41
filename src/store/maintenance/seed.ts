import { type Seed, seeds } from '../../../seeds/index.js';
import type { SeedModel } from '../../../seeds/model.js';
import type { Store } from '../store.js';
import { transact } from '../write/transact.js';
import { importRows, isImported } from './database_import.js';
import { findSeedModel, type WrittenModel } from './seed_model.js';

/**
 * Number of rows that each seed created or updated; 0 when nothing was missing.
 * `adopted`: the number of imported rows that were added to the log, if any.
 */
export type Seeded = Readonly<Record<string, number>>;

export interface SeedOptions {
  /** Also run the seeds of agents and configs on an imported store. */
  readonly evenImported?: boolean | undefined;
  /** The model of new agents and configs. Default: that of the original Python system. */
  readonly model?: WrittenModel | undefined;
}

/**
 * Runs seeds through Knex's seed runner, each as an ordinary write. This is safe to repeat, also in concurrent
 * processes. An imported store gets only the catalogue: its agents and configs belong to its operator, and deleted rows
 * must not reappear.
 * @param which `missing`: only seeds that were never applied to this store; `all`: every seed again.
 */
export async function seed(
  store: Store,
  which: 'missing' | 'all',
  { evenImported = false, model: written }: SeedOptions = {},
): Promise<Seeded> {
  const { knex } = store.database;
  const applied: string[] = which === 'all' ? [] : await knex('store_seeds').pluck('name');
  const missing = seeds.filter(({ name }) => !applied.includes(name));
  const [catalogue, others] = [missing.filter((one) => one.catalogue), missing.filter((one) => !one.catalogue)];
  const rows: Record<string, number> = {};
  await run(store, catalogue, rows, undefined);
  // After the catalogue, which has the canonical names of providers, and before the seeds that depend on the rows.
  const imported = await importRows(store);
  if (imported > 0) rows['adopted'] = imported;
  if (others.length === 0 || (!evenImported && (await isImported(knex)))) return rows;
  // Without anything to seed, a model that the catalogue no longer contains is not an error.
  await run(store, others, rows, written && findSeedModel(store.state, written));
  return rows;
}

async function run(
  store: Store,
  selected: readonly Seed[],
  rows: Record<string, number>,
  model: SeedModel | undefined,
): Promise<void> {
  const { knex } = store.database;
  const seedSource = {
    getSeeds: async () => selected.map(({ name }) => name),
    getSeed: async (name: string) => ({
      seed: async () => {
        rows[name] = await runSeed(store, selected.find((one) => one.name === name) as Seed, model);
        await knex('store_seeds').insert({ name }).onConflict('name').ignore();
      },
    }),
  };
  await knex.seed.run({ seedSource });
}

async function runSeed(store: Store, seed: Seed, model: SeedModel | undefined): Promise<number> {
  let rows = 0;
  await transact(store, {
    actor: 'agentllm seed',
    method: `seed/${seed.name}`,
    requestId: undefined,
    reason: undefined,
    plan: seed.plan(model),
    encodeResponse: (count) => {
      rows = count;
      return new Uint8Array();
    },
    body: () => new Uint8Array(),
  });
  return rows;
}
