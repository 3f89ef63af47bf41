import { isDeepStrictEqual } from 'node:util';
import { limits } from '../../limits.js';
import type { Draft } from '../draft.js';
import { applyPatch, type Patch } from '../patch.js';
import type { Experiment, Variant } from '../rows.js';
import { canonicalName, type ResolveView } from '../view.js';
import { allocate } from './allocation.js';
import { experimentFields, newExperimentFields } from './experiment_fields.js';
import { hasStarted } from './experiment_index.js';

/** A new experiment with its defaults, before the request is applied. */
export const newExperiment = (agentId = 0, salt = ''): Experiment => ({
  id: 0,
  agent_id: agentId,
  name: '',
  hypothesis: null,
  subject_kind: 'run',
  salt,
  state: 'EXPERIMENT_STATE_DRAFT',
  variants: [],
  primary_metric: {
    kind: 'EXPERIMENT_METRIC_KIND_UNSPECIFIED',
    outcome: '',
    direction: 'METRIC_DIRECTION_UNSPECIFIED',
  },
  guardrails: [],
  alpha_basis_points: limits.defaultAlphaBasisPoints,
  smallest_effect_basis_points: limits.defaultSmallestEffectBasisPoints,
  state_reason: '',
  winner: '',
  started_at: null,
  ended_at: null,
  running_since: null,
  ran_ms: 0,
  allocation_revision: 0,
  created_at: new Date(0),
  updated_at: new Date(0),
  revision: 0,
});

/** Applies a patch; providers of overrides become canonical. The buckets do not change yet. */
export function patchExperiment(view: Pick<ResolveView, 'provider'>, before: Experiment, patch: Patch): Experiment {
  const specs = before.id === 0 ? newExperimentFields : experimentFields;
  const row = applyPatch(before, patch, specs);
  if (row.variants === before.variants) return row;
  const bucketsOf = new Map(before.variants.map(({ name, buckets }) => [name, buckets]));
  return {
    ...row,
    variants: row.variants.map(({ overrides, ...variant }) => ({
      ...variant,
      overrides:
        overrides.provider === undefined
          ? overrides
          : { ...overrides, provider: canonicalName(view, overrides.provider) },
      buckets: bucketsOf.get(variant.name) ?? [],
    })),
  };
}

/**
 * The row with buckets for its weights. In a draft, the ranges follow each other in the order of the variants; after
 * the start, the smallest possible number of buckets moves.
 */
export function withBuckets(
  draft: Pick<Draft, 'revision'>,
  before: Experiment | undefined,
  row: Experiment,
): Experiment {
  const previous =
    before && hasStarted(before) ? before.variants.map(({ name, buckets }) => ({ name, ranges: buckets })) : [];
  const weights = row.variants.map(({ name, weight_basis_points: weight }) => ({ name, weight }));
  const rangesOf = new Map(allocate(previous, weights).map(({ name, ranges }) => [name, ranges]));
  const variants = row.variants.map((variant): Variant => ({ ...variant, buckets: rangesOf.get(variant.name) ?? [] }));
  const isMoved = !before || !isDeepStrictEqual(bucketsIn(before), bucketsIn({ variants }));
  return { ...row, variants, allocation_revision: isMoved ? draft.revision : row.allocation_revision };
}

/** The buckets of all variants that have buckets, for a comparison that ignores the order of the variants. */
const bucketsIn = ({ variants }: Pick<Experiment, 'variants'>) =>
  new Map(
    variants.flatMap(({ name, buckets }) =>
      buckets.length > 0 ? [[name, buckets.map(({ start, end }) => ({ start, end }))] as const] : [],
    ),
  );
