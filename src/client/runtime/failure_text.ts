import type { Receipt } from '../../../gen/ts/agentllm/v1/receipt.js';
import type { Resolution, ResolutionHop } from '../resolution_types.js';
import type { AttemptFailure } from './attempt_failure.js';

/** A failed attempt at a hop. */
export interface HopFailure {
  readonly hop: ResolutionHop;
  readonly failure: AttemptFailure;
}

/** Failures in one message; earlier ones are in the receipt. */
const MAX_FAILURES = 5;
const MAX_TEXT = 300;

type Skips = readonly Receipt['skipped'][number][];

/** The message for a call that failed after attempts: the last failures in order, and the hops that were skipped. */
export function failureMessage(agent: string, failures: readonly HopFailure[], skips: Skips): string {
  const shown = failures.slice(-MAX_FAILURES).map(failureText);
  const earlier = failures.length > shown.length ? [`${failures.length - shown.length} earlier failures`] : [];
  const skipped = skips.slice(0, MAX_FAILURES).map((skip) => `${skipText(skip)} was skipped`);
  return `No hop of agent ${JSON.stringify(agent)} produced a response: ${[...earlier, ...shown, ...skipped].join('; ')}`;
}

/** One failure, for example `openai/gpt-4o: RATE_LIMIT (429 rate_limit_exceeded): Rate limit reached`. */
export function failureText({ hop, failure }: HopFailure): string {
  const { status, code } = failure.facts;
  const response = [status, code].filter((part) => part !== undefined).join(' ');
  const errorClass = failure.errorClass.replace('ERROR_CLASS_', '');
  const detail = failure.message.slice(0, MAX_TEXT);
  return `${hop.provider}/${hop.model_name}: ${errorClass}${response ? ` (${response})` : ''}: ${detail}`;
}

/** The message for a call without any attempt: why each hop was skipped, and what to do. */
export function noHopMessage(resolution: Resolution, skips: Skips): string {
  const agent = JSON.stringify(resolution.agent.name);
  const withoutKey = resolution.hops.filter(({ index }) =>
    skips.some(({ hop_index, reason }) => hop_index === index && reason === 'SKIP_REASON_NO_KEY'),
  );
  if (withoutKey.length > 0 && withoutKey.length === skips.length)
    return `Agent ${agent} has no API key: ${withoutKey.map((hop) => keyHint(hop, resolution.agent.name)).join('; or ')}`;
  if (skips.length === 0) return `Agent ${agent} has no hop; create or enable a config`;
  return `No hop of agent ${agent} can be tried: ${skips.map(skipText).join('; ')}`;
}

function skipText({ provider, model_name, reason, detail }: Skips[number]): string {
  const name = reason.replace('SKIP_REASON_', '');
  return `${provider}/${model_name}: ${name}${detail === '' ? '' : ` (${detail})`}`;
}

/** What to do so that a hop has a key. */
export function keyHint({ key, provider, model_name, config_id }: ResolutionHop, agent: string): string {
  const variables = key.variables.join(' or ');
  const command =
    config_id === undefined
      ? `agentllm configs upsert ${agent} --model ${provider}/${model_name} --api-key`
      : `agentllm configs update ${config_id} --api-key`;
  const store = `store a key for ${provider} with: ${command}`;
  return variables === '' ? store : `set ${variables} in the environment of this process, or ${store}`;
}
