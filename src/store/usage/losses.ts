import type { Knex } from 'knex';

/** A report of attempts that a process dropped. */
export interface NewLoss {
  readonly loss_id: string;
  readonly agent_name: string;
  readonly attempts: bigint;
  readonly first_at: Date;
  readonly last_at: Date;
  readonly actor: string;
}

/** Stores reports; a report that is stored already is ignored. */
export async function insertLosses(db: Knex, losses: readonly NewLoss[]): Promise<void> {
  if (losses.length === 0) return;
  const unique = [...new Map(losses.map((loss) => [loss.loss_id, loss])).values()];
  const rows = unique.sort((a, b) => (a.loss_id < b.loss_id ? -1 : 1));
  await db('llm_usage_losses')
    .insert(rows.map((loss) => ({ ...loss, attempts: String(loss.attempts) })))
    .onConflict('loss_id')
    .ignore();
}
