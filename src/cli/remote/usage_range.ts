import type { Duration } from '../../../gen/ts/google/protobuf/duration.js';
import { type Input, UsageError } from '../kit/inputs.js';
import type { Call } from '../kit/remote_command.js';
import { choice, integer, type Kind, list, negatableFlag, span, time, word } from '../kit/values.js';

const HOUR_MS = 3_600_000;
const DEFAULT_LAST_MS = 7 * 24 * HOUR_MS;

/** `provider/model` as one text. */
const modelText: Kind = { ...word('provider/model', 'models') };

/** The range of a report. */
export const rangeInputs: readonly Input[] = [
  { name: 'last', kind: span, help: 'the time up to now, such as 24h or 7d (default: 7d)' },
  { name: 'since', kind: time, help: 'only attempts that began at or after this time' },
  { name: 'until', kind: time, help: 'only attempts that began before this time (default: now)' },
];

const group = 'Filter:';

/** The filter of a report. */
export const filterInputs: readonly Input[] = [
  { name: 'agent', to: 'filter.agents', kind: list(word('name', 'agents')), group, help: 'agents by name; repeatable' },
  { name: 'config', to: 'filter.config_ids', kind: list(integer), group, help: 'configs by id; repeatable' },
  {
    name: 'provider',
    to: 'filter.providers',
    kind: list(word('name', 'providers')),
    group,
    help: 'providers; repeatable',
  },
  { name: 'used-model', to: 'filter.models', kind: list(modelText), group, help: 'models of the attempts; repeatable' },
  { name: 'experiment', to: 'filter.experiment', kind: word('name'), group, help: 'only attempts of this experiment' },
  { name: 'variant', to: 'filter.variants', kind: list(word('name')), group, help: 'variants; repeatable' },
  {
    name: 'outcome',
    to: 'filter.outcomes',
    kind: list(choice('ATTEMPT_OUTCOME_', 'outcome', ['succeeded', 'failed', 'torn', 'aborted'])),
    group,
    help: 'how the attempts ended; repeatable',
  },
  {
    name: 'fallback',
    to: 'filter.fallback',
    kind: negatableFlag,
    group,
    help: 'only attempts at a later hop of the chain, or only at the first hop',
  },
];

/**
 * The range of the command line. With --last, the range begins on the hour, so that no part of an old hour is needed.
 */
export function rangeOf(call: Call, now = Date.now()): { readonly since: Date; readonly until: Date } {
  const last = call.local<Duration>('last');
  const since = call.local<Date>('since');
  if (last && since)
    throw UsageError.of([{ typed: '--last', description: 'cannot be combined with --since: use one of them' }]);
  const until = call.local<Date>('until') ?? new Date(now);
  if (since) return { since, until };
  const ms = last ? Number(last.seconds) * 1000 : DEFAULT_LAST_MS;
  return { since: new Date(Math.floor((until.getTime() - ms) / HOUR_MS) * HOUR_MS), until };
}

/** An amount in USD, exact to the nano-dollar, with at least two decimal places. */
export function usdText(nanoUsd: bigint): string {
  const digits = (nanoUsd < 0n ? -nanoUsd : nanoUsd).toString().padStart(10, '0');
  const fraction = digits.slice(-9).replace(/0{1,7}$/, '');
  return `${nanoUsd < 0n ? '-' : ''}${digits.slice(0, -9)}.${fraction}`;
}
