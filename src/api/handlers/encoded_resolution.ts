import { BinaryWriter } from '@bufbuild/protobuf/wire';
import { ResolvedConfig, type ResolvedExperiment } from '../../../gen/ts/agentllm/v1/resolution.js';
import type { ActiveExperiment, ChosenVariant } from '../../domain/experiments/active_experiment.js';
import { resolve } from '../../domain/resolve.js';
import type { Agent, Config } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import type { BudgetMonitor } from '../../feed/budget_monitor.js';
import { EncodeOnce, type EncodeOnceOptions } from '../messages/encode_once.js';
import { resolvedMessage } from '../messages/resolution.js';
import { activeExperimentOf } from './active_experiments.js';
import type { Backend } from './backend.js';
import { requireCallable } from './callable_agent.js';

/** The current resolution of an agent. */
export interface EncodedResolution {
  /** An encoded ResolvedConfig. */
  readonly resolved: Uint8Array;
  /** An encoded ResolveConfigResponse without its revision. */
  readonly response: Uint8Array;
}

/** The inputs of a resolution besides the state. */
interface ResolutionInputs {
  readonly agent: Agent;
  readonly configs: readonly Config[];
  readonly budgets: BudgetMonitor;
  readonly chosen: ChosenVariant | undefined;
}

const cached = {
  inputs: [
    (state) => state,
    (_, { agent }) => agent,
    (_, { configs }) => configs,
    (state) => state.catalogueVersion,
    (_, { budgets }) => budgets,
    (_, { budgets }) => budgets.version,
    (_, { chosen }) => chosen,
  ],
  // The finding about a shutdown date changes with time, without a write.
  maxAgeMs: 60_000,
} satisfies Omit<EncodeOnceOptions<never, ResolutionInputs, never>, 'encode'>;

const messageOf = (state: State, { agent, configs, budgets, chosen }: ResolutionInputs): ResolvedConfig =>
  resolvedMessage(agent, resolve(state, agent, configs, new Date(), { budgets: budgets.covering(agent), chosen }));

/** Resolutions without a subject. */
const resolutions = new EncodeOnce<Agent, ResolutionInputs, EncodedResolution>({
  ...cached,
  encode(state, _, inputs) {
    const resolved = ResolvedConfig.encode(messageOf(state, inputs)).finish();
    return { resolved, response: responseOf(resolved) };
  },
});

/** Resolutions for the subjects of a variant. Their common part is encoded once. */
const variants = new EncodeOnce<
  ChosenVariant,
  ResolutionInputs,
  { readonly common: Uint8Array; readonly experiment: ResolvedExperiment | undefined }
>({
  ...cached,
  encode(state, _, inputs) {
    const { experiment, ...message } = messageOf(state, inputs);
    return { common: ResolvedConfig.encode({ ...message, experiment: undefined }).finish(), experiment };
  },
});

/** The current resolution of an agent for a subject; throws if the agent cannot be resolved. */
export function encodedResolution(
  { budgets }: Pick<Backend, 'budgets'>,
  state: State,
  agent: Agent,
  subject: string | undefined,
): EncodedResolution {
  const configs = state.configsOf(agent.id);
  const active = activeExperimentOf(state, agent.id);
  const chosen = active?.choose(subject);
  requireCallable(agent, configs, chosen);
  const inputs = { agent, configs, budgets, chosen };
  if (!chosen?.counted) return resolutions.get(state, agent, inputs);
  return forSubject(state, active as ActiveExperiment, subject as string, { ...inputs, chosen });
}

function forSubject(
  state: State,
  active: ActiveExperiment,
  subject: string,
  inputs: ResolutionInputs & { readonly chosen: ChosenVariant },
): EncodedResolution {
  const { common, experiment } = variants.get(state, inputs.chosen, inputs);
  const own = experiment && { ...experiment, ...active.assigned(subject) };
  // Concatenated protobuf messages merge their fields.
  const resolved = own
    ? Buffer.concat([common, ResolvedConfig.encode(ResolvedConfig.fromPartial({ experiment: own })).finish()])
    : common;
  return { resolved, response: responseOf(resolved) };
}

/** A ResolveConfigResponse without its revision. */
const responseOf = (resolved: Uint8Array) =>
  new BinaryWriter()
    .uint32((1 << 3) | 2)
    .bytes(resolved)
    .finish();
