import type { Database } from '../database.js';

/** Properties of a database, for `agentllm doctor`. */
export interface DatabaseFacts {
  readonly version: string;
  /** `server_version_num`: 150004 is 15.4. */
  readonly versionNumber: number;
  /** Whether it rejects writes: a standby, or set to read-only. */
  readonly readOnly: boolean;
  /** How far its clock is ahead of the local one, in ms, ± half of `answeredInMs`. */
  readonly clockAheadMs: number;
  readonly answeredInMs: number;
}

export async function inspectDatabase({ knex }: Database): Promise<DatabaseFacts> {
  const sent = Date.now();
  const { rows } = await knex.raw(
    `select current_setting('server_version') as version, current_setting('server_version_num')::int as number,
       current_setting('transaction_read_only') = 'on' as read_only, clock_timestamp() as now`,
  );
  const answeredInMs = Date.now() - sent;
  const { version, number, read_only, now } = rows[0];
  const clockAheadMs = now.getTime() - (sent + answeredInMs / 2);
  return { version, versionNumber: number, readOnly: read_only, clockAheadMs, answeredInMs };
}
