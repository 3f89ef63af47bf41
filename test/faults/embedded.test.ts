import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { limits } from '../../src/limits.js';
import type { Database } from '../../src/store/database.js';
import { frame, rawCall } from '../grpc/http2_client.js';
import { agentllm, useDirectories } from '../support/command.js';
import { measureLoopLag } from '../support/processor.js';
import { startService } from '../support/service.js';
import { until } from '../support/until.js';
import { Client, makeConfigs, Recorder, readImage, startLoad, type Target, validate } from './history.js';
import { ServerProcess } from './server.js';

vi.setConfig({ testTimeout: 90_000 });

/** Every database that was opened in this process, which gives access to the engine of a service. */
const opened = vi.hoisted(() => ({ databases: [] as unknown[] }));
vi.mock('../../src/store/database.js', async (original) => {
  const module = await original<typeof import('../../src/store/database.js')>();
  const openDatabase: typeof module.openDatabase = async (options) => {
    const database = await module.openDatabase(options);
    opened.databases.push(database);
    return database;
  };
  return { ...module, openDatabase };
});

const isRoot = process.getuid?.() === 0;
const directory = useDirectories();

async function startServer(dataDir: string, env: Readonly<Record<string, string>> = {}): Promise<ServerProcess> {
  const server = await ServerProcess.start('the server', { DATA_DIR: dataDir, ...env });
  onTestFinished(() => server.clients.close());
  return server;
}

async function writesHealth(port: number): Promise<string> {
  const name = Buffer.from('agentllm.v1.Writes');
  const request = Buffer.concat([Buffer.from([0x0a, name.length]), name]);
  const { result, body } = await rawCall(port, { path: '/grpc.health.v1.Health/Check', body: frame(request) });
  return result === 'grpc OK' ? (['UNKNOWN', 'SERVING', 'NOT_SERVING'][body[1] ?? 0] as string) : result;
}

const untilMoreWrites = async (recorder: Recorder, count = 20) => {
  const before = recorder.acknowledged;
  const enough = () => expect(recorder.acknowledged).toBeGreaterThan(before + count);
  await vi.waitFor(enough, { timeout: 30_000, interval: 20 });
};

describe('the data directory of a service', () => {
  it('is locked while the service is stopped (SIGSTOP), and opened by one process after a kill', async () => {
    const dataDir = await directory();
    const server = await startServer(dataDir);
    const [config = 0] = await makeConfigs(server, 1);
    const recorder = new Recorder();
    const client = new Client('the caller', recorder);
    expect((await client.write(config).attempt(server)).kind).toBe('acknowledged');
    server.signal('SIGSTOP');
    const began = performance.now();
    const intruder = await agentllm(['serve'], { DATA_DIR: dataDir }).ended;
    const refusedAfter = performance.now() - began;
    server.signal('SIGCONT');
    expect(intruder.code).toBe(1);
    expect(intruder.stderr).toContain(String(server.pid));
    expect(refusedAfter).toBeLessThan(20_000);
    expect((await client.write(config).attempt(server)).kind).toBe('acknowledged');
    await server.kill();
    const candidates = [1, 2, 3].map(() => agentllm(['serve'], { DATA_DIR: dataDir }));
    const results = await Promise.all(
      candidates.map(
        async ({ untilOutput, ended }) =>
          await Promise.race([untilOutput(/is ready/).then(() => 'ready'), ended.then(({ code }) => code)]).catch(
            () => 'refused',
          ),
      ),
    );
    expect(results.filter((result) => result === 'ready')).toHaveLength(1);
    candidates[results.indexOf('ready')]?.child.kill('SIGTERM');
    await Promise.all(candidates.map(({ ended }) => ended));
    validate(recorder, await readImage({ dataDir }));
  });
});

