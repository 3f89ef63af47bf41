import { newAgent } from '../src/domain/agent.js';
import type { Plan } from '../src/store/write/planned_write.js';
import { readData } from './data.js';
import type { SeedModel } from './model.js';

interface AgentData {
  readonly name: string;
  readonly capabilities: readonly string[];
  readonly required_tools: readonly string[];
  readonly [column: string]: unknown;
}

/**
 * The twelve agents of the original Python system. An existing agent is not changed.
 * @param model the default model of the agents; undefined: that of every new agent.
 */
export const seedAgents =
  (model?: SeedModel): Plan<number> =>
  (state, draft) => {
    const missing = readData<AgentData>('agents').filter(({ name }) => !state.agentNamed(name));
    for (const { capabilities, required_tools, ...columns } of missing) {
      draft.create('agent', {
        ...newAgent(),
        ...columns,
        ...(model && { llm_provider: model.provider, llm_model: model.name }),
        capabilities_json: JSON.stringify(capabilities),
        required_tools_json: JSON.stringify(required_tools),
      });
    }
    return missing.length;
  };
