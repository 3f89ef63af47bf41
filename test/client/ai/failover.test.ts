import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ChainError, TornStreamError } from '../../../src/client/runtime/chain_error.js';
import { DEFAULT_TEXT } from '../../../src/fake_provider/responses/completion.js';
import { packageFile } from '../../../src/package.js';
import { type Scenario, scenarios } from '../../fake_provider/scenarios.js';
import { summary } from '../runtime/support.js';
import { FailoverWorld, MODES, type Mode, type Outcome, REAL_TIME, withoutToken } from './failover.js';

/*
 * The sixteen scenarios of the failover benchmark, judged by its rules: what the caller receives, and what reaches the
 * providers. All of its scenarios are streams; calls without a stream are judged by the same rules here.
 */

/** Complete, clean; complete, with a blemish; a clean error; or a hang, a truncated success or bad conduct. */
type Verdict = 'pass' | 'partial' | 'safe' | 'fail';

/** What a scenario showed. */
interface Seen {
  readonly mode: Mode;
  readonly outcome: Outcome;
  readonly primary: readonly number[];
  readonly fallback: readonly number[];
}

/** The special rules of a scenario. */
interface Rules {
  readonly isFault?: (seen: Seen) => boolean;
  readonly isBlemished?: (seen: Seen) => boolean;
}

const within = (times: readonly number[], ms: number) => times.filter((at) => at - (times[0] ?? 0) < ms).length;
const total = ({ primary, fallback }: Seen) => primary.length + fallback.length;

const RULES: Readonly<Record<number, Rules>> = {
  1: { isFault: ({ primary }) => within(primary, 1500) > 2, isBlemished: ({ primary }) => within(primary, 1800) > 1 },
  2: { isFault: (seen) => within([...seen.primary, ...seen.fallback], 3000) > 4 || total(seen) > 6 },
  3: { isBlemished: ({ primary }) => primary.length !== 2 },
  4: { isFault: (seen) => total(seen) > 6 },
  6: { isFault: ({ outcome }) => outcome.ms > 100_000, isBlemished: ({ primary }) => primary.length > 1 },
  7: { isBlemished: ({ outcome }) => outcome.ms > 15_000 },
  9: { isFault: ({ outcome }) => outcome.ms > 45_000 },
  11: { isBlemished: ({ outcome }) => outcome.ms > 8000 || outcome.outputTokens !== 60 },
  12: { isFault: ({ primary }) => primary.length > 1 },
  13: { isFault: ({ primary, fallback }) => primary.length > 1 || fallback.length > 0 },
  14: { isFault: ({ outcome }) => String(outcome.error).includes('last message') },
  16: {
    isFault: ({ outcome }) => outcome.modelId !== 'fallback' || outcome.outputTokens !== 60,
    isBlemished: ({ outcome }) => outcome.receipt.usage?.output_tokens !== 60,
  },
};

/** The text that a complete response has. A stream in live mode leaves out the event that is not JSON. */
const expectedText = (number: number, mode: Mode) =>
  number === 10 && mode === 'live' ? withoutToken(9) : DEFAULT_TEXT;

function judge({ number }: Scenario, seen: Seen): Verdict {
  const { outcome, mode } = seen;
  const { isFault, isBlemished } = RULES[number] ?? {};
  if (isFault?.(seen)) return 'fail';
  if (outcome.error !== undefined) return judgeError(number, seen);
  if (outcome.text !== expectedText(number, mode) || outcome.finishReason !== 'stop') return 'fail';
  return number === 13 || isBlemished?.(seen) ? 'partial' : 'pass';
}

/** A content policy is the error that the caller must get; every other one is safe if it says what was received. */
function judgeError(number: number, { outcome: { error, text, ms } }: Seen): Verdict {
  const isClean =
    ms <= 45_000 &&
    DEFAULT_TEXT.startsWith(text) &&
    (text === '' ? error instanceof ChainError : error instanceof TornStreamError && error.content === text);
  if (!isClean) return 'fail';
  return number === 13 && String(error).includes('safety system') ? 'pass' : 'safe';
}

const start = ({ primary, fallback }: Scenario) =>
  FailoverWorld.start(
    [
      { model: 'primary', fault: primary, facts: { context_window_tokens: 8000 } },
      { model: 'fallback', fault: fallback, facts: { context_window_tokens: 128_000 } },
    ],
    // The benchmark ends a request after 30 s.
    { attemptMs: 30_000 },
  );

