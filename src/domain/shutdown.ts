import type { PlannedHop } from './chain.js';
import { isOverridden } from './experiments/variant_config.js';
import type { Agent, Model } from './rows.js';
import type { ResolveView } from './view.js';

/*
 * The shutdown date of a model (`retires_at`): from that time its provider rejects calls of the model. The texts about it
 * are the same in findings, in `agentllm doctor` and at the start of the service.
 */

const DAY_MS = 86_400_000;

/** Whether a model has been shut down. */
export const isShutDown = ({ retires_at }: Model, now: Date): boolean => retires_at !== null && retires_at <= now;

/** Whether a model has been shut down, or will be within a number of days. */
export const isShutDownWithin = ({ retires_at }: Model, days: number, now: Date): boolean =>
  retires_at !== null && retires_at.getTime() <= now.getTime() + days * DAY_MS;

/** What happens to a model at its shutdown date, with the days that are left: `was shut down on 2026-10-23`. */
export function shutdownText(at: Date, now: Date): string {
  const day = at.toISOString().slice(0, 10);
  if (at <= now) return `was shut down on ${day}`;
  const days = Math.ceil((at.getTime() - now.getTime()) / DAY_MS);
  return `will be shut down on ${day}, in ${days} ${days === 1 ? 'day' : 'days'}`;
}

/** The next time after `after` at which the text about a shutdown changes: a whole number of days before it. */
export const nextTextChange = (at: Date, after: Date): Date =>
  new Date(after.getTime() + ((at.getTime() - after.getTime()) % DAY_MS || DAY_MS));

/** The successor of a model as `provider/model`; undefined if a config cannot use it, because it is unknown or shut down. */
export function usableSuccessor(view: Pick<ResolveView, 'model'>, model: Model, now: Date): string | undefined {
  const { provider, replaced_by } = model;
  const successor = replaced_by === null ? undefined : view.model(provider, replaced_by);
  return successor && !isShutDown(successor, now) ? `${provider}/${successor.name}` : undefined;
}

/** The command that gives one hop another model; undefined for a config that is not stored, and for a model of a variant. */
export function replaceCommand(
  agent: Agent,
  { source, config, chosen }: PlannedHop,
  model: string,
): string | undefined {
  if (source === 'HOP_SOURCE_AGENT') return `agentllm agents update ${agentWord(agent)} --model ${shellWord(model)}`;
  if (!config || config.id === 0 || (chosen && isOverridden(chosen.variant, 'model_name'))) return undefined;
  const option = source === 'HOP_SOURCE_CONFIG' ? '--model' : '--fallback';
  return `agentllm configs update ${config.id} ${option} ${shellWord(model)}`;
}

/** The command that gives the primary configs of agents another model. */
export const replaceInAll = (agents: readonly Agent[] | 'all', model: string): string =>
  `agentllm configs bulk ${agents === 'all' ? '--all' : agents.map(agentWord).join(' ')} --model ${shellWord(model)}`;

/** The name of an agent as an argument of a command. The prefix marks a name that looks like an id or an option. */
const agentWord = ({ name }: Agent): string =>
  shellWord(/^[A-Za-z_]/.test(name) && !name.startsWith('name:') ? name : `name:${name}`);

const shellWord = (text: string): string =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
