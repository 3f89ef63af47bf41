import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, inject, it, onTestFinished } from 'vitest';
import { packageFile } from '../src/package.js';
import { freePort } from './support/ports.js';
import { startPostgres } from './support/postgres.js';
import { agrees, filesOf, has, Shell, type Step, stepsOf } from './support/transcripts.js';

/*
 * Runs the commands of every page of docs/ that has transcripts. With UPDATE_DOCS=1 the output in the pages is replaced
 * with what the commands print.
 */
const UPDATE = process.env['UPDATE_DOCS'] === '1';
const PAGE_MS = 180_000;

const pages = ['README.md', ...readdirSync(packageFile('docs')).map((file) => `docs/${file}`)].filter((file) =>
  file.endsWith('.md'),
);
const read = (page: string) => readFileSync(packageFile(page), 'utf8');
const withSteps = pages.filter((page) => stepsOf(read(page)).length > 0);

/** The environment that a page requires, from the comment in its first line. */
function requirementsOf(text: string) {
  const [, comment = ''] = /^<!-- test: (.*) -->$/m.exec(text) ?? [];
  return {
    service: !comment.includes('no service'),
    postgres: comment.includes('a PostgreSQL'),
    provider: /a provider at (127\.0\.0\.1:\d+)/.exec(comment)?.[1],
    port: /a free port for (\d+)/.exec(comment)?.[1],
    needs: /needs (\w+)/.exec(comment)?.[1],
    env: {
      ...Object.fromEntries([...comment.matchAll(/\b([A-Z_]+)=(\S+)/g)].map(([, name, value]) => [name, value])),
      // Without an address, commands that can work on the store directly do so.
      ...(comment.includes('no address') && { AGENTLLM_ADDRESS: '' }),
    },
  };
}

/** An OpenAI-compatible server with one model, which requires no key. */
async function startProvider(): Promise<string> {
  const server = createServer((request, response) => {
    const found = request.url === '/v1/models';
    response.writeHead(found ? 200 : 404, { 'content-type': 'application/json' });
    response.end(JSON.stringify(found ? { object: 'list', data: [{ id: 'gpt-4o', object: 'model' }] } : {}));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return `127.0.0.1:${(server.address() as { port: number }).port}`;
}

/** Writes the files of a page, and the client package into the directory where npm would install it. */
async function writeFiles(shell: Shell, text: string): Promise<void> {
  const files = filesOf(text);
  for (const { name, content } of files) await writeFile(shell.path(name), content);
  if (files.length === 0) return;
  const client = shell.path('node_modules/@agentllm/client');
  await mkdir(client, { recursive: true });
  await writeFile(`${client}/package.json`, JSON.stringify({ type: 'module', exports: './index.js' }));
  await writeFile(`${client}/index.js`, `export * from '${packageFile('dist/src/client/index.js')}';\n`);
}

async function shellFor(text: string): Promise<Shell> {
  const { service, postgres, provider, port, env } = requirementsOf(text);
  const replacements = new Map<string, string>();
  if (provider) replacements.set(provider, await startProvider());
  if (port) replacements.set(port, `${await freePort()}`);
  if (postgres) {
    const server = await startPostgres();
    onTestFinished(() => server.stop());
    const url = await server.createDatabase();
    replacements
      .set('postgres://agentllm:secret@127.0.0.1:5432/agentllm', url)
      .set('127.0.0.1:5432', new URL(url).host);
  }
  const shell = await Shell.start(env, replacements);
  onTestFinished(() => shell.end());
  await cp(inject('prepared').firstStart, shell.path('data'), { recursive: true });
  await writeFiles(shell, text);
  if (service) await shell.run({ command: 'agentllm serve', output: '', from: 0, to: 0 });
  return shell;
}

describe('the transcripts', () => {
  it('are found in the pages that have them', () => {
    expect(withSteps.map((page) => basename(page)).sort()).toEqual(
      expect.arrayContaining([
        'add-a-key.md',
        'agent.md',
        'backup.md',
        'history.md',
        'operating.md',
        'own-provider.md',
        'postgresql.md',
        'prices.md',
        'rehearsal.md',
        'rotate-key.md',
        'set-a-model.md',
        'tls.md',
        'tokens.md',
        'upgrade.md',
        'watch.md',
      ]),
    );
  });

  for (const page of withSteps) {
    const { needs } = requirementsOf(read(page));
    it.skipIf(needs !== undefined && !has(needs))(
      `match the output of the commands in ${page}${needs ? ` (needs ${needs})` : ''}`,
      async () => {
        const text = read(page);
        const shell = await shellFor(text);
        const printed: (readonly [Step, string])[] = [];
        for (const step of stepsOf(text)) printed.push([step, await shell.run(step)]);
        if (UPDATE) return update(page, text, printed);
        for (const [step, output] of printed)
          if (!agrees(step.output, output)) expect(output, `$ ${step.command}`).toBe(step.output);
      },
      // A page starts twenty processes, which take several times as long on a busy machine.
      PAGE_MS,
    );
  }
});

function update(page: string, text: string, printed: readonly (readonly [Step, string])[]): void {
  let updated = text;
  for (const [step, output] of [...printed].reverse()) {
    if (agrees(step.output, output)) continue;
    const lines = output === '' || output.endsWith('\n') ? output : `${output}\n`;
    updated = updated.slice(0, step.from) + lines + updated.slice(step.to);
  }
  writeFileSync(packageFile(page), updated);
}

describe('every program in a page', () => {
  const programs = pages.flatMap((page) => filesOf(read(page)).map((file) => [page, file] as const));

  it.each(programs)('in %s compiles as TypeScript', async (_, { name, content }) => {
    const directory = await mkdtemp(join(tmpdir(), 'agentllm-docs-'));
    onTestFinished(() => rm(directory, { recursive: true, force: true }));
    const compilerOptions = {
      rootDir: '/',
      paths: { '@agentllm/client': [packageFile('src/client/index.ts')] },
      typeRoots: [packageFile('node_modules/@types')],
    };
    const settings = { extends: packageFile('tsconfig.json'), compilerOptions, include: [name] };
    await writeFile(join(directory, 'tsconfig.json'), JSON.stringify(settings));
    await writeFile(join(directory, name), content);
    const tsc = promisify(execFile)(packageFile('node_modules/.bin/tsc'), ['-p', directory]);
    expect(await tsc.catch(({ stdout }) => ({ stdout }))).toMatchObject({ stdout: '' });
  });
});

describe('agrees', () => {
  it('accepts output that differs only in times, ids, column widths and elided lines', () => {
    expect(agrees('ID   AT\n7  2026-11-22 10:00\n', 'ID  AT\n7   2026-11-23 11:59\n')).toBe(true);
    expect(agrees('a\n…\nz\n', 'a\nb\nc\nz\n')).toBe(true);
  });

  it('rejects output that differs in anything else', () => {
    expect(agrees('a\n', 'b\n')).toBe(false);
    expect(agrees('a\n', 'a\nb\n')).toBe(false);
    expect(agrees('a\nb\n', 'a\n')).toBe(false);
    expect(agrees('a\n…\nz\n', 'a\nb\n')).toBe(false);
  });
});

describe('every documentation page', () => {
  it.each(pages)('%s links to files that exist', (page) => {
    for (const [, target = ''] of read(page).matchAll(/\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)/g))
      expect(existsSync(new URL(target, `file://${packageFile(page)}`)), target).toBe(true);
  });
});
