// Builds the program if necessary: after npm ci, and before npm start.
//
// The compiler is a dev dependency. Without dev dependencies (npm ci --omit=dev) an up-to-date build is used, and
// otherwise npm fetches the compiler for this build. A packed program has no sources and is built already.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const SOURCES = ['src', 'migrations', 'seeds', 'gen/ts', 'package.json', 'tsconfig.json', 'tsconfig.build.json'];
const PROGRAM = join(root, 'dist/src/cli/agentllm.js');
const PROJECT = ['-p', join(root, 'tsconfig.build.json')];

/** Modification time of a file, or of the newest file in a directory, in ms. */
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

/** Builds without type checks, because the types of the dev dependencies are missing. The output is the same. */
function buildWithFetchedCompiler() {
  const npm = process.env.npm_execpath;
  if (!npm) return 1;
  const { devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const compiler = `typescript@${devDependencies.typescript}`;
  console.error(`agentllm: dev dependencies are not installed; building with ${compiler}, fetched by npm`);
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
    console.error(
      'agentllm: the program is not built and the compiler cannot be fetched: run npm ci and npm run build',
    );
    return status;
  }
  console.error('agentllm: the compiler cannot be fetched; using dist, although sources are newer');
  return 0;
}

process.exitCode = prepare();
