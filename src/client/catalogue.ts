import { createHash } from 'node:crypto';
import { CatalogueItem } from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import type { Budget, Config, Credential, Model, Price, Provider } from '../domain/rows.js';
import { nextTextChange } from '../domain/shutdown.js';
import type { ResolveView } from '../domain/view.js';
import {
  budgetRow,
  credentialKey,
  credentialRow,
  Ids,
  keyStateOf,
  modelKey,
  modelRow,
  priceRows,
  providerRow,
} from './rows.js';

/** The key of an item of the catalogue; undefined for a kind that this version does not know. */
function keyOf(item: CatalogueItem): string | undefined {
  if (item.provider) return `provider ${item.provider.name}`;
  if (item.model) return modelKey(item.model.provider, item.model.name);
  if (item.credential) return credentialKey(item.credential.name);
  if (item.budget) return `budget ${item.budget.name}`;
  if (item.deleted_provider !== undefined) return `provider ${item.deleted_provider}`;
  if (item.deleted_model !== undefined) return `model ${item.deleted_model}`;
  if (item.deleted_credential !== undefined) return credentialKey(item.deleted_credential);
  if (item.deleted_budget !== undefined) return `budget ${item.deleted_budget}`;
  return undefined;
}

/** Ids for the names in catalogues and configs, the same in all clients of this process. */
const ids = new Ids();

/** The content of a catalogue as rows, with the indexes that resolution needs. */
class Contents {
  readonly providers = new Map<string, Provider>();
  readonly models = new Map<string, Model>();
  readonly modelsByProvider = new Map<string, Model[]>();
  readonly prices = new Map<number, readonly Price[]>();
  readonly credentials = new Map<number, Credential>();
  readonly budgets: Budget[] = [];

  constructor(
    readonly items: ReadonlyMap<string, CatalogueItem>,
    /** Equal digests mean equal contents. */
    readonly digest: string,
  ) {
    for (const item of items.values()) this.put(item);
    for (const models of this.modelsByProvider.values()) models.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  private put(item: CatalogueItem): void {
    if (item.provider) this.putProvider(providerRow(item.provider, ids));
    else if (item.budget) this.budgets.push(budgetRow(item.budget));
    else if (item.model) {
      const model = modelRow(item.model, ids);
      this.putModel(model);
      this.prices.set(model.id, priceRows(item, model));
    } else if (item.credential) {
      const credential = credentialRow(item.credential, ids);
      this.credentials.set(credential.id, credential);
    }
  }

  private putProvider(provider: Provider): void {
    for (const name of [provider.name, ...provider.aliases]) this.providers.set(name.toLowerCase(), provider);
  }

  private putModel(model: Model): void {
    this.models.set(modelKey(model.provider, model.name), model);
    const others = this.modelsByProvider.get(model.provider);
    if (others) others.push(model);
    else this.modelsByProvider.set(model.provider, [model]);
  }
}

/**
 * The contents that the clients of this process share. Every stream delivers the whole catalogue, a few hundred objects.
 * One copy for each of a thousand clients caused garbage collections that stopped the process for 100 ms and more.
 */
class ContentsCache {
  private readonly known = new Map<string, WeakRef<Contents>>();
  private readonly collected = new FinalizationRegistry<string>((digest) => {
    if (!this.known.get(digest)?.deref()) this.known.delete(digest);
  });

  getOrCreate(digest: string, createItems: () => ReadonlyMap<string, CatalogueItem>): Contents {
    const known = this.known.get(digest)?.deref();
    if (known) return known;
    const contents = new Contents(createItems(), digest);
    this.known.set(digest, new WeakRef(contents));
    this.collected.register(contents, digest);
    return contents;
  }
}
const contentsCache = new ContentsCache();

/** The digest of the contents after changes, from the digest of the contents before. */
function digestOf(before: string, changes: readonly CatalogueItem[]): string {
  const hash = createHash('sha256').update(before);
  for (const change of changes) hash.update(CatalogueItem.encode(change).finish());
  return hash.digest('base64url');
}

/**
 * An immutable catalogue: providers, models, prices and credentials. A change creates another one, so that a cached
 * resolution is valid exactly as long as the catalogue object is the same.
 */
export class Catalogue implements ResolveView {
  readonly encryption = { stateOf: (_: 'config' | 'credential', row: Config | Credential) => keyStateOf(row) };
  readonly ids = ids;

  private constructor(
    private readonly contents: Contents,
    /** Store revision of the last change. */
    readonly revision: bigint,
  ) {}

  static empty(): Catalogue {
    return new Catalogue(
      contentsCache.getOrCreate('', () => new Map()),
      0n,
    );
  }

  /** The catalogue after changes. @param whole the changes are a complete catalogue, which replaces this one. */
  with(changes: readonly CatalogueItem[], revision: bigint, whole = false): Catalogue {
    if (changes.length === 0 && !whole) return new Catalogue(this.contents, revision);
    const before = whole ? '' : this.contents.digest;
    const contents = contentsCache.getOrCreate(digestOf(before, changes), () => {
      const items = new Map(whole ? [] : this.contents.items);
      for (const change of changes) alter(items, change);
      return items;
    });
    return new Catalogue(contents, revision);
  }

  /** All items as they were received. */
  get all(): readonly CatalogueItem[] {
    return [...this.contents.items.values()];
  }

  get credentials(): ReadonlyMap<number, Credential> {
    return this.contents.credentials;
  }

  /** The budgets that are not for a single agent. */
  get budgets(): readonly Budget[] {
    return this.contents.budgets;
  }

  provider(nameOrAlias: string): Provider | undefined {
    return this.contents.providers.get(nameOrAlias.toLowerCase());
  }

  model(provider: string, name: string): Model | undefined {
    return this.contents.models.get(modelKey(provider, name));
  }

  modelsOf(provider: string): readonly Model[] {
    return this.contents.modelsByProvider.get(provider) ?? [];
  }

  pricesOf(modelId: number): readonly Price[] {
    return this.contents.prices.get(modelId) ?? [];
  }

  /**
   * The next time after `after` at which resolutions change: the shutdown of a model, each whole day before it (the
   * finding states the remaining days), and the start of a price.
   */
  nextTimedChange(after: Date): TimedChange | undefined {
    const { models, prices } = this.contents;
    const shutdowns = [...models.values()].flatMap(({ retires_at }) =>
      retires_at && retires_at > after ? [retires_at] : [],
    );
    const starts = [...prices.values()].flat().flatMap(({ valid_from }) => (valid_from > after ? [valid_from] : []));
    const texts = shutdowns.map((date) => nextTextChange(date, after));
    if (texts.length + starts.length === 0) return undefined;
    const at = new Date(Math.min(...[...texts, ...starts].map((time) => time.getTime())));
    return { at, isEffect: [...shutdowns, ...starts].some((time) => time.getTime() === at.getTime()) };
  }
}

/** A change of resolutions without a change in the store. */
interface TimedChange {
  readonly at: Date;
  /** Whether the change affects more than the text of a finding. */
  readonly isEffect: boolean;
}

function alter(items: Map<string, CatalogueItem>, change: CatalogueItem): void {
  const key = keyOf(change);
  if (key === undefined) return;
  if (change.provider || change.model || change.credential || change.budget)
    items.set(key, { ...change, urgent: false });
  else items.delete(key);
}
