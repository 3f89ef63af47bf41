import { join } from 'node:path';

/** The directories of the prepared stores that tests copy (prepare_stores.ts). */
export interface Prepared {
  /** A data directory after a first start. Tests that do not test the first start copy it. */
  readonly firstStart: string;
  /** A data directory with the tables and no rows. */
  readonly migrated: string;
  /** The files of a PostgreSQL server with the templates of postgres_databases.ts. */
  readonly postgres: string;
}

export const preparedIn = (directory: string): Prepared => ({
  firstStart: join(directory, 'first-start'),
  migrated: join(directory, 'migrated'),
  postgres: join(directory, 'postgres'),
});
