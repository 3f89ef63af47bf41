import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { TestProject } from 'vitest/node';
import { startServer } from './postgres_server.js';
import { type Prepared, preparedIn } from './prepared.js';

declare module 'vitest' {
  interface ProvidedContext {
    prepared: Prepared;
    /** The URL of the PostgreSQL server of this test run. */
    postgres: string;
  }
}

/** Prepares stores that tests copy, which saves each test seconds, and starts the PostgreSQL server of the test run. */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const directory = await mkdtemp(join(tmpdir(), 'agentllm-prepared-'));
  const removeFiles = () => rm(directory, { recursive: true, force: true, maxRetries: 10 });
  try {
    const program = fileURLToPath(new URL('prepare_stores.ts', import.meta.url));
    await promisify(execFile)(process.execPath, ['--liftoff-only', '--import', 'tsx', program, directory]);
    const prepared = preparedIn(directory);
    const server = await startServer(prepared.postgres);
    project.provide('prepared', prepared);
    project.provide('postgres', server.url);
    return async () => {
      await server.stop();
      await removeFiles();
    };
  } catch (error) {
    await removeFiles();
    throw error;
  }
}
