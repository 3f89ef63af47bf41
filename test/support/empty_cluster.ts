import { existsSync, readFileSync } from 'node:fs';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openEngine } from '../../src/store/embedded/engine.js';

/** A dump of an embedded database without tables. The first call on a machine runs initdb, which takes seconds. */
export async function emptyCluster(): Promise<Buffer<ArrayBuffer>> {
  const cached = join(tmpdir(), `agentllm-empty-cluster-${pgliteVersion()}.tar`);
  if (existsSync(cached)) return readFile(cached);
  const engine = await openEngine({ dataDir: undefined });
  try {
    const unfinished = `${cached}.${process.pid}`;
    await writeFile(unfinished, await engine.dump());
    await rename(unfinished, cached);
  } finally {
    await engine.close();
  }
  return readFile(cached);
}

function pgliteVersion(): string {
  const manifest = join(createRequire(import.meta.url).resolve('@electric-sql/pglite'), '../../package.json');
  return (JSON.parse(readFileSync(manifest, 'utf8')) as { version: string }).version;
}
