import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { packageFile } from '../../../src/package.js';
import { openDatabase } from '../../../src/store/database.js';
import { loadState } from '../../../src/store/write/change_log.js';
import { agentllm, startCommand, useDirectories } from '../../support/command.js';
import { findPgTools } from '../../support/pg_tools.js';
import { runCommand } from '../../support/run_command.js';
import { type Clients, connect, failure, startService, unique } from '../../support/service.js';
import { contents, gapsInLog, replay } from '../../support/store.js';
import { stepsOf } from '../../support/transcripts.js';

const directory = useDirectories();
const agent = { name: 'trader' };
const CONFIG = { provider: 'openai', model_name: 'gpt-4' } as const;

/** The commands of docs/backup.md. */
const page = readFileSync(packageFile('docs/backup.md'), 'utf8');
const blocks = [...page.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block]) => block as string);
const documented = [...blocks, ...stepsOf(page).map(({ command }) => command)];
const documentedWith = (word: string) => documented.find((block) => block.includes(word)) as string;

/** Runs a command of that page unchanged in directory `cwd`, with the built program in place of `agentllm`. */
async function shell(block: string, cwd: string, env: Readonly<Record<string, string>>): Promise<string> {
  const program = `${process.execPath} ${packageFile('dist/src/cli/agentllm.js')}`;
  const script = block.replace(/\bagentllm(?= (backup|restore|store)\b)/g, program);
  const { stdout } = await promisify(execFile)('sh', ['-e', '-c', script], {
    cwd,
    env: { PATH: process.env['PATH'], ...env },
  });
  return stdout;
}

/** Creates agents with one config each until it is stopped; records the acknowledged ones with their revisions. */
function keepWriting({ agents, configs }: Clients) {
  const acknowledged: { name: string; revision: number }[] = [];
  let stopped = false;
  const write = async () => {
    while (!stopped) {
      const name = unique('written');
      await agents.createAgent({ agent: { name, agent_type: 'analyst' } });
      const { revision } = await configs.createConfig({ agent: { name }, config: CONFIG });
      acknowledged.push({ name, revision: Number(revision) });
    }
  };
  const writers = Promise.all([write(), write(), write()]);
  return {
    acknowledged,
    async stop() {
      stopped = true;
      await writers;
    },
  };
}

/** Checks that the change log and the tables of a data directory agree; returns the state. */
async function verifiedState(dataDir: string) {
  const database = await openDatabase({ url: undefined, dataDir, poolSize: 1, acquireTimeoutMs: 30_000 });
  try {
    expect(await gapsInLog(database)).toEqual([]);
    const state = await loadState(database.knex);
    expect(contents(await replay(database))).toEqual(contents(state));
    return state;
  } finally {
    await database.close();
  }
}

async function errorOf(args: readonly string[], env: Readonly<Record<string, string>>): Promise<string> {
  const ended = await runCommand(args, env);
  expect(ended.code).toBe(1);
  expect(ended.stdout).toBe('');
  expect(ended.stderr).not.toContain('    at ');
  expect(ended.stderr).not.toContain('unexpectedly');
  return ended.stderr;
}

async function createBackup(): Promise<{ DATA_DIR: string; file: string; identity: string }> {
  const DATA_DIR = await directory.started();
  const service = await startCommand({ DATA_DIR });
  const file = join(await directory(), 'agentllm.backup');
  const { stdout } = await runCommand(['backup', file, '--json'], { DATA_DIR });
  service.child.kill('SIGTERM');
  await service.ended;
  return { DATA_DIR, file, identity: JSON.parse(stdout).identity };
}

