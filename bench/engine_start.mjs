/*
 * The reference for starts: a program that only starts the database. With ENGINE_DIRECTORY it opens the embedded
 * engine, otherwise it connects to a running PostgreSQL. It is plain JavaScript, because the measurement would
 * otherwise include the load time of tsx.
 */

// The signal is ignored: the program ends when it has closed the database. Otherwise the next start would include a
// recovery.
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
