import { agentFields } from './agent.js';
import { configFields, modelProblem } from './config.js';
import { originOf } from './origin.js';
import type { Patch } from './patch.js';
import type { Agent, Config } from './rows.js';
import type { State } from './state.js';
import { canonicalName } from './view.js';

/** A config in the state that it belongs to. */
export interface Placed {
  readonly state: State;
  readonly config: Config;
}

/**
 * What a request would say to make a config what it was: only what differs, so that what stands already is not judged
 * again; of one that is gone, everything.
 */
export function patchBack(earlier: Placed, current: Placed | undefined): Patch {
  const set: Record<string, unknown> = {};
  const cleared = new Set<string>();
  for (const field of Object.keys(configFields)) {
    const value = fieldIn(earlier, field) ?? null;
    if (current && JSON.stringify(value) === JSON.stringify(fieldIn(current, field) ?? null)) continue;
    if (value === null) cleared.add(field);
    else set[field] = value;
  }
  return { set, cleared, refused: new Set(), violations: [] };
}

/** The same for an agent. */
export function agentPatchBack(earlier: Agent, current: Agent | undefined): Patch {
  const set: Record<string, unknown> = {};
  const cleared = new Set<string>();
  for (const field of Object.keys(agentFields) as (keyof Agent)[]) {
    if (current && earlier[field] === current[field]) continue;
    if (earlier[field] === null) cleared.add(field);
    else set[field] = earlier[field];
  }
  return { set, cleared, refused: new Set(), violations: [] };
}

/** A field of a config as a request writes it. */
function fieldIn({ state, config }: Placed, field: string): unknown {
  if (field === 'credential_name') return config.credential_id && state.credentials.get(config.credential_id)?.name;
  const [column, parameter] = field.split('.') as [keyof Config, string?];
  const value = config[column];
  return parameter === undefined ? value : (value as Readonly<Record<string, unknown>> | null)?.[parameter];
}

/**
 * Whether the models of an earlier config pass: the catalogue knows them, or did not know them then either, so that
 * somebody has allowed them.
 */
export function modelsPass({ state: then, config }: Placed, now: State): boolean {
  const strict = { allowUnknownModel: false };
  const passes = (provider: string | null, model: string | null) =>
    provider === null ||
    model === null ||
    modelProblem(now, provider, model, strict) === undefined ||
    modelProblem(then, provider, model, strict) !== undefined;
  return passes(config.provider, config.model_name) && passes(config.fallback_provider, config.fallback_model);
}

/** Whether the key that a config has now is for the provider and the address that an earlier state of it names. */
export function keyFits(earlier: Placed, current: Placed | undefined): boolean {
  if (!current || current.config.key_id === null || earlier.config.credential_id !== null) return false;
  const { provider } = current.config;
  if (canonicalName(current.state, earlier.config.provider) !== provider) return false;
  return originIn(earlier.state, earlier.config.provider) === originIn(current.state, provider);
}

const originIn = (state: State, provider: string) => originOf(state.provider(provider)?.base_url ?? '');
