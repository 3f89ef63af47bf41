import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packageFile } from '../../src/package.js';
import { copyFirstStart } from '../support/command.js';
import { serviceEnvironment, startGroup, untilListening } from './support.js';

/* Installation of the program: from the sources without dev dependencies, and as a package. */

let scratch: string;
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'agentllm-test-'));
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const QUIET = ['--no-audit', '--no-fund', '--prefer-offline'];
const npm = (cwd: string, ...args: string[]) =>
  execFileSync('npm', [...args], { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

/** Copies the files that a checkout of the repository contains. */
function checkout(name: string): string {
  const target = join(scratch, name);
  const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
    cwd: packageFile('.'),
    encoding: 'utf8',
  });
  for (const file of files
    .trim()
    .split('\n')
    .filter((path) => !/^(test|bench|docs)\//.test(path)))
    if (existsSync(packageFile(file))) cpSync(packageFile(file), join(target, file));
  return target;
}

/** Starts a service and stops it. */
async function startAndStop(cwd: string, command: string, args: readonly string[]): Promise<void> {
  const data = await copyFirstStart(mkdtempSync(join(scratch, 'data-')));
  const { port, env } = await serviceEnvironment(data);
  const child = startGroup(command, args, { cwd, env });
  const ended = once(child, 'exit');
  await untilListening(port, true, 90_000);
  child.kill('SIGTERM');
  await untilListening(port, false);
  await ended;
}

describe('a checkout', () => {
  it('installs and starts without the dev dependencies', async () => {
    const project = checkout('without-dev');
    npm(project, 'ci', '--omit=dev', ...QUIET);
    expect(existsSync(join(project, 'node_modules/typescript'))).toBe(false);
    await startAndStop(project, 'npm', ['start']);
  }, 240_000);

  it('uses a copied build without a compiler when the build is newer than the sources', () => {
    const project = checkout('built-elsewhere');
    cpSync(packageFile('dist'), join(project, 'dist'), { recursive: true });
    const later = new Date(Date.now() + 60_000);
    utimesSync(join(project, 'dist/.tsbuildinfo'), later, later);
    const prepare = () =>
      execFileSync(process.execPath, ['scripts/prepare.mjs'], {
        cwd: project,
        env: { PATH: process.env['PATH'] },
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'pipe'],
      });
    expect(prepare()).toBe('');
    rmSync(join(project, 'dist'), { recursive: true });
    expect(prepare).toThrow(/is not built and the compiler cannot be fetched/);
  });
});

describe('the packed program', () => {
  it('installs into an empty project and starts', async () => {
    const [packed] = JSON.parse(
      npm(packageFile('.'), 'pack', '--ignore-scripts', '--json', '--pack-destination', scratch),
    );
    const names = packed.files.map(({ path }: { path: string }) => path) as string[];
    // Files that no service needs are not in the package.
    expect(names.filter((name) => /^(src|test|bench)\/|\.tsbuildinfo$|^dist\/client\//.test(name))).toEqual([]);
    const project = mkdtempSync(join(scratch, 'project-'));
    const scripts = { start: 'agentllm serve' };
    writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'of-a-user', version: '1.0.0', scripts }));
    npm(project, 'install', ...QUIET, join(scratch, packed.filename));
    const { version } = JSON.parse(readFileSync(packageFile('package.json'), 'utf8'));
    expect(npm(project, 'exec', '--', 'agentllm', '--version').trim()).toBe(version);
    await startAndStop(project, 'npm', ['start']);
  }, 240_000);
});
