// Builds the program where that is needed: after npm ci, and before npm start.
//
// The compiler is a dev dependency. Where those are left out (npm ci --omit=dev), a build that is up to date is used as
// it is, and otherwise npm fetches the compiler for this one build. A packed program has no sources and is built already.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const SOURCES = ['src', 'migrations', 'seeds', 'gen/ts', 'package.json', 'tsconfig.json', 'tsconfig.build.json'];
const PROGRAM = join(root, 'dist/src/cli/agentllm.js');
const PROJECT = ['-p', join(root, 'tsconfig.build.json')];

/** When a file, or the newest file below a directory, was changed. */
function changedAt(path) {
  const stats = statSync(path);
  if (!stats.isDirectory()) return stats.mtimeMs;
  return Math.max(0, ...readdirSync(path).map((name) => changedAt(join(path, name))));
}

function isUpToDate() {
  if (!existsSync(PROGRAM)) return false;
  const builtAt = changedAt(join(root, 'dist/.tsbuildinfo'));
  return SOURCES.every((path) => changedAt(join(root, path)) <= builtAt);
}

const run = (args) => spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' }).status ?? 1;

/** Without the types of the dev dependencies nothing can be checked; what is emitted is the same. */
function buildWithFetchedCompiler() {
  const npm = process.env.npm_execpath;
  if (!npm) return 1;
  const { devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const compiler = `typescript@${devDependencies.typescript}`;
  console.error(`agentllm: dev dependencies are not installed; building with ${compiler}, which npm fetches for it`);
  return run([npm, 'exec', '--yes', `--package=${compiler}`, '--', 'tsc', ...PROJECT, '--noCheck', '--types', '']);
}

function prepare() {
  const compiler = join(root, 'node_modules/typescript/bin/tsc');
  if (!existsSync(join(root, 'src'))) return 0;
  if (existsSync(compiler)) return run([compiler, ...PROJECT]);
  if (isUpToDate()) return 0;
  const status = buildWithFetchedCompiler();
  if (status === 0) return 0;
  if (!existsSync(PROGRAM)) {
    console.error('agentllm: it is not built, and the compiler cannot be fetched: run npm ci and npm run build');
    return status;
  }
  console.error('agentllm: the compiler cannot be fetched; dist is used as it is, although sources are newer');
  return 0;
}

process.exitCode = prepare();
