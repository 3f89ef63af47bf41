import { BudgetIndex } from './budget_index.js';
import { inChainOrder } from './chain.js';
import { agentsWithMovedChain } from './draft.js';
import { EncryptionState } from './encryption_state.js';
import { ExperimentIndex } from './experiments/experiment_index.js';
import { NameIndex, normalName } from './name_index.js';
import { Ordered } from './ordered.js';
import type {
  Agent,
  Budget,
  Change,
  Config,
  Credential,
  Entities,
  Entity,
  Experiment,
  Model,
  Price,
  Provider,
  Token,
} from './rows.js';

const compareText = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);
const byId = (a: { id: number }, b: { id: number }) => a.id - b.id;
/** Order of models in lists: provider, then name. */
export const byModelName = (a: Pick<Model, 'provider' | 'name'>, b: Pick<Model, 'provider' | 'name'>) =>
  compareText(a.provider, b.provider) || compareText(a.name, b.name);
const modelKey = (provider: string, name: string) => `${provider}\0${name}`;

interface Put {
  readonly entity: Entity;
  readonly before: Entities[Entity] | undefined;
  readonly after: Entities[Entity] | undefined;
}

function putOrDelete<K, V>(map: Map<K, V>, key: K, value: V, put: boolean): void {
  if (put) map.set(key, value);
  else map.delete(key);
}

const NOT_CATALOGUE: readonly Entity[] = ['agent', 'config', 'token', 'experiment'];

/** One list for all agents without configs: an encoded agent is cached by the identity of its list. */
const NO_CONFIGS: readonly Config[] = [];

/**
 * The whole configuration at one revision, in memory. Reads are served from it and
 * writes are planned against it. Only `apply` changes it, one revision at a time
 * and synchronously, so that no reader sees a part of a revision.
 */
export class State {
  /** The revision of this state; 0 before the first write. */
  revision = 0;
  /** Random value of that revision, which detects that the store was restored from a backup. */
  nonce = '';
  /** The identity of the store; part of every etag. */
  identity = '';

  /** Counts changes of providers, models, prices, credentials and budgets. Derived values are valid while it is unchanged. */
  catalogueVersion = 0;

  /** Whether keys can be stored, and which stored keys are readable. */
  encryption = EncryptionState.none;

  readonly agents = new Map<number, Agent>();
  readonly configs = new Map<number, Config>();
  readonly agentsInOrder = new Ordered<Agent>(byId);
  readonly configsInOrder = new Ordered<Config>(byId);
  readonly credentials = new Map<number, Credential>();
  readonly credentialsInOrder = new Ordered<Credential>((a, b) => compareText(a.name, b.name));
  readonly providersInOrder = new Ordered<Provider>((a, b) => compareText(a.name, b.name));
  readonly modelsInOrder = new Ordered<Model>(byModelName);

  readonly budgets = new BudgetIndex();
  readonly experiments = new ExperimentIndex();
  readonly tokens = new Map<number, Token>();
  readonly tokensInOrder = new Ordered<Token>(byId);

  private readonly tokensByName = new Map<string, Token>();
  private readonly tokensByHash = new Map<string, Token>();
  private readonly tokensByCertificate = new Map<string, Token>();
  private readonly credentialsByName = new NameIndex<Credential>();
  private readonly usesOfCredentials = new Map<number, number>();
  private readonly agentsByName = new NameIndex<Agent>();
  private readonly configsByAgent = new Map<number, readonly Config[]>();
  private readonly providersByName = new Map<string, Provider>();
  private readonly modelsByName = new NameIndex<Model>();
  private readonly modelsById = new Map<number, Model>();
  private readonly pricesByModel = new Map<number, readonly Price[]>();
  /** The changes during `speculate`, which reverts them. */
  private speculated: Put[] | undefined;

  agentNamed(name: string): Agent | undefined {
    return this.agentsByName.get(name);
  }

  /** The stored spelling of an agent's name; for an unknown agent, the spelling that would be stored. */
  storedAgentName(name: string): string {
    return this.agentNamed(name)?.name ?? normalName(name);
  }

  get agentNames(): Iterable<string> {
    return this.agentsByName.keys();
  }

  /** All configs of an agent, enabled or not, in the order of the chain. */
  configsOf(agentId: number): readonly Config[] {
    return this.configsByAgent.get(agentId) ?? NO_CONFIGS;
  }