const FALLBACK = '1 OK NONE';
const PRIMARY = '0 OK NONE';

/** The attempts of a call in each scenario; those of live mode where they differ. */
const ATTEMPTS: Readonly<
  Record<number, { readonly all: readonly string[]; readonly [mode: string]: readonly string[] }>
> = {
  1: { all: ['0 RATE_LIMIT RETRY', PRIMARY] },
  2: { all: ['0 RATE_LIMIT RETRY', '0 RATE_LIMIT NEXT_HOP', FALLBACK] },
  3: { all: ['0 SERVER RETRY', PRIMARY] },
  4: { all: ['0 OVERLOADED RETRY', '0 OVERLOADED NEXT_HOP', FALLBACK] },
  5: { all: ['0 NETWORK RETRY', PRIMARY] },
  6: { all: ['0 TIMEOUT NEXT_HOP', FALLBACK] },
  7: { all: ['0 TIMEOUT NEXT_HOP', FALLBACK], generate: [PRIMARY] },
  8: { all: ['0 TORN NEXT_HOP', FALLBACK], live: ['0 TORN STOP'] },
  9: { all: ['0 TIMEOUT NEXT_HOP', FALLBACK], live: ['0 TIMEOUT STOP'] },
  10: { all: ['0 SERVER NEXT_HOP', FALLBACK], live: [PRIMARY], generate: ['0 TORN NEXT_HOP', FALLBACK] },
  11: { all: [PRIMARY] },
  12: { all: ['0 CONTEXT_OVERFLOW LARGER_CONTEXT', FALLBACK] },
  13: { all: ['0 CONTENT_POLICY STOP'] },
  14: { all: ['0 TORN NEXT_HOP', FALLBACK], live: ['0 TORN STOP'] },
  16: { all: ['0 OVERLOADED RETRY', '0 OVERLOADED NEXT_HOP', FALLBACK] },
};

const SAFE_IN_LIVE_MODE = [8, 9, 14];
const verdicts = new Map<string, Verdict>();
const keep = ({ number }: Scenario, mode: Mode, verdict: Verdict) => verdicts.set(`${number} ${mode}`, verdict);

const OUTAGE = 15;
const cases = scenarios
  .filter(({ number }) => number !== OUTAGE)
  .flatMap((scenario) => MODES.map((mode) => [scenario.number, scenario.name, mode, scenario] as const));
const timeout = REAL_TIME ? 300_000 : 60_000;

describe('a call in failover scenario', () => {
  it.each(cases)('%i, %s, in mode %s, ends as it should', { timeout }, async (number, _, mode, scenario) => {
    const world = await start(scenario);
    const outcome = await world.call(mode);
    const [primary = [], fallback = []] = world.requests;
    const verdict = judge(scenario, { mode, outcome, primary, fallback });
    keep(scenario, mode, verdict);
    const isLate = number === 7 && mode === 'generate';
    const isSafe = mode === 'live' && SAFE_IN_LIVE_MODE.includes(number);
    // Without a stream there is no first token.
    expect(verdict).toBe(isSafe ? 'safe' : isLate ? 'partial' : 'pass');
    const { [mode]: attempts = ATTEMPTS[number]?.all } = ATTEMPTS[number] ?? { all: [] };
    expect(summary(outcome.receipt)).toEqual(attempts);
    expect(outcome.receipt.hop_index).toBe(number === 13 ? undefined : Number(attempts?.at(-1)?.[0]));
    expect(world.strayKeys).toEqual([]);
    const bodies = JSON.stringify(world.fakes.flatMap(({ requests }) => requests.map(({ body }) => body)));
    expect(bodies).not.toContain('"assistant"');
    // A fault in the middle of a response is over for the next call.
    if (number === 9) expect((await world.call(mode)).text).toBe(DEFAULT_TEXT);
  });

  it.each(MODES)(
    '15, an outage of a minute, in mode %s, is served by the fallback with few probes',
    { timeout },
    async (mode) => {
      const scenario = scenarios.find(({ number }) => number === OUTAGE) as Scenario;
      const world = await start(scenario);
      const began = world.now();
      const hops: (number | undefined)[] = [];
      for (let call = 0; call < 20; call++) {
        await world.pass(began + call * 4000 - world.now());
        const { text, receipt } = await world.call(mode);
        expect(text).toBe(DEFAULT_TEXT);
        hops.push(receipt.hop_index);
      }
      const [primary = [], fallback = []] = world.requests;
      const back = hops.indexOf(0);
      // The outage ends at 60 s; calls 0 to 14 are before it.
      expect(hops.slice(0, 15)).toEqual(Array(15).fill(1));
      expect(back * 4000).toBeLessThanOrEqual(90_000);
      expect(hops.slice(back)).toEqual(Array(20 - back).fill(0));
      expect(primary.length - (20 - back)).toBeLessThanOrEqual(10);
      expect(fallback.length).toBe(back);
      expect(world.strayKeys).toEqual([]);
      keep(scenario, mode, 'pass');
    },
  );
});

