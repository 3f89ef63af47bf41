import { newAgent } from '../src/domain/agent.js';
import type { Plan } from '../src/store/write/planned_write.js';
import { readData } from './data.js';

interface AgentData {
  readonly name: string;
  readonly capabilities: readonly string[];
  readonly required_tools: readonly string[];
  readonly [column: string]: unknown;
}

/** The twelve agents of the trading workflow. An agent that exists already is not changed. */
export const seedAgents: Plan<number> = (state, draft) => {
  const missing = readData<AgentData>('agents').filter(({ name }) => !state.agentNamed(name));
  for (const { capabilities, required_tools, ...columns } of missing) {
    draft.create('agent', {
      ...newAgent(),
      ...columns,
      capabilities_json: JSON.stringify(capabilities),
      required_tools_json: JSON.stringify(required_tools),
    });
  }
  return missing.length;
};
