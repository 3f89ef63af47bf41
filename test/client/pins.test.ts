import { setTimeout as sleep } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import { describe, expect, it } from 'vitest';
import type { Run, RunMoved } from '../../src/client/index.js';
import { agent, config, gone, held, hold, openai, startFakeWatch } from './fake_watch.js';
import { until } from './support.js';

/** The agent with a temperature to tell its revisions apart. */
const at = (name: string, revision: number, urgent = false) =>
  agent(name, revision, { urgent, configs: [config(1, revision, { temperature: revision / 1000 })] });
/** Which revision of an agent a run sees, by that temperature. */
const seen = (run: Pick<Run, 'agent'>, name = 'a') =>
  Math.round(
    Number(
      run
        .agent(name)
        .resolve()
        .hops[0]?.parameters.find((p) => p.name === 'temperature')?.value,
    ) * 1000,
  );

const start = () => held([at('a', 1), at('b', 1)], { agents: 'all' });

const movesOf = (run: Run): RunMoved[] => {
  const moves: RunMoved[] = [];
  run.on('moved', (moved) => moves.push(moved));
  return moves;
};

describe('a run', () => {
  it('keeps its revision until it ends', async () => {
    const { client, stream } = await start();
    const run = client.run();
    expect(run.pin).toBe('run');
    const resolution = run.agent('a').resolve();
    expect(resolution).toBe(client.agent('a').resolve());
    for (let revision = 11; revision <= 20; revision++) {
      stream.change(revision, [at('a', revision)]);
      if (revision === 15) stream.change(15, [], [openai({ base_url: 'https://elsewhere.example.com/v1' })]);
    }
    stream.bookmark(25);
    await until(() => client.state.revision === 25n);
    run.turn();
    expect(run.revision).toBe(10n);
    expect(run.agent('a').resolve()).toBe(resolution);
    expect(run.agent('a').held?.configs[0]?.revision).toBe(1n);
    // Also of an agent that it had not asked for.
    stream.change(26, [at('b', 26), gone('c')]);
    await until(() => client.state.revision === 26n);
    expect(seen(run, 'b')).toBe(1);
    expect(seen(client, 'b')).toBe(26);
    run.end();
    expect(seen(run)).toBe(20);
    expect(run.revision).toBe(26n);
  });

  it('of another time keeps another revision', async () => {
    const { client, stream } = await start();
    const runs = [client.run()];
    for (let revision = 20; revision <= 60; revision += 10) {
      stream.change(revision, [at('a', revision)]);
      await until(() => client.state.revision === BigInt(revision));
      runs.push(client.run());
      // A bookmark between a run and the next change must not let the change into it.
      stream.bookmark(revision + 5);
      await until(() => client.state.revision === BigInt(revision + 5));
    }
    stream.change(70, [at('a', 70)]);
    await until(() => client.state.revision === 70n);
    expect(runs.map((run) => seen(run))).toEqual([1, 20, 30, 40, 50, 60]);
    runs[2]?.end();
    stream.change(80, [at('a', 80)]);
    await until(() => client.state.revision === 80n);
    expect(runs.map((run) => seen(run))).toEqual([1, 20, 80, 40, 50, 60]);
  });

  it('keeps it for a turn, or not at all', async () => {
    const { client, stream } = await start();
    const turns = client.run({ pin: 'turn' });
    const calls = client.run({ pin: 'call' });
    stream.change(11, [at('a', 11)]);
    await until(() => client.state.revision === 11n);
    expect([seen(turns), seen(calls)]).toEqual([1, 11]);
    expect([turns.revision, calls.revision]).toEqual([10n, 11n]);
    turns.turn();
    calls.turn();
    expect([seen(turns), seen(calls)]).toEqual([11, 11]);
    stream.change(12, [at('a', 12)]);
    await until(() => client.state.revision === 12n);
    expect([seen(turns), seen(calls)]).toEqual([11, 12]);
  });

  it('that begins before there is anything takes what comes first', async () => {
    const fake = await startFakeWatch();
    const client = hold(fake.address, { agents: ['a'] });
    const run = client.run();
    expect(run.revision).toBe(0n);
    expect(() => run.agent('a').resolve()).toThrow(/Nothing is held yet/);
    const stream = await fake.stream(0);
    stream.start().snapshot(10, [at('a', 1)]);
    await client.ready();
    expect(seen(run)).toBe(1);
    stream.change(11, [at('a', 11)]);
    await until(() => client.state.revision === 11n);
    expect(seen(run)).toBe(1);
    expect(() => run.agent('stranger')).toThrow(/does not hold agent "stranger"/);
  });

  it('survives the client', async () => {
    const { client } = await start();
    const run = client.run();
    await client[Symbol.asyncDispose]();
    expect(seen(run)).toBe(1);
  });

  it('refuses a pin that is none', async () => {
    const { client } = await start();
    expect(() => client.run({ pin: 'day' as never })).toThrow(TypeError);
  });

  it('ends with its block', async () => {
    const { client, stream } = await start();
    let kept: Run;
    {
      using run = client.run();
      kept = run;
    }
    stream.change(11, [at('a', 11)]);
    await until(() => client.state.revision === 11n);
    expect(seen(kept)).toBe(11);
  });
});

