import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it, onTestFinished } from 'vitest';
import { resolvedMessage } from '../../src/api/messages/resolution.js';
import type { ResidentAgent, ResidentAgentLLM, ResidentOptions } from '../../src/client/index.js';
import { agentRow } from '../../src/client/rows.js';
import { allocate } from '../../src/domain/experiments/allocation.js';
import { Assignment, bucketOf } from '../../src/domain/experiments/assignment.js';
import { unique, useService } from '../support/service.js';
import { until } from '../support/until.js';
import { agent, connectResident, startResident } from './fake_watch.js';

/* Experiments in the resident client. */

type AgentPart = ReturnType<typeof agent>;
type ExperimentPart = NonNullable<AgentPart['experiments']>[number];

const SALT = '0123456789abcdef0123456789abcdef';
const rangesOf = (...weights: readonly number[]) =>
  allocate(
    [],
    weights.map((weight, at) => ({ name: String(at), weight })),
  ).map(({ ranges }) => ranges.map((range) => ({ ...range })));

/** An experiment whose variants have the temperatures 0, 0.01, …; the first is the control. */
const experiment = (
  buckets: readonly (readonly { readonly start: number; readonly end: number }[])[],
  more: ExperimentPart = {},
): ExperimentPart => ({
  name: 'heat',
  salt: SALT,
  state: 'EXPERIMENT_STATE_RUNNING',
  revision: 5n,
  variants: buckets.map((ranges, at) => ({
    name: `v${at}`,
    control: at === 0,
    overrides: { temperature: at / 100 },
    buckets: [...ranges],
  })),
  ...more,
});
const trader = (revision: number, ...experiments: readonly ExperimentPart[]): AgentPart =>
  agent('trader', revision, { experiments: [...experiments] });
const SUBJECTS = Array.from({ length: 400 }, (_, at) => `run-${at}`);
/** A client or a run. */
interface Agents {
  agent(name: string): ResidentAgent;
}
const variantOf = (client: Agents, subject: string | undefined) =>
  client.agent('trader').resolve({ subject }).experiment?.variant;
const variantsOf = (client: Agents) => SUBJECTS.map((subject) => variantOf(client, subject));
const temperatureOf = (client: Agents, subject?: string) =>
  client
    .agent('trader')
    .resolve({ subject })
    .hops[0]?.parameters.find(({ name }) => name === 'temperature')?.value;

describe('resolve({ subject })', () => {
  it('assigns each subject to its variant and returns one frozen object for each variant', async () => {
    const ranges = rangesOf(5000, 3000, 2000);
    const { client } = await startResident([trader(1, experiment(ranges))]);
    const assignment = new Assignment(
      SALT,
      ranges.map((one) => ({ ranges: one })),
    );
    const objects = new Set<unknown>();
    for (const subject of SUBJECTS) {
      const at = assignment.variantOf(subject);
      const resolution = client.agent('trader').resolve({ subject });
      objects.add(resolution);
      expect(resolution.experiment).toEqual({
        experiment: 'heat',
        variant: `v${at}`,
        state: 'EXPERIMENT_STATE_RUNNING',
        counted: true,
      });
      expect(temperatureOf(client, subject)).toBe(at / 100);
    }
    expect(objects.size).toBe(3);
    const [one] = objects;
    expect(Object.isFrozen(one)).toBe(true);
  });

  it('has the settings of the control without a subject, and does not count', async () => {
    const { client } = await startResident([trader(1, experiment(rangesOf(5000, 5000)))]);
    const resolution = client.agent('trader').resolve();
    expect(resolution.experiment).toMatchObject({ variant: 'v0', counted: false });
    expect(client.agent('trader').resolve({ subject: undefined })).toBe(resolution);
    expect(client.agent('trader').resolve()).toBe(resolution);
  });

  it('does nothing for an agent without an experiment', async () => {
    const { client } = await startResident([
      trader(1, experiment(rangesOf(1, 9999), { state: 'EXPERIMENT_STATE_CONCLUDED' })),
    ]);
    const resolution = client.agent('trader').resolve();
    expect(resolution.experiment).toBeUndefined();
    for (const subject of ['a', 'b', 'a']) expect(client.agent('trader').resolve({ subject })).toBe(resolution);
  });

  it('applies assumptions to the assigned variant', async () => {
    const { client } = await startResident([trader(1, experiment(rangesOf(0, 10_000)))]);
    const handle = client.agent('trader');
    const down = handle.resolve({ subject: 'a', providerDown: ['openai'] });
    expect([down.hops, down.experiment?.variant]).toEqual([[], 'v1']);
    const overridden = handle.resolve({ subject: 'a', overrides: { temperature: 0.9 } });
    expect(overridden.hops[0]?.parameters).toContainEqual(expect.objectContaining({ name: 'temperature', value: 0.9 }));
    expect(overridden.experiment?.variant).toBe('v1');
    expect(temperatureOf(client, 'a')).toBe(0.01);
  });

  it('rejects an invalid subject', async () => {
    const { client } = await startResident([trader(1, experiment(rangesOf(5000, 5000)))]);
    client.agent('trader').resolve({ subject: 'a' });
    for (const subject of ['', 'a\0b', 'x'.repeat(256), 7 as never])
      expect(() => client.agent('trader').resolve({ subject })).toThrow(
        expect.objectContaining({ code: 'INVALID_ARGUMENT', reason: 'INVALID_FIELDS' }),
      );
    expect(variantOf(client, '\ud800')).toBe(variantOf(client, '\ufffd'));
  });
});

