import { describe, expect, it } from 'vitest';
import { ExperimentVariant } from '../../../../gen/ts/agentllm/v1/experiment.js';
import {
  control,
  createdVariants,
  movesBetween,
  settingsText,
  type TypedVariant,
  updatedVariants,
  variant,
  weight,
} from '../../../../src/cli/remote/experiments/variants.js';
import { allocate } from '../../../../src/domain/experiments/allocation.js';

/** Variants with the buckets that the service computes from their weights, the first one as the control. */
function variantsWith(weights: Readonly<Record<string, number>>, before: readonly ExperimentVariant[] = []) {
  const previous = before.map(({ name, buckets }) => ({ name, ranges: buckets }));
  const now = Object.entries(weights).map(([name, share]) => ({ name, weight: share }));
  return allocate(previous, now).map(({ name, ranges }, at) =>
    ExperimentVariant.fromPartial({
      name,
      control: at === 0,
      weight_basis_points: weights[name],
      buckets: [...ranges],
    }),
  );
}

const typed = (...all: string[]) => all.map((one) => variant.read(one) as TypedVariant);

describe('a variant', () => {
  it('is read with a model, parameters and a weight', () => {
    expect(variant.read('cheap=openai/gpt-5.4-mini,temperature=0.2,max-tokens=500,seed=7@33.33%')).toMatchObject({
      name: 'cheap',
      overrides: {
        provider: 'openai',
        model_name: 'gpt-5.4-mini',
        temperature: 0.2,
        max_tokens: 500,
        extra_params: { seed: 7n },
      },
      weight: 3333,
    });
  });

  it.each(['other=config=13@10%', 'other=13@10%'])('is read with a base config from %s', (text) => {
    expect(variant.read(text)).toMatchObject({ name: 'other', config_id: 13, weight: 1000 });
    expect(variant.read(text)).not.toHaveProperty('overrides');
  });

  it('has a model whose name contains @, because only a percentage at the end is a weight', () => {
    expect(variant.read('a=vertex/claude-sonnet@20250514')).toMatchObject({
      overrides: { provider: 'vertex', model_name: 'claude-sonnet@20250514' },
    });
  });

  it.each([
    ['cheap', /must have the form NAME=SETTINGS@WEIGHT%/],
    ['=openai/gpt-5.4', /must have the form/],
    ['cheap=gpt-5.4', /must have the form/],
    ['cheap=heat=0.2', /has no setting heat; the settings are temperature, max-tokens/],
    ['cheap=temperature=hot', /must be a number/],
    ['cheap=primary@12.345%', /must be a percentage/],
  ])('is not read from %s', (text, message) => {
    expect(() => variant.read(text)).toThrow(message);
  });

  it('is printed with its base config and its overrides', () => {
    const one = ExperimentVariant.fromPartial({ overrides: { provider: 'openai', model_name: 'gpt-5.4', top_p: 0.5 } });
    expect(settingsText(one)).toBe('primary config, openai/gpt-5.4, top_p 0.5');
    expect(settingsText(ExperimentVariant.fromPartial({ config_id: 13 }))).toBe('config 13');
  });
});

describe('the control', () => {
  it.each([
    ['primary', { name: 'control' }],
    ['primary@90%', { name: 'control', weight: 9000 }],
    ['8,temperature=0', { name: 'control', config_id: 8, overrides: { temperature: 0 } }],
    ['temperature=0', { name: 'control', overrides: { temperature: 0 } }],
    ['sonnet=claude/claude-sonnet-5-5', { name: 'sonnet' }],
  ])('is read from %s', (text, expected) => {
    expect(control.read(text)).toMatchObject(expected);
  });
});

describe('createdVariants', () => {
  const weightsOf = (...args: Parameters<typeof createdVariants>) =>
    createdVariants(...args).map(({ name, weight_basis_points }) => [name, weight_basis_points]);

  it('gives the control the remaining weight', () => {
    expect(weightsOf(undefined, typed('cheap=a/b@20%'))).toEqual([
      ['control', 8000],
      ['cheap', 2000],
    ]);
  });

  it('shares the remaining weight among all variants without a weight', () => {
    expect(weightsOf(undefined, typed('a=a/b', 'b=a/b'))).toEqual([
      ['control', 3334],
      ['a', 3333],
      ['b', 3333],
    ]);
  });

  it('marks the first one as the control', () => {
    expect(createdVariants(undefined, typed('a=a/b')).map((one) => one.control)).toEqual([true, false]);
  });

  it.each([[['a=a/b@60%', 'b=a/b@60%']], [['a=a/b@10%']]])('rejects weights of %j whose sum is not 100 %', (texts) => {
    const first = control.read('primary@50%') as TypedVariant;
    expect(() => createdVariants(first, typed(...texts))).toThrow(/the weights add up to/);
  });
});

describe('updatedVariants', () => {
  const before = variantsWith({ control: 5000, a: 3000, b: 2000 });
  const update = (changes: Partial<Parameters<typeof updatedVariants>[1]>) =>
    updatedVariants(before, { set: [], weights: [], removed: [], ...changes });
  const weightsOf = (changes: Parameters<typeof update>[0]) => update(changes).map((one) => one.weight_basis_points);
  const weights = (...texts: string[]) => texts.map((one) => weight.read(one)) as never;

  it('changes a weight and gives the difference to the control', () => {
    expect(weightsOf({ weights: weights('a=10%') })).toEqual([7000, 1000, 2000]);
  });

  it('adds a variant with buckets of the control', () => {
    expect(weightsOf({ set: typed('c=a/b@5%') })).toEqual([4500, 3000, 2000, 500]);
  });

  it('replaces the settings of a variant and keeps its weight', () => {
    const [, changed] = update({ set: typed('a=x/y') });
    expect(changed).toMatchObject({ overrides: { provider: 'x', model_name: 'y' }, weight_basis_points: 3000 });
  });

  it('removes a variant', () => {
    expect(weightsOf({ removed: ['b'] })).toEqual([7000, 3000]);
  });

  it('sends no buckets, which the service computes', () => {
    for (const one of update({ weights: weights('a=10%') })) expect(one).not.toHaveProperty('buckets');
  });

  it.each([
    [{ weights: weights('z=10%') }, '--weight z=10%', /is not a variant; the variants are control, a, b/],
    [{ removed: ['z'] }, '--remove-variant z', /is not a variant/],
    [{ set: typed('z=a/b') }, '--variant z=a/b', /needs a weight/],
  ])('rejects %j', (changes, option, description) => {
    const problems = [{ typed: option, description: expect.stringMatching(description) }];
    expect(() => update(changes)).toThrow(expect.objectContaining({ problems }));
  });

  it.each([[['control=50%', 'a=40%']], [['a=90%', 'b=20%']]])(
    'rejects weights of %j whose sum is not 100 %',
    (texts) => {
      expect(() => update({ weights: weights(...texts) })).toThrow(/the weights add up to/);
    },
  );
});

describe('movesBetween', () => {
  it('counts the subjects that a change of weights moves', () => {
    const before = variantsWith({ control: 5000, a: 5000 });
    const after = variantsWith({ control: 7000, a: 2000, b: 1000 }, before);
    expect(movesBetween(before, after)).toEqual([
      { from: 'a', to: 'control', basisPoints: 2000 },
      { from: 'a', to: 'b', basisPoints: 1000 },
    ]);
  });

  it('is empty without a change', () => {
    const before = variantsWith({ control: 5000, a: 5000 });
    expect(movesBetween(before, before)).toEqual([]);
  });
});
