import type { Plan } from '../src/store/write.js';
import { seedAgents } from './agents.js';
import { seedCatalogue } from './catalogue.js';
import { seedDefaultConfigs } from './default_configs.js';

/** One seed: a plan that says how many rows it brought. */
export interface Seed {
  readonly name: string;
  readonly plan: Plan<number>;
}

/** The seeds in the order in which they build on each other. */
export const seeds: readonly Seed[] = [
  { name: 'catalogue', plan: seedCatalogue },
  { name: 'agents', plan: seedAgents },
  { name: 'default_configs', plan: seedDefaultConfigs },
];
