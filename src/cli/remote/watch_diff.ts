import type { AgentLLMConfig } from '../../../gen/ts/agentllm/v1/agent_llm_config.js';
import type { CatalogueItem, WatchedAgent } from '../../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import type { Batch } from '../../client/view.js';
import { type ChangeRecord, type Difference, describeDifferences, differences } from './changes.js';
import { modelOf } from './config_fields.js';

/* The differences between the complete resources of a watch and their previous state. */

/** The change of one resource. */
export interface WatchDiff {
  readonly kind: 'agent' | 'config' | 'provider' | 'model' | 'credential';
  /** The agent, or the owner of the config. */
  readonly agent?: string;
  /** Only for a config. */
  readonly id?: number;
  /** For a config: its model. */
  readonly name: string;
  /** `seen`: its previous state is unknown. */
  readonly action: 'created' | 'updated' | 'deleted' | 'seen';
  /** Whether the change overrides pins. */
  readonly urgent: boolean;
  /** The changed fields of an update; a replaced key is not visible. */
  readonly fields: readonly Difference[];
  /** The previous state, for its unchanged fields. */
  readonly before?: object | undefined;
}

/** The state that was received so far. */
export class WatchState {
  private agents = new Map<string, WatchedAgent>();
  private catalogue = new Map<string, CatalogueItem>();
  /** Whether a snapshot was received: then a resource that is absent here does not exist. */
  private hasSnapshot = false;

  get agentCount(): number {
    return [...this.agents.values()].filter(({ agent }) => agent).length;
  }

  /** The watched names without an agent. */
  get missing(): string[] {
    return [...this.agents.values()].filter(({ agent }) => !agent).map(({ name, id }) => name || `#${id}`);
  }

  /** Applies a batch and returns the differences; none for the first snapshot. */
  apply(batch: Batch): WatchDiff[] {
    if (!batch.snapshot) return this.change(batch);
    const first = !this.hasSnapshot;
    const before = [...this.agents.values()];
    const itemsBefore = [...this.catalogue.keys()];
    const names = new Set(batch.agents.map(({ name }) => name));
    const keys = new Set(batch.catalogue.map(keyOf));
    const deletedAgents = before
      .filter(({ name }) => !names.has(name))
      .map((one) => ({ ...one, agent: undefined, configs: [] }));
    const deletedItems = itemsBefore.filter((key) => !keys.has(key)).map(deletedItem);
    const diffs = this.change({
      agents: [...batch.agents, ...deletedAgents],
      catalogue: [...batch.catalogue, ...deletedItems],
    });
    this.hasSnapshot = true;
    return first ? [] : diffs;
  }

  private change({ agents, catalogue }: Pick<Batch, 'agents' | 'catalogue'>): WatchDiff[] {
    const present = new Set(agents.filter(({ agent }) => agent).map(({ id }) => id));
    // An agent that is absent under one name and present under another was renamed.
    const renamedAgents = agents
      .filter(({ agent, id }) => !agent && present.has(id))
      .map(({ name }) => this.agents.get(name));
    const renamed = new Map(renamedAgents.filter((one) => one?.agent).map((one) => [one?.id, one]));
    const diffs = [
      ...catalogue.flatMap((item) => this.toItem(item)),
      ...agents
        .filter(({ agent, id }) => agent || !present.has(id))
        .flatMap((one) => this.toAgent(renamed.get(one.id) ?? this.agents.get(one.name), one)),
    ];
    for (const one of agents) this.agents.set(one.name, one);
    for (const item of catalogue) this.catalogue.set(keyOf(item), item);
    return diffs;
  }

  private toAgent(before: WatchedAgent | undefined, after: WatchedAgent): WatchDiff[] {
    const { name, urgent } = after;
    const agent = { kind: 'agent', agent: name, name, urgent, fields: [] } as const;
    if (!before && !this.hasSnapshot)
      return [{ ...agent, action: 'seen' }, ...after.configs.map((one) => seen(one, name))];
    if (!after.agent) return before?.agent ? [{ ...agent, action: 'deleted' }] : [];
    const configs = configDiffs(before?.configs ?? [], after.configs, name, urgent);
    if (!before?.agent) return [{ ...agent, action: 'created' }, ...configs];
    const fields = differences(before.agent, after.agent);
    return [...(fields.length > 0 ? [{ ...agent, action: 'updated', fields } as const] : []), ...configs];
  }

