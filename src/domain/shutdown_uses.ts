import { limits } from '../limits.js';
import { type ChainHop, chainOf, primaryIn } from './chain.js';
import { ActiveExperiment } from './experiments/active_experiment.js';
import type { Agent, Model } from './rows.js';
import { isShutDownWithin, replaceCommand, replaceInAll, shutdownText, usableSuccessor } from './shutdown.js';
import type { State } from './state.js';

/** A model with a shutdown date in the chains of active agents. */
export interface ShutdownUse {
  readonly model: Model;
  /** One sentence without a full stop: the model, its shutdown, and the agents that use it. */
  readonly text: string;
  /** The command that gives all these uses the successor; undefined if no single command can. */
  readonly command: string | undefined;
}

interface Use {
  readonly agent: Agent;
  readonly hop: ChainHop;
}

/** The largest number of agents that a command names. */
const NAMED_AGENTS = 20;

/** The models in the chains of active agents that are shut down, or will be within some days; the earliest first. */
export function shutdownUses(state: State, withinDays: number, now: Date): ShutdownUse[] {
  const models = [...state.modelsInOrder.after()].filter((model) => isShutDownWithin(model, withinDays, now));
  if (models.length === 0) return [];
  const uses = new Map<Model, Use[]>(models.map((model) => [model, []]));
  for (const agent of state.agentsInOrder.after())
    if (agent.is_active)
      for (const hop of hopsInUse(state, agent))
        uses.get(state.model(hop.provider, hop.model_name) as Model)?.push({ agent, hop });
  return [...uses]
    .filter(([, used]) => used.length > 0)
    .sort(([a], [b]) => (a.retires_at?.getTime() ?? 0) - (b.retires_at?.getTime() ?? 0))
    .map(([model, used]) => ({ model, text: textOf(model, used, now), command: commandFor(state, model, used, now) }));
}

/** The hops of the chain of an agent, and of those of the variants of its experiment, each once. */
function hopsInUse(state: State, agent: Agent): ChainHop[] {
  const configs = state.configsOf(agent.id);
  const choices = ActiveExperiment.among(state.experiments.activeOf(agent.id))?.choices ?? [];
  const chains = [undefined, ...choices].map((chosen) => chainOf(state, agent, configs, chosen));
  const used = chains.flat().filter(({ dropped }) => dropped === undefined);
  const identityOf = ({ source, config, provider, model_name }: ChainHop) =>
    JSON.stringify([source, config?.id, provider, model_name]);
  return [...new Map(used.reverse().map((hop) => [identityOf(hop), hop])).values()].reverse();
}

/** The models in use that are shut down, one line each with the command that replaces it; at most a few lines. */
export function shutdownNotices(state: State, now: Date): string[] {
  const uses = shutdownUses(state, 0, now);
  const lines = uses.slice(0, NAMED_MODELS).map(({ text, command }) => `${text}: ${command ?? LIST}`);
  const more = uses.length - lines.length;
  return more > 0 ? [...lines, `${more} more: ${LIST}`] : lines;
}
const NAMED_MODELS = 3;
const LIST = 'agentllm models retiring';

function textOf({ provider, name, retires_at }: Model, uses: readonly Use[], now: Date): string {
  const agents = [...new Set(uses.map(({ agent }) => agent.name))];
  const users = agents.length === 1 ? `agent ${agents[0]} uses it` : `${agents.length} agents use it`;
  return `${provider}/${name} ${shutdownText(retires_at as Date, now)}; ${users}`;
}

function commandFor(state: State, model: Model, uses: readonly Use[], now: Date): string | undefined {
  const successor = usableSuccessor(state, model, now);
  const [first, ...others] = uses;
  if (!successor || !first) return undefined;
  if (others.length === 0) return replaceCommand(first.agent, first.hop, successor);
  if (!uses.every(isPrimary(state))) return undefined;
  const isAll = uses.length === state.agents.size && uses.length <= limits.maxPageSize;
  if (isAll) return replaceInAll('all', successor);
  return uses.length <= NAMED_AGENTS
    ? replaceInAll(
        uses.map(({ agent }) => agent),
        successor,
      )
    : undefined;
}

const isPrimary =
  (state: State) =>
  ({ agent, hop }: Use): boolean =>
    hop.source === 'HOP_SOURCE_CONFIG' && hop.config === primaryIn(state, agent.id);
