// Generates gen/ from proto/. With --check it does so elsewhere and fails when gen/ differs.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const run = (command, ...args) => execFileSync(command, args, { stdio: 'inherit' });
const check = process.argv.includes('--check');
const out = check ? mkdtempSync(join(tmpdir(), 'agentllm-gen-')) : 'gen';

run('buf', 'generate', '--output', check ? out : '.');
const generated = check ? join(out, 'gen') : 'gen';
// Comments travel with the descriptors, so that reflection can show them.
run('buf', 'build', '-o', join(generated, 'descriptor.binpb'), '--as-file-descriptor-set');
if (check) {
  try {
    run('diff', '-r', generated, 'gen');
  } catch {
    console.error('gen/ is not what proto/ generates; run npm run generate and commit the result');
    process.exitCode = 1;
  } finally {
    rmSync(out, { recursive: true });
  }
}
