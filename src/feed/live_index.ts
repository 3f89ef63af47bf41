import type { AgentMaterial, ChangeEvent } from './change_event.js';
import { concerns } from './filter.js';
import type { Watch } from './watch.js';

/** The watches that have caught up, found by what they watch: a write touches those that it concerns and no others. */
export class LiveIndex {
  private readonly all = new Set<Watch>();
  private readonly everyone = new Set<Watch>();
  private readonly byName = new Map<string, Set<Watch>>();
  private readonly byId = new Map<number, Set<Watch>>();

  add(watch: Watch): void {
    watch.live = true;
    this.everyone.add(watch);
    const { all, names, ids } = watch.filter;
    if (all) this.all.add(watch);
    for (const name of names) put(this.byName, name, watch);
    for (const id of ids) put(this.byId, id, watch);
  }

  remove(watch: Watch): void {
    if (!watch.live) return;
    watch.live = false;
    this.everyone.delete(watch);
    this.all.delete(watch);
    for (const name of watch.filter.names) take(this.byName, name, watch);
    for (const id of watch.filter.ids) take(this.byId, id, watch);
  }

  /** Those that a revision concerns, each once. */
  concernedBy({ agents, catalogue }: ChangeEvent): readonly Watch[] {
    if (catalogue.length > 0) return [...this.everyone];
    if (agents.length === 1) return this.concernedByOne(agents[0] as AgentMaterial);
    return [...new Set(agents.flatMap((moment) => this.concernedByOne(moment)))];
  }

  private concernedByOne(moment: AgentMaterial): Watch[] {
    const { name, id } = moment;
    const named = this.byName.get(name) ?? [];
    const numbered = [...((id === undefined ? undefined : this.byId.get(id)) ?? [])];
    const shown = numbered.filter(({ filter }) => concerns(filter, moment));
    return [...new Set([...this.all, ...named, ...shown])];
  }
}

function put<K>(index: Map<K, Set<Watch>>, key: K, watch: Watch): void {
  const watches = index.get(key);
  if (watches) watches.add(watch);
  else index.set(key, new Set([watch]));
}

function take<K>(index: Map<K, Set<Watch>>, key: K, watch: Watch): void {
  const watches = index.get(key);
  watches?.delete(watch);
  if (watches?.size === 0) index.delete(key);
}
