import type { Knex } from 'knex';
import type { IdSource } from '../../domain/draft.js';
import type { Entity } from '../../domain/rows.js';
import { drawIds } from './rows.js';

/** A plan needs more ids than were drawn. */
export class OutOfIds extends Error {
  constructor(readonly entity: Entity) {
    super(`more ids of ${entity} are needed`);
  }
}

/** Ids that are drawn from the sequences in advance, because a plan is synchronous. */
export class DrawnIds implements IdSource {
  private readonly drawn = new Map<Entity, number[]>();
  private readonly used = new Map<Entity, number>();

  async draw(db: Knex, entity: Entity, count: number): Promise<void> {
    this.drawn.set(entity, [...(this.drawn.get(entity) ?? []), ...(await drawIds(db, entity, count))]);
  }

  count(entity: Entity): number {
    return this.drawn.get(entity)?.length ?? 0;
  }

  rewind(): void {
    this.used.clear();
  }

  take(entity: Entity): number {
    const index = this.used.get(entity) ?? 0;
    const id = this.drawn.get(entity)?.[index];
    if (id === undefined) throw new OutOfIds(entity);
    this.used.set(entity, index + 1);
    return id;
  }
}
