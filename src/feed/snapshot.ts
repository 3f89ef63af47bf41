import type { State } from '../domain/state.js';
import { type AgentMaterial, type CatalogueMaterial, materialOf, modelMaterial, NONE } from './change_event.js';
import type { Filter } from './filter.js';

/** All providers, models, credentials and shared budgets of a state. */
export function catalogueOf(state: State): CatalogueMaterial[] {
  const items: CatalogueMaterial[] = [];
  for (const provider of state.providersInOrder.after())
    items.push({ kind: 'provider', name: provider.name, row: provider, urgent: false });
  for (const model of state.modelsInOrder.after()) items.push(modelMaterial(state, model, model));
  for (const credential of state.credentialsInOrder.after())
    items.push({ kind: 'credential', name: credential.name, row: credential, urgent: false });
  for (const budget of state.budgets.inOrder.after())
    if (budget.agent_id === null) items.push({ kind: 'budget', name: budget.name, row: budget, urgent: false });
  return items;
}

/** The agents that a filter selects, including those that it names and that do not exist. */
export function agentsFor(state: State, { all, names, ids }: Filter): AgentMaterial[] {
  if (all) return [...state.agentsInOrder.after()].map((agent) => materialOf(state, agent));
  const found = new Map<number, AgentMaterial>();
  const missing: AgentMaterial[] = [];
  const nothing = { ...NONE, urgent: false };
  for (const name of names) {
    const agent = state.agentNamed(name);
    if (agent) found.set(agent.id, materialOf(state, agent));
    else missing.push({ id: undefined, name, ...nothing });
  }
  for (const id of ids) {
    const agent = state.agents.get(id);
    if (agent) found.set(id, materialOf(state, agent));
    else missing.push({ id, name: '', ...nothing });
  }
  return [...found.values(), ...missing];
}
