import { newConfig } from '../src/domain/config.js';
import type { Config } from '../src/domain/rows.js';
import { accepts, ruleFor } from '../src/domain/rules.js';
import type { State } from '../src/domain/state.js';
import type { Plan } from '../src/store/write/planned_write.js';
import type { SeedModel } from './model.js';

/** The default config of the original Python system. */
const MODEL: SeedModel = { provider: 'openai', name: 'gpt-4' };
const TEMPERATURE = 0.7;
const MAX_TOKENS = 2000;

/** Creates a default config for every agent without any config. */
export const seedDefaultConfigs =
  (model = MODEL): Plan<number> =>
  (state, draft) => {
    const fields = configFields(state, model);
    const withoutConfig = [...state.agentsInOrder.after()].filter((agent) => state.configsOf(agent.id).length === 0);
    for (const agent of withoutConfig) draft.create('config', { ...newConfig(agent.id, 0), ...fields });
    return withoutConfig.length;
  };

/** The default parameters, as far as the model accepts them. */
function configFields(state: State, { provider, name }: SeedModel): Partial<Config> {
  const model = state.model(provider, name);
  const rule = ruleFor(state.provider(provider), model, 'temperature');
  return {
    provider,
    model_name: name,
    temperature: accepts(rule, undefined) ? TEMPERATURE : null,
    max_tokens: Math.min(MAX_TOKENS, model?.max_output_tokens ?? MAX_TOKENS),
  };
}
