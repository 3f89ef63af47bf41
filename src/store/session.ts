import { createHash } from 'node:crypto';
import type { Knex } from 'knex';
import PostgresTransaction from 'knex/lib/dialects/postgres/execution/pg-transaction.js';
import PostgresClient from 'knex/lib/dialects/postgres/index.js';
import pg from 'pg';
import { quoteIdentifier } from '../../migrations/convert_table.js';

/*
 * Session settings determine how PostgreSQL parses statements and formats values. A role, a database or a pooler may
 * change any of them. On a direct connection they are set once, when it is opened. A pooler in transaction mode, such
 * as PgBouncer, rejects start-up parameters and shares sessions. Through a pooler, every statement therefore runs in a
 * transaction that first sets the settings, local to the transaction. That costs 0.2 ms per transaction, a third of the
 * time of a short one.
 */

/** The settings of every statement. The values are PostgreSQL's defaults. */
const SETTINGS: Readonly<Record<string, string>> = {
  // Formats of values.
  DateStyle: 'ISO, MDY',
  IntervalStyle: 'postgres',
  TimeZone: 'UTC',
  extra_float_digits: '1',
  bytea_output: 'hex',
  client_encoding: 'UTF8',
  array_nulls: 'on',
  standard_conforming_strings: 'on',
  backslash_quote: 'safe_encoding',
  transform_null_equals: 'off',
  quote_all_identifiers: 'off',
  xmloption: 'content',
  // A row security policy that hides rows causes an error instead of an incomplete result.
  row_security: 'off',
  statement_timeout: '0',
  lock_timeout: '0',
  idle_in_transaction_session_timeout: '0',
};

/** Defaults for statements without `begin`; only a direct connection sends such statements. */
const TRANSACTION_DEFAULTS: Readonly<Record<string, string>> = {
  default_transaction_isolation: 'read committed',
  default_transaction_deferrable: 'off',
};

/** An acknowledged write is on the disk of the server, even if the role sets synchronous_commit to off. */
const DURABLE = `set_config('synchronous_commit', coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'local'), `;
const HAS_TRANSACTION_TIMEOUT = 170_000;

/** The settings of all connections of a pool. */
export class SessionSettings {
  private readonly settings: Map<string, string>;

  /**
   * @param outsideTransaction run statements without a transaction, for migrations that PostgreSQL rejects inside one.
   */
  constructor(
    private readonly target: { readonly schema: string; readonly serverVersion: number },
    readonly outsideTransaction = false,
  ) {
    const settings = new Map(Object.entries(SETTINGS));
    // The temporary schema is last. By default it is searched first, and its tables would hide those of the store.
    settings.set('search_path', `${quoteIdentifier(target.schema)}, pg_temp`);
    if (target.serverVersion >= HAS_TRANSACTION_TIMEOUT) settings.set('transaction_timeout', '0');
    this.settings = settings;
  }

  /** Sets the statement timeout, in ms, of connections that are opened and of pooled transactions that begin later. */
  limitStatements(ms: number): void {
    this.settings.set('statement_timeout', String(ms));
  }

  withoutTransaction(): SessionSettings {
    return new SessionSettings(this.target, true);
  }

  /** The statement that sets the settings of a direct connection. */
  get forSession(): string {
    return set([...this.settings, ...Object.entries(TRANSACTION_DEFAULTS)], false);
  }

  /** The statement that sets the settings for one transaction, or, outside of one, until `reset all`. */
  forTransaction(local: boolean): string {
    return set([...this.settings], local);
  }
}

/** One statement that applies all settings. Its single result column is not used. */
function set(settings: readonly (readonly [string, string])[], local: boolean): string {
  const each = settings.map(([name, value]) => `set_config('${name}', '${value.replaceAll("'", "''")}', ${local})`);
  return `select concat(${each.join(', ')}, ${DURABLE}${local}))`;
}

/**
 * Marks a statement that is executed often. A direct connection prepares it once, under a name: PostgreSQL then does not
 * parse and plan it again, which takes half of the time of a short write. A pooler in transaction mode shares connections,
 * so there it is sent without a name.
 * @param hasOneForm whether its text is always the same; its length does not matter then.
 */
export const prepared = <Query extends { options(options: object): Query }>(query: Query, hasOneForm = false): Query =>
  query.options({ prepare: true, hasOneForm });

/**
 * Marks the last statements of a transaction, which are sent together: the commit is sent right after them instead of
 * after their results. That saves the round trip of the commit while other writes wait. If a statement fails at the
 * server, the server executes the commit as a rollback. If the driver cannot send a statement, no commit is sent.
 */
export function committing<Query extends { options(options: object): Query }>(
  statements: readonly Query[],
): { readonly statements: readonly Query[]; readonly together: LastStatements } {
  const together: LastStatements = { unsent: statements.length, failed: false, rejected: false, commitSent: false };
  return { statements: statements.map((statement) => prepared(statement).options({ together })), together };
}

/** The last statements of a transaction. */
export interface LastStatements {
  unsent: number;
  /** Whether the driver or the server has reported that one failed. */
  failed: boolean;
  /** Whether the server has rejected one, so that it executes the commit as a rollback. */
  rejected: boolean;
  commitSent: boolean;
}

/**
 * Whether the server has rejected a statement. An error that ends the session may come from a pooler, which does not know
 * what the server has executed.
 */
const isRejection = (error: unknown, { isDirect = false }: Connection): boolean =>
  error instanceof pg.DatabaseError && (error.severity === 'ERROR' || isDirect);

