import type { Knex } from 'knex';
import type { IdSource } from '../../domain/draft.js';
import type { Entity } from '../../domain/rows.js';
import { drawIds } from './rows.js';

/** A plan has asked for more ids than were drawn. */
export class OutOfIds extends Error {
  constructor(readonly entity: Entity) {
    super(`more ids of ${entity} are needed`);
  }
}

/** Ids from the sequences, drawn ahead, because a plan cannot wait for the database. */
export class DrawnIds implements IdSource {
  private readonly drawn = new Map<Entity, number[]>();
  private readonly taken = new Map<Entity, number>();

  async draw(db: Knex, entity: Entity, count: number): Promise<void> {
    this.drawn.set(entity, [...(this.drawn.get(entity) ?? []), ...(await drawIds(db, entity, count))]);
  }

  count(entity: Entity): number {
    return this.drawn.get(entity)?.length ?? 0;
  }

  rewind(): void {
    this.taken.clear();
  }

  take(entity: Entity): number {
    const at = this.taken.get(entity) ?? 0;
    const id = this.drawn.get(entity)?.[at];
    if (id === undefined) throw new OutOfIds(entity);
    this.taken.set(entity, at + 1);
    return id;
  }
}
