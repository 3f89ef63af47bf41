import { readdir } from 'node:fs/promises';
import type { Row } from './row.js';

const directory = new URL('rows/', import.meta.url);

/** Loads all rows, one per file in `bench/rows`, in the order of the file names. */
export async function loadRows(): Promise<Row[]> {
  const files = (await readdir(directory)).filter((file) => file.endsWith('.ts')).sort();
  return await Promise.all(files.map(loadRow));
}

async function loadRow(file: string): Promise<Row> {
  const { row } = (await import(new URL(file, directory).href)) as { row?: Row };
  if (!row) throw new Error(`bench/rows/${file} exports no row`);
  return row;
}
