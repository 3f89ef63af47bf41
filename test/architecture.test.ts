import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packageFile } from '../src/package.js';

/*
 * The rules of docs/architecture.md that a test can check: imports point in one direction, and each mechanism is
 * implemented in one place.
 */

interface Import {
  /** A package, or a path from the root of the repository such as `src/domain/text.ts`. */
  readonly target: string;
  readonly names: string;
  readonly typeOnly: boolean;
}
interface Source {
  readonly path: string;
  readonly text: string;
  readonly imports: readonly Import[];
}

const IMPORT =
  /^(?:import|export)\s+(?:(type)\s+)?([^'";]*?)\s*from\s+'([^']+)'|^import\s+'([^']+)'|\bimport\(\s*'([^']+)'\s*\)/gm;

function importsOf(path: string, text: string): Import[] {
  return [...text.matchAll(IMPORT)].map(([, type, names = '', from, bare, dynamic]) => {
    const target = from ?? bare ?? dynamic ?? '';
    const local = target.startsWith('.') ? join(dirname(path), target).replace(/\.js$/, '.ts') : target;
    return { target: local, names, typeOnly: type !== undefined };
  });
}

function sourcesOf(directory: string): Source[] {
  return readdirSync(packageFile(directory), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.m?ts$/.test(entry.name))
    .map((entry) => {
      const file = join(entry.parentPath, entry.name);
      const path = relative(packageFile('.'), file);
      const text = readFileSync(file, 'utf8');
      return { path, text, imports: importsOf(path, text) };
    });
}

const src = sourcesOf('src');
const all = [...src, ...sourcesOf('migrations'), ...sourcesOf('seeds')];

/** Folders of src whose sub-folders are separate parts. */
const SPLIT = ['api', 'cli'];

/** The part of a file: `api/dispatch` for `src/api/dispatch/call.ts`, `limits` for `src/limits.ts`. */
function partOf(path: string): string {
  const [top = '', part = '', sub = ''] = path.split('/');
  if (top !== 'src') return top;
  return SPLIT.includes(part) && !sub.endsWith('.ts') ? `${part}/${sub}` : part.replace(/\.ts$/, '');
}

/** Whether a file is in one of the parts or in one of their sub-folders. */
const inParts = (path: string, ...parts: string[]) => parts.includes(partOf(path).split('/')[0] as string);

/** Every import that violates a rule, as a line of text. */
const violations = (sources: readonly Source[], isViolation: (one: Import, source: Source) => boolean) =>
  sources.flatMap((source) =>
    source.imports.filter((one) => isViolation(one, source)).map(({ target }) => `${source.path} imports ${target}`),
  );
const isOwn = ({ target }: Import) => /^(src|migrations|seeds|gen|test|proto)\//.test(target);

/** The parts that each part may import; docs/architecture.md has the same directions. */
const BELOW = ['abort', 'error_properties', 'errors', 'limits', 'max_elements', 'problems', 'status_codes'];
const PROCESS = ['config', 'log', 'metrics', 'package'];
const STORE = ['domain', 'time_slice', ...BELOW];
const FEED = ['store', 'concurrency_limiter', ...STORE];
const MESSAGES = ['feed', ...FEED];
const DISPATCH = ['api/messages', 'net', ...PROCESS, ...MESSAGES];
const HANDLERS = ['api/dispatch', 'providers', ...DISPATCH];
const TRANSPORT = ['api', 'api/dispatch', 'api/messages', 'net', ...PROCESS, ...FEED];
const MAIN = [
  'admin',
  'background_tasks',
  'bootstrap_token',
  'api',
  'api/dispatch',
  'feed',
  'grpc',
  'http',
  'net',
  ...PROCESS,
  ...FEED,
];
const KIT = ['client', 'package', 'admin', 'log', ...FEED];
const ALLOWED_IMPORTS: Readonly<Record<string, readonly string[]>> = {
  abort: [],
  atomic_file: ['error_properties'],
  directory_claim: ['error_properties', 'unix_socket'],
  error_properties: [],
  concurrency_limiter: ['errors'],
  limits: [],
  max_elements: [],
  package: [],
  time_slice: [],
  unix_socket: [],
  log: ['limits'],
  metrics: [],
  status_codes: [],
  error_catalogue: ['status_codes'],
  errors: ['error_catalogue', 'limits', 'status_codes'],
  problems: ['errors', 'limits'],
  domain: BELOW,
  config: STORE,
  net: ['config', 'log', ...STORE],
  store: [...STORE, 'atomic_file', 'directory_claim', 'package', 'migrations', 'seeds'],
  background_tasks: ['config', 'store', 'log', ...STORE],
  bootstrap_token: ['atomic_file', 'store', 'log', ...STORE],
  feed: FEED,
  // Calls providers over HTTP, and does not access the store.
  providers: [...STORE, 'package'],
  'api/messages': MESSAGES,
  'api/dispatch': DISPATCH,
  'api/handlers': HANDLERS,
  api: ['api/handlers', ...HANDLERS],
  grpc: TRANSPORT,
  http: TRANSPORT,
  admin: ['log', 'unix_socket', ...FEED],
  main: MAIN,
  client: ['atomic_file', 'directory_claim', ...STORE],
  // Stands in for providers in tests: it imports nothing of the service.
  fake_provider: ['limits'],
  // Calls the chain of an agent at the fake provider.
  rehearsal: ['client', 'domain', 'fake_provider', ...BELOW],
  'cli/kit': KIT,
  // `token --local` calls the handlers of the API on the store.
  'cli/local': ['cli/kit', 'main', 'config', 'net', 'providers', 'api', 'atomic_file', 'fake_provider', ...KIT],
  'cli/remote': ['cli/kit', 'cli/local', 'rehearsal', ...KIT],
  cli: ['cli/kit', 'cli/local', 'cli/remote', 'errors', 'package'],
  migrations: [],
  seeds: ['package', ...STORE],
};

/** The groups of files that import each other (strongly connected components; Tarjan, 1972). */
function cyclesIn(graph: ReadonlyMap<string, readonly string[]>): string[][] {
  const [index, low] = [new Map<string, number>(), new Map<string, number>()];
  const stack: string[] = [];
  const cycles: string[][] = [];
  const visit = (file: string): void => {
    index.set(file, index.size);
    low.set(file, index.get(file) as number);
    stack.push(file);
    for (const next of graph.get(file) ?? []) {
      if (!graph.has(next)) continue;
      if (!index.has(next)) visit(next);
      if (stack.includes(next)) low.set(file, Math.min(low.get(file) as number, low.get(next) as number));
    }
    if (low.get(file) !== index.get(file)) return;
    const group = stack.splice(stack.indexOf(file));
    if (group.length > 1) cycles.push(group.sort());
  };
  for (const file of graph.keys()) if (!index.has(file)) visit(file);
  return cycles;
}

describe('importsOf', () => {
  it('finds every form of an import', () => {
    const text = [
      "import a from 'one';",
      "import type { B } from '../two.js';",
      "import {\n  c,\n  type D,\n} from './three/four.js';",
      "import 'five';",
      "export { e } from './six.js';",
      "export * from 'seven';",
      "const f = await import('./eight.js');",
    ].join('\n');
    expect(importsOf('src/rpc/x.ts', text).map(({ target, typeOnly }) => [target, typeOnly])).toEqual([
      ['one', false],
      ['src/two.ts', true],
      ['src/rpc/three/four.ts', false],
      ['five', false],
      ['src/rpc/six.ts', false],
      ['seven', false],
      ['src/rpc/eight.ts', false],
    ]);
  });

  it('resolves every import of the sources to a file', () => {
    expect(src.length).toBeGreaterThan(40);
    const known = new Set(all.map(({ path }) => path));
    const unresolved = violations(all, (one) => isOwn(one) && !one.target.startsWith('gen/') && !known.has(one.target));
    expect(unresolved).toEqual([]);
  });
});

describe('the imports', () => {
  it('have a rule for every part of src', () => {
    expect([...new Set(src.map(({ path }) => partOf(path)))].filter((part) => !(part in ALLOWED_IMPORTS))).toEqual([]);
  });

  it('point only along cli → main → grpc, http → api → feed → store → domain → errors, limits', () => {
    const wrong = violations(all, (one, { path }) => {
      if (!isOwn(one) || one.target.startsWith('gen/')) return false;
      const [from, to] = [partOf(path), partOf(one.target)];
      // The seeds are plans, and the type of a plan is in the store.
      if (from === 'seeds' && to === 'store') return !one.typeOnly;
      return from !== to && !(ALLOWED_IMPORTS[from] ?? []).includes(to);
    });
    expect(wrong).toEqual([]);
  });

  it('of main are only in cli', () => {
    expect(violations(all, (one, { path }) => one.target === 'src/main.ts' && !inParts(path, 'cli'))).toEqual([]);
  });

  it('of migrations and seeds are only in the store', () => {
    const wrong = violations(
      src,
      (one, { path }) => /^(migrations|seeds)\//.test(one.target) && partOf(path) !== 'store',
    );
    expect(wrong).toEqual([]);
  });

  it('never include a test file', () => {
    expect(violations(all, (one) => one.target.startsWith('test/') || one.target === 'vitest')).toEqual([]);
  });

  it('have no cycles, including cycles through type imports', () => {
    const graph = new Map(all.map(({ path, imports }) => [path, imports.map(({ target }) => target)]));
    expect(cyclesIn(graph)).toEqual([]);
  });

  it('are checked by cyclesIn, which finds a cycle', () => {
    const graph = new Map([
      ['a.ts', ['b.ts']],
      ['b.ts', ['c.ts', 'd.ts']],
      ['c.ts', ['a.ts']],
      ['d.ts', []],
    ]);
    expect(cyclesIn(graph)).toEqual([['a.ts', 'b.ts', 'c.ts']]);
  });
});

describe('the source code', () => {
  const only = (packages: RegExp, ...parts: string[]) =>
    violations(all, (one, { path }) => packages.test(one.target) && !parts.includes(partOf(path)));

  it('has SQL only in the store and the migrations', () => {
    expect(only(/^(knex|pg|@electric-sql\/)/, 'store', 'migrations')).toEqual([]);
    const SQL =
      /\b(select\s[^;]*\sfrom\s|insert\s+into\s|delete\s+from\s|update\s+"?\w+"?\s+set\s|create\s+(table|index)\s)/i;
    const BUILDER = /\bknex\s*(\(|`|<|\.(raw|select|from|schema|transaction|table)\b)/;
    const code = (text: string) => text.replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$|\s\/\/ .*$/gm, '');
    const wrong = all
      .filter(({ path }) => !['store', 'migrations'].includes(partOf(path)))
      .filter(({ text }) => SQL.test(code(text)) || BUILDER.test(code(text)));
    expect(wrong.map(({ path }) => path)).toEqual([]);
  });

  it('uses grpc-js only in grpc and the client', () => {
    expect(only(/^(@grpc\/|grpc-)/, 'grpc', 'client')).toEqual([]);
  });

  it('uses node:http only in http, providers and the fake provider, and node:http2 only in grpc', () => {
    expect(only(/^node:https?$/, 'http', 'providers', 'fake_provider')).toEqual([]);
    expect(only(/^node:http2$/, 'grpc')).toEqual([]);
  });

  it('sends HTTP requests only in providers, in the transport of the client and in rehearsals', () => {
    const server = /^(type \w+|createServer)( as \w+)?$/;
    const wrong = violations(src, (one, { path }) => {
      if (!/^(node:)?(https?2?|undici)$/.test(one.target) || partOf(path) === 'providers' || one.typeOnly) return false;
      return !one.names
        .replace(/[{}]/g, '')
        .split(',')
        .map((name) => name.trim())
        .filter(Boolean)
        .every((name) => server.test(name));
    });
    expect(wrong).toEqual([]);
    const fetchCalls = all.filter(({ text }) =>
      /(?<![\w.'"`])(globalThis\.)?(fetch|WebSocket|EventSource)\(/.test(text),
    );
    // A rehearsal sends the requests of the transport to the fake provider in its process.
    const expected = ['src/client/runtime/transport.ts', 'src/rehearsal/fake_fetch.ts'];
    expect(fetchCalls.map(({ path }) => path).sort()).toEqual(expected);
  });

  it('caches encoded messages only in EncodeOnce', () => {
    const wrong = src.filter(
      ({ path, text }) => partOf(path).startsWith('api') && /\bnew WeakMap\b/.test(text) && /\.finish\(/.test(text),
    );
    expect(wrong.map(({ path }) => path)).toEqual([]);
  });

  it('renames and links files only in atomic_file, claims in directory_claim, and data directories in the store', () => {
    const mayRename = (path: string) =>
      path === 'src/atomic_file.ts' ||
      path === 'src/directory_claim.ts' ||
      path === 'src/store/maintenance/restore.ts' ||
      path.startsWith('src/store/embedded/');
    const wrong = violations(
      src,
      (one, { path }) =>
        /^node:fs(\/promises)?$/.test(one.target) && /\b(rename|link)(Sync)?\b/.test(one.names) && !mayRename(path),
    );
    expect(wrong).toEqual([]);
  });

  it('plans tokens only in the token handlers and at the first start', () => {
    const wrong = src.filter(({ path, text }) => partOf(path) !== 'domain' && /\bplan(Token|Revocation)\(/.test(text));
    expect(wrong.map(({ path }) => path).sort()).toEqual(['src/api/handlers/tokens.ts', 'src/bootstrap_token.ts']);
  });

  it('compares concurrency limits only in ConcurrencyLimiter', () => {
    const bound =
      /(?<!=)[<>]=?\s*limits\.(maxConcurrentCalls|callsPerToken|streamsPerToken|maxWatches|adoptionWaits)\b/;
    expect(src.filter(({ text }) => bound.test(text)).map(({ path }) => path)).toEqual([]);
  });

  it('adds abort listeners only in abort', () => {
    const wrong = src.filter(({ text }) => /\b(add|remove)EventListener\(\s*['"]abort|\.onabort\b/.test(text));
    expect(wrong.map(({ path }) => path)).toEqual(['src/abort.ts']);
  });

  it('defines the largest int32 and the longest timer only in limits', () => {
    const wrong = src.filter(({ text }) => /\b2 \*\* 31\b|\b2_?147_?483_?64[78]\b|\b0x7f{7}\b/i.test(text));
    expect(wrong.map(({ path }) => path)).toEqual(['src/limits.ts']);
  });

  it('reads arguments and environment only in cli and in the client package', () => {
    const places = ['cli', 'client'];
    const wrong = src.filter(({ path, text }) => !inParts(path, ...places) && /\bprocess\.(env|argv)\b/.test(text));
    expect(wrong.map(({ path }) => path)).toEqual([]);
  });
});

describe('the domain', () => {
  const domain = src.filter(({ path }) => partOf(path) === 'domain');

  it('does no I/O: it imports only zod, ciphers, statistics, pure functions of Node.js and types of the contract', () => {
    expect(domain.length).toBeGreaterThan(10);
    const wrong = violations(domain, (one) => {
      if (['zod', 'node:crypto', '@hpke/core', 'simple-statistics'].includes(one.target)) return false;
      if (one.target === 'node:net') return !/^\{\s*(BlockList|isIP)(,\s*(BlockList|isIP))*\s*\}$/.test(one.names);
      if (one.target === 'node:url') return one.names.trim() !== '{ domainToASCII, domainToUnicode }';
      if (one.target === 'node:util') return one.names.trim() !== '{ isDeepStrictEqual }';
      if (one.target.startsWith('gen/')) return !one.typeOnly;
      return !isOwn(one);
    });
    expect(wrong).toEqual([]);
  });

  it('reads no clock and starts no timer', () => {
    const wrong = domain.filter(({ text }) =>
      /\bDate\.now\b|\bnew Date\(\)|\bprocess\.|\bperformance\.|\bset(Timeout|Interval)\b/.test(text),
    );
    expect(wrong.map(({ path }) => path)).toEqual([]);
  });
});

describe('every source file', () => {
  it('has no default export', () => {
    const wrong = all.filter(({ text }) => /^export\s+default\b|^export\s*\{[^}]*\bas\s+default\b/m.test(text));
    expect(wrong.map(({ path }) => path)).toEqual([]);
  });

  it('has at most 350 lines when it is in src', () => {
    const lines = (text: string) => text.split('\n').length - 1;
    const wrong = src.filter(({ text }) => lines(text) > 350);
    expect(wrong.map(({ path, text }) => `${path}: ${lines(text)}`)).toEqual([]);
  });

  it('has no `any`', () => {
    const wrong = all.filter(({ text }) => /(:|<|\bas|,|\|)\s*any\b(?!\()(\s*[;,)>=[\]|]|$)/m.test(text));
    expect(wrong.map(({ path }) => path)).toEqual([]);
  });
});

describe('the test files', () => {
  const tests = sourcesOf('test').map(({ path }) => path);

  it('are in folders of the same names as in src, except for examples, faults, hostile, main and support', () => {
    const folders = new Set(src.flatMap(({ path }) => foldersOf(path.replace(/^src\//, ''))));
    // Tests of the examples and of the process as a whole, and modules that tests of several folders share.
    const others = ['examples', 'faults', 'hostile', 'main', 'support'];
    const wrong = tests.flatMap((path) => foldersOf(path.replace(/^test\//, ''))).filter((one) => !folders.has(one));
    expect([...new Set(wrong)].filter((one) => !others.includes(one))).toEqual([]);
  });

  it('directly in test are named after a file of src or after a top-level subject', () => {
    const files = new Set(src.map(({ path }) => path));
    const topLevel = ['architecture', 'bench', 'contract', 'docs', 'go_package', 'readme', 'smoke'];
    const names = tests.flatMap((path) => /^test\/(\w+)\.test\.ts$/.exec(path)?.[1] ?? []);
    expect(names.filter((name) => !files.has(`src/${name}.ts`) && !topLevel.includes(name))).toEqual([]);
  });
});

/** All folders of a path: `api` and `api/dispatch` for `api/dispatch/call.ts`. */
function foldersOf(path: string): string[] {
  const parts = path.split('/').slice(0, -1);
  return parts.map((_, at) => parts.slice(0, at + 1).join('/'));
}

describe('the lock file', () => {
  const lock = JSON.parse(readFileSync(packageFile('package-lock.json'), 'utf8')) as {
    packages: Record<string, { optionalDependencies?: Record<string, string>; integrity?: string; resolved?: string }>;
  };
  const locked = new Set(Object.keys(lock.packages).map((path) => path.replace(/^.*node_modules\//, '')));

  it('has an entry for every optional dependency, because npm ci rejects it otherwise', () => {
    const optional = Object.values(lock.packages).flatMap((entry) => Object.keys(entry.optionalDependencies ?? {}));
    expect(optional.filter((name) => !locked.has(name))).toEqual([]);
  });

  it('has a checksum and no registry URL for each package', () => {
    const entries = Object.entries(lock.packages).filter(([path]) => path !== '');
    expect(entries.filter(([, { integrity }]) => !integrity).map(([path]) => path)).toEqual([]);
    expect(entries.filter(([, { resolved }]) => resolved).map(([path]) => path)).toEqual([]);
  });
});
