import type { ReorderConfigsRequest } from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import type { Draft } from '../../domain/draft.js';
import type { Config } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import type { Problems } from '../../problems.js';
import { chainEtagOf } from '../messages/entities.js';
import { agentOf, checkEtag, checkRef } from './requests.js';

/** An agent's configs in their new order, and the revision of the last reordering of its chain. */
export interface Reordered {
  readonly configs: readonly Config[];
  readonly chainRevision: number;
}

/** Gives all configs of an agent the priorities 0, 1, 2, … in the order of the request. */
export function reorder(state: State, draft: Draft, problems: Problems, request: ReorderConfigsRequest): Reordered {
  checkRef(problems, request.agent);
  problems.throwIfAny();
  const agent = agentOf(state, request.agent);
  const stored = new Map(state.configsOf(agent.id).map((config) => [config.id, config]));
  checkIds(problems, request.config_ids, stored);
  problems.throwIfAny();
  const current = chainEtagOf(state, agent.chain_revision, [...stored.values()]);
  checkEtag(request.chain_etag, current, `The chain of agent ${JSON.stringify(agent.name)}`);
  const configs = request.config_ids.map((id, priority) => {
    const config = stored.get(id) as Config;
    return config.priority === priority ? config : draft.update('config', config, { ...config, priority });
  });
  return { configs, chainRevision: draft.changes.length > 0 ? draft.revision : agent.chain_revision };
}

/** The order must contain every config of the agent exactly once, and no other id. */
function checkIds(problems: Problems, ids: readonly number[], stored: ReadonlyMap<number, Config>): void {
  const seen = new Set<number>();
  for (const [at, id] of ids.entries()) {
    if (!stored.has(id)) problems.add(`config_ids[${at}]`, `${id} is not a config of this agent`);
    else if (seen.has(id)) problems.add(`config_ids[${at}]`, `${id} is in the list twice`);
    seen.add(id);
  }
  const missing = [...stored.keys()].filter((id) => !seen.has(id));
  if (missing.length > 0)
    problems.add('config_ids', `does not contain ${missing.slice(0, 20).join(', ')}; all configs must be listed`);
}
