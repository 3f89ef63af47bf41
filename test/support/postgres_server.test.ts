import { spawnSync } from 'node:child_process';
import { expect, it } from 'vitest';

it.each([0, 1, 3])('a process that starts PostgreSQL servers keeps its exit code (%d)', (code) => {
  const program = `await import('./test/support/postgres_server.ts'); process.exitCode = ${code};`;
  const args = ['--import', 'tsx', '--input-type=module', '--eval', program];
  expect(spawnSync(process.execPath, args, { encoding: 'utf8' })).toMatchObject({ status: code, stderr: '' });
});
