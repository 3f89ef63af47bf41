import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { promisify } from 'node:util';
import { packageFile } from '../../src/package.js';

/*
 * The package as users get it: built, packed and installed into an empty project.
 */

const run = promisify(execFile);
const QUIET = ['--prefer-offline', '--no-audit', '--no-fund'];

/** What npm reports about a tarball. */
export interface PackedClient {
  readonly filename: string;
  readonly size: number;
  readonly unpackedSize: number;
}

export const filesOf = (top: string): string[] =>
  readdirSync(top, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(top, join(entry.parentPath, entry.name)));

/** Builds the package and packs it into a directory. */
export async function packClient(directory: string): Promise<PackedClient> {
  const built = join(directory, 'built');
  await run(process.execPath, [packageFile('scripts/build_client.mjs'), built]);
  const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', directory], { cwd: built });
  const report = JSON.parse(stdout);
  // npm 11 and earlier print a list, npm 12 an object by package name.
  return Array.isArray(report) ? report[0] : (Object.values(report)[0] as PackedClient);
}

/** Creates an empty project and installs a tarball. */
export async function installClient(project: string, tarball: string): Promise<void> {
  await mkdir(project);
  await writeFile(join(project, 'package.json'), JSON.stringify({ name: 'project', private: true }));
  await run('npm', ['install', ...QUIET, '--ignore-scripts', tarball], { cwd: project });
}

/** Installs packages into a folder of `.cache` once; false if they cannot be installed. */
export async function installCached(folder: string, ...packages: string[]): Promise<boolean> {
  const prefix = packageFile(`.cache/${folder}`);
  const options = ['--no-save', '--no-package-lock', ...QUIET];
  return run('npm', ['install', '--prefix', prefix, ...options, ...packages]).then(
    () => true,
    () => false,
  );
}

/** The newest Node LTS, whose version .ci/run names; `nodes` installs it when it is missing. */
function newestLts(): { readonly major: string; find(): string | undefined } {
  const major = /node@(\d+)/.exec(readFileSync(packageFile('.ci/run'), 'utf8'))?.[1] ?? '';
  const find = () => {
    const top = packageFile('.cache/lts/node_modules');
    if (!existsSync(top)) return undefined;
    const binary = filesOf(top).find((file) => /(^|\/)bin\/node(\.exe)?$/.test(file));
    return binary && join(top, binary);
  };
  return { major, find };
}

/** The Node version of the tests, and the newest LTS. */
export async function nodes(): Promise<{ readonly node: string; readonly missing?: string }[]> {
  const { major, find } = newestLts();
  if (!find()) {
    await installCached('lts', `node@${major}`);
  }
  const lts = find();
  return [{ node: process.execPath }, lts ? { node: lts } : { node: '', missing: `node@${major} cannot be installed` }];
}
