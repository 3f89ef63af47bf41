import type { ChangeEvent } from './change_event.js';
import { concerns } from './filter.js';
import type { Watch } from './watch.js';

/**
 * The watches that have caught up, indexed by agent name and id, so that a write visits only the watches it concerns.
 */
export class LiveIndex {
  private readonly all = new Set<Watch>();
  private readonly watches = new Set<Watch>();
  private readonly byName = new Map<string, Set<Watch>>();
  private readonly byId = new Map<number, Set<Watch>>();

  add(watch: Watch): void {
    watch.live = true;
    this.watches.add(watch);
    const { all, names, ids } = watch.filter;
    if (all) this.all.add(watch);
    for (const name of names) addTo(this.byName, name, watch);
    for (const id of ids) addTo(this.byId, id, watch);
  }

  remove(watch: Watch): void {
    if (!watch.live) return;
    watch.live = false;
    this.watches.delete(watch);
    this.all.delete(watch);
    for (const name of watch.filter.names) removeFrom(this.byName, name, watch);
    for (const id of watch.filter.ids) removeFrom(this.byId, id, watch);
  }

  /** The watches that a revision concerns, each once. */
  concernedBy({ agents, catalogue }: ChangeEvent): readonly Watch[] {
    if (catalogue.length > 0) return [...this.watches];
    if (agents.length === 0) return [];
    const concerned = new Set(this.all);
    for (const material of agents) {
      const { name, id } = material;
      for (const watch of this.byName.get(name) ?? []) concerned.add(watch);
      if (id === undefined) continue;
      for (const watch of this.byId.get(id) ?? []) if (concerns(watch.filter, material)) concerned.add(watch);
    }
    return [...concerned];
  }
}

function addTo<K>(index: Map<K, Set<Watch>>, key: K, watch: Watch): void {
  const watches = index.get(key);
  if (watches) watches.add(watch);
  else index.set(key, new Set([watch]));
}

function removeFrom<K>(index: Map<K, Set<Watch>>, key: K, watch: Watch): void {
  const watches = index.get(key);
  watches?.delete(watch);
  if (watches?.size === 0) index.delete(key);
}
