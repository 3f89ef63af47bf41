/*
 * Parses the URL of a PostgreSQL database as libpq does. The WHATWG URL class
 * rejects forms that libpq allows (no host), and can mistake a part of a password
 * for a host name. Messages contain no part of the URL except parameter names.
 */

export interface DatabaseUrl {
  /** A host name, an address, or the directory of a socket; undefined: the default of libpq. */
  readonly host: string | undefined;
  readonly port: number | undefined;
  readonly user: string | undefined;
  readonly password: string | undefined;
  /** undefined: the name of the user. */
  readonly database: string | undefined;
  /** The schema of the store; undefined: the first one of search_path. */
  readonly schema: string | undefined;
  readonly tls: DatabaseTls;
  readonly parameters: DatabaseParameters;
}

export interface DatabaseTls {
  /** `verify-ca` does not compare the host name; `no-verify` encrypts and verifies nothing. */
  readonly mode: 'disable' | 'verify-full' | 'verify-ca' | 'no-verify';
  readonly rootCertFile: string | undefined;
  readonly certFile: string | undefined;
  readonly keyFile: string | undefined;
  readonly negotiation: 'postgres' | 'direct';
}

export interface DatabaseParameters {
  readonly applicationName: string | undefined;
  readonly connectTimeoutMs: number | undefined;
  /** Command-line options for the session, for example `-c search_path=x`. */
  readonly options: string | undefined;
  readonly channelBinding: boolean;
}

/** An invalid URL. The message completes a sentence that begins with the name of the setting. */
export class DatabaseUrlError extends Error {
  override readonly name = 'DatabaseUrlError';
}

const refuse = (message: string): never => {
  throw new DatabaseUrlError(message);
};

const ENCODE = 'percent-encode the characters @ / : ? # % of user and password (%40 %2F %3A %3F %23 %25)';

/** The valid values of each parameter; a text is the reason why the parameter is rejected. */
const PARAMETERS: Readonly<Record<string, RegExp | string>> = {
  host: /^/,
  port: /^\d{1,5}$/,
  user: /^/,
  password: /^/,
  dbname: /^/,
  schema: /^./,
  sslmode: /^(disable|require|verify-ca|verify-full|no-verify)$/,
  ssl: /^(true|false|0|1|no-verify)$/,
  sslrootcert: /^./,
  sslcert: /^./,
  sslkey: /^./,
  sslnegotiation: /^(postgres|direct)$/,
  application_name: /^/,
  connect_timeout: /^\d{1,6}$/,
  options: /^/,
  client_encoding: /^(utf-?8|auto)$/i,
  channel_binding: /^(disable|prefer)$/,
  gssencmode: /^(disable|prefer)$/,
  target_session_attrs: /^any$/,
  hostaddr: 'is not supported; give the address as the host',
  service: 'is not supported; write the connection into the URL',
  passfile: 'is not supported; give the password in the URL or in PGPASSWORD',
  sslpassword: 'is not supported; store the key without a passphrase, readable only for the service',
  load_balance_hosts: 'is not supported; name one host',
  pgbouncer: 'is not needed; set DATABASE_DIRECT_URL beside a URL of PgBouncer',
  statement_timeout: 'is not supported; the service sets its own timeouts',
  lock_timeout: 'is not supported; the service sets its own timeouts',
  idle_in_transaction_session_timeout: 'is not supported; the service sets its own timeouts',
};
/** Why values that libpq allows are rejected. */
const VALUES: Readonly<Record<string, string>> = {
  sslmode:
    'must be disable, require, verify-ca, verify-full or no-verify; allow and prefer would fall back to a connection without TLS',
  channel_binding: 'must be disable or prefer; require cannot be enforced',
  gssencmode: 'must be disable or prefer; GSSAPI encryption is not supported',
  client_encoding: 'must be UTF8',
  target_session_attrs: 'must be any; name the primary server as the host',
};

export function parseDatabaseUrl(text: string): DatabaseUrl {
  const [, rest = ''] = /^postgres(?:ql)?:\/\/(.+)$/s.exec(text) ?? [];
  if (rest === '') refuse('must be postgres://user:password@host:port/database');
  const { authority, path, query } = split(rest);
  const at = authority.lastIndexOf('@');
  const [user, password] = at < 0 ? [] : userInfo(authority.slice(0, at));
  const given = readParameters(query);
  const { host, port } = hostAndPort(authority.slice(at + 1));
  return {
    host: given('host') ?? host,
    port: portOf(given('port')) ?? port,
    user: given('user') ?? user,
    password: given('password') ?? password,
    database: given('dbname') ?? (decode(path.slice(1)) || undefined),
    schema: given('schema'),
    tls: tlsOf(given),
    parameters: {
      applicationName: given('application_name'),
      connectTimeoutMs: Number(given('connect_timeout') ?? 0) * 1000 || undefined,
      options: given('options'),
      channelBinding: given('channel_binding') === 'prefer',
    },
  };
}

