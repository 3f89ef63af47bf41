import pg from 'pg';
import { clientConfig } from './connection.js';

/** The NOTIFY channel for new revisions. */
export const CHANNEL = 'agentllm_revision';

export interface Listener {
  close(): Promise<void>;
}

const FIRST_DELAY_MS = 250;
const LONGEST_DELAY_MS = 30_000;

/**
 * Calls back when a replica has committed a write, with the id of that replica. A notification only triggers an earlier
 * poll. Notifications are lost while the connection is closed or if it goes through a pooler. Polling finds every
 * revision without them, so after a failure it is enough to connect again later.
 */
export function listen(url: string, onNotification: (writer?: string) => void): Listener {
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
    // `end` follows every error, also that of a failed connection attempt.
    next.on('error', () => {});
    next.once('end', retry);
    next.on('notification', ({ payload }) => onNotification(payload));
    try {
      await next.connect();
      // The session is idle by design, so a timeout of the role must not end it.
      await next.query(`select set_config('idle_session_timeout', '0', false)`);
      await next.query(`listen ${CHANNEL}`);
      delay = FIRST_DELAY_MS;
      // Notifications before LISTEN were lost, so poll once.
      onNotification();
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
