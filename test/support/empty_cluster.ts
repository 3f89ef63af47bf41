import { existsSync, readFileSync } from 'node:fs';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openEngine } from '../../src/store/embedded/engine.js';

/** A dump of an embedded database without tables. The first call on a machine runs initdb, which takes seconds. */
export async function emptyCluster(): Promise<Buffer<ArrayBuffer>> {
  const kept = join(tmpdir(), `agentllm-empty-cluster-${pgliteVersion()}.tar`);
  if (existsSync(kept)) return readFile(kept);
  const engine = await openEngine({ dataDir: undefined });
  try {
    const unfinished = `${kept}.${process.pid}`;
    await writeFile(unfinished, await engine.dump());
    await rename(unfinished, kept);
  } finally {
    await engine.close();
  }
  return readFile(kept);
}

function pgliteVersion(): string {
  const manifest = join(createRequire(import.meta.url).resolve('@electric-sql/pglite'), '../../package.json');
  return (JSON.parse(readFileSync(manifest, 'utf8')) as { version: string }).version;
}
