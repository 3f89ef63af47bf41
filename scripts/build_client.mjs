// Builds the package @agentllm/client: node scripts/build_client.mjs [directory], dist/client by default.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, extname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const out = resolve(process.argv[2] ?? join(root, 'dist/client'));
/** The code has no comments: the declarations have those of the API, and the source maps contain the sources. */
const CODE = { removeComments: true, sourceMap: true, inlineSources: true, sourceRoot: 'agentllm:///' };
const DECLARATIONS = { declaration: true, emitDeclarationOnly: true };
const SYSTEMS = {
  esm: { module: 'esnext', type: 'module' },
  cjs: { module: 'commonjs', type: 'commonjs' },
};
const ENTRIES = ['src/client/index', 'src/client/ai/index', 'src/client/langchain/index', 'src/client/proto'];
/** The compiler turns import() into require() for CommonJS; this file is written by hand there. */
const COMMONJS_FILES = ['src/client/import_peer'];

const readJson = (path) => JSON.parse(readFileSync(join(root, path), 'utf8'));
const writeJson = (path, value) => writeFileSync(join(out, path), `${JSON.stringify(value, null, 2)}\n`);
const filesOf = (directory) =>
  readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));

/** Emits JavaScript, and declarations with comments. */
function compile(system, { module, type }, output) {
  const directory = join(out, system);
  const config = join(out, `tsconfig.${system}.json`);
  const compilerOptions = {
    noEmit: false,
    module,
    moduleResolution: 'bundler',
    verbatimModuleSyntax: false,
    ...output,
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
  if (system === 'cjs') for (const file of COMMONJS_FILES) replaceCommonJs(join(directory, file), join(root, file));
  writeJson(`${system}/package.json`, { type, sideEffects: false });
}

/** Replaces a compiled file by the one that is written by hand. A map of it would show other code. */
function replaceCommonJs(compiled, written) {
  cpSync(`${written}.cjs`, `${compiled}.js`);
  rmSync(`${compiled}.js.map`, { force: true });
}

/** Deletes files that no entry imports (modules that are used for their types only) and the maps of generated code. */
function prune(directory) {
  const used = new Set([
    ...reachable(directory, '.js', /\b(?:from|require\(|import\()\s*['"](\.[^'"]+)['"]/g),
    ...reachable(directory, '.d.ts', /\b(?:from|import\()\s*['"](\.[^'"]+)['"]/g),
  ]);
  for (const file of filesOf(directory)) {
    const generated = relative(directory, file).startsWith('gen');
    const code = file.replace(/\.map$/, '');
    if (extname(file) === '.map' ? generated || !used.has(code) : !used.has(file) && !file.endsWith('package.json'))
      rmSync(file);
    else if (generated && file.endsWith('.js')) writeFileSync(file, withoutMap(readFileSync(file, 'utf8')));
  }
}

/** Generated code has no map, because its sources are the proto files. */
const withoutMap = (code) => code.replace(/\n?\/\/# sourceMappingURL=.*\s*$/, '\n');

function reachable(directory, extension, imports) {
  const visited = new Set();
  const visit = (file) => {
    if (visited.has(file)) return;
    visited.add(file);
    for (const [, target] of readFileSync(file, 'utf8').matchAll(imports))
      visit(resolve(dirname(file), target.replace(/\.js$/, extension)));
  };
  for (const entry of ENTRIES) visit(join(directory, entry + extension));
  return visited;
}

/** The manifest of the package, with the version of the service and the dependency versions that it is tested with. */
function manifest() {
  const service = readJson('package.json');
  const client = readJson('src/client/package.json');
  const dependencies = Object.keys(client.dependencies).map((name) => [name, `^${service.dependencies[name]}`]);
  return { ...client, version: service.version, dependencies: Object.fromEntries(dependencies) };
}

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
for (const [system, options] of Object.entries(SYSTEMS)) {
  compile(system, options, CODE);
  compile(system, options, DECLARATIONS);
  prune(join(out, system));
}
writeJson('package.json', manifest());
cpSync(join(root, 'src/client/README.md'), join(out, 'README.md'));
cpSync(join(root, 'LICENSE'), join(out, 'LICENSE'));
for (const part of ['agentllm', 'google'])
  cpSync(join(root, 'proto', part), join(out, 'proto', part), { recursive: true });
const displayPath = relative(process.cwd(), out) || '.';
console.log(
  `built @agentllm/client in ${displayPath}; next: npm install ${out}, or npm pack ./${displayPath} for a tarball`,
);
