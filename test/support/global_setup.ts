import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';

declare module 'vitest' {
  interface ProvidedContext {
    /** A data directory as the first start leaves it; a test that is not about that start copies it. */
    firstStart: string;
  }
}

const PROGRAM = 'dist/src/cli/agentllm.js';

/** Makes the data directory of a first start once for all tests: making it takes seconds, copying it does not. */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  if (!existsSync(PROGRAM)) throw new Error(`${PROGRAM} is missing; run npm test, or npm run build first`);
  const directory = await mkdtemp(join(tmpdir(), 'agentllm-first-start-'));
  const env = { PATH: process.env['PATH'], DATA_DIR: directory, GRPC_ADDRESS: '127.0.0.1:0', HTTP_ADDRESS: 'off' };
  const service = spawn(process.execPath, [PROGRAM, 'serve'], { env, stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = once(service, 'close');
  let said = '';
  service.stderr.on('data', (chunk) => {
    said += chunk;
    // Once: a second signal would find the service stopping, and its process without ears.
    if (/is ready after/.test(said) && !service.killed) service.kill('SIGTERM');
  });
  const [code] = await ended;
  if (code !== 0) throw new Error(`the first start failed:\n${said}`);
  project.provide('firstStart', directory);
  return () => rm(directory, { recursive: true, force: true });
}
