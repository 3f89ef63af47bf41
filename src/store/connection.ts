import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { type DatabaseTls, type DatabaseUrl, displayAddress, parseDatabaseUrl } from '../domain/database_url.js';
import { errorCode } from '../error_properties.js';
import { StartError } from '../errors.js';
import { limits } from '../limits.js';
import { type ConnectionTarget, causeOf, isStartingUp } from './connection_failure.js';

/** Idle time after which a connection is probed; the default of Linux is two hours. */
const KEEP_ALIVE_DELAY_MS = 10_000;

/** A setting that contains the URL of a database. */
export type UrlSetting = 'DATABASE_URL' | 'DATABASE_DIRECT_URL';

/**
 * The options with which `pg` connects to a database.
 * @throws StartError that names a certificate file that cannot be read.
 */
export function clientConfig(setting: UrlSetting, text: string): pg.ClientConfig {
  const url = parseDatabaseUrl(text);
  const { applicationName = 'agentllm', connectTimeoutMs, options, channelBinding } = url.parameters;
  return {
    host: url.host,
    port: url.port,
    user: url.user,
    password: url.password,
    database: url.database,
    ssl: tlsOptions(setting, url.tls),
    sslnegotiation: url.tls.negotiation,
    application_name: applicationName,
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEP_ALIVE_DELAY_MS,
    ...(options !== undefined && { options }),
    ...(connectTimeoutMs !== undefined && { connectionTimeoutMillis: connectTimeoutMs }),
    enableChannelBinding: channelBinding,
  };
}

function tlsOptions(setting: UrlSetting, tls: DatabaseTls): pg.ClientConfig['ssl'] {
  if (tls.mode === 'disable') return false;
  const read = (parameter: string, path: string | undefined) =>
    path === undefined ? undefined : readPem(`${setting}: ${parameter}`, path);
  const rootCert = tls.rootCertFile === 'system' ? undefined : tls.rootCertFile;
  return {
    ca: read('sslrootcert', rootCert),
    cert: read('sslcert', tls.certFile),
    key: read('sslkey', tls.keyFile),
    rejectUnauthorized: tls.mode !== 'no-verify',
    ...(tls.mode === 'verify-ca' && { checkServerIdentity: () => undefined }),
  };
}

function readPem(what: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new StartError(`${what} ${path} cannot be read (${errorCode(error)})`, { cause: error });
  }
}

/** The properties of a URL that a failure message may contain. */
export function connectionTargetOf(url: DatabaseUrl): ConnectionTarget {
  // The driver takes missing values from the environment variables of libpq.
  const { host, port, database, user, password } = new pg.Client({ ...url, ssl: false });
  return {
    server: displayAddress({ host, port }),
    user: user ?? '',
    database: database ?? '',
    tls: url.tls.mode !== 'disable',
    hasPassword: Boolean(password),
  };
}

/**
 * Opens a separate connection, runs one task on it and closes it. Waits for a server that is starting up.
 * @throws StartError with the cause of any other failure to connect.
 */
export async function withConnection<T>(
  setting: UrlSetting,
  text: string,
  options: { readonly timeoutMs: number; readonly applicationName?: string },
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const config = clientConfig(setting, text);
  const deadline = performance.now() + limits.databaseStartMs;
  const { timeoutMs, applicationName } = options;
  for (;;) {
    const client = new pg.Client({
      connectionTimeoutMillis: timeoutMs,
      ...config,
      ...(applicationName && { application_name: applicationName }),
    });
    // When the connection is lost later, the running query rejects. Without this listener the process would end.
    client.on('error', () => undefined);
    try {
      await client.connect();
    } catch (error) {
      await client.end().catch(() => undefined);
      if (isStartingUp(error) && performance.now() < deadline) {
        await sleep(START_POLL_MS);
        continue;
      }
      const cause = causeOf(error, connectionTargetOf(parseDatabaseUrl(text)));
      throw new StartError(`${setting}: ${cause}`, { cause: error });
    }
    try {
      return await work(client);
    } finally {
      await client.end().catch(() => undefined);
    }
  }
}

const START_POLL_MS = 250;
