import type { ScriptInput } from '../../src/fake_provider/script.js';

/** A scenario of the failover benchmark (methodology 0.1): what the primary and the fallback model do. */
export interface Scenario {
  readonly number: number;
  readonly name: string;
  /** The fault of the model `primary`. */
  readonly primary: string;
  /** The fault of the model `fallback`; absent: it is healthy. */
  readonly fallback?: string;
}

export const scenarios: readonly Scenario[] = [
  { number: 1, name: 'rate limit with Retry-After', primary: 'rate-limit,retry_after=2,times=1' },
  { number: 2, name: 'rate limit without Retry-After', primary: 'rate-limit' },
  { number: 3, name: 'one server error', primary: 'server-error,times=1' },
  { number: 4, name: 'unavailable', primary: 'overloaded,status=503' },
  { number: 5, name: 'reset before the headers', primary: 'reset,times=1' },
  { number: 6, name: 'silence', primary: 'silence' },
  { number: 7, name: 'slow first token', primary: 'slow-first-token,delay_ms=20000' },
  { number: 8, name: 'stream cut', primary: 'cut-stream,after=40' },
  { number: 9, name: 'stream stalls', primary: 'stall,after=20,close_ms=30000,times=1' },
  { number: 10, name: 'invalid event', primary: 'invalid-event,after=10' },
  { number: 11, name: 'no [DONE]', primary: 'no-done' },
  { number: 12, name: 'context length', primary: 'context-length' },
  { number: 13, name: 'content policy', primary: 'content-policy' },
  {
    number: 14,
    name: 'stream cut, fallback rejects a prefill',
    primary: 'cut-stream,after=40',
    fallback: 'prefill-rejected',
  },
  { number: 15, name: 'outage of a minute', primary: 'overloaded,status=503,for_ms=60000' },
  { number: 16, name: 'unavailable, the fallback responds', primary: 'overloaded,status=503' },
];

/** The script of a scenario, for two models with these names. */
export const scriptOf = ({ primary, fallback }: Scenario, names = ['primary', 'fallback']): ScriptInput => ({
  rules: [
    { match: { model: names[0] }, fault: primary },
    ...(fallback ? [{ match: { model: names[1] }, fault: fallback }] : []),
  ],
});
