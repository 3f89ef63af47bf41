import pg from 'pg';

/** A direct connection to the database, for operations that the service does not offer. */
export async function connectPg(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return client;
}
