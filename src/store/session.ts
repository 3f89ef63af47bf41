import type { Knex } from 'knex';
import PostgresTransaction from 'knex/lib/dialects/postgres/execution/pg-transaction.js';
import PostgresClient from 'knex/lib/dialects/postgres/index.js';

/*
 * The settings of a session decide how PostgreSQL reads statements and writes
 * values. A role, a database or a pooler may set each of them, so nothing here
 * relies on a session: every statement runs in a transaction that begins with
 * the settings below, local to it. That holds behind PgBouncer in transaction
 * mode too, where start-up parameters are refused and a session is shared.
 */

/** What every transaction sets. The values are those that PostgreSQL has by itself. */
const SETTINGS: Readonly<Record<string, string>> = {
  // How values are written and read.
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
  // A policy that hides rows from the service is an error, not a smaller result.
  row_security: 'off',
  // Writes set their own timeouts after these (counter.ts).
  statement_timeout: '0',
  lock_timeout: '0',
  idle_in_transaction_session_timeout: '0',
};

/** An acknowledged write is on the disk of the server, whatever the role prefers. */
const DURABLE = `set_config('synchronous_commit', coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'local'), `;
const HAS_TRANSACTION_TIMEOUT = 170_000;

/** The settings of all transactions of a pool. */
export class SessionSettings {
  private readonly settings: ReadonlyMap<string, string>;

  /** @param outsideTransaction statements run outside of a transaction: of a migration that PostgreSQL refuses inside. */
  constructor(
    private readonly target: { readonly schema: string; readonly serverVersion: number },
    readonly outsideTransaction = false,
  ) {
    const settings = new Map(Object.entries(SETTINGS));
    // The temporary schema last: by itself it would come first, and its tables before ours.
    settings.set('search_path', `"${target.schema.replaceAll('"', '""')}", pg_temp`);
    if (target.serverVersion >= HAS_TRANSACTION_TIMEOUT) settings.set('transaction_timeout', '0');
    this.settings = settings;
  }

  withoutTransaction(): SessionSettings {
    return new SessionSettings(this.target, true);
  }

  /** Begins a transaction with the settings, in one message. */
  begin(isolationLevel = 'read committed', readOnly = false): string {
    return `begin isolation level ${isolationLevel}${readOnly ? ' read only' : ''}; ${this.set(true)}`;
  }

  /** One column: the result is not looked at. */
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

/** The same pool, for statements that PostgreSQL refuses inside a transaction. */
export function outsideTransaction(knex: Knex): Knex {
  const clone = knex.withUserParams({ ...knex.userParams });
  const config = clone.client.config as SessionConfig;
  if (config.session) config.session = config.session.withoutTransaction();
  return clone;
}

/** Knex's client for PostgreSQL. It needs `session` in its config, and connections that are pipelined. */
export class SessionClient extends PostgresClient {
  override transaction(container: unknown, config: unknown, outerTx: unknown): Knex.Transaction {
    return new SessionTransaction(this, container, config, outerTx) as unknown as Knex.Transaction;
  }

  /** This timeout acts between transactions, so no transaction can set it. */
  override async acquireRawConnection(): Promise<Connection> {
    const connection: Connection = await super.acquireRawConnection();
    await connection.query(`select set_config('idle_session_timeout', '0', false)`);
    return connection;
  }

  override async _query(connection: Connection, query: object): Promise<object> {
    if (this.transacting) return super._query(connection, query);
    const session = settingsOf(this);
    const [first, last] = session.outsideTransaction ? [session.set(false), 'reset all'] : [session.begin(), 'commit'];
    // All three are sent at once, so this takes one round trip. After an error the commit rolls back.
    const [begun, done, ended] = await Promise.allSettled([
      connection.query(first),
      super._query(connection, query),
      connection.query(last),
    ]);
    for (const outcome of [begun, done, ended]) if (outcome.status === 'rejected') throw outcome.reason;
    return (done as PromiseFulfilledResult<object>).value;
  }
}

class SessionTransaction extends PostgresTransaction {
  override async begin(connection: Connection): Promise<unknown> {
    try {
      return await connection.query(settingsOf(this.client).begin(this.isolationLevel, this.readOnly));
    } catch (error) {
      // The transaction may have begun and failed; no one else may get it.
      connection.__knex__disposed = error;
      throw error;
    }
  }
}
