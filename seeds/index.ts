import type { Plan } from '../src/store/write/planned_write.js';
import { seedAgents } from './agents.js';
import { seedCatalogue } from './catalogue.js';
import { seedDefaultConfigs } from './default_configs.js';
import type { SeedModel } from './model.js';

/** One seed: a plan that returns how many rows it created or updated. */
export interface Seed {
  readonly name: string;
  /** Whether it creates only providers and models. Other seeds do not run on an imported store. */
  readonly catalogue: boolean;
  /** @param model the model of new agents and configs; undefined: that of the original Python system. */
  plan(model: SeedModel | undefined): Plan<number>;
}

/** The seeds, in the order of their dependencies. */
export const seeds: readonly Seed[] = [
  { name: 'catalogue', catalogue: true, plan: () => seedCatalogue },
  { name: 'agents', catalogue: false, plan: seedAgents },
  { name: 'default_configs', catalogue: false, plan: seedDefaultConfigs },
];
