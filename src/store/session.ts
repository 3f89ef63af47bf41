import type { Knex } from 'knex';
import PostgresTransaction from 'knex/lib/dialects/postgres/execution/pg-transaction.js';
import PostgresClient from 'knex/lib/dialects/postgres/index.js';

/*
 * Session settings determine how PostgreSQL parses statements and formats values. A role, a database or a pooler may
 * change any of them. Therefore every statement runs in a transaction that first sets the settings below, local to the
 * transaction. This also works with PgBouncer in transaction mode, which rejects start-up parameters and shares
 * sessions.
 */

/** The settings of every transaction. The values are PostgreSQL's defaults. */
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
  // Writes then set their own timeouts (write/revision_counter.ts).
  statement_timeout: '0',
  lock_timeout: '0',
  idle_in_transaction_session_timeout: '0',
};

/** An acknowledged write is on the disk of the server, even if the role sets synchronous_commit to off. */
const DURABLE = `set_config('synchronous_commit', coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'local'), `;
const HAS_TRANSACTION_TIMEOUT = 170_000;

/** The settings of all transactions of a pool. */
export class SessionSettings {
  private readonly settings: ReadonlyMap<string, string>;

  /**
   * @param outsideTransaction run statements without a transaction, for migrations that PostgreSQL rejects inside one.
   */
  constructor(
    private readonly target: { readonly schema: string; readonly serverVersion: number },
    readonly outsideTransaction = false,
  ) {
    const settings = new Map(Object.entries(SETTINGS));
    // The temporary schema is last. By default it is searched first, and its tables would hide those of the store.
    settings.set('search_path', `"${target.schema.replaceAll('"', '""')}", pg_temp`);
    if (target.serverVersion >= HAS_TRANSACTION_TIMEOUT) settings.set('transaction_timeout', '0');
    this.settings = settings;
  }

  withoutTransaction(): SessionSettings {
    return new SessionSettings(this.target, true);
  }

  /** The statements that begin a transaction and set the settings, in one message. */
  begin(isolationLevel = 'read committed', readOnly = false): string {
    return `begin isolation level ${isolationLevel}${readOnly ? ' read only' : ''}; ${this.set(true)}`;
  }

  /** One statement that applies all settings. Its single result column is not used. */
  set(local: boolean): string {
    const each = Array.from(
      this.settings,
      ([name, value]) => `set_config('${name}', '${value.replaceAll("'", "''")}', ${local})`,
    );
    return `select concat(${each.join(', ')}, ${DURABLE}${local}))`;
  }
}

interface Connection {
  query(sql: string): Promise<unknown>;
  __knex__disposed?: unknown;
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

  /** idle_session_timeout applies between transactions, so it is set once per connection. */
  override async acquireRawConnection(): Promise<Connection> {
    const connection: Connection = await super.acquireRawConnection();
    await connection.query(`select set_config('idle_session_timeout', '0', false)`);
    return connection;
  }

  override async _query(connection: Connection, query: object): Promise<object> {
    if (this.transacting) return super._query(connection, query);
    const session = settingsOf(this);
    const [first, last] = session.outsideTransaction ? [session.set(false), 'reset all'] : [session.begin(), 'commit'];
    // All three are sent together, so this takes one round trip. After an error the commit rolls back.
    const [began, result, ended] = await Promise.allSettled([
      connection.query(first),
      super._query(connection, query),
      connection.query(last),
    ]);
    for (const outcome of [began, result, ended]) if (outcome.status === 'rejected') throw outcome.reason;
    return (result as PromiseFulfilledResult<object>).value;
  }
}

class SessionTransaction extends PostgresTransaction {
  override async begin(connection: Connection): Promise<unknown> {
    try {
      return await connection.query(settingsOf(this.client).begin(this.isolationLevel, this.readOnly));
    } catch (error) {
      // The transaction may have begun and failed, so the connection must not be reused.
      connection.__knex__disposed = error;
      throw error;
    }
  }
}
