import type { Change, Config, Credential, Entities, Entity } from './rows.js';

/** The source of ids for new rows. */
export interface IdSource {
  take(entity: Entity): number;
}

/** The ids of a dry run: each id is 0, and the number of ids is counted per entity. */
export class CountedIds implements IdSource {
  readonly counts = new Map<Entity, number>();

  take(entity: Entity): number {
    this.counts.set(entity, (this.counts.get(entity) ?? 0) + 1);
    return 0;
  }
}

/** An API key to store with a row, before encryption. */
export type KeyChange =
  | { readonly entity: 'config'; readonly row: Config; readonly key: string | null }
  | { readonly entity: 'credential'; readonly row: Credential; readonly key: string | null };

/**
 * The changes of a write: a plan fills the draft, the store executes it. Each row
 * gets its revision and times here, so that the stored, logged, returned and
 * in-memory row is the same object.
 */
export class Draft {
  readonly changes: Change[] = [];
  /** API keys to store with rows of the draft; null removes the stored key. */
  readonly keys: KeyChange[] = [];
  /** Whether its rows already exist in their tables, because the database is being imported. */
  isImport = false;

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

  /** Re-encrypts the key of a row with another encryption key. No visible field of the row changes. */
  reencrypt<E extends KeyChange['entity']>(entity: E, before: Entities[E], key_id: string, key: string): void {
    const row = this.add(entity, before, { ...before, key_id });
    this.keys.push({ entity, row, key } as KeyChange);
  }

  /** Creates a deleted row again, with its former id. */
  restore<E extends Entity>(entity: E, row: Entities[E]): Entities[E] {
    return this.add(entity, undefined, { ...row, revision: this.revision, ...updatedAt(entity, this.now) });
  }

  /** Adds an imported row, which exists in its table but not in the change log. Its times do not change. */
  addImported<E extends Entity>(entity: E, row: Entities[E]): Entities[E] {
    this.isImport = true;
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

/** Whether a change only re-encrypts a key, which is not visible to clients. */
export function isReencrypted({ entity, before, after }: Change): boolean {
  if (entity !== 'config' && entity !== 'credential') return false;
  if (!before || !after || before.revision !== after.revision) return false;
  return before.key_revision === after.key_revision && before.key_id !== after.key_id;
}

/** Whether the change of a config alters the order or the members of its agent's chain. */
export function altersChain(before: Config | undefined, after: Config | undefined): boolean {
  return before?.enabled !== after?.enabled || before?.priority !== after?.priority || !before || !after;
}

/** The ids of the agents whose chain the changes alter. */
export function agentsWithMovedChain(changes: readonly Change[]): Set<number> {
  const agents = new Set<number>();
  for (const change of changes)
    if (change.entity === 'config' && altersChain(change.before, change.after))
      agents.add((change.after ?? change.before)?.agent_id as number);
  return agents;
}
