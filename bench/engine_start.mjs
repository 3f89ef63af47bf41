/*
 * The engine's own start, as a program that does nothing else: with a directory
 * the embedded engine on it, else a connection to a PostgreSQL that runs.
 * Plain JavaScript: what tsx takes to load would be counted as the engine's.
 */

// It ends by itself once the database is closed: one that was not would be repaired at the next start.
process.on('SIGTERM', () => {});

const { ENGINE_DIRECTORY, DATABASE_URL } = process.env;

if (ENGINE_DIRECTORY) {
  const { PGlite } = await import('@electric-sql/pglite');
  const database = await PGlite.create({ dataDir: ENGINE_DIRECTORY });
  await database.query('select 1');
  process.stderr.write('ready\n');
  await database.close();
} else {
  const { default: pg } = await import('pg');
  const client = new pg.Client({ connectionString: DATABASE_URL });
  await client.connect();
  await client.query('select 1');
  process.stderr.write('ready\n');
  await client.end();
}
