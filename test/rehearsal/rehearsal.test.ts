import { afterEach, describe, expect, it, vi } from 'vitest';
import { errorRules } from '../../gen/ts/error_rules.js';
import { faultsFor } from '../../src/rehearsal/fault_choice.js';
import { rehearse } from '../../src/rehearsal/rehearsal.js';
import { chainAgent } from '../client/runtime/support.js';
import { firstHop, rehearseOne, shown, twoHops } from './support.js';

const MODES = ['generate', 'live', 'whole'] as const;

afterEach(() => vi.restoreAllMocks());

/** What happens after one fault of each class at the first of two hops. */
const AFTER: Readonly<Record<string, readonly string[]>> = {
  'rate-limit': ['responds', '0 RATE_LIMIT RETRY', '0 RATE_LIMIT NEXT_HOP', '1 OK NONE'],
  quota: ['responds', '0 QUOTA NEXT_HOP', '1 OK NONE'],
  'invalid-key': ['responds', '0 AUTH NEXT_HOP', '1 OK NONE'],
  permission: ['responds', '0 PERMISSION NEXT_HOP', '1 OK NONE'],
  'model-not-found': ['responds', '0 MODEL_NOT_FOUND NEXT_HOP', '1 OK NONE'],
  overloaded: ['responds', '0 OVERLOADED RETRY', '0 OVERLOADED NEXT_HOP', '1 OK NONE'],
  'server-error': ['responds', '0 SERVER RETRY', '0 SERVER NEXT_HOP', '1 OK NONE'],
  'context-length': ['responds', '0 CONTEXT_OVERFLOW LARGER_CONTEXT', '1 OK NONE'],
  'unsupported-parameter': ['responds', '0 INVALID_PARAM STRIP', '0 OK NONE'],
  'invalid-request': ['stops', '0 INVALID_REQUEST STOP'],
  'content-policy': ['stops', '0 CONTENT_POLICY STOP'],
  reset: ['responds', '0 NETWORK RETRY', '0 NETWORK NEXT_HOP', '1 OK NONE'],
  silence: ['responds', '0 TIMEOUT NEXT_HOP', '1 OK NONE'],
  'cut-stream': ['responds', '0 TORN NEXT_HOP', '1 OK NONE'],
};
const TORN = ['torn', '0 TORN STOP'];

describe('rehearse', () => {
  it.each(MODES)('shows what follows a fault of each error class, %s', async (mode) => {
    const resolution = twoHops();
    const faults = faultsFor(firstHop(resolution), false);
    const results = await rehearse(resolution, { faults, mode, failingHops: 1 });
    const expected = mode === 'live' ? { ...AFTER, 'cut-stream': TORN } : AFTER;
    expect(Object.fromEntries(results.map((result) => [result.fault, shown(result)]))).toEqual(expected);
    const classes = results.map(({ errorClass }) => errorClass);
    // The caller of a rehearsal aborts nothing.
    expect(classes.sort()).toEqual(
      errorRules.classes
        .map((one) => one.class)
        .filter((one) => one !== 'CANCELLED')
        .sort(),
    );
  });

  it('responds at the first hop without a fault', async () => {
    for (const mode of MODES)
      expect(shown(await rehearseOne(twoHops(), undefined, { mode }))).toEqual(['responds', '0 OK NONE']);
  });

  it('takes no real time for backoffs, Retry-After and timeouts', async () => {
    // In real time, the calls would take longer than the timeout of a test.
    const rateLimit = await rehearseOne(twoHops(), 'rate-limit,retry_after=30,times=1');
    const silence = await rehearseOne(twoHops(), 'silence');
    expect([rateLimit.receipt.duration_ms, silence.receipt.duration_ms]).toEqual([30_125, 120_000]);
    expect(rateLimit.receipt.attempts[0]).toMatchObject({ retry_after_ms: 30_000, backoff_ms: 30_125 });
  });

  it('gives the same result every time', async () => {
    const results = await rehearse(twoHops(), { faults: ['overloaded', 'overloaded'], mode: 'live', failingHops: 1 });
    const [first, second] = results.map(({ receipt }) => [
      receipt.duration_ms,
      receipt.attempts.map(({ backoff_ms, latency_ms }) => [backoff_ms, latency_ms]),
    ]);
    expect(second).toEqual(first);
  });

  it('applies the fault to several hops', async () => {
    const result = await rehearseOne(twoHops(), 'quota', { failingHops: 2 });
    expect(shown(result)).toEqual(['fails', '0 QUOTA NEXT_HOP', '1 QUOTA STOP']);
    expect(result.message).toMatch(/^No hop of agent "trader" produced a response/);
  });

  it('fails when the chain has no other hop', async () => {
    const { hops, ...rest } = twoHops();
    const result = await rehearseOne({ ...rest, hops: hops.slice(0, 1) }, 'model-not-found');
    expect(shown(result)).toEqual(['fails', '0 MODEL_NOT_FOUND STOP']);
  });

  it('distinguishes hops of one provider', async () => {
    const at = { url: 'https://llm.example.com/v1', provider: { name: 'desk' } };
    const resolution = chainAgent({ ...at, model: 'large' }, { ...at, model: 'small' }).resolve();
    expect(shown(await rehearseOne(resolution, 'overloaded,times=3'))).toEqual([
      'responds',
      '0 OVERLOADED RETRY',
      '0 OVERLOADED NEXT_HOP',
      '1 OK NONE',
    ]);
  });

  it('ignores a fault in the name of a model', async () => {
    const hop = { url: 'http://127.0.0.1:9/v1', provider: { name: 'fake' }, model: 'large@fault=overloaded' };
    expect(shown(await rehearseOne(chainAgent(hop).resolve(), undefined))).toEqual(['responds', '0 OK NONE']);
  });

  it('sends the parameters of the hop, and leaves out the one that is rejected', async () => {
    const { receipt } = await rehearseOne(twoHops(), 'unsupported-parameter');
    expect(receipt.attempts.map(({ stripped_parameters }) => stripped_parameters)).toEqual([[], ['temperature']]);
  });

  it('reports each call before it starts', async () => {
    const started: unknown[] = [];
    const onStart = (...args: unknown[]) => started.push(args);
    await rehearse(twoHops(), { faults: [undefined, 'quota'], mode: 'generate', failingHops: 1, onStart });
    expect(started).toEqual([
      [undefined, 0],
      ['quota', 1],
    ]);
  });

  it('contacts only the fake provider, and sends no key of the environment', async () => {
    const sent: { host: string; headers: string }[] = [];
    const { fetch } = globalThis;
    vi.spyOn(globalThis, 'fetch').mockImplementation((input, init) => {
      sent.push({ host: new URL(String(input)).hostname, headers: JSON.stringify([...new Headers(init?.headers)]) });
      return fetch(input, init);
    });
    vi.stubEnv('OPENAI_API_KEY', 'sk-real');
    vi.stubEnv('ANTHROPIC_API_KEY', 'sk-real');
    const resolution = twoHops();
    await rehearse(resolution, { faults: faultsFor(firstHop(resolution), true), mode: 'whole', failingHops: 1 });
    vi.unstubAllEnvs();
    expect(sent.length).toBeGreaterThan(50);
    expect([...new Set(sent.map(({ host }) => host))]).toEqual(['127.0.0.1']);
    expect(sent.filter(({ headers }) => headers.includes('sk-'))).toEqual([]);
    expect(sent.filter(({ headers }) => headers.includes('rehearsal-key-1')).length).toBeGreaterThan(10);
  });
});
