import { newConfig } from '../src/domain/config.js';
import type { Plan } from '../src/store/write/planned_write.js';

/** The default config for every agent that has no config, enabled or not. */
export const seedDefaultConfigs: Plan<number> = (state, draft) => {
  const unconfigured = [...state.agentsInOrder.after()].filter((agent) => state.configsOf(agent.id).length === 0);
  for (const agent of unconfigured) {
    const model = { provider: 'openai', model_name: 'gpt-4', temperature: 0.7, max_tokens: 2000 };
    draft.create('config', { ...newConfig(agent.id, 0), ...model });
  }
  return unconfigured.length;
};
