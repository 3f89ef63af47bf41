// Types for Knex's PostgreSQL classes, which the package does not declare.
declare module 'knex/lib/dialects/postgres/index.js' {
  import type { Knex } from 'knex';

  class PostgresClient extends Knex.Client {
    /** Set on the clients that Knex creates for transactions. */
    readonly transacting?: boolean;
    _query(connection: unknown, query: object): Promise<object>;
  }
  export = PostgresClient;
}

declare module 'knex/lib/dialects/postgres/execution/pg-transaction.js' {
  class PostgresTransaction {
    constructor(client: unknown, container: unknown, config: unknown, outerTx: unknown);
    readonly client: { readonly config: object };
    readonly isolationLevel?: string;
    readonly readOnly?: boolean;
    begin(connection: unknown): Promise<unknown>;
    commit(connection: unknown, value: unknown): Promise<unknown>;
    /** Set when the transaction has ended, so that it accepts no more statements. */
    _completed: boolean;
    /** Fulfills the promise of the transaction. */
    _resolver(value: unknown): void;
  }
  export = PostgresTransaction;
}
