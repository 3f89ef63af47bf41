import { describe, expect, it } from 'vitest';
import type { ExperimentMetric, Guardrail } from '../../../../gen/ts/agentllm/v1/experiment.js';
import { ExperimentMetricKind } from '../../../../gen/ts/agentllm/v1/experiment.js';
import {
  amountText,
  digits,
  guardrail,
  guardrailText,
  metric,
  metricName,
  valueText,
} from '../../../../src/cli/remote/experiments/metrics.js';
import { COST, ERRORS, SUCCESS } from './sample_results.js';

describe('a metric', () => {
  it.each([
    ['cost', 'COST_PER_CALL'],
    ['Cost per call', 'COST_PER_CALL'],
    ['success-rate', 'SUCCESS_RATE'],
    ['success_rate', 'SUCCESS_RATE'],
    ['latency', 'LATENCY_MEAN'],
    ['tokens', 'TOKENS_PER_CALL'],
  ])('is read from %s', (typed, kind) => {
    expect(metric.read(typed)).toMatchObject({ kind: `EXPERIMENT_METRIC_KIND_${kind}`, outcome: '' });
  });

  it.each(['outcome:hit rate:higher', 'outcome hit rate higher'])('is read from %s, an outcome', (typed) => {
    expect(metric.read(typed)).toEqual({
      kind: 'EXPERIMENT_METRIC_KIND_OUTCOME',
      outcome: 'hit rate',
      direction: 'METRIC_DIRECTION_HIGHER_IS_BETTER',
    });
  });

  it.each([
    ['speed', /must be success-rate, cost, latency, tokens, outcome:NAME:higher/],
    ['outcome:accuracy', /must be outcome:NAME:higher or outcome:NAME:lower/],
    ['error rate', /is only for guardrails/],
    ['p95 latency', /is only for guardrails/],
  ])('is not read from %s', (typed, message) => {
    expect(() => metric.read(typed)).toThrow(message);
  });

  it('has a name for every kind of the contract', () => {
    const kinds = Object.values(ExperimentMetricKind).filter((kind) => !/UNSPECIFIED|UNRECOGNIZED/.test(kind));
    const names = kinds.map((kind) => metricName({ ...COST, kind, outcome: 'accuracy' }));
    expect(new Set(names).size).toBe(7);
    expect(names).toContain('outcome accuracy');
  });
});

describe('a guardrail', () => {
  const read = (typed: string) => guardrail.read(typed) as Guardrail;

  it.each([
    ['error rate +2%', { relative_margin_basis_points: 200 }],
    ['error rate +2pp', { absolute_margin: 0.02 }],
    ['cost +0.25%', { relative_margin_basis_points: 25 }],
    ['cost +0.002 USD', { absolute_margin: 2_000_000 }],
    ['p95 latency +1.5s', { absolute_margin: 1500 }],
    ['latency-p95 + 500ms', { absolute_margin: 500 }],
    ['tokens+100', { absolute_margin: 100 }],
  ])('is read from %s', (typed, margin) => {
    const { metric: guarded, ...rest } = read(typed);
    expect(rest).toEqual(margin);
    expect(guarded?.direction).toBe('METRIC_DIRECTION_UNSPECIFIED');
  });

  it.each([
    ['outcome:hit rate -5%', 'METRIC_DIRECTION_HIGHER_IS_BETTER'],
    ['outcome:loss +0.5', 'METRIC_DIRECTION_LOWER_IS_BETTER'],
  ])('has the direction of its sign in %s', (typed, direction) => {
    expect(read(typed).metric).toMatchObject({ kind: 'EXPERIMENT_METRIC_KIND_OUTCOME', direction });
  });

  it.each([
    ['error rate', /must have the form "error rate \+2%"/],
    ['speed +2%', /must have the form/],
    ['cost -2%', /must have a \+, because a higher cost per call is worse/],
    ['success rate -2%', /cannot be a guardrail; use the error rate/],
    ['cost +2ms', /in % of the control, or in usd/],
    ['latency +2', /in ms or s/],
    ['tokens +2pp', /in no unit/],
    ['cost +0.005%', /at most 2 decimal places/],
  ])('is not read from %s', (typed, message) => {
    expect(() => read(typed)).toThrow(message);
  });

  it.each([
    'error rate +2 pp',
    'cost per call +10 %',
    'p95 latency +500 ms',
    'outcome hit -5 %',
    'cost per call +0.002 USD',
  ])('is printed as %s, which is read again', (text) => {
    const one = read(text);
    expect(guardrailText(one)).toBe(text);
  });
});

describe('a value', () => {
  it.each<[ExperimentMetric, number, string, string]>([
    [COST, 201_000, '0.000201 USD', '0.000201 USD'],
    [SUCCESS, 0.975, '97.5 %', '97.5 pp'],
    [ERRORS, 0.0123, '1.23 %', '1.23 pp'],
    [{ ...COST, kind: 'EXPERIMENT_METRIC_KIND_LATENCY_MEAN' }, 812.44, '812 ms', '812 ms'],
    [{ ...COST, kind: 'EXPERIMENT_METRIC_KIND_TOKENS_PER_CALL' }, 143.251, '143', '143'],
  ])('of %j has its unit', (one, value, text, amount) => {
    expect(valueText(one, value)).toBe(text);
    expect(amountText(one, value)).toBe(amount);
  });

  it.each([
    [0, '0'],
    [1234567, '1234567'],
    [0.000000123456, '0.0000001235'],
    [-2.5, '-2.5'],
    [100, '100'],
    [9.9999, '10'],
  ])('of %s is printed as %s', (value, text) => {
    expect(digits(value)).toBe(text);
  });
});