  credentialNamed(name: string): Credential | undefined {
    return this.credentialsByName.get(name);
  }

  get credentialNames(): Iterable<string> {
    return this.credentialsByName.keys();
  }

  /** Whether a token was ever created, valid now or not. */
  get tokensExist(): boolean {
    return this.tokens.size > 0;
  }

  tokenNamed(tokenId: string): Token | undefined {
    return this.tokensByName.get(tokenId);
  }

  tokenWithHash(hash: string): Token | undefined {
    return this.tokensByHash.get(hash);
  }

  /** The token that a certificate identity was most recently bound to. */
  tokenOfCertificate(identity: string): Token | undefined {
    return this.tokensByCertificate.get(identity);
  }

  /** The number of configs that use a credential. */
  usesOf(credentialId: number): number {
    return this.usesOfCredentials.get(credentialId) ?? 0;
  }

  /** A provider by its name or one of its aliases, in any case. */
  provider(nameOrAlias: string): Provider | undefined {
    return this.providersByName.get(nameOrAlias.toLowerCase());
  }

  /** The names and aliases of all providers. */
  get providerNames(): Iterable<string> {
    return this.providersByName.keys();
  }

  model(provider: string, name: string): Model | undefined {
    return this.modelsByName.get(modelKey(provider, name));
  }

  modelWithId(id: number): Model | undefined {
    return this.modelsById.get(id);
  }

  modelsOf(provider: string): Model[] {
    const models: Model[] = [];
    for (const model of this.modelsInOrder.after((m) => (m.provider < provider ? -1 : 1))) {
      if (model.provider !== provider) break;
      models.push(model);
    }
    return models;
  }

  /** The prices of a model, oldest first. */
  pricesOf(modelId: number): readonly Price[] {
    return this.pricesByModel.get(modelId) ?? [];
  }

  /**
   * Applies the next revision. A revision that is already part of the state is
   * ignored, because both the feed and the writer of a revision apply it.
   */
  apply(revision: number, nonce: string, changes: readonly Change[]): void {
    if (revision <= this.revision) return;
    if (revision !== this.revision + 1) throw new Error(`revision ${revision} does not follow ${this.revision}`);
    for (const change of changes) this.put(change.entity, change.before, change.after);
    for (const id of agentsWithMovedChain(changes)) {
      const agent = this.agents.get(id);
      if (agent) this.put('agent', agent, { ...agent, chain_revision: revision });
    }
    this.revision = revision;
    this.nonce = nonce;
  }

  /**
   * Runs a function that applies revisions, and then reverts them. In this way a
   * plan includes the earlier writes of its batch, which are not committed yet.
   * The call is synchronous, so that no reader sees these writes.
   */
  speculate<T>(run: () => T): T {
    const { revision, nonce } = this;
    const changes: Put[] = [];
    this.speculated = changes;
    try {
      return run();
    } finally {
      this.speculated = undefined;
      for (const { entity, before, after } of changes.reverse()) this.put(entity, after, before);
      this.revision = revision;
      this.nonce = nonce;
    }
  }

  /** Adds one row while the store is loaded, without a revision. */
  load<E extends Entity>(entity: E, row: Entities[E]): void {
    this.put(entity, undefined, row);
  }

  private put(entity: Entity, before: Entities[Entity] | undefined, after: Entities[Entity] | undefined): void {
    this.speculated?.push({ entity, before, after });
    if (!NOT_CATALOGUE.includes(entity)) this.catalogueVersion++;
    if (entity === 'agent') this.putAgent(before as Agent | undefined, after as Agent | undefined);
    else if (entity === 'credential')
      this.putCredential(before as Credential | undefined, after as Credential | undefined);
    else if (entity === 'token') this.putToken(before as Token | undefined, after as Token | undefined);
    else if (entity === 'config') this.putConfig(before as Config | undefined, after as Config | undefined);
    else if (entity === 'provider') this.putProvider(before as Provider | undefined, after as Provider | undefined);
    else if (entity === 'budget') this.budgets.put(before as Budget | undefined, after as Budget | undefined);
    else if (entity === 'experiment')
      this.experiments.put(before as Experiment | undefined, after as Experiment | undefined);
    else if (entity === 'model') this.putModel(before as Model | undefined, after as Model | undefined);
    else this.putPrice(before as Price | undefined, after as Price | undefined);
  }

