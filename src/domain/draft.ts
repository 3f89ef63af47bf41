import type { Change, Config, Credential, Entities, Entity } from './rows.js';

/** Ids for rows that are being created; a dry run counts what it would take. */
export interface IdSource {
  take(entity: Entity): number;
}

/** The ids of a dry run: all 0, counted. */
export class CountedIds implements IdSource {
  readonly counts = new Map<Entity, number>();

  take(entity: Entity): number {
    this.counts.set(entity, (this.counts.get(entity) ?? 0) + 1);
    return 0;
  }
}

/** A row's own API key, on its way to being encrypted. */
export type KeyChange =
  | { readonly entity: 'config'; readonly row: Config; readonly key: string | null }
  | { readonly entity: 'credential'; readonly row: Credential; readonly key: string | null };

/**
 * The changes that a write is going to make: a plan fills it, the store carries
 * it out. Every row that goes in gets its revision and times here, so that what
 * is stored, logged, answered and held in memory is one and the same object.
 */
export class Draft {
  readonly changes: Change[] = [];
  /** API keys to store with rows of the draft; null takes away what is stored. */
  readonly keys: KeyChange[] = [];
  /** Whether its rows stand in their tables already. */
  adopts = false;

  constructor(
    readonly revision: number,
    readonly now: Date,
    private readonly ids: IdSource,
  ) {}

  create<E extends Entity>(entity: E, row: Entities[E]): Entities[E] {
    const times = { id: this.ids.take(entity), revision: this.revision, created_at: this.now };
    return this.add(entity, undefined, { ...row, ...times, ...updatedAt(entity, this.now) });
  }

  update<E extends Entity>(entity: E, before: Entities[E], row: Entities[E]): Entities[E] {
    return this.add(entity, before, { ...row, revision: this.revision, ...updatedAt(entity, this.now) });
  }

  /** Stores a row's key anew under another encryption key. Nothing that anybody sees of the row moves. */
  reseal<E extends KeyChange['entity']>(entity: E, before: Entities[E], key_id: string, key: string): void {
    const row = this.add(entity, before, { ...before, key_id });
    this.keys.push({ entity, row, key } as KeyChange);
  }

  /** Brings back a row that was deleted, under its own id. */
  restore<E extends Entity>(entity: E, row: Entities[E]): Entities[E] {
    return this.add(entity, undefined, { ...row, revision: this.revision, ...updatedAt(entity, this.now) });
  }

  /** Enters a row that stands in its table but not in the log; its times stay. */
  adopt<E extends Entity>(entity: E, row: Entities[E]): Entities[E] {
    this.adopts = true;
    return this.add(entity, undefined, { ...row, revision: this.revision });
  }

  remove<E extends Entity>(entity: E, before: Entities[E]): void {
    this.changes.push({ entity, id: before.id, before, after: undefined } as Change);
  }

  private add<E extends Entity>(entity: E, before: Entities[E] | undefined, after: Entities[E]): Entities[E] {
    this.changes.push({ entity, id: after.id, before, after } as Change);
    return after;
  }
}

const updatedAt = (entity: Entity, now: Date) => (entity === 'price' ? {} : { updated_at: now });

/** Whether all that a change does is to have the same key under another encryption key: to everybody it is as it was. */
export function isResealed({ entity, before, after }: Change): boolean {
  if (entity !== 'config' && entity !== 'credential') return false;
  if (!before || !after || before.revision !== after.revision) return false;
  return before.key_revision === after.key_revision && before.key_id !== after.key_id;
}

/** Whether a config's change moves the order or membership of its agent's chain. */
export function altersChain(before: Config | undefined, after: Config | undefined): boolean {
  return before?.enabled !== after?.enabled || before?.priority !== after?.priority || !before || !after;
}

/** The agents whose chain the changes move. */
export function agentsWithMovedChain(changes: readonly Change[]): Set<number> {
  const agents = new Set<number>();
  for (const change of changes)
    if (change.entity === 'config' && altersChain(change.before, change.after))
      agents.add((change.after ?? change.before)?.agent_id as number);
  return agents;
}
