import { join } from 'node:path';

/** Where prepare_stores.ts leaves what tests copy. */
export interface Prepared {
  /** A data directory as the first start leaves it; a test that is not about that start copies it. */
  readonly firstStart: string;
  /** Files with dumps of the embedded engine, for `loadDump`. */
  readonly dumps: { readonly migrated: string; readonly seeded: string };
  /** Files of a PostgreSQL server that has the templates of postgres_databases.ts. */
  readonly postgres: string;
}

export const preparedIn = (directory: string): Prepared => ({
  firstStart: join(directory, 'first-start'),
  dumps: { migrated: join(directory, 'migrated.tar'), seeded: join(directory, 'seeded.tar') },
  postgres: join(directory, 'postgres'),
});
