import type { Knex } from 'knex';
import { type BatchOptions, ROWS_AT_ONCE } from '../batched_delete.js';

/** A report of attempts that a process dropped. */
export interface NewLoss {
  readonly loss_id: string;
  readonly agent_name: string;
  readonly attempts: bigint;
  readonly first_at: Date;
  readonly last_at: Date;
  readonly actor: string;
}

/** Stores reports. A report that is already stored is ignored. */
export async function insertLosses(db: Knex, losses: readonly NewLoss[]): Promise<void> {
  if (losses.length === 0) return;
  const unique = [...new Map(losses.map((loss) => [loss.loss_id, loss])).values()];
  const rows = unique.sort((a, b) => (a.loss_id < b.loss_id ? -1 : 1));
  await db('llm_usage_losses')
    .insert(rows.map((loss) => ({ ...loss, attempts: String(loss.attempts) })))
    .onConflict('loss_id')
    .ignore();
}

/**
 * Replaces the reports of an agent that began in the same hour of UTC by one row with their sum, so that the number of
 * old rows does not grow with the number of processes. A report that is sent again after this would count again, but
 * processes repeat a report within seconds.
 */
const COMPACT = `with groups as (
    select agent_name, date_trunc('hour', first_at, 'UTC') as hour from llm_usage_losses
     where last_at < ? group by 1, 2 having count(*) > 1 order by 1, 2 limit ?),
  old as (
    delete from llm_usage_losses as l using groups as g
     where l.last_at < ? and l.agent_name = g.agent_name and date_trunc('hour', l.first_at, 'UTC') = g.hour
    returning l.agent_name, g.hour, l.attempts, l.first_at, l.last_at, l.actor)
  insert into llm_usage_losses (loss_id, agent_name, attempts, first_at, last_at, actor)
  select gen_random_uuid(), agent_name, least(sum(attempts), 9223372036854775807), min(first_at), max(last_at), min(actor)
    from old group by agent_name, hour`.replace(/\s+/g, ' ');

export async function compactLosses(
  db: Knex,
  before: Date,
  { signal, rowsAtOnce = ROWS_AT_ONCE }: BatchOptions,
): Promise<void> {
  for (let groups = rowsAtOnce; groups === rowsAtOnce && !signal?.aborted; ) {
    const { rowCount } = await db.raw<{ rowCount: number }>(COMPACT, [before, rowsAtOnce, before]);
    groups = rowCount;
  }
}
