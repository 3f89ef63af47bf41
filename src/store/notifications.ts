import pg from 'pg';
import { clientConfig } from './connection.js';

/** The channel on which a writer says that there is a new revision. */
export const CHANNEL = 'agentllm_revision';

export interface Listener {
  close(): Promise<void>;
}

const FIRST_DELAY_MS = 250;
const LONGEST_DELAY_MS = 30_000;

/**
 * Calls back when a replica says that it has written, with the mark of its store. It is a hint that
 * makes followers faster and nothing more: a notification is lost while the
 * connection is down or a pooler stands between, and polling is what makes them
 * right. So every failure only means trying again later.
 */
export function listen(url: string, heard: (writer?: string) => void): Listener {
  let client: pg.Client | undefined;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;
  let delay = FIRST_DELAY_MS;

  const retry = () => {
    client = undefined;
    if (closed) return;
    timer = setTimeout(() => void connect(), delay * (0.5 + Math.random() / 2));
    delay = Math.min(delay * 2, LONGEST_DELAY_MS);
  };
  const connect = async () => {
    const next = new pg.Client({ ...clientConfig('DATABASE_URL', url), application_name: 'agentllm listen' });
    client = next;
    // `end` follows every error, also that of a connection which was never made.
    next.on('error', () => {});
    next.once('end', retry);
    next.on('notification', ({ payload }) => heard(payload));
    try {
      await next.connect();
      // The session does nothing but wait, so the role must not end it for that.
      await next.query(`select set_config('idle_session_timeout', '0', false)`);
      await next.query(`listen ${CHANNEL}`);
      delay = FIRST_DELAY_MS;
      // What was said while nobody listened is caught up with.
      heard();
    } catch {
      await next.end().catch(() => {});
    }
  };
  void connect();
  return {
    async close() {
      closed = true;
      clearTimeout(timer);
      await client?.end().catch(() => {});
    },
  };
}