describe('a change of an experiment', () => {
  it('of its weights moves only the subjects of the buckets that moved', async () => {
    const before = allocate(
      [],
      [
        { name: 'v0', weight: 6000 },
        { name: 'v1', weight: 4000 },
      ],
    );
    const after = allocate(before, [
      { name: 'v0', weight: 5000 },
      { name: 'v1', weight: 4000 },
      { name: 'v2', weight: 1000 },
    ]);
    const parts = (all: typeof before) => all.map(({ ranges }) => ranges.map((range) => ({ ...range })));
    const { client, stream } = await startResident([trader(1, experiment(parts(before)))]);
    const first = variantsOf(client);
    stream.change(11, [trader(11, experiment(parts(after), { revision: 11n }))]);
    await until(() => client.state.revision === 11n);
    const second = variantsOf(client);
    const moved = SUBJECTS.filter((_, at) => first[at] !== second[at]);
    expect(moved.length).toBeGreaterThan(10);
    // The buckets that v0 gives are its highest ones.
    for (const subject of SUBJECTS) {
      const isMoved = bucketOf(SALT, subject) >= 5000 && bucketOf(SALT, subject) < 6000;
      expect(moved.includes(subject), subject).toBe(isMoved);
    }
    for (const subject of moved) expect(variantOf(client, subject)).toBe('v2');
  });

  it('that pauses it gives every subject the control, until it is resumed', async () => {
    const ranges = rangesOf(5000, 5000);
    const { client, stream } = await startResident([trader(1, experiment(ranges))]);
    const first = variantsOf(client);
    stream.change(11, [trader(11, experiment(ranges, { state: 'EXPERIMENT_STATE_PAUSED' }))]);
    await until(() => client.state.revision === 11n);
    expect(new Set(variantsOf(client))).toEqual(new Set(['v0']));
    expect(client.agent('trader').resolve({ subject: 'run-1' }).experiment).toMatchObject({
      state: 'EXPERIMENT_STATE_PAUSED',
      counted: false,
    });
    stream.change(12, [trader(12, experiment(ranges))]);
    await until(() => client.state.revision === 12n);
    expect(variantsOf(client)).toEqual(first);
  });

  it('does not change the variant of a run that is pinned', async () => {
    const { client, stream } = await startResident([trader(1, experiment(rangesOf(10_000, 0)))]);
    const run = client.run({ id: 'run-1' });
    const pinned = run.agent('trader').resolve({ subject: run.id });
    stream.change(11, [trader(11, experiment(rangesOf(0, 10_000)))]);
    await until(() => client.state.revision === 11n);
    expect(run.agent('trader').resolve({ subject: run.id })).toBe(pinned);
    expect([pinned.experiment?.variant, variantOf(client, run.id)]).toEqual(['v0', 'v1']);
    run.end();
    expect(variantOf(run, run.id)).toBe('v1');
  });

  it('to another catalogue resolves every variant again', async () => {
    const { client, stream } = await startResident([trader(1, experiment(rangesOf(0, 10_000)))]);
    const before = client.agent('trader').resolve({ subject: 'a' });
    stream.change(11, [], [{ deleted_provider: 'openai' } as never]);
    await until(() => client.state.revision === 11n);
    const after = client.agent('trader').resolve({ subject: 'a' });
    expect([before.hops.length, after.hops.length, after.experiment?.variant]).toEqual([1, 0, 'v1']);
  });
});