  private toItem(after: CatalogueItem): WatchDiff[] {
    const key = keyOf(after);
    const previousItem = this.catalogue.get(key);
    const [before, now] = [previousItem && resourceIn(previousItem), resourceIn(after)];
    const at = key.indexOf(' ');
    const kind = key.slice(0, at) as WatchDiff['kind'];
    const item = { kind, name: key.slice(at + 1), urgent: after.urgent, fields: [] };
    if (!now) return before || !this.hasSnapshot ? [{ ...item, action: 'deleted' }] : [];
    if (!before) return [{ ...item, action: this.hasSnapshot ? 'created' : 'seen' }];
    if (before.revision === now.revision && differences(before, now).length === 0) return [];
    return [{ ...item, action: 'updated', fields: differences(before, now) }];
  }
}

const seen = (config: AgentLLMConfig, agent: string): WatchDiff => ({
  ...{ kind: 'config', agent, id: config.id, name: modelOf(config), action: 'seen', urgent: false, fields: [] },
});

function configDiffs(
  before: readonly AgentLLMConfig[],
  after: readonly AgentLLMConfig[],
  agent: string,
  urgent: boolean,
): WatchDiff[] {
  const diffOf = (config: AgentLLMConfig, more: Pick<WatchDiff, 'action' | 'fields'>): WatchDiff => ({
    ...{ kind: 'config', agent, id: config.id, name: modelOf(config), urgent, before: config },
    ...more,
  });
  const previousById = new Map(before.map((config) => [config.id, config]));
  const remainingIds = new Set(after.map(({ id }) => id));
  const deleted = before
    .filter(({ id }) => !remainingIds.has(id))
    .map((one) => diffOf(one, { action: 'deleted', fields: [] }));
  const changed = after.flatMap((config) => {
    const previous = previousById.get(config.id);
    if (!previous) return [diffOf(config, { action: 'created', fields: [] })];
    if (previous.revision === config.revision) return [];
    const fields = differences(previous, config);
    return [{ ...diffOf(config, { action: 'updated', fields }), before: previous }];
  });
  return [...changed, ...deleted];
}

const resourceIn = ({ provider, model, credential }: CatalogueItem) => provider ?? model ?? credential;

/** The key of an item: its kind and its name. */
function keyOf(item: CatalogueItem): string {
  const { provider, model, credential } = item;
  if (model) return `model ${model.provider}/${model.name}`;
  if (item.deleted_model !== undefined) return `model ${item.deleted_model}`;
  if (credential) return `credential ${credential.name}`;
  if (item.deleted_credential !== undefined) return `credential ${item.deleted_credential}`;
  return `provider ${provider?.name ?? item.deleted_provider}`;
}

function deletedItem(key: string): CatalogueItem {
  const at = key.indexOf(' ');
  return { [`deleted_${key.slice(0, at)}`]: key.slice(at + 1), urgent: false, next_prices: [] };
}

/** The text of a change. */
export function changeRecordOfDiff({ kind, agent, id, name, action, urgent, fields, before }: WatchDiff): ChangeRecord {
  const subject = agent ?? (kind === 'credential' ? 'keys' : 'catalogue');
  const what = kind === 'agent' ? 'agent' : kind === 'config' ? `config ${id}` : `${kind} ${name}`;
  return {
    subject,
    what: `${what}${actionText({ kind, name, action, urgent, fields, before })}${urgent ? ' (urgent)' : ''}`,
  };
}

function actionText({ kind, name, action, urgent, fields, before }: WatchDiff): string {
  const model = kind === 'config' ? ` ${name}` : '';
  if (action === 'seen') return `${model} (current state)`;
  if (action === 'deleted' && kind === 'agent') return ' deleted or renamed';
  if (action !== 'updated') return `${model} ${action}`;
  if (fields.length > 0) return `: ${describeDifferences(fields, { ...before })}`;
  // Only the key of a resource is invisible, so an urgent change without visible fields is a replaced key.
  return urgent ? ': API key replaced' : ': no visible change';
}
