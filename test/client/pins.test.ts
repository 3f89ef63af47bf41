import { setTimeout as sleep } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import { describe, expect, it } from 'vitest';
import type { Run, RunMoved } from '../../src/client/index.js';
import { until } from '../support/until.js';
import { absentAgent, agent, config, connectResident, openai, startFakeWatch, startResident } from './fake_watch.js';

/** An agent whose temperature encodes its revision. */
const agentAt = (name: string, revision: number, urgent = false) =>
  agent(name, revision, { urgent, configs: [config(1, revision, { temperature: revision / 1000 })] });
/** The revision of an agent that a run resolves, decoded from the temperature. */
const revisionOf = (run: Pick<Run, 'agent'>, name = 'a') =>
  Math.round(
    Number(
      run
        .agent(name)
        .resolve()
        .hops[0]?.parameters.find((p) => p.name === 'temperature')?.value,
    ) * 1000,
  );

const start = () => startResident([agentAt('a', 1), agentAt('b', 1)], { agents: 'all' });

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
    expect(run.id).toMatch(/^[0-9a-f-]{36}$/);
    expect(client.run({ id: 'run-7' }).id).toBe('run-7');
    expect(() => client.run({ id: 'x'.repeat(101) })).toThrow(TypeError);
    const resolution = run.agent('a').resolve();
    expect(resolution).toBe(client.agent('a').resolve());
    for (let revision = 11; revision <= 20; revision++) {
      stream.change(revision, [agentAt('a', revision)]);
      if (revision === 15) stream.change(15, [], [openai({ base_url: 'https://elsewhere.example.com/v1' })]);
    }
    stream.bookmark(25);
    await until(() => client.state.revision === 25n);
    run.turn();
    expect(run.revision).toBe(10n);
    expect(run.agent('a').resolve()).toBe(resolution);
    expect(run.agent('a').held?.configs[0]?.revision).toBe(1n);
    // The pin also covers an agent that the run has not resolved before.
    stream.change(26, [agentAt('b', 26), absentAgent('c')]);
    await until(() => client.state.revision === 26n);
    expect(revisionOf(run, 'b')).toBe(1);
    expect(revisionOf(client, 'b')).toBe(26);
    run.end();
    expect(revisionOf(run)).toBe(20);
    expect(run.revision).toBe(26n);
  });

  it('keeps the revision at which it was started', async () => {
    const { client, stream } = await start();
    const runs = [client.run()];
    for (let revision = 20; revision <= 60; revision += 10) {
      stream.change(revision, [agentAt('a', revision)]);
      await until(() => client.state.revision === BigInt(revision));
      runs.push(client.run());
      // A bookmark between the start of a run and the next change must not make the change visible to the run.
      stream.bookmark(revision + 5);
      await until(() => client.state.revision === BigInt(revision + 5));
    }
    stream.change(70, [agentAt('a', 70)]);
    await until(() => client.state.revision === 70n);
    expect(runs.map((run) => revisionOf(run))).toEqual([1, 20, 30, 40, 50, 60]);
    runs[2]?.end();
    stream.change(80, [agentAt('a', 80)]);
    await until(() => client.state.revision === 80n);
    expect(runs.map((run) => revisionOf(run))).toEqual([1, 20, 80, 40, 50, 60]);
  });

  it('keeps its revision for a turn or not at all, depending on its pin', async () => {
    const { client, stream } = await start();
    const turns = client.run({ pin: 'turn' });
    const calls = client.run({ pin: 'call' });
    stream.change(11, [agentAt('a', 11)]);
    await until(() => client.state.revision === 11n);
    expect([revisionOf(turns), revisionOf(calls)]).toEqual([1, 11]);
    expect([turns.revision, calls.revision]).toEqual([10n, 11n]);
    turns.turn();
    calls.turn();
    expect([revisionOf(turns), revisionOf(calls)]).toEqual([11, 11]);
    stream.change(12, [agentAt('a', 12)]);
    await until(() => client.state.revision === 12n);
    expect([revisionOf(turns), revisionOf(calls)]).toEqual([11, 12]);
  });

  it('is pinned to the first snapshot when it starts before any state is held', async () => {
    const fake = await startFakeWatch();
    const client = connectResident(fake.address, { agents: ['a'] });
    const run = client.run();
    expect(run.revision).toBe(0n);
    expect(() => run.agent('a').resolve()).toThrow(/Nothing is held yet/);
    const stream = await fake.stream(0);
    stream.start().snapshot(10, [agentAt('a', 1)]);
    await client.ready();
    expect(revisionOf(run)).toBe(1);
    stream.change(11, [agentAt('a', 11)]);
    await until(() => client.state.revision === 11n);
    expect(revisionOf(run)).toBe(1);
    expect(() => run.agent('stranger')).toThrow(/does not hold agent "stranger"/);
  });

  it('remains usable after the client is closed', async () => {
    const { client } = await start();
    const run = client.run();
    await client[Symbol.asyncDispose]();
    expect(revisionOf(run)).toBe(1);
  });

  it('rejects an unknown pin', async () => {
    const { client } = await start();
    expect(() => client.run({ pin: 'day' as never })).toThrow(TypeError);
  });

  it('ends at the end of its `using` block', async () => {
    const { client, stream } = await start();
    let outer: Run;
    {
      using run = client.run();
      outer = run;
    }
    stream.change(11, [agentAt('a', 11)]);
    await until(() => client.state.revision === 11n);
    expect(revisionOf(outer)).toBe(11);
  });
});

