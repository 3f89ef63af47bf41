import { isDeepStrictEqual } from 'node:util';
import type { Violation } from '../../errors.js';
import { limits } from '../../limits.js';
import { checkConfig, newConfig, patchConfig } from '../config.js';
import { type Patch, touches } from '../patch.js';
import type { Experiment, Variant } from '../rows.js';
import type { State } from '../state.js';
import { hasStarted } from './experiment_index.js';
import { baseOf, overridesPatch } from './variant.js';
import { withoutOwnFallback } from './variant_config.js';

type Report = (field: string, description: string | undefined) => void;

interface CheckOptions {
  readonly allowUnknownModel: boolean;
}

/** All violations of an experiment's values that concern several fields, other rows or the catalogue. */
export function checkExperiment(state: State, row: Experiment, patch: Patch, options: CheckOptions): Violation[] {
  const problems: Violation[] = [];
  const report: Report = (field, description) => {
    if (description && !patch.invalid.has(field)) problems.push({ field: `experiment.${field}`, description });
  };
  report('name', row.name === '' ? 'is required' : undefined);
  if (row.primary_metric.kind === 'EXPERIMENT_METRIC_KIND_UNSPECIFIED') report('primary_metric', 'is required');
  if (patch.invalid.has('variants')) return problems;
  if (row.variants.length === 0) report('variants', 'is required');
  else if (row.id === 0 || touches(patch, 'variants')) checkVariants(state, row, report, options);
  return problems;
}

/** Checks that the resources that the variants name exist, for the start of an experiment. */
export function checkVariants(state: State, row: Experiment, report: Report, options: CheckOptions): void {
  const { variants } = row;
  const { min, max } = limits.variants;
  if (variants.length < min) report('variants', `must have ${min} to ${max} variants, not ${variants.length}`);
  const names = variants.map(({ name }) => name);
  for (const [at, name] of names.entries())
    if (names.indexOf(name) !== at)
      report(`variants[${at}].name`, `must differ from that of variants[${names.indexOf(name)}]`);
  const controls = variants.filter(({ control }) => control);
  if (controls.length !== 1) report('variants', `must have exactly one control, not ${controls.length}`);
  const sum = variants.reduce((total, { weight_basis_points }) => total + weight_basis_points, 0);
  if (sum !== limits.buckets) report('variants', `must have weights with the sum ${limits.buckets}, not ${sum}`);
  for (const [at, variant] of variants.entries()) {
    if (variant.control && variant.weight_basis_points === 0)
      report(`variants[${at}].weight_basis_points`, 'must be at least 1 for the control');
    checkSettings(state, row, at, variant, report, options);
  }
}

/** Checks the settings of a variant like a config with these settings. */
function checkSettings(
  state: State,
  { agent_id }: Experiment,
  at: number,
  variant: Variant,
  report: Report,
  { allowUnknownModel }: CheckOptions,
): void {
  const { overrides } = variant;
  const base = baseOf(state, agent_id, variant);
  if (!base && variant.config_id !== null) {
    report(`variants[${at}].config_id`, `is ${variant.config_id}, which is not a config of the agent`);
    return;
  }
  if (overrides.provider !== undefined && overrides.model_name === undefined)
    report(`variants[${at}].overrides.model_name`, 'is required together with provider');
  const patch = overridesPatch(overrides);
  // If the agent has no primary config, the provider and the model are not known yet.
  const patched = patchConfig(state, base ?? { ...newConfig(agent_id, 0), id: -1 }, patch);
  const config = withoutOwnFallback(state, patched);
  const path = `variants[${at}].overrides`;
  for (const { field, description } of checkConfig(state, config, patch, { at: path, allowUnknownModel }))
    report(field, description);
}

/** The violations of a request that changes fields which are fixed after the start of the experiment. */
export function fixedFields(before: Experiment, row: Experiment): Violation[] {
  if (!hasStarted(before)) return [];
  const problems: Violation[] = [];
  const fixed = (field: string, isChanged: boolean) => {
    if (isChanged)
      problems.push({ field: `experiment.${field}`, description: 'is fixed since the experiment started' });
  };
  fixed('subject_kind', row.subject_kind !== before.subject_kind);
  fixed('alpha_basis_points', row.alpha_basis_points !== before.alpha_basis_points);
  fixed('primary_metric', !isDeepStrictEqual({ ...row.primary_metric }, { ...before.primary_metric }));
  for (const old of before.variants) {
    const at = row.variants.findIndex(({ name }) => name === old.name);
    const now = row.variants[at];
    if (!now) {
      const description = `must have the variant ${JSON.stringify(old.name)}; set its weight to 0 instead of removing it`;
      problems.push({ field: 'experiment.variants', description });
      continue;
    }
    fixed(`variants[${at}].control`, now.control !== old.control);
    fixed(`variants[${at}].config_id`, now.config_id !== old.config_id);
    fixed(`variants[${at}].overrides`, !isDeepStrictEqual(now.overrides, old.overrides));
  }
  return problems;
}
