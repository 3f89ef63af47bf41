import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { RecordedWatch } from '../feed/support.js';
import { allReach, endsOf } from '../feed/watcher.js';
import { copyFirstStart, useDirectories } from '../support/command.js';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { until } from '../support/until.js';
import { ServerProcess } from './server.js';
import { check, envOf, makeAgents, percentile, startWatchers, startWrites, type Where } from './watch.js';

/*
 * Many watchers at once on a separate server process, and more of them when FAULT_ROUNDS is set. Times are printed and
 * not asserted.
 */

const LARGE = process.env['FAULT_ROUNDS'] !== undefined;
vi.setConfig({ testTimeout: LARGE ? 300_000 : 90_000 });

let postgres: TestPostgres;
useDirectories();
beforeAll(async () => {
  postgres = await startPostgres({ own: true });
});
afterAll(() => postgres.stop());

async function start(engine: 'embedded' | 'postgres'): Promise<{ where: Where; server: ServerProcess }> {
  const dataDir = engine === 'embedded' ? await mkdtemp(join(tmpdir(), 'agentllm-test-')) : undefined;
  if (dataDir) {
    await copyFirstStart(dataDir);
    onTestFinished(() => rm(dataDir, { recursive: true, force: true }));
  }
  const where = dataDir ? { dataDir } : { url: await postgres.createDatabase('seeded') };
  return { where, server: await ServerProcess.start('the server', envOf(where)) };
}

/** Resident memory of a process in KiB; 0 where the system does not report it. */
async function rssOf(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  return Number(/VmRSS:\s+(\d+)/.exec(text)?.[1] ?? 0);
}

/**
 * The lowest resident memory of a process within some time, in KiB. Queued messages stay in memory for all of that time.
 * Garbage that is not collected yet does not: it was measured to grow by 60 MiB and disappear within 20 s.
 */
async function lowestRss(pid: number, ms: number): Promise<number> {
  const samples: number[] = [];
  for (const until = performance.now() + ms; performance.now() < until; await sleep(250))
    samples.push(await rssOf(pid));
  return Math.min(...samples);
}

const size = LARGE
  ? { watchers: 5_000, agents: 500, writes: 100, seconds: 10 }
  : { watchers: 1_000, agents: 100, writes: 50, seconds: 5 };

describe.each(['embedded', 'postgres'] as const)('watchers on %s', (engine) => {
  it(`miss no change when ${size.watchers} watch ${size.agents} agents at ${size.writes} writes per second`, async () => {
    const { where, server } = await start(engine);
    const agents = await makeAgents(server, size.agents);
    await sleep(200);
    const before = await rssOf(server.pid);
    const all = startWatchers(server, [], 5);
    const watchers = [...all, ...startWatchers(server, agents, size.watchers)];
    await allReach(watchers, 1, 60_000);
    const open = await rssOf(server.pid);
    const writes = startWrites([server], agents, size.writes);
    await sleep(size.seconds * 1000);
    await until(() => writes.acknowledged.length > size.seconds * 10, 'enough writes');
    await writes.stop();
    expect([...writes.errors]).toEqual([]);
    await allReach(all, writes.newest);
    const newest = new Map(writes.acknowledged.map(({ key, revision }) => [key, revision]));
    for (const watcher of watchers.slice(all.length))
      await allReach([watcher], newest.get(`agent ${watcher.watched.ids?.[0]}`) ?? 1);
    const delays = watchers.flatMap((one) => one.delays);
    console.log({
      engine,
      watchers: watchers.length,
      writes: writes.acknowledged.length,
      events: delays.length,
      p50: percentile(delays, 0.5),
      p99: percentile(delays, 0.99),
      rssPerWatcherKiB: Math.round((open - before) / size.watchers),
      ends: endsOf(watchers),
    });
    expect(endsOf(watchers)).toEqual({});
    for (const watcher of watchers) watcher.stop();
    expect(await server.stop()).toBe(0);
    await check(where, watchers, writes.acknowledged);
  });

  it('resume simultaneously without duplicates when the server is restarted', async () => {
    const { where, server } = await start(engine);
    const agents = await makeAgents(server, 50);
    const watchers = [...startWatchers(server, [], 3), ...startWatchers(server, agents, LARGE ? 2_000 : 600)];
    await allReach(watchers, 1, 60_000);
    const writes = startWrites([server], agents, 30);
    await sleep(500);
    await writes.stop();
    expect(await server.stop()).toBe(0);
    const took = await server.restart();
    const began = performance.now();
    const { revision } = await server.clients.providers.updateProvider({
      provider: { name: 'openai', display_name: 'OpenAI again' },
    });
    await allReach(watchers, Number(revision), 60_000);
    console.log({
      engine,
      watchers: watchers.length,
      restart: Math.round(took),
      storm: Math.round(performance.now() - began),
      ends: endsOf(watchers),
    });
    for (const watcher of watchers) {
      watcher.stop();
      // Every stream was resumed, and none started with a snapshot.
      expect(watcher.streams.slice(1).every(({ resumedAt }) => resumedAt !== undefined)).toBe(true);
      expect(watcher.streams.length).toBeGreaterThan(1);
    }
    expect(await server.stop()).toBe(0);
    await check(where, watchers, writes.acknowledged);
  });
});