describe('a call', () => {
  it('ends when a stream has only comments after its text, and sends nothing further', async () => {
    const world = await FailoverWorld.start([{ fault: 'stall,after=20,keep_alive_ms=1000' }, {}]);
    const { error, text, receipt, ms } = await world.call('live');
    expect(error).toBeInstanceOf(TornStreamError);
    expect([DEFAULT_TEXT.startsWith(text), ms]).toEqual([true, 15_000]);
    expect(summary(receipt)).toEqual(['0 TIMEOUT STOP']);
    expect(world.requests.map(({ length }) => length)).toEqual([1, 0]);
  });

  it('moves on at once when Retry-After is longer than the deadline', async () => {
    const world = await FailoverWorld.start([{ fault: 'rate-limit,retry_after=600' }, {}], { deadlineMs: 60_000 });
    const { text, receipt, ms } = await world.call('generate');
    expect([text, ms]).toEqual([DEFAULT_TEXT, 0]);
    expect(receipt.attempts[0]).toMatchObject({ retry_after_ms: 600_000, action: 'ATTEMPT_ACTION_NEXT_HOP' });
  });

  it('makes one trial among 200 at once when a breaker is half-open, and leaves no request open', async () => {
    const world = await FailoverWorld.start([{ fault: 'overloaded,for_ms=15000' }, {}], {}, 0);
    const many = () => Promise.all(Array.from({ length: 200 }, () => world.call('generate')));
    const outage = await many();
    const primary = () => world.requests[0]?.length ?? 0;
    const before = primary();
    await world.pass(10_001);
    const trial = await many();
    expect(primary() - before).toBe(1);
    await world.pass(10_001);
    const last = [await world.call('generate'), ...(await many())];
    expect(last.map(({ receipt }) => receipt.hop_index)).not.toContain(1);
    for (const { text } of [...outage, ...trial, ...last]) expect(text).toBe(DEFAULT_TEXT);
    const entries = world.fakes.flatMap(({ requests }) => requests.map(({ ended }) => ended));
    expect(new Set(entries)).toEqual(new Set(['completed']));
    const attempts = world.runtime.receipts.flatMap((receipt) => receipt.attempts);
    expect(new Set(attempts.map(({ attempt_id }) => attempt_id)).size).toBe(attempts.length);
  });
});

const PAGE = packageFile('docs/call-a-model.md');
const MARKED = /<!-- scenarios -->\n[\s\S]*<!-- \/scenarios -->/;

function markdown(): string {
  const row = ({ number, name }: Scenario) =>
    `| ${number} | ${name} | ${verdicts.get(`${number} live`)} | ${verdicts.get(`${number} whole`)} |`;
  return ['| | fault at the provider | `live` | `whole` |', '|---|---|---|---|', ...scenarios.map(row)].join('\n');
}

describe('docs/call-a-model.md', () => {
  it('has the verdicts of the scenarios; UPDATE_DOCS=1 writes them', ({ skip }) => {
    if (verdicts.size < scenarios.length * MODES.length) skip('not all scenarios were run');
    const page = readFileSync(PAGE, 'utf8');
    const expected = page.replace(MARKED, () => `<!-- scenarios -->\n${markdown()}\n<!-- /scenarios -->`);
    if (process.env['UPDATE_DOCS'] === '1') writeFileSync(PAGE, expected);
    else expect(page).toBe(expected);
  });
});
