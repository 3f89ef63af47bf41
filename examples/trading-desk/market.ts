import { readFileSync } from 'node:fs';
import { fromHere } from './processes.js';

interface MarketData {
  readonly symbol: string;
  readonly as_of: string;
  readonly prices: readonly { readonly date: string; readonly close: number; readonly volume: number }[];
  readonly news: readonly { readonly date: string; readonly text: string }[];
  readonly fundamentals: Readonly<Record<string, number>>;
}

export const market: MarketData = JSON.parse(readFileSync(fromHere('market_data.json'), 'utf8'));

const DAYS = 10;
const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** What each analyst gets to read. */
export function reports(): Readonly<Record<string, string>> {
  const { prices, news, fundamentals } = market;
  const last = prices.slice(-DAYS);
  const volume = last.at(-1)?.volume ?? 0;
  const closes = prices.map(({ date, close }) => `${date} ${close.toFixed(2)}`).join('\n');
  return {
    market_analyst: `Closing prices:\n${closes}\nMean of ${DAYS} days: ${mean(last.map(({ close }) => close)).toFixed(2)}`,
    social_analyst: `Volume of the last day: ${volume}; mean of ${DAYS} days: ${Math.round(mean(last.map((day) => day.volume)))}`,
    news_analyst: news.map(({ date, text }) => `${date} ${text}`).join('\n'),
    fundamentals_analyst: JSON.stringify(fundamentals, undefined, 1),
  };
}
