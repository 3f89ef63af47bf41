import type { ExperimentMetric, MetricDifference } from '../../../../gen/ts/agentllm/v1/experiment.js';
import type { Interval } from './interval_chart.js';
import { amountText, digits, isRelative } from './metrics.js';

/** The difference in the unit in which it is shown. */
export interface ShownDifference extends Interval {
  text(value: number): string;
}

/** A difference, relative to the control or in the unit of the metric. */
export function shownDifference(
  metric: ExperimentMetric,
  { absolute, relative, interval, relative_interval }: MetricDifference,
): ShownDifference {
  if (isRelative(metric) && relative !== undefined && (relative_interval || !interval))
    return {
      value: relative,
      low: relative_interval?.low,
      high: relative_interval?.high,
      text: (value) => `${digits(value * 100, 3)} %`,
    };
  return { value: absolute, low: interval?.low, high: interval?.high, text: (value) => amountText(metric, value) };
}

/** `+3.1 %` */
export const signed = (value: number, text: (value: number) => string): string =>
  `${value > 0 ? '+' : ''}${text(value)}`;