function split(rest: string): { authority: string; path: string; query: string } {
  const end = rest.search(/[/?#]/);
  const [authority, tail] = end < 0 ? [rest, ''] : [rest.slice(0, end), rest.slice(end)];
  // A / ? or # in a password ends the authority early; the text up to the @ is then the rest of the password.
  if (/[@#]/.test(tail)) refuse(`contains an @ or # after the host; ${ENCODE}`);
  const queryStart = tail.indexOf('?');
  if (queryStart < 0) return { authority, path: tail, query: '' };
  return { authority, path: tail.slice(0, queryStart), query: tail.slice(queryStart + 1) };
}

function userInfo(text: string): [user: string | undefined, password: string | undefined] {
  const colon = text.indexOf(':');
  if (colon < 0) return [decode(text) || undefined, undefined];
  return [decode(text.slice(0, colon)) || undefined, decode(text.slice(colon + 1)) || undefined];
}

function hostAndPort(text: string): { host: string | undefined; port: number | undefined } {
  if (text.includes(',')) refuse('names several hosts, which is not supported; name one host, the primary server');
  const [, bracketed, plain, port] = /^(?:\[([\da-f:.%]+)\]|([^:[\]]*))(?::(\d*))?$/i.exec(text) ?? [];
  if (bracketed === undefined && plain === undefined) refuse(`has a host or port that is not valid; ${ENCODE}`);
  return { host: bracketed ?? (decode(plain ?? '') || undefined), port: portOf(port || undefined) };
}

function portOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const port = Number(text);
  return port >= 1 && port <= 65_535 ? port : refuse('has a port that is not from 1 to 65535');
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return refuse(`contains a % that begins no percent-encoded character; ${ENCODE}`);
  }
}

type Given = (name: string) => string | undefined;

function readParameters(query: string): Given {
  const given = new Map<string, string>();
  for (const part of query.split('&').filter(Boolean)) {
    const equals = part.indexOf('=');
    const name = decode(equals < 0 ? part : part.slice(0, equals));
    const value = equals < 0 ? '' : decode(part.slice(equals + 1));
    checkParameter(name, value);
    given.set(name, value);
  }
  if (given.get('host')?.includes(','))
    refuse('names several hosts, which is not supported; name one host, the primary server');
  return (name) => given.get(name) || undefined;
}

function checkParameter(name: string, value: string): void {
  const rule = Object.hasOwn(PARAMETERS, name) ? PARAMETERS[name] : undefined;
  if (rule === undefined) {
    const shown = /^[a-z_]{1,40}$/i.test(name) ? ` ${name}` : '';
    const known = Object.keys(PARAMETERS).filter((one) => PARAMETERS[one] instanceof RegExp);
    refuse(`has an unknown parameter${shown}; the known ones are ${known.join(', ')}`);
  } else if (typeof rule === 'string') refuse(`has the parameter ${name}, which ${rule}`);
  else if (!rule.test(value)) refuse(`has the parameter ${name}, which ${VALUES[name] ?? 'has an invalid value'}`);
}

function tlsOf(given: Given): DatabaseTls {
  const files = { rootCertFile: given('sslrootcert'), certFile: given('sslcert'), keyFile: given('sslkey') };
  const negotiation = given('sslnegotiation') === 'direct' ? 'direct' : 'postgres';
  return { mode: tlsMode(given, Object.values(files).some(Boolean)), ...files, negotiation };
}

function tlsMode(given: Given, hasFiles: boolean): DatabaseTls['mode'] {
  const mode = given('sslmode');
  const ssl = given('ssl');
  if (mode === 'disable' || mode === 'verify-ca' || mode === 'no-verify') return mode;
  if (ssl === 'no-verify') return 'no-verify';
  // Stricter than libpq, whose `require` verifies nothing.
  if (mode !== undefined || ssl === 'true' || ssl === '1' || hasFiles) return 'verify-full';
  return 'disable';
}

/** The address of a database for messages, without user and password. */
export function displayAddress({ host, port = 5432 }: Pick<DatabaseUrl, 'host' | 'port'>): string {
  if (host === undefined) return `localhost:${port}`;
  if (host.startsWith('/')) return `the socket ${host}/.s.PGSQL.${port}`;
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