describe('a client without a service', () => {
  it('assigns from the cache file, without the network', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'agentllm-experiments-'));
    onTestFinished(() => rm(directory, { recursive: true, force: true }));
    const cache = { path: join(directory, 'state'), key: 'secret' };
    const { fake, client } = await startResident([trader(1, experiment(rangesOf(4000, 3000, 3000)))], { cache });
    const variants = variantsOf(client);
    await client[Symbol.asyncDispose]();
    fake.stop();
    const offline = connectResident(fake.address, { cache });
    await offline.ready();
    expect(offline.state.status).not.toBe('READY');
    expect(variantsOf(offline)).toEqual(variants);
  });
});

describe('a resident client of a real service', () => {
  const service = useService('embedded');
  const start = async (options: Partial<ResidentOptions>) => {
    const client = connectResident(`127.0.0.1:${service().port}`, options);
    await client.ready();
    return client;
  };
  /** What both resolve for a subject; comparable. */
  async function both(client: ResidentAgentLLM, name: string, subject: string | undefined) {
    const handle = client.agent(name);
    const { resolved } = await service().configs.resolveConfig({ agent: { name }, subject });
    const bucket = resolved?.experiment?.bucket;
    const own = resolvedMessage(
      agentRow(handle.held?.agent as never),
      handle.resolve({ subject }),
      subject !== undefined && bucket !== undefined ? { subject, bucket } : undefined,
    );
    return { service: resolved, client: own };
  }

  const variant = fc.record(
    {
      model: fc.constantFrom(['openai', 'gpt-4o'], ['claude', 'claude-sonnet-4-5'], ['deepseek', 'deepseek-chat']),
      temperature: fc.double({ min: 0, max: 1, noNaN: true }),
      max_tokens: fc.integer({ min: 1, max: 4000 }),
      top_p: fc.double({ min: 0.1, max: 1, noNaN: true }),
      extra_params: fc.record({ request_timeout_ms: fc.integer({ min: 1000, max: 9000 }) }),
      base: fc.integer({ min: 0, max: 2 }),
    },
    { requiredKeys: ['base'] },
  );
  const random = fc.record({
    variants: fc.array(variant, { minLength: 2, maxLength: 4 }),
    cuts: fc.array(fc.integer({ min: 1, max: 9999 }), { minLength: 3, maxLength: 3 }),
    isPaused: fc.boolean(),
  });

  it('resolves random experiments like the service, for every subject and without one', async () => {
    const samples = fc.sample(random, { numRuns: 8, seed: 20261129 });
    for (const { variants, cuts, isPaused } of samples) {
      const name = unique('agent');
      await service().agents.createAgent({ agent: { name, agent_type: 'analyst' } });
      const configs: (number | undefined)[] = [];
      for (const one of [
        { provider: 'openai', model_name: 'gpt-4', fallback_provider: 'claude', fallback_model: 'claude-haiku-4-5' },
        { provider: 'deepseek', model_name: 'deepseek-chat', enabled: false, cost_per_1k_input_tokens: 1 },
      ])
        configs.push((await service().configs.createConfig({ agent: { name }, config: one })).config?.id);
      const sorted = [0, ...cuts.slice(0, variants.length - 1).sort((a, b) => a - b), 10_000];
      const rows = variants.map(({ model, base, ...values }, at) => ({
        name: `v${at}`,
        control: at === 0,
        config_id: base === 0 ? undefined : configs[base - 1],
        weight_basis_points: Math.max(0, (sorted[at + 1] as number) - (sorted[at] as number)),
        overrides: { ...values, ...(model && { provider: model[0], model_name: model[1] }) },
      }));
      // The control needs a bucket.
      const control = rows[0] as (typeof rows)[number];
      const largest = rows.reduce((most, row) => (row.weight_basis_points > most.weight_basis_points ? row : most));
      if (control.weight_basis_points === 0) {
        control.weight_basis_points++;
        largest.weight_basis_points--;
      }
      const ref = { agent: { name }, name: 'random' };
      const primary_metric = { kind: 'EXPERIMENT_METRIC_KIND_COST_PER_CALL' } as const;
      await service().experiments.createExperiment({
        agent: { name },
        experiment: { name: 'random', variants: rows as never, primary_metric },
        allow_unknown_model: true,
      });
      let { revision } = await service().experiments.startExperiment(ref);
      if (isPaused) ({ revision } = await service().experiments.pauseExperiment(ref));
      const client = await start({ agents: [name] });
      await until(() => client.state.status === 'READY' && client.state.revision >= revision);
      for (const subject of [undefined, ...SUBJECTS.slice(0, 12)]) {
        const resolved = await both(client, name, subject);
        expect(resolved.client, `${subject}`).toEqual(resolved.service);
        expect(resolved.client.experiment !== undefined, 'an experiment').toBe(true);
      }
      await client[Symbol.asyncDispose]();
    }
  });

  it('gets new weights by the watch and agrees with the service on every subject', async () => {
    const name = unique('agent');
    await service().agents.createAgent({ agent: { name, agent_type: 'analyst' } });
    await service().configs.createConfig({ agent: { name }, config: { provider: 'openai', model_name: 'gpt-4' } });
    const variants = (...weights: readonly number[]) =>
      weights.map((weight_basis_points, at) => ({
        name: `v${at}`,
        control: at === 0,
        weight_basis_points,
        ...(at > 0 && { overrides: { temperature: at / 10 } }),
      }));
    const primary_metric = { kind: 'EXPERIMENT_METRIC_KIND_COST_PER_CALL' } as const;
    const ref = { agent: { name } };
    await service().experiments.createExperiment({
      ...ref,
      experiment: { name: 'weights', variants: variants(5000, 5000), primary_metric },
    });
    await service().experiments.startExperiment({ ...ref, name: 'weights' });
    const clients = [await start({ agents: [name] }), await start({ agents: 'all' })];
    const assigned = (client: ResidentAgentLLM) =>
      SUBJECTS.map((subject) => client.agent(name).resolve({ subject }).experiment?.variant);
    const before = assigned(clients[0] as ResidentAgentLLM);
    const { revision } = await service().experiments.updateExperiment({
      ...ref,
      experiment: { name: 'weights', variants: variants(5000, 3000, 2000) },
    });
    for (const client of clients) await until(() => client.state.revision >= revision);
    const [after, other] = clients.map(assigned) as [string[], string[]];
    expect(after).toEqual(other);
    const moves = new Set(after.flatMap((to, at) => (to === before[at] ? [] : [`${before[at]} ${to}`])));
    expect(moves).toEqual(new Set(['v1 v2']));
    for (const [at, subject] of SUBJECTS.slice(0, 40).entries()) {
      const { resolved } = await service().configs.resolveConfig({ agent: { name }, subject });
      expect(resolved?.experiment?.variant).toBe(after[at]);
    }
  });
});
