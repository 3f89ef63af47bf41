import { AttemptOutcome, type UsageFilter, type UsageTotals } from '../../../gen/ts/agentllm/v1/usage.js';
import { int64Amount } from '../../domain/amount.js';
import type { State } from '../../domain/state.js';
import { textProblem } from '../../domain/text.js';
import { limits } from '../../limits.js';
import type { Problems } from '../../problems.js';
import type { AttemptFilter } from '../../store/usage/filter.js';
import type { Sums } from '../../store/usage/query.js';

const DAY_MS = 86_400_000;
const HOUR_MS = 3_600_000;

/** The range of time of a request; its end is exclusive. */
export interface RequestedRange {
  readonly since: Date | undefined;
  readonly until: Date | undefined;
}

export function checkRange(problems: Problems, { since, until }: RequestedRange, maxDays: number): void {
  if (!since) problems.add('since', 'is required');
  if (!until) problems.add('until', 'is required');
  if (!since || !until) return;
  if (since >= until) problems.add('until', 'must be later than since');
  else if (until.getTime() - since.getTime() > maxDays * DAY_MS)
    problems.add('until', `must be at most ${maxDays} days after since`);
}

const OUTCOMES: readonly AttemptOutcome[] = Object.values(AttemptOutcome).filter(
  (value) => value !== AttemptOutcome.UNSPECIFIED && value !== AttemptOutcome.UNRECOGNIZED,
);

export function checkFilter(problems: Problems, filter: UsageFilter | undefined): void {
  if (!filter) return;
  const texts = (field: 'agents' | 'providers' | 'models' | 'variants', max: number) => {
    for (const [at, value] of filter[field].entries()) problems.add(`filter.${field}[${at}]`, textProblem(value, max));
  };
  texts('agents', limits.agentName);
  texts('providers', limits.provider);
  texts('models', limits.provider + 1 + limits.modelName);
  texts('variants', limits.experimentName);
  for (const [at, model] of filter.models.entries())
    if (!/^[^/]+\/./.test(model)) problems.add(`filter.models[${at}]`, 'must be provider/model');
  for (const [at, outcome] of filter.outcomes.entries())
    if (!OUTCOMES.includes(outcome)) problems.add(`filter.outcomes[${at}]`, 'must be one of AttemptOutcome');
  problems.add('filter.experiment', textProblem(filter.experiment, limits.experimentName));
}

/** The filter of a request, with canonical names. */
export function filterOf(state: State, filter: UsageFilter | undefined, since: Date, until: Date): AttemptFilter {
  const { agents = [], config_ids = [], providers = [], models = [], variants = [], outcomes = [] } = filter ?? {};
  const providerName = (name: string) => state.provider(name)?.name ?? name;
  const names = agents.map((name) => state.storedAgentName(name));
  return {
    agents:
      agents.length === 0
        ? undefined
        : {
            names,
            ids: names.flatMap((name) => state.agentNamed(name)?.id ?? []),
            from: new Date(Math.floor(since.getTime() / HOUR_MS) * HOUR_MS),
            to: until,
          },
    configIds: config_ids,
    providers: providers.map(providerName),
    models: models.map((model) => {
      const slash = model.indexOf('/');
      const provider = providerName(model.slice(0, slash));
      const name = model.slice(slash + 1);
      return [provider, state.model(provider, name)?.name ?? name] as const;
    }),
    experiment: filter?.experiment ?? '',
    variants,
    outcomes,
    fallback: filter?.fallback,
  };
}

/** Converts sums of the store to a message. */
export function totalsMessage(sums: Sums): UsageTotals {
  const count = (name: keyof Sums) => BigInt(sums[name]);
  return {
    attempts: count('attempts'),
    unsuccessful_attempts: count('unsuccessful_attempts'),
    unpriced_attempts: count('unpriced_attempts'),
    input_tokens: count('input_tokens'),
    input_no_cache_tokens: count('input_no_cache_tokens'),
    input_cache_read_tokens: count('input_cache_read_tokens'),
    input_cache_write_tokens: count('input_cache_write_tokens'),
    input_cache_write_long_tokens: count('input_cache_write_long_tokens'),
    output_tokens: count('output_tokens'),
    output_reasoning_tokens: count('output_reasoning_tokens'),
    cost_nano_usd: int64Amount(count('cost_nano_usd')),
  };
}
