import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Outcome } from '../../../gen/ts/agentllm/v1/experiment.js';
import { newConfig } from '../../../src/domain/config.js';
import { bucketCount } from '../../../src/domain/experiments/allocation.js';
import { newExperiment, withBuckets } from '../../../src/domain/experiments/experiment.js';
import { ExperimentIndex } from '../../../src/domain/experiments/experiment_index.js';
import { decimalOf, outcomeProblem } from '../../../src/domain/experiments/outcome.js';
import { inState, ranMs } from '../../../src/domain/experiments/transition.js';
import { baseOf, overridesPatch } from '../../../src/domain/experiments/variant.js';
import type { Experiment, Variant } from '../../../src/domain/rows.js';

const variant = (name: string, weight_basis_points: number): Variant => ({
  name,
  description: null,
  control: name === 'a',
  config_id: null,
  overrides: {},
  weight_basis_points,
  buckets: [],
});
const experiment = (fields: Partial<Experiment> = {}): Experiment => ({
  ...newExperiment(1, 'ab'.repeat(16)),
  id: 1,
  name: 'x',
  variants: [variant('a', 5000), variant('b', 5000)],
  ...fields,
});
const at = (ms: number) => ({ now: new Date(ms) });

describe('withBuckets', () => {
  it('gives a draft buckets in the order of its variants, also after a change', () => {
    const before = withBuckets({ revision: 3 }, undefined, experiment());
    expect(before.allocation_revision).toBe(3);
    const changed = { ...before, variants: [variant('b', 4000), variant('a', 6000)] };
    const after = withBuckets({ revision: 4 }, before, changed);
    expect(after.variants.map(({ buckets }) => buckets)).toEqual([
      [{ start: 0, end: 4000 }],
      [{ start: 4000, end: 10_000 }],
    ]);
    expect(after.allocation_revision).toBe(4);
  });

  it('moves the fewest buckets of a running experiment', () => {
    const weights = fc.integer({ min: 1, max: 10_000 });
    fc.assert(
      fc.property(weights, weights, (first, second) => {
        const of = (weight: number) => [variant('a', weight), variant('b', 10_000 - weight)];
        const draft = withBuckets({ revision: 1 }, undefined, experiment({ variants: of(first) }));
        const running = inState(draft, 'EXPERIMENT_STATE_RUNNING', at(0), { reason: '' });
        const after = withBuckets({ revision: 2 }, running, { ...running, variants: of(second) });
        const kept = (name: string) => {
          const rangesIn = (row: Experiment) => row.variants.find((one) => one.name === name)?.buckets ?? [];
          const has = (bucket: number) =>
            rangesIn(running).some((range) => bucket >= range.start && bucket < range.end) &&
            rangesIn(after).some((range) => bucket >= range.start && bucket < range.end);
          return Array.from({ length: 10_000 }, (_, bucket) => bucket).filter(has).length;
        };
        expect(kept('a') + kept('b')).toBe(10_000 - Math.abs(first - second));
        expect(after.variants.map(({ buckets }) => bucketCount(buckets))).toEqual([second, 10_000 - second]);
        expect(after.allocation_revision).toBe(first === second ? 1 : 2);
      }),
      { numRuns: 20, seed: 15 },
    );
  });
});

describe('inState', () => {
  it('adds up the time in which an experiment ran', () => {
    const started = inState(experiment(), 'EXPERIMENT_STATE_RUNNING', at(1000), { reason: 'go' });
    expect(started).toMatchObject({ started_at: new Date(1000), running_since: new Date(1000), state_reason: 'go' });
    const paused = inState(started, 'EXPERIMENT_STATE_PAUSED', at(4000), { reason: '' });
    expect(paused).toMatchObject({ ran_ms: 3000, running_since: null, state_reason: '' });
    const resumed = inState(paused, 'EXPERIMENT_STATE_RUNNING', at(10_000), { reason: '' });
    expect(ranMs(resumed, 12_000)).toBe(5000);
    const ended = inState(resumed, 'EXPERIMENT_STATE_CONCLUDED', at(11_000), { reason: '', winner: 'b' });
    expect(ended).toMatchObject({ ran_ms: 4000, winner: 'b', ended_at: new Date(11_000), started_at: new Date(1000) });
  });

  it('does not subtract time when the clock of the database goes back', () => {
    const started = inState(experiment(), 'EXPERIMENT_STATE_RUNNING', at(5000), { reason: '' });
    expect(inState(started, 'EXPERIMENT_STATE_PAUSED', at(1000), { reason: '' }).ran_ms).toBe(0);
  });
});

