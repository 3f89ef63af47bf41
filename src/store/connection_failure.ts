/*
 * Describes to an operator why PostgreSQL cannot be reached or used. The start of the service, all commands and the log
 * use this table. A message of the server is quoted only if the server rejected the connection, because it has received
 * no data then.
 */

/** The properties of the failed connection that a message may contain. */
export interface ConnectionTarget {
  /** Host and port, or the socket. */
  readonly server: string;
  readonly user: string;
  readonly database: string;
  readonly tls: boolean;
  /** Whether the URL or the environment gives a password. */
  readonly hasPassword: boolean;
}

interface Failure {
  readonly code?: RegExp;
  /** The function of the server that reported the error. Unlike the message, it is not translated. */
  readonly routine?: RegExp;
  /** Matches errors of the driver, which have no code. */
  readonly message?: RegExp;
  readonly describe: (target: ConnectionTarget) => string;
}

function noPassword({ server, user }: ConnectionTarget): string {
  return `${server} requires a password for user "${user}" and none is given; add it to the URL or set PGPASSWORD`;
}

/** The first matching entry applies. */
const FAILURES: readonly Failure[] = [
  // Network
  {
    code: /^(ENOTFOUND|EAI_)/,
    describe: ({ server }) => `the host name of ${server} cannot be resolved; check the name`,
  },
  {
    code: /^ECONNREFUSED$/,
    describe: ({ server }) => `nothing listens at ${server}; check that PostgreSQL is running there`,
  },
  {
    code: /^(ENOENT|EACCES)$/,
    describe: ({ server }) =>
      `${server} does not exist or may not be opened; check host and port, and that PostgreSQL runs`,
  },
  {
    code: /^(ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|EHOSTDOWN)$/,
    describe: ({ server }) => `${server} cannot be reached over the network; check address, routes and firewall`,
  },
  {
    message: /timeout expired|timed out|timeout exceeded|Timeout acquiring/i,
    describe: ({ server }) =>
      `${server} does not respond in time; check address and firewall, and whether it is overloaded`,
  },
  // TLS
  {
    code: /^(DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_(VERIFY_LEAF_SIGNATURE|GET_ISSUER_CERT.*))$/,
    describe: ({ server }) =>
      `the certificate of ${server} is not signed by a known authority; name its authority with sslrootcert=<file>, or encrypt without verification with sslmode=no-verify`,
  },
  {
    code: /^CERT_(HAS_EXPIRED|NOT_YET_VALID)$/,
    describe: ({ server }) =>
      `the certificate of ${server} has expired or is not valid yet; renew it, and check the clocks`,
  },
  {
    code: /^ERR_TLS_CERT_ALTNAME_INVALID$/,
    describe: ({ server }) =>
      `the certificate of ${server} is for another host name; use the name in the certificate, or sslmode=verify-ca`,
  },
  {
    code: /^ERR_SSL.*CERTIFICATE_REQUIRED$/,
    describe: ({ server }) => `${server} requires a client certificate; set sslcert=<file> and sslkey=<file>`,
  },
  {
    code: /^(ERR_SSL|ERR_OSSL|CERT_|EPROTO)/,
    describe: ({ server }) => `the TLS connection to ${server} failed; check sslmode, sslrootcert, sslcert and sslkey`,
  },
  {
    message: /does not support SSL/i,
    describe: ({ server }) => `${server} offers no TLS; enable it there, or set sslmode=disable`,
  },
  // Login
  {
    message: /client password must be|no password/i,
    describe: noPassword,
  },
  {
    code: /^28P01$/,
    describe: (target) =>
      target.hasPassword
        ? `${target.server} refuses the password of user "${target.user}"; check user and password`
        : noPassword(target),
  },
  {
    code: /^28000$/,
    routine: /^ClientAuthentication$/,
    describe: ({ server, user, database, tls }) =>
      `pg_hba.conf of ${server} has no entry that admits user "${user}" to database "${database}" ${
        tls
          ? 'from this address over TLS'
          : 'from this address without TLS; add sslmode=require if the server requires TLS'
      }`,
  },
  {
    code: /^28000$/,
    describe: ({ server, user }) =>
      `${server} has no role "${user}" that may log in; create it, or run: alter role "${user}" login`,
  },
  {
    code: /^3D000$/,
    describe: ({ server, database }) => `${server} has no database "${database}"; create it first`,
  },
  {
    code: /^55000$/,
    describe: ({ server, database }) => `database "${database}" of ${server} accepts no connections at present`,
  },
  {
    code: /^53300$/,
    describe: ({ server }) =>
      `${server} has no connection left for this role or database; lower DATABASE_POOL_SIZE, or raise max_connections or the connection limit`,
  },
  // State of the server
  {
    code: /^57P03$/,
    describe: ({ server }) => `${server} is starting up, shutting down or in recovery, and accepts no connections yet`,
  },
  {
    code: /^57P0[1245]$/,
    describe: ({ server }) => `${server} ended the connection: it shuts down, or an administrator or timeout ended it`,
  },
  {
    code: /^25006$/,
    describe: ({ server, database }) =>
      `database "${database}" of ${server} is read-only: it is a standby or set to read-only; use the primary server`,
  },
  { code: /^53100$/, describe: ({ server }) => `the disk of ${server} is full` },
  { code: /^(53|58030)/, describe: ({ server }) => `${server} lacks resources or cannot write its files` },
  { code: /^57014$/, describe: ({ server }) => `${server} did not finish a statement in time` },
  // Privileges and content
  {
    code: /^42501$/,
    describe: ({ user, database }) =>
      `role "${user}" lacks a privilege in database "${database}"; agentllm doctor names the missing grants`,
  },
  {
    code: /^(42P01|3F000|NO_STORE)$/,
    describe: ({ server, database }) =>
      `database "${database}" of ${server} no longer contains the tables of the store; restore it from a backup, or restart the service to create a new store`,
  },
  {
    code: /^08P01$/,
    describe: ({ server }) =>
      `${server} refuses the connection; if it is PgBouncer, check that it knows this database and user, and remove the parameter options`,
  },
  {
    code: /^(ECONNRESET|EPIPE|ECONNABORTED|08)/,
    describe: ({ server }) => `the connection to ${server} was closed`,
  },
  {
    message: /Connection terminated|connection (is )?(closed|ended)|not queryable|aborted/i,
    describe: ({ server }) => `the connection to ${server} was closed`,
  },
];

const textOf = (error: unknown, key: 'code' | 'routine' | 'message'): string => {
  const value = (error as Record<string, unknown> | undefined)?.[key];
  return typeof value === 'string' ? value : '';
};

/**
 * The cause of a failure. A failure that is not in the table is described by the message of the driver, which contains
 * no data.
 */
export function causeOf(error: unknown, target: ConnectionTarget): string {
  return knownCauseOf(error, target) ?? `the connection to ${target.server} failed: ${textOf(error, 'message')}`;
}

/** The cause of a failure; undefined when it is not in the table. */
export function knownCauseOf(error: unknown, target: ConnectionTarget): string | undefined {
  const code = textOf(error, 'code');
  const matches = (failure: Failure): boolean => {
    if (failure.message) return code === '' && failure.message.test(textOf(error, 'message'));
    return failure.code?.test(code) === true && (failure.routine?.test(textOf(error, 'routine')) ?? true);
  };
  return FAILURES.find(matches)?.describe(target);
}

/** Whether the server is starting and will accept connections soon. */
export const isStartingUp = (error: unknown): boolean => textOf(error, 'code') === '57P03';