describe('an urgent change', () => {
  it('of an agent moves the runs that have asked for it', async () => {
    const { client, stream } = await start();
    const [ofA, ofB] = [client.run(), client.run()];
    seen(ofA, 'a');
    seen(ofB, 'b');
    const [movesA, movesB] = [movesOf(ofA), movesOf(ofB)];
    stream.change(11, [at('b', 11)]).change(12, [at('a', 12, true)]);
    await until(() => movesA.length === 1);
    expect(movesA[0]).toMatchObject({ from: 10n, to: 12n, change: { urgent: true, agents: ['a'] } });
    expect(ofA.revision).toBe(12n);
    // All of it, not only the agent: a run has one revision.
    expect([seen(ofA, 'a'), seen(ofA, 'b')]).toEqual([12, 11]);
    expect(movesB).toEqual([]);
    expect(seen(ofB, 'b')).toBe(1);
    // And pinned there again.
    stream.change(13, [at('a', 13)]);
    await until(() => client.state.revision === 13n);
    expect(seen(ofA, 'a')).toBe(12);
    // Asking for the agent later must not give what was taken away.
    expect(seen(ofB, 'a')).toBe(13);
    expect(movesB).toMatchObject([{ from: 10n, to: 13n, change: { revision: 12n } }]);
    expect(seen(ofB, 'b')).toBe(11);
  });

  it('of the catalogue moves all of them', async () => {
    const { client, stream } = await start();
    const run = client.run();
    const moves = movesOf(run);
    const idle = movesOf(client.run({ pin: 'turn' }));
    const calls = movesOf(client.run({ pin: 'call' }));
    expect(seen(run)).toBe(1);
    stream.change(11, [], [{ ...openai({ enabled: false }), urgent: true }]);
    await until(() => moves.length === 1);
    expect(run.agent('a').resolve()).toMatchObject({
      hops: [],
      skipped: [{ reason: 'SKIP_REASON_PROVIDER_DISABLED' }],
    });
    expect(idle).toHaveLength(1);
    expect(calls).toHaveLength(0);
  });

  it('may have been in a gap: a snapshot moves all of them', async () => {
    const { fake, client, stream } = await start();
    const run = client.run();
    const moves = movesOf(run);
    seen(run);
    stream.fail(status.UNAVAILABLE);
    // Resumed, nothing was missed.
    (await fake.stream(1))
      .start({ resumed: true })
      .change(11, [at('a', 11)])
      .fail(status.OUT_OF_RANGE);
    await until(() => client.state.revision === 11n);
    expect(seen(run)).toBe(1);
    (await fake.stream(2)).start().snapshot(20, [at('a', 20), at('b', 1)]);
    await until(() => moves.length === 1);
    expect(moves[0]).toMatchObject({ from: 10n, to: 20n, change: { snapshot: true } });
    expect(seen(run)).toBe(20);
  });

  it('reaches no run that has ended, and survives a listener that fails', async () => {
    const { client, stream } = await start();
    const [ended, living] = [client.run(), client.run()];
    const [movesE, movesL] = [movesOf(ended), movesOf(living)];
    seen(ended);
    seen(living);
    living.on('moved', () => {
      throw new Error('no');
    });
    ended.end();
    stream.change(11, [at('a', 11, true)]);
    await until(() => movesL.length === 1);
    await until(() => client.warnings.length === 1);
    expect(client.warnings[0]?.message).toBe("A listener of 'moved' failed: no");
    expect(movesE).toEqual([]);
    await sleep(20);
    expect(client.state.status).toBe('READY');
  });
});
