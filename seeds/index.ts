import type { Plan } from '../src/store/write/planned_write.js';
import { seedAgents } from './agents.js';
import { seedCatalogue } from './catalogue.js';
import { seedDefaultConfigs } from './default_configs.js';

/** One seed: a plan that returns how many rows it created or updated. */
export interface Seed {
  readonly name: string;
  /** Whether it creates only providers and models. Other seeds do not run on an imported store. */
  readonly catalogue: boolean;
  readonly plan: Plan<number>;
}

/** The seeds, in the order of their dependencies. */
export const seeds: readonly Seed[] = [
  { name: 'catalogue', catalogue: true, plan: seedCatalogue },
  { name: 'agents', catalogue: false, plan: seedAgents },
  { name: 'default_configs', catalogue: false, plan: seedDefaultConfigs },
];
