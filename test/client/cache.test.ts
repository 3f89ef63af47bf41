import { mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { CacheCipher } from '../../src/client/cache_encryption.js';
import type { ClientWarning, ResidentAgentLLM, ResidentOptions } from '../../src/client/index.js';
import { SnapshotCache } from '../../src/client/snapshot_cache.js';
import { View } from '../../src/client/view.js';
import { freePort } from '../support/ports.js';
import { until } from '../support/until.js';
import { agent, config, connectResident, startFakeWatch, startResident } from './fake_watch.js';

async function newDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'agentllm-cache-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** Writes a cache file with a client that is then closed. */
async function writeCacheFile(options: Partial<ResidentOptions> = {}): Promise<{ path: string; key: string }> {
  const cache = { path: join(await newDirectory(), 'held'), key: 'a secret of ours' };
  const secret = agent('trader', 5, { agent: { prompt_template: 'You are a very secret trader' } });
  const { client, stream } = await startResident([secret], { cache, ...options });
  stream.bookmark(15);
  await until(() => client.state.revision === 15n);
  await client[Symbol.asyncDispose]();
  return cache;
}

/** A client whose service is unavailable. */
const unconnectedClient = async (options: Partial<ResidentOptions>): Promise<ResidentAgentLLM> =>
  connectResident(`127.0.0.1:${await freePort()}`, options);

/** The warnings of a client, including those emitted during connect. */
async function warningsOf(client: ResidentAgentLLM): Promise<ClientWarning[]> {
  const warnings: ClientWarning[] = [];
  client.on('warning', (warning) => warnings.push(warning));
  await until(() => warnings.length > 0);
  expect(client.warnings).toEqual(warnings);
  return warnings;
}

describe('the cache file', () => {
  it('is readable by its owner only and contains no plaintext', async () => {
    const { path } = await writeCacheFile();
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    const text = (await readFile(path)).toString('latin1');
    for (const word of ['trader', 'secret', 'openai', 'gpt-4', 't15', 'saved_at']) expect(text).not.toContain(word);
    expect(await readdir(join(path, '..'))).toEqual(['held']);
  });

  it('is encrypted with a new nonce each time the same content is written', async () => {
    const cache = await writeCacheFile();
    const first = await readFile(cache.path);
    const { client } = await startResident([agent('trader', 5)], { cache });
    await until(() => client.state.status === 'READY');
    await client[Symbol.asyncDispose]();
    const second = await readFile(cache.path);
    // The salt stays the same, so that a process derives the key once; the nonce never does.
    expect(second.subarray(0, 32)).toEqual(first.subarray(0, 32));
    expect(second.subarray(32, 44)).not.toEqual(first.subarray(32, 44));
  });

  it('is written immediately, then at most once per second, and when the client is closed', async () => {
    const cache = { path: join(await newDirectory(), 'deep', 'held'), key: new Uint8Array(32).fill(7) };
    const began = performance.now();
    const { client, stream } = await startResident([agent('trader', 1)], { cache });
    const writeTimes = new Set<number>();
    const polling = setInterval(async () => {
      const file = await stat(cache.path).catch(() => undefined);
      if (file) writeTimes.add(file.mtimeMs);
    }, 20);
    onTestFinished(() => clearInterval(polling));
    await until(() => writeTimes.size === 1);
    let revision = 11;
    const hasThree = () => {
      stream.change(revision, [agent('trader', revision++)]);
      return writeTimes.size >= 3;
    };
    await until(hasThree, 'the file is written twice more');
    // A write starts at least one second after the previous one.
    expect(writeTimes.size).toBeLessThanOrEqual(Math.floor((performance.now() - began) / 1_000) + 1);
    stream.change(9_000, [agent('trader', 9_000)]);
    await until(() => client.state.revision === 9_000n);
    await client[Symbol.asyncDispose]();
    expect((await unconnectedClient({ cache })).state.revision).toBe(9_000n);
  });

  it('is written again when the state changes during a write', async () => {
    const options = { path: join(await newDirectory(), 'held'), key: 'k' };
    const viewAt = (revision: bigint) =>
      View.empty().apply({ revision, token: 't', agents: [], catalogue: [], cause: undefined, snapshot: true }).view;
    const cache = new SnapshotCache(options, 'all', expect.unreachable);
    const { encrypt } = CacheCipher.prototype;
    const spy = vi.spyOn(CacheCipher.prototype, 'encrypt').mockImplementationOnce(function (
      this: CacheCipher,
      content,
    ) {
      cache.save(viewAt(2n));
      return encrypt.call(this, content);
    });
    onTestFinished(() => spy.mockRestore());
    cache.save(viewAt(1n));
    const written = () => new SnapshotCache(options, 'all', expect.unreachable).load()?.view.revision;
    await until(() => written() === 2n, 'the second state is written');
  });

  it('is written after the old temporary files of killed processes, and no other files, are removed', async () => {
    const directory = await newDirectory();
    const anHourAgo = new Date(Date.now() - 3_600_000);
    const names = ['held.0123456789ab.tmp', 'held.ba9876543210.tmp', 'held.mine.tmp', 'other.0123456789ab.tmp'];
    for (const name of names) await writeFile(join(directory, name), 'x');
    for (const name of names.filter((one) => !one.includes('ba98')))
      await utimes(join(directory, name), anHourAgo, anHourAgo);
    const { client } = await startResident([agent('trader', 1)], {
      cache: { path: join(directory, 'held'), key: 'k' },
    });
    await client[Symbol.asyncDispose]();
    expect((await readdir(directory)).sort()).toEqual(['held', ...names.slice(1)].sort());
  });

  it('causes only one warning per kind of failure when it cannot be written', async () => {
    const directory = await newDirectory();
    await writeFile(join(directory, 'file'), 'no directory');
    const cache = { path: join(directory, 'file', 'held'), key: 'k' };
    const fake = await startFakeWatch();
    const client = connectResident(fake.address, { cache });
    const warnings: ClientWarning[] = [];
    client.on('warning', (warning) => warnings.push(warning));
    const stream = await fake.stream(0);
    stream.start().snapshot(10, [agent('trader', 1)]);
    const written = () => warnings.filter(({ kind }) => kind === 'CACHE_NOT_WRITTEN');
    await until(() => written().length === 1);
    expect(written()[0]?.message).toMatch(/^The state cannot be written to .*: E/);
    const encrypt = vi.spyOn(CacheCipher.prototype, 'encrypt');
    onTestFinished(() => encrypt.mockRestore());
    stream.change(11, [agent('trader', 11)]);
    await until(() => encrypt.mock.calls.length === 1, 'the file is written again');
    stream.change(12, [agent('trader', 12)]);
    await until(() => encrypt.mock.calls.length === 2, 'the file is written a third time');
    expect(written()).toHaveLength(1);
    expect(client.state.status).toBe('READY');
    await client[Symbol.asyncDispose]();
    expect(written()).toHaveLength(1);
  });
});

describe('a client with a cache file', () => {
  it('serves the cached state without the service and resumes from it when the service is available', async () => {
    const began = Date.now();
    const cache = await writeCacheFile();
    const port = await freePort();
    const client = connectResident(`127.0.0.1:${port}`, { cache });
    // The state is available synchronously.
    expect(client.state).toMatchObject({ status: 'STALE', revision: 15n });
    expect(client.state.since.getTime()).toBeGreaterThanOrEqual(began);
    expect(client.state.since.getTime()).toBeLessThanOrEqual(Date.now());
    const resolution = client.agent('trader').resolve();
    expect(resolution.hops[0]).toMatchObject({ provider: 'openai', model_name: 'gpt-4' });
    expect(client.agent('trader').held?.agent.prompt_template).toBe('You are a very secret trader');
    await client.ready(100);
    const fake = await startFakeWatch(port);
    const stream = await fake.stream(0);
    expect(stream.request.resume_token).toBe('t15');
    stream.start({ resumed: true }).change(16, [agent('trader', 16, { configs: [config(1, 16, { top_p: 0 })] })]);
    stream.bookmark(16);
    await until(() => client.state.status === 'READY');
    expect(client.agent('trader').resolve()).not.toBe(resolution);
    expect(client.warnings).toEqual([]);
  });

  it('starts again with a snapshot when the store has changed', async () => {
    const cache = await writeCacheFile();
    const fake = await startFakeWatch();
    const client = connectResident(fake.address, { cache });
    (await fake.stream(0)).fail(status.FAILED_PRECONDITION, 'STORE_CHANGED');
    const next = await fake.stream(1);
    expect(next.request.resume_token).toBe('');
    expect(client.state).toMatchObject({ status: 'STALE', revision: 15n });
    next.start().snapshot(2, [agent('trader', 2, { configs: [] })]);
    await until(() => client.state.status === 'READY');
    expect(client.agent('trader').resolve().hops[0]?.model_name).toBe('gpt-4o-mini');
  });

  it('is FAILED when its credentials are rejected, and serves the cached state', async () => {
    const cache = await writeCacheFile();
    const fake = await startFakeWatch();
    fake.onStream = (stream) => stream.fail(status.UNAUTHENTICATED);
    const client = connectResident(fake.address, { cache });
    await until(() => client.state.status === 'FAILED');
    expect(client.agent('trader').resolve().hops).toHaveLength(1);
    await client.ready(100);
  });

  it('is CONNECTING without a warning when the file does not exist', async () => {
    const client = await unconnectedClient({ cache: { path: join(await newDirectory(), 'none'), key: 'k' } });
    expect(client.state.status).toBe('CONNECTING');
    await sleep(50);
    expect(client.warnings).toEqual([]);
  });

  it('ignores the file when it is too old', async () => {
    const cache = await writeCacheFile();
    await sleep(20);
    const client = await unconnectedClient({ cache: { ...cache, maxAgeMs: 10 } });
    expect(client.state.status).toBe('CONNECTING');
    expect(await warningsOf(client)).toMatchObject([
      { kind: 'CACHE_IGNORED', message: expect.stringMatching(/too old: it was saved at .*Z$/) },
    ]);
  });

  it('ignores the file when it was saved later than now by more than its maximum age', async () => {
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 3_600_000 });
    onTestFinished(() => void vi.useRealTimers());
    const cache = await writeCacheFile();
    vi.useRealTimers();
    const client = await unconnectedClient({ cache: { ...cache, maxAgeMs: 60_000 } });
    expect(client.state.status).toBe('CONNECTING');
    expect(await warningsOf(client)).toMatchObject([
      { kind: 'CACHE_IGNORED', message: expect.stringMatching(/too old: it was saved at .*Z$/) },
    ]);
  });

  it.each<[string, Partial<ResidentOptions>, RegExp]>([
    ['another key', { cache: { path: '', key: 'another secret' } }, /another key$/],
    ['more agents', { agents: ['trader', 'other'] }, /for other agents$/],
    ['all agents', { agents: 'all' }, /for other agents$/],
  ])('ignores the file when it is configured with %s', async (_, { cache: other, ...options }, message) => {
    const { path, key } = await writeCacheFile();
    const client = await unconnectedClient({ ...options, cache: { path, key: other?.key ?? key } });
    expect(client.state.status).toBe('CONNECTING');
    expect(await warningsOf(client)).toMatchObject([
      { kind: 'CACHE_IGNORED', message: expect.stringMatching(message) },
    ]);
  });

  it('uses the file when the same agents are configured in another order', async () => {
    const cache = await writeCacheFile({ agents: ['b', 'trader', 'a'] });
    const client = await unconnectedClient({ cache, agents: ['a', 'b', 'trader', 'a'] });
    expect(client.state.status).toBe('STALE');
  });

  it('ignores the file when it is truncated at any position or modified', async () => {
    const cache = await writeCacheFile();
    const whole = await readFile(cache.path);
    const flipped = (at: number) => {
      const bytes = Buffer.from(whole);
      bytes[at] = (bytes[at] ?? 0) ^ 1;
      return bytes;
    };
    const truncated = [0, 1, 15, 16, 31, 43, 44, 59, 60, 100, whole.length - 1].map((length) =>
      whole.subarray(0, length),
    );
    const changed = [0, 14, 16, 40, 50, 60, whole.length - 1].map(flipped);
    for (const bytes of [...truncated, ...changed, Buffer.concat([whole, Buffer.from([0])]), Buffer.alloc(1_000)]) {
      await writeFile(cache.path, bytes);
      const client = await unconnectedClient({ cache });
      expect(client.state.status).toBe('CONNECTING');
      expect(client.warnings.map(({ kind }) => kind)).toEqual(['CACHE_IGNORED']);
      client.close();
    }
  });

  it('ignores a path that is not a file, and overwrites an invalid file', async () => {
    const directory = await newDirectory();
    await mkdir(join(directory, 'held'));
    expect((await unconnectedClient({ cache: { path: join(directory, 'held'), key: 'k' } })).warnings).toMatchObject([
      { kind: 'CACHE_IGNORED' },
    ]);
    const cache = { path: join(directory, 'bad'), key: 'k' };
    await writeFile(cache.path, 'agentllm-held-9\nof another version');
    const { client } = await startResident([agent('trader', 1)], { cache });
    expect(client.warnings[0]?.message).toMatch(/another format$/);
    await client[Symbol.asyncDispose]();
    expect((await unconnectedClient({ cache })).state.status).toBe('STALE');
  });
});