describe('a backup of the embedded engine', () => {
  it('contains every revision up to the backup and no later one when it is taken under writes', async () => {
    const [DATA_DIR, cwd] = [await directory.started(), await directory()];
    const service = await startCommand({ DATA_DIR });
    const clients = connect(service.port);
    const writing = keepWriting(clients);
    await vi.waitFor(() => expect(writing.acknowledged.length).toBeGreaterThan(20), { timeout: 30_000 });

    const before = [...writing.acknowledged];
    expect(await shell(documentedWith('backup agentllm.backup'), cwd, { DATA_DIR })).toMatch(/^wrote .*revision \d+/);
    const during = [...writing.acknowledged];
    const file = join(cwd, 'agentllm.backup');
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(readdirSync(cwd)).toEqual(['agentllm.backup']);
    await vi.waitFor(() => expect(writing.acknowledged.length).toBeGreaterThan(during.length + 20), {
      timeout: 30_000,
    });
    await writing.stop();
    const old = (await clients.configs.getPrimaryConfig({ agent })).config;
    clients.close();
    service.child.kill('SIGKILL');
    await service.ended;

    const printed = await shell(documentedWith('restore agentllm.backup'), cwd, {});
    const restored = await verifiedState(join(cwd, 'restored'));
    expect(printed).toContain(`restored revision ${restored.revision} of `);
    expect(printed).toContain(restored.identity);
    for (const { name } of before) expect(restored.agentNames).toContain(name);
    for (const { name, revision } of writing.acknowledged) {
      const found = restored.agentNamed(name);
      expect(found ? restored.configsOf(found.id).length : 0).toBe(revision <= restored.revision ? 1 : 0);
    }
    expect(restored.revision).toBeLessThan(Math.max(...writing.acknowledged.map(({ revision }) => revision)));

    const restarted = await startCommand({ DATA_DIR: join(cwd, 'restored') });
    const restoredClients = connect(restarted.port);
    const found = (await restoredClients.configs.getPrimaryConfig({ agent })).config;
    expect(found?.revision).toBe(old?.revision);
    expect(found?.etag).not.toBe(old?.etag);
    const change = { id: found?.id as number, temperature: 0.3, etag: old?.etag as string };
    expect((await failure(restoredClients.configs.updateConfig({ config: change }))).reason).toBe('STALE_ETAG');
    expect(Number((await restoredClients.configs.createConfig({ agent, config: CONFIG })).revision)).toBe(
      restored.revision + 1,
    );
    restoredClients.close();
  });

  it('is created without a running service and does not overwrite a file unless --force is set', async () => {
    const { DATA_DIR, file, identity } = await createBackup();
    expect(await errorOf(['backup', file], { DATA_DIR })).toContain('--force');
    const { stdout, stderr } = await runCommand(['backup', file, '--force', '--json'], { DATA_DIR });
    expect(stderr).toBe('');
    expect(JSON.parse(stdout)).toMatchObject({ file, revision: 3, identity, bytes: expect.any(Number) });
    expect(readFileSync(file, 'latin1')).toMatch(/^agentllm-backup 1 \{.*"revision":3,.*\}\n/);
    expect(await errorOf(['backup', join(file, 'x')], { DATA_DIR })).toContain('cannot be written');
    expect(await errorOf(['backup', join(file, '..'), '--force'], { DATA_DIR })).toContain('is a directory');
    expect(await errorOf(['backup', `${file}2`], { DATA_DIR: join(file, '../empty') })).toContain(
      'There is no database',
    );
    // The command has created no database there.
    expect(readdirSync(join(file, '..')).sort()).toEqual(['agentllm.backup']);
  });

  it('is not restored when the file is invalid or damaged', async () => {
    const { file } = await createBackup();
    const bytes = readFileSync(file);
    const expectRejected = async (message: RegExp, content: Buffer | string) => {
      const invalidFile = `${file}.wrong`;
      writeFileSync(invalidFile, content);
      const DATA_DIR = `${file}.data`;
      expect(await errorOf(['restore', invalidFile], { DATA_DIR })).toMatch(message);
      expect(existsSync(DATA_DIR)).toBe(false);
    };
    const flipped = Buffer.from(bytes);
    flipped[bytes.length - 1000] = (flipped[bytes.length - 1000] as number) ^ 1;
    await expectRejected(/is not a backup of agentllm/, '');
    await expectRejected(/is not a backup of agentllm/, 'PGDMP and so on\n');
    await expectRejected(/is not a backup of agentllm/, Buffer.alloc(100_000));
    await expectRejected(/damaged/, bytes.subarray(0, -1));
    await expectRejected(/damaged/, bytes.subarray(0, 600));
    await expectRejected(/damaged/, Buffer.concat([bytes, Buffer.from('x')]));
    await expectRejected(/damaged/, flipped);
    await expectRejected(/damaged/, 'agentllm-backup 1 {"revision":"x"}\n');
    await expectRejected(
      /another version.*format 2/,
      Buffer.concat([Buffer.from('agentllm-backup 2'), bytes.subarray(17)]),
    );
    expect(await errorOf(['restore', `${file}.gone`], { DATA_DIR: `${file}.data` })).toContain('cannot be read');
    expect(await errorOf(['restore', join(file, '..')], { DATA_DIR: `${file}.data` })).toContain('cannot be read');
    expect(await errorOf(['restore', file], { DATA_DIR: 'memory:' })).toContain('is not persistent');
  });

  it('does not replace an existing database unless --force is set, which keeps the old database', async () => {
    const { DATA_DIR, file, identity } = await createBackup();
    expect(await errorOf(['restore', file], { DATA_DIR })).toContain('add --force');
    expect((await verifiedState(DATA_DIR)).identity).toBe(identity);
    const { stdout, stderr } = await runCommand(['restore', file, '--force', '--json'], { DATA_DIR });
    expect(stderr).toBe('');
    const restored = JSON.parse(stdout);
    expect((await verifiedState(DATA_DIR)).identity).toBe(restored.identity);
    expect(restored.identity).not.toBe(identity);
    const aside: string = restored.kept_aside;
    expect(aside).toMatch(/\/pg\.replaced-\d{4}-\d{2}-\d{2}T/);
    const oldDirectory = await directory();
    await rename(aside, join(oldDirectory, 'pg'));
    expect((await verifiedState(oldDirectory)).identity).toBe(identity);
    expect(readdirSync(DATA_DIR).sort()).toEqual(['.admin', '.lock', 'pg']);
  });

  it('leaves the old or the new database when the restore is killed', async () => {
    const { DATA_DIR, file, identity } = await createBackup();
    const outcomes = new Set<string>();
    for (const afterMs of [300, 900, 1_500, 2_100, 2_700]) {
      const restore = agentllm(['restore', file, '--force'], { DATA_DIR });
      await delay(afterMs);
      restore.child.kill('SIGKILL');
      await restore.ended;
      const state = await verifiedState(DATA_DIR);
      expect(state.agents.size).toBe(12);
      outcomes.add(state.identity === identity ? 'old' : 'new');
    }
    expect(outcomes).toContain('old');

    // A kill between the two renames, and one immediately before them.
    await rename(join(DATA_DIR, 'pg'), join(DATA_DIR, 'pg.restored'));
    expect((await verifiedState(DATA_DIR)).agents.size).toBe(12);
    mkdirSync(join(DATA_DIR, 'pg.restored'));
    mkdirSync(join(DATA_DIR, '.restore/pg'), { recursive: true });
    expect((await verifiedState(DATA_DIR)).agents.size).toBe(12);
    expect(readdirSync(DATA_DIR).filter((name) => name.includes('restore'))).toEqual([]);
  });
});

