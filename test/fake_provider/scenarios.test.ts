import { describe, expect, it } from 'vitest';
import { VirtualClock } from '../../src/fake_provider/clock.js';
import { DEFAULT_TEXT, tokensOf } from '../../src/fake_provider/responses/completion.js';
import { type Seen, until, watch } from './faults/streams.js';
import { scenarios, scriptOf } from './scenarios.js';
import { eventsIn, fakeProvider } from './support.js';

/*
 * What the sixteen failover scenarios look like to a client: each requests the same stream of sixty words from the
 * primary model, several times, and once from the fallback.
 */

interface Observed extends Seen {
  /** How long the response took by the clock of the fake provider. */
  readonly ms: number;
  readonly tokens: number;
  readonly isComplete: boolean;
}

const USAGE = { stream_options: { include_usage: true } };

async function start(number: number) {
  const scenario = scenarios.find((one) => one.number === number);
  if (!scenario) throw new Error(`there is no scenario ${number}`);
  const clock = new VirtualClock();
  const fake = await fakeProvider({ clock, script: scriptOf(scenario) });

  /** Requests a stream, and lets the time pass that it takes, but no more than 30 s. */
  const send = async (model = 'primary', more: object = {}): Promise<Observed> => {
    const abort = new AbortController();
    const body = { model, messages: [{ role: 'user', content: 'Hello' }], stream: true, ...USAGE, ...more };
    const began = clock.now();
    const { done } = watch(`${fake.url}/compatible/v1/chat/completions`, body, {}, abort.signal);
    let seen: Seen | undefined;
    void done.then((result) => {
      seen = result;
    });
    while (!seen) {
      await until(() => seen !== undefined || clock.untilNext !== undefined, 'a response or a timer');
      if (seen || clock.untilNext === undefined) continue;
      if (clock.now() + clock.untilNext - began > 30_000) abort.abort();
      else clock.advance(clock.untilNext);
    }
    const { text } = seen;
    const words = eventsIn(text)
      .map((event) => event?.choices?.[0]?.delta?.content ?? '')
      .join('');
    const isComplete = words === DEFAULT_TEXT && text.includes('"finish_reason":"stop"') && text.includes('"usage":{');
    return { ...seen, ms: clock.now() - began, tokens: tokensOf(words).length, isComplete };
  };
  return { send, clock, fake };
}

describe('in scenario', () => {
  it('1, the first attempt is a 429 with Retry-After: 2, then the primary is healthy', async () => {
    const { send } = await start(1);
    const first = await send();
    expect([first.status, first.headers?.get('retry-after')]).toEqual([429, '2']);
    expect((await send()).isComplete).toBe(true);
  });

  it('2, every attempt is a 429 without Retry-After', async () => {
    const { send } = await start(2);
    for (let attempt = 0; attempt < 3; attempt++) {
      const { status, headers } = await send();
      expect([status, headers?.get('retry-after')]).toEqual([429, null]);
    }
    expect((await send('fallback')).isComplete).toBe(true);
  });

  it('3, the first attempt is a 500, then the primary is healthy', async () => {
    const { send } = await start(3);
    expect([(await send()).status, (await send()).isComplete]).toEqual([500, true]);
  });

  it.each([4, 16])('%i, every attempt is a 503', async (number) => {
    const { send } = await start(number);
    expect([(await send()).status, (await send()).status, (await send('fallback')).isComplete]).toEqual([
      503,
      503,
      true,
    ]);
  });

  it('5, the first connection is reset before the headers', async () => {
    const { send } = await start(5);
    expect(await send()).toMatchObject({ error: 'ECONNRESET', text: '' });
    expect((await send()).isComplete).toBe(true);
  });

  it('6, the primary never responds', async () => {
    const { send } = await start(6);
    expect(await send()).toMatchObject({ error: 'AbortError', text: '' });
  });

  it('7, the headers come at once, and the first token after 20 s', async () => {
    const { send } = await start(7);
    expect(await send()).toMatchObject({ ms: 20_000, isComplete: true });
  });

  it.each([8, 14])('%i, the stream is cut after 40 of 60 tokens', async (number) => {
    const { send } = await start(number);
    for (let attempt = 0; attempt < 2; attempt++)
      expect(await send()).toMatchObject({ status: 200, tokens: 40, error: 'UND_ERR_SOCKET', isComplete: false });
  });

  it('9, 20 tokens are followed by 30 s of silence, and the next attempt is healthy', async () => {
    const { send } = await start(9);
    expect(await send()).toMatchObject({ ms: 30_000, tokens: 20, error: 'UND_ERR_SOCKET', isComplete: false });
    expect(await send()).toMatchObject({ ms: 0, isComplete: true });
  });

  it('10, the tenth event is not JSON, and the others are', async () => {
    const { send } = await start(10);
    const { text, tokens } = await send();
    expect([tokens, eventsIn(text).filter((event) => event === undefined).length]).toEqual([59, 1]);
  });

  it('11, the stream is complete, with usage, but without [DONE]', async () => {
    const { send } = await start(11);
    const seen = await send();
    expect([seen.isComplete, seen.text.includes('[DONE]')]).toEqual([true, false]);
  });

  it.each([
    [12, 'context_length_exceeded'],
    [13, 'content_policy_violation'],
  ])('%i, every attempt is a 400 %s', async (number, code) => {
    const { send } = await start(number);
    const { status, text } = await send();
    expect([status, JSON.parse(text).error.code]).toEqual([400, code]);
  });

  it('14, the fallback rejects a prefill and accepts a request without one', async () => {
    const { send } = await start(14);
    const messages = [
      { role: 'user', content: 'Hello' },
      { role: 'assistant', content: 'This text' },
    ];
    expect((await send('fallback', { messages })).status).toBe(400);
    expect((await send('fallback')).isComplete).toBe(true);
  });

  it('15, the primary is unavailable for 60 s, then healthy', async () => {
    const { send, clock } = await start(15);
    const statuses: (number | undefined)[] = [];
    for (let request = 0; request < 20; request++) {
      statuses.push((await send()).status);
      clock.advance(4000);
    }
    expect(statuses).toEqual([...Array(15).fill(503), ...Array(5).fill(200)]);
  });
});