/** A file system of the given size; undefined without the privilege to mount one. */
async function smallDisk(megabytes: number): Promise<string | undefined> {
  if (!isRoot) return undefined;
  const mountPoint = mkdtempSync(join(tmpdir(), 'agentllm-disk-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'none', mountPoint], { stdio: 'ignore' });
  } catch {
    rmSync(mountPoint, { recursive: true, force: true });
    return undefined;
  }
  onTestFinished(() => {
    execFileSync('umount', ['-l', mountPoint], { stdio: 'ignore' });
    rmSync(mountPoint, { recursive: true, force: true });
  });
  return mountPoint;
}

describe('a disk that accepts no writes', () => {
  it('makes writes UNAVAILABLE and health NOT_SERVING while it is full; reads continue, and writes recover', async ({
    skip,
  }) => {
    const dataDir = await smallDisk(120);
    if (dataDir === undefined) {
      console.log('no small file system can be mounted here (that takes root): the test of a full disk is skipped');
      return skip();
    }
    const server = await startServer(dataDir);
    const configs = await makeConfigs(server, 2);
    const recorder = new Recorder();
    const load = startLoad(recorder, [server], configs, { clients: 3, pauseMs: 1, retryMs: 60_000 });
    await untilMoreWrites(recorder);
    const { bavail, bsize } = statfsSync(dataDir);
    writeFileSync(join(dataDir, 'ballast'), Buffer.alloc(Math.max(0, bavail * bsize - 64 * 1024)));
    const began = performance.now();
    const isReported = () => recorder.errors('write').some((error) => error.startsWith('UNAVAILABLE'));
    await vi.waitFor(() => expect(isReported()).toBe(true), { timeout: 30_000, interval: 50 });
    const health = await vi
      .waitFor(
        async () => {
          const current = await writesHealth(server.port);
          expect(current).toBe('NOT_SERVING');
          return current;
        },
        { timeout: 30_000, interval: 50 },
      )
      .catch(String);
    const [reads, acknowledgedBefore] = [recorder.reads.length, recorder.acknowledged];
    await sleep(1_000);
    const acknowledgedWhileFull = recorder.acknowledged - acknowledgedBefore;
    await until(() => recorder.reads.length > reads, 'reads continue');
    rmSync(join(dataDir, 'ballast'));
    await untilMoreWrites(recorder);
    await vi.waitFor(async () => expect(await writesHealth(server.port)).toBe('SERVING'), {
      timeout: 30_000,
      interval: 50,
    });
    await load.stop();
    console.log({
      fullForMs: Math.round(performance.now() - began),
      health,
      acknowledgedWhileFull,
      errors: recorder.errors('write'),
    });
    expect(await server.stop()).toBe(0);
    validate(recorder, await readImage({ dataDir }));
    expect(recorder.errors('read')).toEqual([]);
    const unexpected = recorder
      .errors('write')
      .filter(
        (error) =>
          !/^(UNAVAILABLE (DATABASE_UNAVAILABLE|OUTCOME_UNKNOWN)|ABORTED (STALE_ETAG|WRITE_CONFLICT)|INVALID_ARGUMENT INVALID_FIELDS)$/.test(
            error,
          ),
      );
    expect(unexpected).toEqual([]);
    expect(health).toBe('NOT_SERVING');
  });

  it('makes writes UNAVAILABLE while it is remounted read-only; reads continue, and writes recover', async ({
    skip,
  }) => {
    const dataDir = await smallDisk(150);
    if (dataDir === undefined) {
      console.log('no file system can be mounted here (that takes root): the test of a read-only one is skipped');
      return skip();
    }
    const server = await startServer(dataDir);
    const [config = 0] = await makeConfigs(server, 1);
    const remount = (mode: string) => execFileSync('mount', ['-o', `remount,${mode}`, dataDir], { stdio: 'ignore' });
    try {
      remount('ro');
    } catch {
      console.log('a file system with files open for writing cannot be made read-only here: the test is skipped');
      return skip();
    }
    const recorder = new Recorder();
    const client = new Client('the caller', recorder, 20_000);
    const outcome = await client.write(config).attempt(server);
    await client.read(server, config);
    remount('rw');
    expect(outcome).toMatchObject({ error: expect.stringMatching(/^UNAVAILABLE /) });
    await vi.waitFor(async () => expect((await client.write(config).attempt(server)).kind).toBe('acknowledged'), {
      timeout: 30_000,
    });
    expect(await server.stop()).toBe(0);
    validate(recorder, await readImage({ dataDir }));
    expect(recorder.errors('read')).toEqual([]);
  });
});

describe('SIGTERM under load', () => {
  it('stops the service cleanly within 10 s, and every acknowledged write is stored', async () => {
    const dataDir = await directory();
    const server = await startServer(dataDir);
    const configs = await makeConfigs(server, 3);
    const recorder = new Recorder();
    const times: number[] = [];
    for (let round = 0; round < 3; round++) {
      const load = startLoad(recorder, [server], configs, { clients: 8, pauseMs: 0, retryMs: 0 });
      await untilMoreWrites(recorder, 30);
      const began = performance.now();
      expect(await server.stop()).toBe(0);
      times.push(Math.round(performance.now() - began));
      await load.stop();
      expect(server.output).toContain('agentllm has stopped');
      expect(server.output).not.toMatch(/without a clean close|could not be closed cleanly/);
      await server.restart();
    }
    expect(await server.stop()).toBe(0);
    console.log({ stoppedAfterMs: times, errors: recorder.errors('write') });
    validate(recorder, await readImage({ dataDir }));
    expect(Math.max(...times)).toBeLessThan(10_000);
  });
});

describe('an engine in an endless loop', () => {
  it('is ended within 5 s; meanwhile writes are UNAVAILABLE, reads continue, the event loop runs', async () => {
    const dataDir = await directory();
    const service = await startService({ DATA_DIR: dataDir, HTTP_ADDRESS: 'off', SHUTDOWN_GRACE_MS: '1000' });
    const database = opened.databases.at(-1) as Database;
    const target: Target = { name: 'the server', clients: service };
    const configs = await makeConfigs(target, 2);
    const recorder = new Recorder();
    const load = startLoad(recorder, [target], configs, { clients: 3, deadlineMs: limits.maxCallMs });
    await untilMoreWrites(recorder);

    const lag = measureLoopLag();
    const began = performance.now();
    // No request can cause this: the statements of the service are bounded, and deep JSON is rejected on arrival.
    const endlessLoop = database.knex.raw('DO $$ BEGIN LOOP END LOOP; END $$').catch((error: unknown) => String(error));
    const reads = recorder.reads.length;
    const seen = new Set<string>();
    const watching = setInterval(() => {
      void writesHealth(service.port).then((health) => seen.add(health));
    }, 200);
    expect(await endlessLoop).toMatch(/Connection terminated/);
    const endedAfter = performance.now() - began;
    await untilMoreWrites(recorder);
    clearInterval(watching);
    const recoveredAfter = performance.now() - began;
    const longestLag = lag();
    await load.stop();
    console.log({
      endedAfter: Math.round(endedAfter),
      recoveredAfter: Math.round(recoveredAfter),
      longestLag: Math.round(longestLag),
      reads: recorder.reads.length - reads,
      health: [...seen],
      errors: recorder.errors('write'),
    });
    await service.stop();
    validate(recorder, await readImage({ dataDir }));
    expect(recorder.errors('read')).toEqual([]);
    expect(endedAfter).toBeLessThan(10_000);
    expect(recorder.errors('write')).toContain('UNAVAILABLE DATABASE_UNAVAILABLE');
    const unexpected = recorder
      .errors('write')
      .filter(
        (error) =>
          !/^(UNAVAILABLE (DATABASE_UNAVAILABLE|OUTCOME_UNKNOWN)|ABORTED STALE_ETAG|INVALID_ARGUMENT INVALID_FIELDS)$/.test(
            error,
          ),
      );
    expect(unexpected).toEqual([]);
    // 50 ms on an otherwise idle machine. An event loop that waits for the engine is blocked for 5 s.
    expect(longestLag).toBeLessThan(1_000);
    expect([...seen]).toContain('NOT_SERVING');
  });
});
