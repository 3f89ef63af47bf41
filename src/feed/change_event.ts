import { isReencrypted } from '../domain/draft.js';
import { currentPrice } from '../domain/price_book.js';
import type {
  Agent,
  Budget,
  Cause,
  Change,
  Config,
  Credential,
  Experiment,
  Model,
  Price,
  Provider,
} from '../domain/rows.js';
import type { State } from '../domain/state.js';
import type { CommittedRevision } from '../store/replica_state.js';

/** An agent with its configs at one revision. Immutable, because rows are replaced and never modified. */
export interface AgentMaterial {
  readonly id: number | undefined;
  /** The name that a watch filters by. */
  readonly name: string;
  /** undefined: no agent has this name or id. */
  readonly agent: Agent | undefined;
  readonly configs: readonly Config[];
  /**
   * Names of the credentials that the configs use, by id. A credential may be deleted before the message is encoded.
   */
  readonly credentials: ReadonlyMap<number, string>;
  /** The budgets for this agent alone. */
  readonly budgets: readonly Budget[];
  /** The experiments of the agent that are running or paused. */
  readonly experiments: readonly Experiment[];
  /** Whether the change overrides pins. */
  readonly urgent: boolean;
}

/** A catalogue item at one revision; `row` is undefined when the item is deleted. */
export type CatalogueMaterial = { readonly name: string; readonly urgent: boolean } & (
  | { readonly kind: 'provider'; readonly row: Provider | undefined }
  | { readonly kind: 'model'; readonly row: Model | undefined; readonly price: Price | undefined }
  | { readonly kind: 'credential'; readonly row: Credential | undefined }
  | { readonly kind: 'budget'; readonly row: Budget | undefined }
);

/** One revision as watchers receive it: the complete new material of every agent and catalogue item that it changed. */
export interface ChangeEvent {
  readonly revision: number;
  readonly nonce: string;
  readonly cause: Cause;
  readonly agents: readonly AgentMaterial[];
  readonly catalogue: readonly CatalogueMaterial[];
}

/** The number of items that an event holds in memory. */
export const sizeOf = ({ agents, catalogue }: ChangeEvent): number => agents.length + catalogue.length;

/** Collects the material that a revision changed. `state` must be exactly at that revision. */
export function changeEventOf(state: State, { revision, nonce, changes: all, cause }: CommittedRevision): ChangeEvent {
  const changes = all.some(isReencrypted) ? all.filter((change) => !isReencrypted(change)) : all;
  return {
    revision,
    nonce,
    cause,
    agents: [...touchedAgents(state, changes)],
    catalogue: touchedCatalogue(state, changes),
  };
}

/** Snapshots share the material of an agent until its rows are replaced. */
const cachedMaterial = new WeakMap<Agent, AgentMaterial>();

export function materialOf(state: State, agent: Agent, urgent = false): AgentMaterial {
  const { id, name } = agent;
  const configs = state.configsOf(id);
  const cached = urgent ? undefined : cachedMaterial.get(agent);
  const budgets = state.budgets.ofAgent(id);
  const experiments = state.experiments.activeOf(id);
  if (cached?.configs === configs && cached.budgets === budgets && cached.experiments === experiments) return cached;
  const credentials = credentialsOf(state, configs);
  const material = { id, name, agent, configs, budgets, experiments, credentials, urgent };
  // A credential is a separate row: its name may change while the rows of the agent do not.
  if (!urgent && configs.every(({ credential_id }) => !credential_id)) cachedMaterial.set(agent, material);
  return material;
}

export const NONE = {
  agent: undefined,
  configs: [],
  budgets: [],
  experiments: [],
  credentials: new Map<number, string>(),
} as const;

function credentialsOf(state: State, configs: readonly Config[]): ReadonlyMap<number, string> {
  let names: Map<number, string> | undefined;
  for (const { credential_id } of configs) {
    const credential = credential_id && state.credentials.get(credential_id);
    if (!credential) continue;
    names ??= new Map();
    names.set(credential.id, credential.name);
  }
  return names ?? NONE.credentials;
}

function* touchedAgents(state: State, changes: readonly Change[]): Generator<AgentMaterial> {
  const touched = new Map<number, boolean>();
  for (const change of changes) {
    const id = agentIdOf(change);
    if (id === undefined) continue;
    touched.set(id, (touched.get(id) ?? false) || isUrgent(change));
    // A rename deletes the agent under its old name, for watches by that name and for clients that hold it.
    if (change.entity === 'agent' && change.before && change.before.name !== change.after?.name)
      yield { id, name: change.before.name, ...NONE, urgent: true };
  }
  for (const [id, urgent] of touched) {
    const agent = state.agents.get(id);
    if (agent) yield materialOf(state, agent, urgent);
  }
}

function agentIdOf(change: Change): number | undefined {
  if (change.entity === 'agent') return change.id;
  if (change.entity === 'config' || change.entity === 'experiment') return (change.after ?? change.before)?.agent_id;
  return change.entity === 'budget' ? ((change.after ?? change.before)?.agent_id ?? undefined) : undefined;
}

/** Whether a change revokes something that a running client must stop using: a key, an agent or a provider. */
function isUrgent(change: Change): boolean {
  if (!change.before) return false;
  if (change.entity === 'agent') return change.before?.is_active === true && change.after?.is_active !== true;
  if (change.entity === 'provider') return change.before?.enabled === true && change.after?.enabled !== true;
  if (change.entity === 'credential') return change.before?.key_revision !== change.after?.key_revision;
  if (change.entity !== 'config') return false;
  if (change.before.credential_id != null && change.after?.credential_id !== change.before.credential_id) return true;
  if (change.before.key_id == null) return false;
  return change.after?.key_id == null || change.after.key_revision !== change.before.key_revision;
}

function touchedCatalogue(state: State, changes: readonly Change[]): CatalogueMaterial[] {
  const byKey = new Map<string, CatalogueMaterial>();
  for (const change of changes) {
    const material = catalogueMaterialOf(state, change);
    if (!material) continue;
    const key = `${material.kind} ${material.name}`;
    byKey.set(key, { ...material, urgent: material.urgent || (byKey.get(key)?.urgent ?? false) });
  }
  return [...byKey.values()];
}

function catalogueMaterialOf(state: State, change: Change): CatalogueMaterial | undefined {
  const { entity } = change;
  if (entity === 'budget' && (change.after ?? change.before)?.agent_id !== null) return undefined;
  if (entity === 'provider' || entity === 'credential' || entity === 'budget') {
    const name = (change.after ?? change.before)?.name as string;
    return { kind: entity, name, row: change.after, urgent: isUrgent(change) } as CatalogueMaterial;
  }
  if (entity === 'model') return modelMaterial(state, (change.after ?? change.before) as Model, change.after);
  if (entity !== 'price') return undefined;
  const model = state.modelWithId((change.after ?? change.before)?.model_id as number);
  return model && modelMaterial(state, model, model);
}

/** @param row undefined when the model is deleted. */
export const modelMaterial = (
  state: State,
  { provider, name, id }: Model,
  row: Model | undefined,
): CatalogueMaterial => ({
  kind: 'model',
  name: `${provider}/${name}`,
  row,
  price: currentPrice(state.pricesOf(id), new Date()),
  urgent: false,
});
