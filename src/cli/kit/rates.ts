import type { ModelPrice, PriceRates, PriceTier, PriceWindow } from '../../../gen/ts/agentllm/v1/provider.js';
import { type Group, lines, moment } from './print.js';
import { RATE_FIELDS, WEEKDAYS } from './values.js';

/* Prices as text. Rates are shown in USD per million tokens. */

/** A rate; empty when it is unknown. */
export const rateText = (micro: bigint | undefined): string => (micro === undefined ? '' : String(Number(micro) / 1e6));

/** The rates of input and output, `2 / 10`; empty when both are unknown. */
export function inOut({
  input_micro_usd_per_million: input,
  output_micro_usd_per_million: output,
}: PriceRates): string {
  return input === undefined && output === undefined ? '' : `${rateText(input) || '?'} / ${rateText(output) || '?'}`;
}

/** The tiers and windows of a price with their rates of input and output: `above 272k 4 / 15`. */
export const conditionsOf = ({ tiers, windows, ...base }: ModelPrice): string[] => [
  ...tiers.map((tier) => `${aboveText(tier)} ${inOut({ ...base, ...knownRates(tier.rates) })}`),
  ...windows.map((window) => {
    const rates = { ...base, ...knownRates(window.rates) };
    const tierTexts = window.tiers.map(
      (tier) => `, ${aboveText(tier)} ${inOut({ ...rates, ...knownRates(tier.rates) })}`,
    );
    return `${timesText(window)} ${inOut(rates)}${tierTexts.join('')}`;
  }),
];

/** The lines of a record. */
export const priceLines = (price: ModelPrice | undefined): Group[1] =>
  lines(
    ...Object.entries(RATE_FIELDS).map(
      ([name, field]) => [name.replaceAll('-', ' '), rateText(price?.[field])] as const,
    ),
    ...(price?.tiers ?? []).map((tier) => [aboveText(tier), ratesText(tier.rates)] as const),
    ...(price?.windows ?? []).map((window) => [timesText(window), windowText(window)] as const),
    ['source', price?.source],
    ['valid from', moment(price?.valid_from)],
  );

const windowText = ({ rates, tiers }: PriceWindow): string =>
  [ratesText(rates), ...tiers.map((tier) => `${aboveText(tier)}: ${ratesText(tier.rates)}`)].join('; ');

/** `input 4, output 15` */
const ratesText = (rates: PriceRates = {}): string =>
  Object.entries(RATE_FIELDS)
    .filter(([, field]) => rates[field] !== undefined)
    .map(([name, field]) => `${name.replaceAll('-', ' ')} ${rateText(rates[field])}`)
    .join(', ');

/** `above 272k` */
const aboveText = ({ above_input_tokens: tokens }: PriceTier): string =>
  `above ${tokens % 1000 === 0 ? `${tokens / 1000}k` : tokens}`;

/** `mon-fri 01:00-04:00` */
function timesText({ start_minute, end_minute, weekdays }: PriceWindow): string {
  const days = weekdays.length > 0 && weekdays.length < WEEKDAYS.length ? `${daysText(weekdays)} ` : '';
  return `${days}${clock(start_minute)}-${clock(end_minute)}`;
}

function daysText(weekdays: readonly number[]): string {
  const names = weekdays.map((day) => WEEKDAYS[day - 1] ?? '?');
  const isRange = weekdays.length > 2 && weekdays.every((day, at) => day === (weekdays[0] ?? 0) + at);
  return isRange ? `${names[0]}-${names.at(-1)}` : names.join('|');
}

const clock = (minutes: number): string =>
  [Math.floor(minutes / 60), minutes % 60].map((part) => String(part).padStart(2, '0')).join(':');

const knownRates = (rates: PriceRates = {}): PriceRates =>
  Object.fromEntries(Object.entries(rates).filter(([, value]) => value !== undefined));

/** The differences between two prices: `input 2 → 2.5, above 272k 4 / 15 → 5 / 15`. */
export function priceChanges(before: ModelPrice | undefined, after: ModelPrice | undefined): string {
  const rates = Object.entries(RATE_FIELDS)
    .filter(([, field]) => before?.[field] !== after?.[field])
    .map(([name, field]) => changeText(name.replaceAll('-', ' '), rateText(before?.[field]), rateText(after?.[field])));
  const tiers = [...new Set([before, after].flatMap((price) => (price?.tiers ?? []).map(aboveText)))];
  const of = (price: ModelPrice | undefined, above: string) =>
    ratesText(price?.tiers.find((tier) => aboveText(tier) === above)?.rates);
  const changed = tiers.filter((above) => of(before, above) !== of(after, above));
  return [...rates, ...changed.map((above) => changeText(above, of(before, above), of(after, above)))].join('; ');
}

const changeText = (what: string, before: string, after: string): string =>
  before === '' ? `${what} ${after}` : `${what} ${before} → ${after || 'unknown'}`;