/** No caller may make another one wait for longer. A stream that is not read is ended after a minute. */
const LONGEST_DELAY_MS = 5_000;

describe('watchers that do not read', () => {
  it('do not affect other watchers, cost the server little memory, and are ended after a minute', async () => {
    const { where, server } = await start('postgres');
    const agents = await makeAgents(server, 20);
    // Only the stalled streams include these. If the others got 120 MB a second too, their reader would be the limit.
    const largeAgents = await makeAgents(server, 20);
    const healthy = startWatchers(server, agents, LARGE ? 1_000 : 200);
    const count = 100;
    const stalled = Array.from({ length: count }, () => new RecordedWatch(server.port, { all_agents: true }));
    onTestFinished(() => {
      for (const one of stalled) one.close();
    });
    await allReach(healthy, 1, 60_000);
    await Promise.all(stalled.map((one) => one.ready()));
    for (const one of stalled) one.pause();
    const before = await rssOf(server.pid);
    const writes = startWrites([server], agents, 40);
    // Each write is about 60 KB for a watch of all agents, so the total exceeds the buffers of any transport.
    const prompt_template = 'x'.repeat(60_000);
    const largeWrites = 90;
    const began = performance.now();
    for (let at = 0; at < largeWrites; at++)
      await server.clients.agents.updateAgent({
        agent: { id: (largeAgents[at % 20] as { id: number }).id, prompt_template: `${prompt_template}${at}` },
      });
    // Until the feed has passed the last write to the streams.
    await sleep(1_000);
    const after = await lowestRss(server.pid, LARGE ? 50_000 : 3_000);
    // The stalled streams are ended a minute after they stopped reading.
    if (LARGE) await sleep(20_000);
    await writes.stop();
    const delays = healthy.flatMap((one) => one.delays);
    console.log({
      stalled: count,
      healthy: healthy.length,
      p99: percentile(delays, 0.99),
      growthMiB: Math.round((after - before) / 1024),
      seconds: Math.round((performance.now() - began) / 1000),
    });
    const newest = new Map(writes.acknowledged.map(({ key, revision }) => [key, revision]));
    for (const one of healthy) await allReach([one], newest.get(`agent ${one.watched.ids?.[0]}`) ?? 1);
    expect(endsOf(healthy)).toEqual({});
    expect(percentile(delays, 0.99)).toBeLessThan(LONGEST_DELAY_MS);
    // What was written for the streams, of which the buffers of their connections hold a part. The server was measured to
    // grow by 34 to 40 MiB, and by 164 MiB when it ignored that the streams were full.
    const queued = (count * largeWrites * prompt_template.length) / 1024;
    if (after > 0) expect(after - before).toBeLessThan(queued / 6);
    if (LARGE)
      for (const one of stalled) {
        one.resume();
        expect((await one.end()).reason).toBe('SLOW_CONSUMER');
      }
    for (const one of healthy) one.stop();
    for (const one of stalled) one.close();
    expect(await server.stop()).toBe(0);
    await check(where, healthy, writes.acknowledged);
  });
});