describe('a command with DATABASE_URL', () => {
  const env = { DATABASE_URL: 'postgres://user:hunter2@127.0.0.1:1/none' };

  it.each(['backup', 'restore'])('%s names the documented PostgreSQL command without the password', async (command) => {
    const message = await errorOf([command, '/tmp/file'], env);
    const documentedLine = documentedWith(command === 'backup' ? 'pg_dump' : 'pg_restore').split('\n')[0] as string;
    expect(message).toContain(documentedLine);
    expect(message).not.toContain('hunter2');
    const direct = await errorOf([command, '/tmp/file'], { ...env, DATABASE_DIRECT_URL: env.DATABASE_URL });
    expect(direct).toContain('--dbname="$DATABASE_DIRECT_URL"');
  });
});

const tools = findPgTools();
const missing = typeof tools === 'string' ? tools : undefined;

describe.skipIf(missing !== undefined)(
  `backup and restore of PostgreSQL (${missing ?? ''}${missing ? '' : (tools as { about: string }).about})`,
  () => {
    if (typeof tools === 'string') {
      it(`is skipped: ${tools}`, () => undefined);
      return;
    }
    let server: Awaited<ReturnType<typeof tools.start>>;
    beforeAll(async () => {
      server = await tools.start();
    });
    afterAll(() => server?.stop());

    it('preserve every row with the documented commands, and store renew changes the identity', async () => {
      const [DATABASE_URL, restoredUrl] = [await server.createDatabase(), await server.createDatabase()];
      const cwd = await directory();
      const PATH = `${tools.bin}:${process.env['PATH']}`;
      const service = await startService({ DATABASE_URL, HTTP_ADDRESS: 'off' });
      const writing = keepWriting(service);
      try {
        await vi.waitFor(() => expect(writing.acknowledged.length).toBeGreaterThan(20), { timeout: 30_000 });
        const before = [...writing.acknowledged];
        await shell(documentedWith('pg_dump'), cwd, { DATABASE_URL, PATH });
        await vi.waitFor(() => expect(writing.acknowledged.length).toBeGreaterThan(before.length + 40), {
          timeout: 30_000,
        });
        await writing.stop();
        const old = (await service.configs.getPrimaryConfig({ agent })).config;

        const printed = await shell(documentedWith('pg_restore'), cwd, { DATABASE_URL: restoredUrl, PATH });
        const database = await openDatabase({ url: restoredUrl, dataDir: '', poolSize: 2, acquireTimeoutMs: 5_000 });
        const state = await loadState(database.knex);
        expect(await gapsInLog(database)).toEqual([]);
        expect(contents(await replay(database))).toEqual(contents(state));
        await database.close();
        expect(printed).toContain(state.identity);
        for (const { name } of before) expect(state.agentNames).toContain(name);

        const restored = await startService({ DATABASE_URL: restoredUrl, HTTP_ADDRESS: 'off' });
        try {
          const found = (await restored.configs.getPrimaryConfig({ agent })).config;
          expect(found?.revision).toBe(old?.revision);
          expect(found?.etag).not.toBe(old?.etag);
          expect(found?.etag.startsWith(state.identity.slice(0, 8))).toBe(true);
          expect(Number((await restored.configs.createConfig({ agent, config: CONFIG })).revision)).toBe(
            state.revision + 1,
          );
        } finally {
          await restored.stop();
        }
      } finally {
        await writing.stop();
        await service.stop();
      }
    });

    it('give running replicas the new identity after store renew, by a poll or by a write', async () => {
      const DATABASE_URL = await server.createDatabase();
      const pollingReplica = await startService({ DATABASE_URL, HTTP_ADDRESS: 'off' });
      const writingReplica = await startService({
        DATABASE_URL,
        HTTP_ADDRESS: 'off',
        POLL_INTERVAL_MS: '60000',
        NOTIFY: 'off',
      });
      try {
        const { stdout } = await runCommand(['store', 'renew', '--json'], { DATABASE_URL });
        const identityPrefix = JSON.parse(stdout).identity.slice(0, 8);
        const etag = async (from: Clients) => (await from.configs.getPrimaryConfig({ agent })).config?.etag.slice(0, 8);
        await vi.waitFor(async () => expect(await etag(pollingReplica)).toBe(identityPrefix), { timeout: 30_000 });
        expect(await etag(writingReplica)).not.toBe(identityPrefix);
        const { config, revision } = await writingReplica.configs.createConfig({ agent, config: CONFIG });
        expect(config?.etag.startsWith(identityPrefix)).toBe(true);
        expect(await etag(writingReplica)).toBe(identityPrefix);
        // A replica that lags reads revisions from before and after a renewal.
        expect(JSON.parse((await runCommand(['store', 'renew', '--json'], { DATABASE_URL })).stdout).revision).toBe(
          Number(revision),
        );
        const next = await pollingReplica.configs.createConfig({ agent, config: CONFIG });
        const seen = await writingReplica.configs.getConfig({
          id: next.config?.id as number,
          min_revision: next.revision,
        });
        expect(seen.config?.etag).toBe(next.config?.etag);
      } finally {
        await pollingReplica.stop();
        await writingReplica.stop();
      }
    });
  },
);
