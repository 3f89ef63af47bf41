import { describe, expect, it } from 'vitest';
import { ActiveExperiment } from '../../../src/domain/experiments/active_experiment.js';
import { Assignment } from '../../../src/domain/experiments/assignment.js';
import { experimentOf } from './support.js';

const started = (fields = {}) => ActiveExperiment.among([experimentOf([{}, {}, {}], fields)]) as ActiveExperiment;

describe('ActiveExperiment', () => {
  it('is the experiment that is running or paused', () => {
    const states = ['DRAFT', 'CONCLUDED', 'PAUSED', 'RUNNING'] as const;
    const found = states.map(
      (state) => ActiveExperiment.among([experimentOf([{}, {}], { state: `EXPERIMENT_STATE_${state}` })]) !== undefined,
    );
    expect(found).toEqual([false, false, true, true]);
    expect(ActiveExperiment.among([])).toBeUndefined();
    expect(ActiveExperiment.among([experimentOf([{ control: false }, {}])])).toBeUndefined();
  });

  it('chooses the assigned variant of a subject, and counts it', () => {
    const experiment = experimentOf([{}, {}, {}]);
    const assignment = new Assignment(
      experiment.salt,
      experiment.variants.map(({ buckets: ranges }) => ({ ranges })),
    );
    const seen = new Set<string>();
    for (let at = 0; at < 200; at++) {
      const { variant, counted } = started().choose(`s${at}`);
      expect(variant).toEqual(experiment.variants[assignment.variantOf(`s${at}`)]);
      expect(counted).toBe(true);
      seen.add(variant.name);
    }
    expect(seen).toEqual(new Set(['control', 'v1', 'v2']));
    expect(started().assigned('s1')).toEqual({ subject: 's1', bucket: assignment.bucketOf('s1') });
  });

  it('chooses the control without a subject and while it is paused, and does not count it', () => {
    const paused = started({ state: 'EXPERIMENT_STATE_PAUSED' });
    const chosen = [started().choose(undefined), ...['a', 'b', 'c', 'd'].map((subject) => paused.choose(subject))];
    for (const { variant, counted } of chosen) expect([variant.name, counted]).toEqual(['control', false]);
  });

  it('chooses the control for a bucket that no variant has, and does not count it', () => {
    const gap = ActiveExperiment.among([experimentOf([{ buckets: [] }, { buckets: [] }])]);
    expect(gap?.choose('a')).toMatchObject({ variant: { name: 'control' }, counted: false });
  });

  it('returns the same object for all subjects of a variant', () => {
    const active = started();
    const chosen = new Set(Array.from({ length: 500 }, (_, at) => active.choose(`s${at}`)));
    expect(chosen.size).toBe(3);
    for (const one of [...chosen, active.choose(undefined)]) expect(active.choices[one.position]).toBe(one);
  });
});
