// Builds the package @agentllm/client: node scripts/build_client.mjs [directory], dist/client by default.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, extname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const out = resolve(process.argv[2] ?? join(root, 'dist/client'));
const SYSTEMS = { esm: { module: 'esnext', type: 'module' }, cjs: { module: 'commonjs', type: 'commonjs' } };
const ENTRIES = ['src/client/index', 'src/client/proto'];

const readJson = (path) => JSON.parse(readFileSync(join(root, path), 'utf8'));
const writeJson = (path, value) => writeFileSync(join(out, path), `${JSON.stringify(value, null, 2)}\n`);
const filesOf = (directory) =>
  readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));

/** JavaScript with maps that hold their sources, and declarations with the comments. */
function compile(system, { module, type }) {
  const directory = join(out, system);
  const config = join(out, `tsconfig.${system}.json`);
  const compilerOptions = {
    noEmit: false,
    module,
    moduleResolution: 'bundler',
    verbatimModuleSyntax: false,
    declaration: true,
    sourceMap: true,
    inlineSources: true,
    sourceRoot: 'agentllm:///',
    newLine: 'lf',
    outDir: directory,
    rootDir: root,
    typeRoots: [join(root, 'node_modules/@types')],
  };
  const files = ENTRIES.map((entry) => join(root, `${entry}.ts`));
  writeFileSync(config, JSON.stringify({ extends: join(root, 'tsconfig.json'), compilerOptions, files, include: [] }));
  try {
    execFileSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', config], { stdio: 'inherit' });
  } finally {
    rmSync(config);
  }
  writeJson(`${system}/package.json`, { type, sideEffects: false });
}

/** Takes away what no entry reaches (modules that are imported for their types alone) and the maps of generated code. */
function prune(directory) {
  const kept = new Set([
    ...reachable(directory, '.js', /\b(?:from|require\(|import\()\s*['"](\.[^'"]+)['"]/g),
    ...reachable(directory, '.d.ts', /\b(?:from|import\()\s*['"](\.[^'"]+)['"]/g),
  ]);
  for (const file of filesOf(directory)) {
    const generated = relative(directory, file).startsWith('gen');
    const code = file.replace(/\.map$/, '');
    if (extname(file) === '.map' ? generated || !kept.has(code) : !kept.has(file) && !file.endsWith('package.json'))
      rmSync(file);
    else if (generated && file.endsWith('.js')) writeFileSync(file, bare(readFileSync(file, 'utf8')));
  }
}

/** Generated code without its map and its comments, which stand in the declarations: they are a twentieth of the package. */
const bare = (code) =>
  code
    .replaceAll(/^[ \t]*(?:\/\*(?:[^*]|\*(?!\/))*\*\/|\/\/.*)\n/gm, '')
    .replace(/\n?\/\/# sourceMappingURL=.*\s*$/, '\n');

function reachable(directory, extension, imports) {
  const seen = new Set();
  const visit = (file) => {
    if (seen.has(file)) return;
    seen.add(file);
    for (const [, target] of readFileSync(file, 'utf8').matchAll(imports))
      visit(resolve(dirname(file), target.replace(/\.js$/, extension)));
  };
  for (const entry of ENTRIES) visit(join(directory, entry + extension));
  return seen;
}

/** The manifest, with the version of the service and the packages that it was tested with. */
function manifest() {
  const service = readJson('package.json');
  const client = readJson('src/client/package.json');
  const dependencies = Object.keys(client.dependencies).map((name) => [name, `^${service.dependencies[name]}`]);
  return { ...client, version: service.version, dependencies: Object.fromEntries(dependencies) };
}

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
for (const [system, options] of Object.entries(SYSTEMS)) {
  compile(system, options);
  prune(join(out, system));
}
writeJson('package.json', manifest());
cpSync(join(root, 'src/client/README.md'), join(out, 'README.md'));
cpSync(join(root, 'LICENSE'), join(out, 'LICENSE'));
for (const part of ['agentllm', 'google'])
  cpSync(join(root, 'proto', part), join(out, 'proto', part), { recursive: true });
const shown = relative(process.cwd(), out) || '.';
console.log(`built @agentllm/client in ${shown}; next: npm install ${out}, or npm pack ./${shown} for a tarball`);