describe('an urgent change', () => {
  it('of an agent moves the runs that have resolved the agent', async () => {
    const { client, stream } = await start();
    const [ofA, ofB] = [client.run(), client.run()];
    revisionOf(ofA, 'a');
    revisionOf(ofB, 'b');
    const [movesA, movesB] = [movesOf(ofA), movesOf(ofB)];
    stream.change(11, [agentAt('b', 11)]).change(12, [agentAt('a', 12, true)]);
    await until(() => movesA.length === 1);
    expect(movesA[0]).toMatchObject({ from: 10n, to: 12n, change: { urgent: true, agents: ['a'] } });
    expect(ofA.revision).toBe(12n);
    // All agents of the run move, because a run has one revision.
    expect([revisionOf(ofA, 'a'), revisionOf(ofA, 'b')]).toEqual([12, 11]);
    expect(movesB).toEqual([]);
    expect(revisionOf(ofB, 'b')).toBe(1);
    // The run is pinned again at the new revision.
    stream.change(13, [agentAt('a', 13)]);
    await until(() => client.state.revision === 13n);
    expect(revisionOf(ofA, 'a')).toBe(12);
    // A later resolution of the agent must not return the state before the urgent change.
    expect(revisionOf(ofB, 'a')).toBe(13);
    expect(movesB).toMatchObject([{ from: 10n, to: 13n, change: { revision: 12n } }]);
    expect(revisionOf(ofB, 'b')).toBe(11);
  });

  it('of the catalogue moves all runs', async () => {
    const { client, stream } = await start();
    const run = client.run();
    const moves = movesOf(run);
    const turnMoves = movesOf(client.run({ pin: 'turn' }));
    const calls = movesOf(client.run({ pin: 'call' }));
    expect(revisionOf(run)).toBe(1);
    stream.change(11, [], [{ ...openai({ enabled: false }), urgent: true }]);
    await until(() => moves.length === 1);
    expect(run.agent('a').resolve()).toMatchObject({
      hops: [],
      skipped: [{ reason: 'SKIP_REASON_PROVIDER_DISABLED' }],
    });
    expect(turnMoves).toHaveLength(1);
    expect(calls).toHaveLength(0);
  });

  it('is assumed when the stream had a gap, so a snapshot moves all runs', async () => {
    const { fake, client, stream } = await start();
    const run = client.run();
    const moves = movesOf(run);
    revisionOf(run);
    stream.fail(status.UNAVAILABLE);
    // A resumed stream has no gap.
    (await fake.stream(1))
      .start({ resumed: true })
      .change(11, [agentAt('a', 11)])
      .fail(status.OUT_OF_RANGE);
    await until(() => client.state.revision === 11n);
    expect(revisionOf(run)).toBe(1);
    (await fake.stream(2)).start().snapshot(20, [agentAt('a', 20), agentAt('b', 1)]);
    await until(() => moves.length === 1);
    expect(moves[0]).toMatchObject({ from: 10n, to: 20n, change: { snapshot: true } });
    expect(revisionOf(run)).toBe(20);
  });

  it('does not move a run that has ended, and moves the others when a listener throws', async () => {
    const { client, stream } = await start();
    const [ended, active] = [client.run(), client.run()];
    const [endedMoves, activeMoves] = [movesOf(ended), movesOf(active)];
    revisionOf(ended);
    revisionOf(active);
    active.on('moved', () => {
      throw new Error('no');
    });
    ended.end();
    stream.change(11, [agentAt('a', 11, true)]);
    await until(() => activeMoves.length === 1);
    await until(() => client.warnings.length === 1);
    expect(client.warnings[0]?.message).toBe("A listener of 'moved' failed: no");
    expect(endedMoves).toEqual([]);
    await sleep(20);
    expect(client.state.status).toBe('READY');
  });
});
