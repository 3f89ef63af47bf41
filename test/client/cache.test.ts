import { mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { ClientWarning, ResidentAgentLLM, ResidentOptions } from '../../src/client/index.js';
import { freePort } from '../support/ports.js';
import { agent, config, held, hold, startFakeWatch } from './fake_watch.js';
import { until } from './support.js';

async function newDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'agentllm-cache-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** A file as a client leaves it. */
async function keptFile(options: Partial<ResidentOptions> = {}): Promise<{ path: string; key: string }> {
  const cache = { path: join(await newDirectory(), 'held'), key: 'a secret of ours' };
  const secret = agent('trader', 5, { agent: { prompt_template: 'You are a very secret trader' } });
  const { client, stream } = await held([secret], { cache, ...options });
  stream.bookmark(15);
  await until(() => client.state.revision === 15n);
  await client[Symbol.asyncDispose]();
  return cache;
}

/** A client whose service is away. */
const alone = async (options: Partial<ResidentOptions>): Promise<ResidentAgentLLM> =>
  hold(`127.0.0.1:${await freePort()}`, options);

/** What a client warns of, also within connect. */
async function warned(client: ResidentAgentLLM): Promise<ClientWarning[]> {
  const warnings: ClientWarning[] = [];
  client.on('warning', (warning) => warnings.push(warning));
  await until(() => warnings.length > 0);
  expect(client.warnings).toEqual(warnings);
  return warnings;
}

describe('the file', () => {
  it('is for its owner alone, and says nothing in clear', async () => {
    const { path } = await keptFile();
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    const text = (await readFile(path)).toString('latin1');
    for (const word of ['trader', 'secret', 'openai', 'gpt-4', 't15', 'saved_at']) expect(text).not.toContain(word);
    expect(await readdir(join(path, '..'))).toEqual(['held']);
  });

  it('is another one each time, of the same content', async () => {
    const cache = await keptFile();
    const first = await readFile(cache.path);
    const { client } = await held([agent('trader', 5)], { cache });
    await until(() => client.state.status === 'READY');
    await client[Symbol.asyncDispose]();
    const second = await readFile(cache.path);
    // The same salt, so that the secret is stretched once in a process; never the same nonce.
    expect(second.subarray(0, 32)).toEqual(first.subarray(0, 32));
    expect(second.subarray(32, 44)).not.toEqual(first.subarray(32, 44));
  });

  it('is written at once, then at most once a second, and at the end', async () => {
    const cache = { path: join(await newDirectory(), 'deep', 'held'), key: new Uint8Array(32).fill(7) };
    const { client, stream } = await held([agent('trader', 1)], { cache });
    const inodes = new Set<number>();
    const looking = setInterval(async () => {
      const file = await stat(cache.path).catch(() => undefined);
      if (file) inodes.add(file.mtimeMs);
    }, 20);
    onTestFinished(() => clearInterval(looking));
    await until(() => inodes.size === 1, 2_000);
    const began = performance.now();
    for (let revision = 11; performance.now() - began < 2_500; revision++) {
      stream.change(revision, [agent('trader', revision)]);
      await sleep(10);
    }
    expect(inodes.size).toBeGreaterThanOrEqual(2);
    expect(inodes.size).toBeLessThanOrEqual(4);
    stream.change(9_000, [agent('trader', 9_000)]);
    await until(() => client.state.revision === 9_000n);
    await client[Symbol.asyncDispose]();
    expect((await alone({ cache })).state.revision).toBe(9_000n);
  });

  it('takes away what killed processes have left, and nothing else', async () => {
    const directory = await newDirectory();
    const long = new Date(Date.now() - 3_600_000);
    const names = ['held.0123456789ab.tmp', 'held.ba9876543210.tmp', 'held.mine.tmp', 'other.0123456789ab.tmp'];
    for (const name of names) await writeFile(join(directory, name), 'x');
    for (const name of names.filter((one) => !one.includes('ba98'))) await utimes(join(directory, name), long, long);
    const { client } = await held([agent('trader', 1)], { cache: { path: join(directory, 'held'), key: 'k' } });
    await client[Symbol.asyncDispose]();
    expect((await readdir(directory)).sort()).toEqual(['held', ...names.slice(1)].sort());
  });

  it('that cannot be written is a warning for each kind of failure, and no more', async () => {
    const directory = await newDirectory();
    await writeFile(join(directory, 'file'), 'no directory');
    const cache = { path: join(directory, 'file', 'held'), key: 'k' };
    const fake = await startFakeWatch();
    const client = hold(fake.address, { cache });
    const warnings: ClientWarning[] = [];
    client.on('warning', (warning) => warnings.push(warning));
    const stream = await fake.stream(0);
    stream.start().snapshot(10, [agent('trader', 1)]);
    const written = () => warnings.filter(({ kind }) => kind === 'CACHE_NOT_WRITTEN');
    await until(() => written().length === 1);
    expect(written()[0]?.message).toMatch(/^The state cannot be written to .*: E/);
    stream.change(11, [agent('trader', 11)]);
    await sleep(1_500);
    expect(written()).toHaveLength(1);
    expect(client.state.status).toBe('READY');
    await client[Symbol.asyncDispose]();
    expect(written()).toHaveLength(1);
  });
});

describe('a start', () => {
  it('without the service serves what was held, and goes on behind it when the service is there', async () => {
    const began = Date.now();
    const cache = await keptFile();
    const port = await freePort();
    const client = hold(`127.0.0.1:${port}`, { cache });
    // At once: nothing was awaited.
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

  it('starts over when the store is another one', async () => {
    const cache = await keptFile();
    const fake = await startFakeWatch();
    const client = hold(fake.address, { cache });
    (await fake.stream(0)).fail(status.FAILED_PRECONDITION, 'STORE_CHANGED');
    const next = await fake.stream(1);
    expect(next.request.resume_token).toBe('');
    expect(client.state).toMatchObject({ status: 'STALE', revision: 15n });
    next.start().snapshot(2, [agent('trader', 2, { configs: [] })]);
    await until(() => client.state.status === 'READY');
    expect(client.agent('trader').resolve().hops[0]?.model_name).toBe('gpt-4o-mini');
  });

  it('with refused credentials is FAILED, and serves what was held', async () => {
    const cache = await keptFile();
    const fake = await startFakeWatch();
    fake.onStream = (stream) => stream.fail(status.UNAUTHENTICATED);
    const client = hold(fake.address, { cache });
    await until(() => client.state.status === 'FAILED');
    expect(client.agent('trader').resolve().hops).toHaveLength(1);
    await client.ready(100);
  });

  it('without a file is one like any other', async () => {
    const client = await alone({ cache: { path: join(await newDirectory(), 'none'), key: 'k' } });
    expect(client.state.status).toBe('CONNECTING');
    await sleep(50);
    expect(client.warnings).toEqual([]);
  });

  it('does not use a file that is too old', async () => {
    const cache = await keptFile();
    await sleep(20);
    const client = await alone({ cache: { ...cache, maxAgeMs: 10 } });
    expect(client.state.status).toBe('CONNECTING');
    expect(await warned(client)).toMatchObject([
      { kind: 'CACHE_IGNORED', message: expect.stringMatching(/too old: it was saved at .*Z$/) },
    ]);
  });

  it.each<[string, Partial<ResidentOptions>, RegExp]>([
    ['another key', { cache: { path: '', key: 'another secret' } }, /another key$/],
    ['more agents', { agents: ['trader', 'other'] }, /for other agents$/],
    ['all agents', { agents: 'all' }, /for other agents$/],
  ])('with %s does not use it', async (_, { cache: other, ...options }, message) => {
    const { path, key } = await keptFile();
    const client = await alone({ ...options, cache: { path, key: other?.key ?? key } });
    expect(client.state.status).toBe('CONNECTING');
    expect(await warned(client)).toMatchObject([{ kind: 'CACHE_IGNORED', message: expect.stringMatching(message) }]);
  });

  it('uses a file of the same agents in any order', async () => {
    const cache = await keptFile({ agents: ['b', 'trader', 'a'] });
    const client = await alone({ cache, agents: ['a', 'b', 'trader', 'a'] });
    expect(client.state.status).toBe('STALE');
  });

  it('does not use a file that is torn at any place, or changed', async () => {
    const cache = await keptFile();
    const whole = await readFile(cache.path);
    const flipped = (at: number) => {
      const bytes = Buffer.from(whole);
      bytes[at] = (bytes[at] ?? 0) ^ 1;
      return bytes;
    };
    const torn = [0, 1, 15, 16, 31, 43, 44, 59, 60, 100, whole.length - 1].map((length) => whole.subarray(0, length));
    const changed = [0, 14, 16, 40, 50, 60, whole.length - 1].map(flipped);
    for (const bytes of [...torn, ...changed, Buffer.concat([whole, Buffer.from([0])]), Buffer.alloc(1_000)]) {
      await writeFile(cache.path, bytes);
      const client = await alone({ cache });
      expect(client.state.status).toBe('CONNECTING');
      expect(client.warnings.map(({ kind }) => kind)).toEqual(['CACHE_IGNORED']);
      client.close();
    }
  });

  it('does not use what is no file, and writes over what is no good', async () => {
    const directory = await newDirectory();
    await mkdir(join(directory, 'held'));
    expect((await alone({ cache: { path: join(directory, 'held'), key: 'k' } })).warnings).toMatchObject([
      { kind: 'CACHE_IGNORED' },
    ]);
    const cache = { path: join(directory, 'bad'), key: 'k' };
    await writeFile(cache.path, 'agentllm-held-9\nof another version');
    const { client } = await held([agent('trader', 1)], { cache });
    expect(client.warnings[0]?.message).toMatch(/another format$/);
    await client[Symbol.asyncDispose]();
    expect((await alone({ cache })).state.status).toBe('STALE');
  });
});
