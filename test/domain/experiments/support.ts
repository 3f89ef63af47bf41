import type { ExperimentSettings, VariantSettings } from '../../../src/domain/experiments/active_experiment.js';
import { allocate } from '../../../src/domain/experiments/allocation.js';

/** An experiment with two variants of equal weight; the first is the control. */
export function experimentOf(
  variants: readonly Partial<VariantSettings & { readonly weight: number }>[] = [{}, {}],
  fields: Partial<ExperimentSettings> = {},
): ExperimentSettings {
  const weights = variants.map(({ name, weight }, at) => ({
    name: name ?? (at === 0 ? 'control' : `v${at}`),
    weight: weight ?? Math.floor(10_000 / variants.length) + (at === 0 ? 10_000 % variants.length : 0),
  }));
  const ranges = allocate([], weights);
  return {
    name: 'test',
    salt: '0123456789abcdef',
    state: 'EXPERIMENT_STATE_RUNNING',
    revision: 9,
    ...fields,
    variants: variants.map(({ weight: _, ...variant }, at) => ({
      name: weights[at]?.name as string,
      control: at === 0,
      config_id: null,
      overrides: {},
      buckets: ranges[at]?.ranges ?? [],
      ...variant,
    })),
  };
}

/** A subject that an experiment assigns to a variant. */
export function subjectOf(variantOf: (subject: string) => string, variant: string): string {
  for (let at = 0; at < 100_000; at++) if (variantOf(`subject-${at}`) === variant) return `subject-${at}`;
  throw new Error(`no subject is assigned to ${variant}`);
}