  private putAgent(before: Agent | undefined, after: Agent | undefined): void {
    if (before) {
      this.agentsByName.delete(before.name);
      if (!after) {
        this.agents.delete(before.id);
        this.agentsInOrder.remove(before);
      }
    }
    if (after) {
      this.agents.set(after.id, after);
      this.agentsByName.set(after.name, after);
      this.agentsInOrder.put(after);
    }
  }

  private putConfig(before: Config | undefined, after: Config | undefined): void {
    const agentId = (after ?? before)?.agent_id as number;
    this.countUse(before?.credential_id, -1);
    this.countUse(after?.credential_id, 1);
    const others = this.configsOf(agentId).filter((config) => config.id !== (after ?? before)?.id);
    if (after) {
      this.configs.set(after.id, after);
      this.configsInOrder.put(after);
      this.configsByAgent.set(agentId, [...others, after].sort(inChainOrder));
    } else if (before) {
      this.configs.delete(before.id);
      this.configsInOrder.remove(before);
      if (others.length > 0) this.configsByAgent.set(agentId, others);
      else this.configsByAgent.delete(agentId);
    }
  }

  private countUse(credentialId: number | null | undefined, by: 1 | -1): void {
    if (credentialId) this.usesOfCredentials.set(credentialId, this.usesOf(credentialId) + by);
  }

  private putCredential(before: Credential | undefined, after: Credential | undefined): void {
    if (after) {
      this.credentials.set(after.id, after);
      this.credentialsByName.set(after.name, after);
      this.credentialsInOrder.put(after);
    } else if (before) {
      this.credentials.delete(before.id);
      this.credentialsByName.delete(before.name);
      this.credentialsInOrder.remove(before);
    }
  }

  private putProvider(before: Provider | undefined, after: Provider | undefined): void {
    if (before) {
      for (const name of [before.name, ...before.aliases]) this.providersByName.delete(name);
      if (!after) this.providersInOrder.remove(before);
    }
    if (after) {
      for (const name of [after.name, ...after.aliases]) this.providersByName.set(name, after);
      this.providersInOrder.put(after);
    }
  }

  private putModel(before: Model | undefined, after: Model | undefined): void {
    if (after) {
      this.modelsByName.set(modelKey(after.provider, after.name), after);
      this.modelsById.set(after.id, after);
      this.modelsInOrder.put(after);
    } else if (before) {
      this.modelsByName.delete(modelKey(before.provider, before.name));
      this.modelsById.delete(before.id);
      this.modelsInOrder.remove(before);
    }
  }

  private putToken(before: Token | undefined, after: Token | undefined): void {
    for (const [token, put] of [[before, false] as const, [after, true] as const]) {
      if (!token) continue;
      putOrDelete(this.tokens, token.id, token, put);
      putOrDelete(this.tokensByName, token.token_id, token, put);
      if (token.token_hash !== null) putOrDelete(this.tokensByHash, token.token_hash, token, put);
      if (put) this.tokensInOrder.put(token);
      else this.tokensInOrder.remove(token);
    }
    const identity = (after ?? before)?.certificate_identity;
    if (identity) this.bindCertificate(identity, after);
  }

  /** An identity belongs to the last token that it was bound to. */
  private bindCertificate(identity: string, put: Token | undefined): void {
    const current = this.tokensByCertificate.get(identity);
    // The usual case when a store is loaded; searching all tokens for each one would take quadratic time.
    if (put && (!current || current.id <= put.id)) {
      this.tokensByCertificate.set(identity, put);
      return;
    }
    const bound = [...this.tokens.values()].filter((token) => token.certificate_identity === identity);
    const last = bound.sort(byId).at(-1);
    if (last) this.tokensByCertificate.set(identity, last);
    else this.tokensByCertificate.delete(identity);
  }

  private putPrice(before: Price | undefined, after: Price | undefined): void {
    const modelId = (after ?? before)?.model_id as number;
    const others = this.pricesOf(modelId).filter((price) => price.id !== (after ?? before)?.id);
    const prices = after ? [...others, after] : others;
    prices.sort((a, b) => a.valid_from.getTime() - b.valid_from.getTime() || a.id - b.id);
    if (prices.length > 0) this.pricesByModel.set(modelId, prices);
    else this.pricesByModel.delete(modelId);
  }
}