describe('overridesPatch', () => {
  const config = {
    ...newConfig(1, 0),
    id: 7,
    provider: 'openai',
    model_name: 'gpt-4',
    price_given: true,
    cost_per_1k_input_tokens: 1,
    extra_params: { seed: 1, reasoning_effort: 'low' },
  };

  it('has the same fields as the patch of a config', () => {
    const { set } = overridesPatch({ provider: 'claude', model_name: 'x', extra_params: { seed: 3 } });
    expect(set).toEqual({ provider: 'claude', model_name: 'x', 'extra_params.seed': 3 });
  });

  it('starts from the primary config, or from a config of the same agent', () => {
    const disabled = { ...config, id: 8, enabled: false };
    const configs = {
      configs: new Map([
        [7, config],
        [8, disabled],
      ]),
      configsOf: () => [disabled, config],
    };
    expect(baseOf(configs, 1, { config_id: null })).toBe(config);
    expect(baseOf(configs, 1, { config_id: 8 })).toBe(disabled);
    expect(baseOf(configs, 2, { config_id: 8 })).toBeUndefined();
    expect(baseOf(configs, 1, { config_id: 9 })).toBeUndefined();
  });
});

describe('ExperimentIndex', () => {
  it('keeps the list of active experiments until one of them changes', () => {
    const index = new ExperimentIndex();
    const draft = experiment();
    index.put(undefined, draft);
    const none = index.activeOf(1);
    const running = inState(draft, 'EXPERIMENT_STATE_RUNNING', at(0), { reason: '' });
    index.put(draft, running);
    expect([none, index.runningCount, index.startedCount]).toEqual([[], 1, 1]);
    const active = index.activeOf(1);
    expect(active).toEqual([running]);
    const other = experiment({ id: 2, name: 'Café' });
    index.put(undefined, other);
    expect(index.activeOf(1)).toBe(active);
    expect(index.named(1, 'Cafe\u0301')).toBe(other);
    index.put(running, undefined);
    expect([index.activeOf(1), index.runningCount, index.startedCount]).toEqual([[], 0, 0]);
    expect(index.ofAgent(1)).toEqual([other]);
  });
});

describe('an outcome', () => {
  const valid = {
    outcome_id: '5d0b2a6c-6f0b-4c1e-9d55-0c7f3a4e1b01',
    agent: 'a',
    subject: 's',
    name: 'profit',
    number: 1,
  };
  const problem = (fields: Partial<Outcome>) => outcomeProblem(Outcome.fromPartial({ ...valid, ...fields }));

  it.each([
    [{ outcome_id: 'x' }, 'outcome_id must be a UUID'],
    [{ agent: '' }, 'agent is required'],
    [{ subject: '' }, 'subject is required without run_id'],
    [{ subject: 'x'.repeat(256) }, 'subject must have at most 255'],
    [{ subject: '\0' }, 'subject '],
    [{ name: ' x' }, 'name '],
    [{ number: undefined }, 'value is required'],
    [{ number: Number.POSITIVE_INFINITY }, 'value must be a number from'],
    [{ number: 1.1e12 }, 'value must be a number from'],
    [{ observed_at: new Date(-1) }, 'observed_at must be a time'],
  ])('with %j is invalid', (fields, text) => {
    expect(problem(fields)).toContain(text);
  });

  it('is valid by subject, by run, as a number and as a boolean', () => {
    expect(problem({})).toBeUndefined();
    expect(problem({ subject: '', run_id: 'r', number: undefined, boolean: false })).toBeUndefined();
  });

  it('has a decimal value of nine places', () => {
    const decimal = (fields: Partial<Outcome>) => decimalOf(Outcome.fromPartial({ ...valid, ...fields }));
    expect(decimal({ number: -1e12 })).toBe('-1000000000000.000000000');
    expect(decimal({ number: 1 / 3 })).toBe('0.333333333');
    expect(decimal({ number: undefined, boolean: true })).toBe('1');
  });
});
