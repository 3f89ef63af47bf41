import { join } from 'node:path';

/** Where prepare_stores.ts leaves what tests copy. */
export interface Prepared {
  /** A data directory as the first start leaves it; a test that is not about that start copies it. */
  readonly firstStart: string;
  /** A data directory with the tables and no rows. */
  readonly migrated: string;
  /** Files of a PostgreSQL server that has the templates of postgres_databases.ts. */
  readonly postgres: string;
}

export const preparedIn = (directory: string): Prepared => ({
  firstStart: join(directory, 'first-start'),
  migrated: join(directory, 'migrated'),
  postgres: join(directory, 'postgres'),
});
