import { agentFields } from './agent.js';
import { newBudgetFields } from './budget.js';
import { configFields, modelProblem } from './config.js';
import { originOf } from './origin.js';
import type { Patch } from './patch.js';
import type { Agent, Budget, Config } from './rows.js';
import type { State } from './state.js';
import { canonicalName } from './view.js';

/** A config, and the state that it belongs to. */
export interface ConfigAtRevision {
  readonly state: State;
  readonly config: Config;
}

/**
 * The patch that gives a config its earlier content. It contains only fields that differ, so that unchanged values are
 * not checked again; for a deleted config it contains all fields.
 */
export function patchBack(earlier: ConfigAtRevision, current: ConfigAtRevision | undefined): Patch {
  const set: Record<string, unknown> = {};
  const cleared = new Set<string>();
  for (const field of Object.keys(configFields)) {
    const value = fieldIn(earlier, field) ?? null;
    if (current && JSON.stringify(value) === JSON.stringify(fieldIn(current, field) ?? null)) continue;
    if (value === null) cleared.add(field);
    else set[field] = value;
  }
  return { set, cleared, invalid: new Set(), violations: [] };
}

/** The patch that gives an agent its earlier content, like `patchBack` for a config. */
export const agentPatchBack = (earlier: Agent, current: Agent | undefined): Patch =>
  rowPatchBack(Object.keys(agentFields) as (keyof Agent)[], earlier, current);

/** The patch that gives a budget its earlier content. */
export const budgetPatchBack = (earlier: Budget, current: Budget | undefined): Patch =>
  rowPatchBack(Object.keys(newBudgetFields) as (keyof Budget)[], earlier, current);

function rowPatchBack<Row extends Agent | Budget>(
  fields: readonly (keyof Row & string)[],
  earlier: Row,
  current: Row | undefined,
): Patch {
  const set: Record<string, unknown> = {};
  const cleared = new Set<string>();
  for (const field of fields) {
    if (current && earlier[field] === current[field]) continue;
    if (earlier[field] === null) cleared.add(field);
    else set[field] = earlier[field];
  }
  return { set, cleared, invalid: new Set(), violations: [] };
}

/** The value of a field of a config in the form of a request. */
function fieldIn({ state, config }: ConfigAtRevision, field: string): unknown {
  if (field === 'credential_name') return config.credential_id && state.credentials.get(config.credential_id)?.name;
  const [column, parameter] = field.split('.') as [keyof Config, string?];
  const value = config[column];
  return parameter === undefined ? value : (value as Readonly<Record<string, unknown>> | null)?.[parameter];
}

/**
 * Whether the models of an earlier config are acceptable: the catalogue contains them now, or it did not contain them
 * then either, so that the earlier write allowed unknown models.
 */
export function modelsPass({ state: then, config }: ConfigAtRevision, now: State): boolean {
  const strict = { allowUnknownModel: false };
  const passes = (provider: string | null, model: string | null) =>
    provider === null ||
    model === null ||
    modelProblem(now, provider, model, strict) === undefined ||
    modelProblem(then, provider, model, strict) !== undefined;
  return passes(config.provider, config.model_name) && passes(config.fallback_provider, config.fallback_model);
}

/** Whether the current key of a config is for the provider and origin of its earlier state. */
export function keyFits(earlier: ConfigAtRevision, current: ConfigAtRevision | undefined): boolean {
  if (!current || current.config.key_id === null || earlier.config.credential_id !== null) return false;
  const { provider } = current.config;
  if (canonicalName(current.state, earlier.config.provider) !== provider) return false;
  return originIn(earlier.state, earlier.config.provider) === originIn(current.state, provider);
}

const originIn = (state: State, provider: string) => originOf(state.provider(provider)?.base_url ?? '');
