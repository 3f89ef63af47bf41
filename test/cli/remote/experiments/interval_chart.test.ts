import { describe, expect, it } from 'vitest';
import { CHART_HEAD, extentOf, intervalChart } from '../../../../src/cli/remote/experiments/interval_chart.js';

describe('intervalChart', () => {
  it('draws an interval below 0, its value and 0', () => {
    expect(intervalChart({ value: -0.6, low: -0.66, high: -0.54 }, 0.66)).toBe('├●─┤           │');
  });

  it('draws an interval around 0 on the scale of the metric', () => {
    expect(intervalChart({ value: 0.1, low: -0.2, high: 0.4 }, 1)).toBe('            ├──┼─●───┤');
  });

  it('draws a value without an interval as a circle', () => {
    expect(intervalChart({ value: 1 }, 1)).toBe('               │              ○');
  });

  it('draws only 0 for the control', () => {
    expect(intervalChart(undefined, 1)).toBe('               │');
  });

  it('draws an end that is not finite at the end of the line', () => {
    const interval = { value: 0.5, low: Number.NEGATIVE_INFINITY, high: Number.POSITIVE_INFINITY };
    expect(intervalChart(interval, extentOf([interval]))).toBe('├──────────────┼──────────────●');
  });

  it('has 0 of its heading above 0 of the chart', () => {
    expect(CHART_HEAD.indexOf('0')).toBe(intervalChart(undefined, 1).indexOf('│'));
    expect(CHART_HEAD).toMatch(/^lower +0 +higher$/);
  });
});

describe('extentOf', () => {
  it('is the largest distance of a finite end from 0', () => {
    expect(
      extentOf([
        { value: -2, low: -3, high: 1 },
        { value: 4, high: Number.POSITIVE_INFINITY },
      ]),
    ).toBe(4);
  });

  it('is never 0', () => {
    expect(extentOf([{ value: 0 }])).toBe(1);
  });
});