/** A query of Knex with its options. */
interface RawQuery {
  readonly sql: string;
  readonly options?: { readonly prepare?: boolean; readonly hasOneForm?: boolean; readonly together?: LastStatements };
}

/** Long statements have many rows and rarely the same form twice, and each form would stay prepared. */
const MAX_PREPARED_LENGTH = 4_000;

function named(query: RawQuery): RawQuery {
  const { prepare = false, hasOneForm = false } = query.options ?? {};
  if (!prepare || (query.sql.length > MAX_PREPARED_LENGTH && !hasOneForm)) return query;
  const name = createHash('sha1').update(query.sql).digest('base64url');
  return { ...query, options: { ...query.options, name } as RawQuery['options'] & { name: string } };
}

interface Connection {
  query(sql: string): Promise<unknown>;
  /** The process id that the server sent when the connection was opened. */
  readonly processID: number | null;
  __knex__disposed?: unknown;
  /** Whether the connection uses no pooler, so that the settings of the session remain in effect. */
  isDirect?: boolean;
  /** Whether the commit of the current transaction was sent with its last statements and succeeded. */
  isCommitted?: boolean;
}

interface SessionConfig {
  session?: SessionSettings;
}
const settingsOf = ({ config }: { readonly config: object }) => (config as SessionConfig).session as SessionSettings;

/** The same pool, for statements that PostgreSQL rejects inside a transaction. */
export function outsideTransaction(knex: Knex): Knex {
  const clone = knex.withUserParams({ ...knex.userParams });
  const config = clone.client.config as SessionConfig;
  if (config.session) config.session = config.session.withoutTransaction();
  return clone;
}

/** Knex's client for PostgreSQL. Its config must contain `session`, and its connections must be pipelined. */
export class SessionClient extends PostgresClient {
  override transaction(container: unknown, config: unknown, outerTx: unknown): Knex.Transaction {
    return new SessionTransaction(this, container, config, outerTx) as unknown as Knex.Transaction;
  }

  override async acquireRawConnection(): Promise<Connection> {
    const connection: Connection = await super.acquireRawConnection();
    try {
      connection.isDirect = await isDirect(connection);
      if (connection.isDirect) await connection.query(settingsOf(this).forSession);
      // This timeout applies between transactions, so it is set once per connection.
      await connection.query(`select set_config('idle_session_timeout', '0', false)`);
      return connection;
    } catch (error) {
      // The pool does not know the connection yet, so it would stay open.
      void this.destroyRawConnection(connection).catch(() => undefined);
      throw error;
    }
  }

  override async _query(connection: Connection, query: RawQuery): Promise<object> {
    if (this.transacting) return this.inTransaction(connection, query);
    if (connection.isDirect) return super._query(connection, named(query));
    const session = settingsOf(this);
    const [first, last] = session.outsideTransaction
      ? [session.forTransaction(false), 'reset all']
      : [beginWith(session), 'commit'];
    // All three are sent together, so this takes one round trip. After an error the commit rolls back.
    const [began, result, ended] = await Promise.allSettled([
      connection.query(first),
      super._query(connection, query),
      connection.query(last),
    ]);
    for (const outcome of [began, result, ended]) if (outcome.status === 'rejected') throw outcome.reason;
    return (result as PromiseFulfilledResult<object>).value;
  }

  private async inTransaction(connection: Connection, query: RawQuery): Promise<object> {
    const sent = super._query(connection, connection.isDirect ? named(query) : query);
    const together = query.options?.together;
    if (!together) return sent;
    sent.catch((error: unknown) => {
      together.failed = true;
      together.rejected ||= isRejection(error, connection);
    });
    if (--together.unsent > 0) return sent;
    // The driver reports a statement that it cannot send at once.
    await undefined;
    if (together.failed) return sent;
    together.commitSent = true;
    const [result, commit] = await Promise.allSettled([sent, connection.query('COMMIT')]);
    if (result.status === 'rejected') throw result.reason;
    if (commit.status === 'rejected') throw commit.reason;
    connection.isCommitted = true;
    return result.value;
  }
}

/** A pooler sends a process id of its own, because its client has no backend yet. */
async function isDirect(connection: Connection): Promise<boolean> {
  const { rows } = (await connection.query('select pg_backend_pid() as pid')) as { rows: { pid: number }[] };
  return rows[0]?.pid === connection.processID;
}

class SessionTransaction extends PostgresTransaction {
  override async begin(connection: Connection): Promise<void> {
    connection.isCommitted = false;
    const begin = beginOf(this.isolationLevel, this.readOnly);
    const discard = (error: unknown) => {
      // The transaction may have begun and failed, so the connection must not be reused.
      connection.__knex__disposed = error;
    };
    // Sent together with the first statement, which also fails if the connection is lost.
    if (connection.isDirect) void connection.query(begin).catch(discard);
    else
      await connection.query(beginWith(settingsOf(this.client), begin)).catch((error) => {
        discard(error);
        throw error;
      });
  }

  override commit(connection: Connection, value: unknown): Promise<unknown> {
    if (!connection.isCommitted) return super.commit(connection, value);
    this._completed = true;
    this._resolver(value);
    return Promise.resolve();
  }
}

const beginOf = (isolationLevel = 'read committed', readOnly = false): string =>
  `begin isolation level ${isolationLevel}${readOnly ? ' read only' : ''}`;

/** Begins a transaction and sets its settings, in one message. */
const beginWith = (session: SessionSettings, begin = beginOf()): string => `${begin}; ${session.forTransaction(true)}`;
