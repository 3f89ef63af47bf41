import { once } from 'node:events';
import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { clientConfig, type UrlSetting } from './connection.js';

/** The NOTIFY channel for new revisions. */
export const CHANNEL = 'agentllm_revision';

/** The database on which to listen, with the setting that names it. */
export interface ListenTarget {
  readonly setting: UrlSetting;
  readonly url: string;
}

export interface Listener {
  close(): Promise<void>;
}

const FIRST_DELAY_MS = 250;
const LONGEST_DELAY_MS = 30_000;
/** Time limit of the connection and of each statement that begins to listen. */
const SET_UP_MS = 10_000;

/** Resolves after `ms`, or when the signal aborts. */
export type Wait = (ms: number, signal: AbortSignal) => Promise<void>;

const waitFor: Wait = (ms, signal) => sleep(ms, undefined, { signal }).catch(() => {});

/**
 * Calls back when a replica has committed a write, with the id of that replica. A notification only triggers an earlier
 * poll. Notifications are lost while the connection is closed or if it goes through a pooler. Polling finds every
 * revision without them, so after a failure it is enough to connect again later.
 * @throws StartError that names a certificate file that cannot be read.
 */
export function listen(
  { setting, url }: ListenTarget,
  onNotification: (writer?: string) => void,
  wait: Wait = waitFor,
): Listener {
  const config = {
    connectionTimeoutMillis: SET_UP_MS,
    query_timeout: SET_UP_MS,
    ...clientConfig(setting, url),
    application_name: 'agentllm listen',
  };
  const closing = new AbortController();
  let socket = new Socket();
  const run = async () => {
    let delay = FIRST_DELAY_MS;
    while (!closing.signal.aborted) {
      socket = new Socket();
      if (await listenUntilLost({ ...config, stream: () => socket }, socket, onNotification)) delay = FIRST_DELAY_MS;
      await wait(delay * (0.5 + Math.random() / 2), closing.signal);
      delay = Math.min(delay * 2, LONGEST_DELAY_MS);
    }
  };
  const running = run();
  return {
    close() {
      closing.abort();
      // Not with a message to the server, which may be unreachable.
      socket.destroy();
      return running;
    },
  };
}

/** Resolves when the connection has failed or is lost, to whether it has listened. */
async function listenUntilLost(
  config: pg.ClientConfig,
  socket: Socket,
  onNotification: (writer?: string) => void,
): Promise<boolean> {
  const closed = once(socket, 'close').catch(() => {});
  try {
    const client = new pg.Client(config);
    // Every error also closes the socket.
    client.on('error', () => {});
    client.on('notification', ({ payload }) => onNotification(payload));
    await client.connect();
    // The session is idle by design, so a timeout of the role must not end it.
    await client.query(`select set_config('idle_session_timeout', '0', false)`);
    await client.query(`listen ${CHANNEL}`);
  } catch {
    socket.destroy();
    await closed;
    return false;
  }
  // Notifications before LISTEN were lost, so poll once.
  onNotification();
  await closed;
  return true;
}
