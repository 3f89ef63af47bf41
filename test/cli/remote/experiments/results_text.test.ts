import { describe, expect, it } from 'vitest';
import { resultsText, statusText } from '../../../../src/cli/remote/experiments/results_text.js';
import { rowsOf } from '../../support.js';
import { COST, ERRORS, metricResult, resultsOf, SUCCESS } from './sample_results.js';

const CONTROL = { name: 'control', metrics: [metricResult(COST, 200_000), metricResult(SUCCESS, 0.97)] };
const CHEAP = {
  name: 'cheap',
  metrics: [metricResult(COST, 80_000, [-0.6, -0.66, -0.54]), metricResult(SUCCESS, 0.96, [-0.01])],
};
const sectionsOf = (text: string) => text.split('\n\n');

describe('resultsText', () => {
  it('begins with the experiment, its state and the subject', () => {
    const [head] = sectionsOf(resultsText(resultsOf([CONTROL, CHEAP], { experiment: { hypothesis: 'cheaper' } })));
    expect(head).toBe(
      'experiment model of trader is running, started 2026-11-29T12:00:00Z; a subject is a run\nhypothesis: cheaper',
    );
  });

  it('lists each variant with its weight, counts and latencies', () => {
    const [, variants = ''] = sectionsOf(resultsText(resultsOf([CONTROL, { ...CHEAP, fallbacks: 24n }])));
    expect(rowsOf(variants)).toEqual([
      expect.objectContaining({ VARIANT: 'control (control)', WEIGHT: '50 %', SUBJECTS: '400', FALLBACK: '0 %' }),
      expect.objectContaining({ VARIANT: 'cheap', CALLS: '800', FALLBACK: '3 %', P50: '512 ms', P99: '2310 ms' }),
    ]);
  });

  it('draws each metric with its interval around 0', () => {
    const [, , metrics = ''] = sectionsOf(resultsText(resultsOf([CONTROL, CHEAP])));
    const lines = metrics.split('\n');
    expect(lines).toHaveLength(5);
    expect(lines[1]).toMatch(/^cost per call \(primary\) +control +0\.0002 USD +- +- +control +│$/);
    expect(lines[2]).toMatch(/ +cheap +0\.00008 USD +-60 % +-66 % to -54 % +better +├●─+┤ +│$/);
    expect(lines[4]).toMatch(/ +cheap +96 % +-2000\S* pp +- +no interval +○ +│$/);
  });

  it('shows as-served values next to intention to treat when a fallback served calls', () => {
    const served = (variant: typeof CONTROL, value: number) => ({
      ...variant,
      metrics: [...variant.metrics.slice(0, 1), metricResult(COST, value, undefined, 'RESULT_VIEW_AS_SERVED')],
    });
    const pure = resultsText(resultsOf([served(CONTROL, 200_000), served(CHEAP, 70_000)]));
    expect(pure).not.toContain('(primary, as served)');
    const mixed = resultsText(resultsOf([served(CONTROL, 200_000), { ...served(CHEAP, 70_000), fallbacks: 8n }]));
    expect(mixed).toMatch(/cost per call \(primary\)[\s\S]*cost per call \(primary, as served\) +control/);
    expect(mixed).toContain('0.00007 USD');
  });

  it('shows values without an interval because of too few subjects', () => {
    const text = resultsText(resultsOf([CONTROL, CHEAP], { min_subjects: 500n }));
    expect(text).toMatch(/ pp +- +too few subjects +○/);
  });

  it('lists guardrails with the permitted and the observed difference', () => {
    const guardrail = { metric: ERRORS, absolute_margin: 0.02 };
    const text = resultsText(
      resultsOf([CONTROL, CHEAP], {
        guardrails: [
          {
            guardrail,
            variant: 'cheap',
            permitted: 0.02,
            observed: 0.09,
            interval: { low: 0.05, high: 0.13 },
            violated: true,
          },
          { guardrail, variant: 'other', permitted: 0.02 },
        ],
      }),
    );
    const table = sectionsOf(text).find((section) => section.startsWith('GUARDRAIL')) ?? '';
    expect(rowsOf(table)).toEqual([
      {
        GUARDRAIL: 'error rate +2 pp',
        VARIANT: 'cheap',
        PERMITTED: '2 pp',
        'WORSE BY': '9 pp',
        INTERVAL: '+5 pp to +13 pp',
        RESULT: 'violated',
      },
      expect.objectContaining({ VARIANT: 'other', 'WORSE BY': '-', RESULT: 'too few subjects' }),
    ]);
  });

  it('escapes control characters of names', () => {
    const text = resultsText(resultsOf([CONTROL, { ...CHEAP, name: 'che\u001bap' }]));
    expect(text).not.toContain('\u001b');
    expect(text).toContain('che\\u{1b}ap');
  });

  it('has no empty section for a draft', () => {
    const text = resultsText(resultsOf([], { experiment: { state: 'EXPERIMENT_STATE_DRAFT' } }));
    expect(text).not.toMatch(/\n\n\n/);
    expect(text).toContain('Next: agentllm experiments start model --agent trader');
  });
});

describe('statusText', () => {
  it('has the variants and the conclusion, without metrics', () => {
    const text = statusText(resultsOf([CONTROL, CHEAP]));
    expect(text).toContain('VARIANT');
    expect(text).toContain('No variant is better than control');
    expect(text).not.toContain('METRIC');
  });
});
