import { isResealed } from '../domain/draft.js';
import type { Agent, Cause, Change, Config, Credential, Model, Price, Provider } from '../domain/rows.js';
import type { State } from '../domain/state.js';
import type { CommittedRevision } from '../store/replica_state.js';

/** An agent with its configs at one revision. Rows are only ever replaced, so these stay what they were. */
export interface AgentMaterial {
  readonly id: number | undefined;
  /** Under which it is watched. */
  readonly name: string;
  /** undefined: there is none of this name. */
  readonly agent: Agent | undefined;
  readonly configs: readonly Config[];
  /** Names of the credentials that they use, by id: these may be gone when what they were called is still to be said. */
  readonly credentials: ReadonlyMap<number, string>;
  /** Whether nobody may go on with what was before. */
  readonly urgent: boolean;
}

/** A part of the catalogue at one revision; what is gone has no row. */
export type CatalogueMaterial = { readonly name: string; readonly urgent: boolean } & (
  | { readonly kind: 'provider'; readonly row: Provider | undefined }
  | { readonly kind: 'model'; readonly row: Model | undefined; readonly price: Price | undefined }
  | { readonly kind: 'credential'; readonly row: Credential | undefined }
);

/** One revision as watchers see it: everything that it touched, whole. */
export interface ChangeEvent {
  readonly revision: number;
  readonly nonce: string;
  readonly cause: Cause;
  readonly agents: readonly AgentMaterial[];
  readonly catalogue: readonly CatalogueMaterial[];
}

/** Takes down what a revision touched of what is shown; `state` must be exactly at that revision. */
export function changeEventOf(state: State, { revision, nonce, changes: all, cause }: CommittedRevision): ChangeEvent {
  const changes = all.some(isResealed) ? all.filter((change) => !isResealed(change)) : all;
  return {
    revision,
    nonce,
    cause,
    agents: [...touchedAgents(state, changes)],
    catalogue: touchedCatalogue(state, changes),
  };
}

/** Snapshots have a moment of every agent in common, as long as its rows stand. */
const moments = new WeakMap<Agent, AgentMaterial>();

export function materialOf(state: State, agent: Agent, urgent = false): AgentMaterial {
  const { id, name } = agent;
  const configs = state.configsOf(id);
  const known = urgent ? undefined : moments.get(agent);
  if (known?.configs === configs) return known;
  const moment = { id, name, agent, configs, credentials: credentialsOf(state, configs), urgent };
  // Credentials are rows of their own and may be renamed while the agent stays as it is.
  if (!urgent && configs.every(({ credential_id }) => !credential_id)) moments.set(agent, moment);
  return moment;
}

export const NONE = { agent: undefined, configs: [], credentials: new Map<number, string>() } as const;

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
    // Under its old name it is gone, for those who watch that name and for those who hold it.
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
  return change.entity === 'config' ? (change.after ?? change.before)?.agent_id : undefined;
}

/** Whether a change takes back what a run must not go on using: a key, an agent, a provider. */
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
  const moments = new Map<string, CatalogueMaterial>();
  for (const change of changes) {
    const moment = catalogueMaterialOf(state, change);
    if (!moment) continue;
    const key = `${moment.kind} ${moment.name}`;
    moments.set(key, { ...moment, urgent: moment.urgent || (moments.get(key)?.urgent ?? false) });
  }
  return [...moments.values()];
}

function catalogueMaterialOf(state: State, change: Change): CatalogueMaterial | undefined {
  const { entity } = change;
  if (entity === 'provider' || entity === 'credential') {
    const name = (change.after ?? change.before)?.name as string;
    return { kind: entity, name, row: change.after, urgent: isUrgent(change) } as CatalogueMaterial;
  }
  if (entity === 'model') return modelMaterial(state, (change.after ?? change.before) as Model, change.after);
  if (entity !== 'price') return undefined;
  const model = state.modelWithId((change.after ?? change.before)?.model_id as number);
  return model && modelMaterial(state, model, model);
}

/** @param row undefined when the model is gone. */
export const modelMaterial = (
  state: State,
  { provider, name, id }: Model,
  row: Model | undefined,
): CatalogueMaterial => ({
  kind: 'model',
  name: `${provider}/${name}`,
  row,
  price: state.pricesOf(id).at(-1),
  urgent: false,
});
