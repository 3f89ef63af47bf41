import pg from 'pg';

/** A plain connection, for what no method of the service can do. */
export async function connectPg(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return client;
}
