import { describe, expect, it } from 'vitest';
import { conclusion } from '../../../../src/cli/remote/experiments/conclusion.js';
import { COST, ERRORS, metricResult, resultsOf, SUCCESS } from './sample_results.js';

const CONTROL = { name: 'control', metrics: [metricResult(COST, 200_000)] };
const variant = (name: string, ...difference: [number, number, number]) => ({
  name,
  metrics: [metricResult(COST, 200_000 * (1 + difference[0]), difference)],
});
const BETTER = { verdict: 'EXPERIMENT_VERDICT_VARIANT_BETTER' as const, better_variants: ['cheap'] };

describe('conclusion', () => {
  it('names the better variant, by how much, and how certain that is', () => {
    const lines = conclusion(resultsOf([CONTROL, variant('cheap', -0.6, -0.66, -0.54)], BETTER));
    expect(lines.slice(0, 2)).toEqual([
      'cheap is better than control in cost per call, with 95 % confidence, however often the results are read:',
      '  cheap: 60 % lower than control; the true difference is 54 % to 66 % lower',
    ]);
    expect(lines.at(-1)).toBe('Next: agentllm experiments conclude model --agent trader --winner cheap');
  });

  it('states that variants are not compared with each other when several are better', () => {
    const results = resultsOf([CONTROL, variant('a', -0.6, -0.66, -0.54), variant('b', -0.5, -0.6, -0.4)], {
      ...BETTER,
      better_variants: ['a', 'b'],
    });
    expect(conclusion(results)).toContain(
      'Also better than control: b. Variants are compared with the control, not with each other.',
    );
  });

  it('recommends the control when every variant is worse', () => {
    const verdict = 'EXPERIMENT_VERDICT_CONTROL_BETTER';
    const lines = conclusion(resultsOf([CONTROL, variant('dear', 0.5, 0.4, 0.6)], { verdict }));
    expect(lines[0]).toMatch(/^control, the control, is better than every other variant in cost per call, with 95 %/);
    expect(lines[1]).toBe('  dear: 50 % higher than control; the true difference is 40 % to 60 % higher');
    expect(lines.at(-1)).toMatch(/--winner control$/);
  });

  it('states the subjects and the time that are still needed', () => {
    const power = [
      { variant: 'cheap', needed_subjects: 2050n, subjects: 810n, subjects_per_day: 40, weeks_left: 4.43 },
    ];
    const lines = conclusion(resultsOf([CONTROL, variant('cheap', -0.1, -0.3, 0.1)], { power }));
    expect(lines.slice(0, 4)).toEqual([
      'No variant is better than control in cost per call with 95 % confidence, however often the results are read:',
      '  cheap: 10 % lower than control; the true difference is between 30 % lower and 10 % higher',
      'Still needed:',
      '  cheap: 1240 more subjects to detect a difference of 5 % (810 of 2050 are counted): about 4.4 weeks at 40 subjects a day',
    ]);
    expect(lines.at(-1)).not.toMatch(/^Next/);
  });

  it('states nothing that is missing for a variant without weight', () => {
    const power = [{ variant: 'cheap', subjects: 810n }];
    const variants = [
      { name: 'control', control: true, weight_basis_points: 10_000 },
      { name: 'cheap', weight_basis_points: 0 },
    ];
    const results = resultsOf([CONTROL, variant('cheap', -0.1, -0.3, 0.1)], { power, experiment: { variants } });
    expect(conclusion(results)).not.toContain('Still needed:');
  });

  it('states nothing that is missing when the experiment is concluded', () => {
    const power = [{ variant: 'cheap', needed_subjects: 2050n, subjects: 810n }];
    const experiment = { state: 'EXPERIMENT_STATE_CONCLUDED' as const };
    const lines = conclusion(resultsOf([CONTROL, variant('cheap', -0.1, -0.3, 0.1)], { power, experiment }));
    expect(lines).not.toContain('Still needed:');
    expect(lines.join(' ')).not.toContain('more subjects');
  });

  it.each([
    ['enough subjects', { needed_subjects: 700n, subjects: 810n }, /nothing; with 810 subjects/],
    ['an unknown number', { subjects: 3n }, /is not known yet/],
    [
      'an unknown rate',
      { needed_subjects: 900n, subjects: 810n },
      /90 more subjects .*; the time that this takes can be estimated after the first hour/,
    ],
    [
      'remaining minutes',
      { needed_subjects: 900n, subjects: 810n, subjects_per_day: 9000, weeks_left: 0.00142 },
      /counted\): less than an hour at 9000 subjects a day/,
    ],
    [
      'remaining days',
      { needed_subjects: 900n, subjects: 810n, subjects_per_day: 60, weeks_left: 0.214 },
      /about 1\.5 days at 60/,
    ],
  ])('explains %s', (_, note, expected) => {
    const power = [{ variant: 'cheap', ...note }];
    const lines = conclusion(resultsOf([CONTROL, variant('cheap', -0.1, -0.3, 0.1)], { power }));
    expect(lines[3]).toMatch(expected);
  });

  it('states the minimum of subjects when there are too few', () => {
    const verdict = 'EXPERIMENT_VERDICT_TOO_FEW_SUBJECTS';
    const [line] = conclusion(resultsOf([CONTROL, { name: 'cheap', metrics: [] }], { verdict }));
    expect(line).toBe(
      'There are too few subjects to compare cost per call: a variant and control need 100 subjects each.',
    );
  });

  it('states how a call is counted when no call has a subject', () => {
    const verdict = 'EXPERIMENT_VERDICT_TOO_FEW_SUBJECTS';
    const results = resultsOf([CONTROL, { name: 'cheap', metrics: [] }], { verdict });
    for (const one of results.variants) Object.assign(one, { subjects: 0n, calls: 0n });
    expect(conclusion(results)[0]).toMatch(
      /^No call with a subject is recorded yet\. .*languageModel\(\{ subject \}\)/,
    );
  });

  it('states the contamination by fallbacks', () => {
    const cheap = { ...variant('cheap', -0.1, -0.3, 0.1), fallbacks: 96n };
    expect(conclusion(resultsOf([CONTROL, cheap]))).toContain(
      'Contamination: fallbacks served 12 % of the calls of cheap. These calls count for the assigned variant.',
    );
    expect(conclusion(resultsOf([CONTROL, variant('cheap', -0.1, -0.3, 0.1)]))).toContain(
      'Contamination: none; no call was served by a fallback.',
    );
  });

  it('warns of a sample ratio mismatch and recommends no winner', () => {
    const counts = [
      { variant: 'control', subjects: 500n, expected: 400 },
      { variant: 'cheap', subjects: 300n, expected: 400 },
    ];
    const results = resultsOf([CONTROL, variant('cheap', -0.6, -0.66, -0.54)], {
      verdict: 'EXPERIMENT_VERDICT_SAMPLE_RATIO_MISMATCH',
      sample_ratio: { mismatch: true, p_value: 0.00004, counts },
    });
    const lines = conclusion(results);
    expect(lines[0]).toMatch(/^The results cannot be trusted/);
    expect(lines.join('\n')).toContain('mismatch (p = 0.00004): control 500 instead of 400, cheap 300 instead of 400');
    expect(lines.join('\n')).not.toContain('--winner');
  });

  it('names other metrics in which a variant differs with confidence', () => {
    const tokens = { ...COST, kind: 'EXPERIMENT_METRIC_KIND_TOKENS_PER_CALL' as const };
    const { metrics: primary } = variant('cheap', -0.6, -0.66, -0.54);
    const metrics = [
      ...primary,
      metricResult(tokens, 300, [0.5, 0.4, 0.6]),
      metricResult(SUCCESS, 0.9, [0.1, -0.1, 0.3]),
    ];
    const lines = conclusion(resultsOf([CONTROL, { name: 'cheap', metrics }], BETTER));
    expect(lines).toContain('Other metrics of cheap: tokens per call +50 %, worse.');
  });

  it('names a violated guardrail', () => {
    const guardrails = [
      { guardrail: { metric: ERRORS, absolute_margin: 0.02 }, variant: 'cheap', observed: 0.09, violated: true },
    ];
    const lines = conclusion(resultsOf([CONTROL, variant('cheap', -0.6, -0.66, -0.54)], { ...BETTER, guardrails }));
    expect(lines).toContain('Guardrail violated: error rate +2 pp by cheap.');
    expect(lines.at(-1)).toMatch(/--without-winner$/);
  });

  it('quotes names in the next command', () => {
    const results = resultsOf([CONTROL, variant("it's cheap", -0.6, -0.66, -0.54)], {
      ...BETTER,
      better_variants: ["it's cheap"],
    });
    expect(conclusion(results).at(-1)).toMatch(/--winner 'it'\\''s cheap'$/);
  });
});
