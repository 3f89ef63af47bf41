import { createHash } from 'node:crypto';
import { CatalogueItem } from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import type { Config, Credential, Model, Price, Provider } from '../domain/rows.js';
import type { ResolveView } from '../domain/view.js';
import { credentialKey, credentialRow, Ids, keyStateOf, modelKey, modelRow, priceRow, providerRow } from './rows.js';

/** Names an item of the catalogue; undefined for one of a kind that this version does not know. */
function keyOf(item: CatalogueItem): string | undefined {
  if (item.provider) return `provider ${item.provider.name}`;
  if (item.model) return modelKey(item.model.provider, item.model.name);
  if (item.credential) return credentialKey(item.credential.name);
  if (item.deleted_provider !== undefined) return `provider ${item.deleted_provider}`;
  if (item.deleted_model !== undefined) return `model ${item.deleted_model}`;
  if (item.deleted_credential !== undefined) return credentialKey(item.deleted_credential);
  return undefined;
}

/** Numbers of what catalogues and configs name, the same in all clients of this process. */
const ids = new Ids();

/** What is in a catalogue, as rows to resolve from. */
class Contents {
  readonly providers = new Map<string, Provider>();
  readonly models = new Map<string, Model>();
  readonly modelsByProvider = new Map<string, Model[]>();
  readonly prices = new Map<number, readonly Price[]>();
  readonly credentials = new Map<number, Credential>();

  constructor(
    readonly items: ReadonlyMap<string, CatalogueItem>,
    /** Equal marks are equal contents. */
    readonly mark: string,
  ) {
    for (const item of items.values()) this.put(item);
    for (const models of this.modelsByProvider.values()) models.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  private put(item: CatalogueItem): void {
    if (item.provider) this.putProvider(providerRow(item.provider, ids));
    else if (item.model) {
      const model = modelRow(item.model, ids);
      this.putModel(model);
      if (item.model.price) this.prices.set(model.id, [priceRow(item.model.price, model)]);
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
 * Contents that some client of this process holds. Every stream brings the whole catalogue, a few hundred objects: held
 * once for each of a thousand clients in one process, they made collections of garbage that stopped all of them for
 * 100 ms and more.
 */
class Shared {
  private readonly known = new Map<string, WeakRef<Contents>>();
  private readonly gone = new FinalizationRegistry<string>((mark) => {
    if (!this.known.get(mark)?.deref()) this.known.delete(mark);
  });

  with(mark: string, make: () => ReadonlyMap<string, CatalogueItem>): Contents {
    const known = this.known.get(mark)?.deref();
    if (known) return known;
    const made = new Contents(make(), mark);
    this.known.set(mark, new WeakRef(made));
    this.gone.register(made, mark);
    return made;
  }
}
const shared = new Shared();

/** The mark of what changes make of what was before. */
function markOf(before: string, changes: readonly CatalogueItem[]): string {
  const hash = createHash('sha256').update(before);
  for (const change of changes) hash.update(CatalogueItem.encode(change).finish());
  return hash.digest('base64url');
}

/**
 * Providers, models, prices and credentials as they were held at one moment. It never changes: a change makes another
 * one, so that what was resolved from it can be told by its identity.
 */
export class Catalogue implements ResolveView {
  readonly vault = { stateOf: (_: 'config' | 'credential', row: Config | Credential) => keyStateOf(row) };
  readonly ids = ids;

  private constructor(
    private readonly contents: Contents,
    /** Store revision at which it became this. */
    readonly revision: bigint,
  ) {}

  static empty(): Catalogue {
    return new Catalogue(
      shared.with('', () => new Map()),
      0n,
    );
  }

  /** The catalogue with changes; `whole` ones leave nothing of what was before. */
  with(changes: readonly CatalogueItem[], revision: bigint, whole = false): Catalogue {
    if (changes.length === 0 && !whole) return new Catalogue(this.contents, revision);
    const before = whole ? '' : this.contents.mark;
    const contents = shared.with(markOf(before, changes), () => {
      const items = new Map(whole ? [] : this.contents.items);
      for (const change of changes) alter(items, change);
      return items;
    });
    return new Catalogue(contents, revision);
  }

  /** Everything in it, as it was received. */
  get all(): readonly CatalogueItem[] {
    return [...this.contents.items.values()];
  }

  get credentials(): ReadonlyMap<number, Credential> {
    return this.contents.credentials;
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

  /** When the next model is switched off: what is said of it is another thing from then on. */
  nextRetirement(after: Date): Date | undefined {
    let next: Date | undefined;
    for (const { retires_at } of this.contents.models.values())
      if (retires_at && retires_at > after && (!next || retires_at < next)) next = retires_at;
    return next;
  }
}

function alter(items: Map<string, CatalogueItem>, change: CatalogueItem): void {
  const key = keyOf(change);
  if (key === undefined) return;
  if (change.provider || change.model || change.credential) items.set(key, { ...change, urgent: false });
  else items.delete(key);
}
