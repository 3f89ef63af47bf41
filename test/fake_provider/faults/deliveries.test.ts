import { describe, expect, it } from 'vitest';
import { VirtualClock } from '../../../src/fake_provider/clock.js';
import type { FakeProvider } from '../../../src/fake_provider/fake_provider.js';
import { faultCatalogue } from '../../../src/fake_provider/faults/fault_catalogue.js';
import { DEFAULT_TEXT, tokensOf } from '../../../src/fake_provider/responses/completion.js';
import { ANTHROPIC, BODIES, eventsIn, fakeProvider } from '../support.js';
import { type Seen, until, type Watched, watch } from './streams.js';

type Api = keyof typeof BODIES;
const APIS = ['chat_completions', 'responses', 'messages'] as const;
const PATHS = { chat_completions: '/v1/chat/completions', responses: '/v1/responses', messages: '/v1/messages' };

/** Sends a request with a fault in a header. */
function watched(fake: FakeProvider, api: Api, fault: string, body: object = {}, signal?: AbortSignal): Watched {
  const headers = { 'x-fake-fault': fault, ...(api === 'messages' && ANTHROPIC) };
  return watch(fake.url + PATHS[api], { ...BODIES[api], ...body }, headers, signal);
}
const request = (...args: Parameters<typeof watched>): Promise<Seen> => watched(...args).done;
const streamed = (fake: FakeProvider, api: Api, fault: string, body: object = {}, signal?: AbortSignal) =>
  request(fake, api, fault, { stream: true, ...body }, signal);

/** Sends a request for a stream, and aborts it when its text matches. */
async function untilText(api: Api, fault: string, pattern: RegExp, stream = true) {
  const fake = await fakeProvider();
  const abort = new AbortController();
  const response = watched(fake, api, fault, { stream }, abort.signal);
  await until(() => pattern.test(response.text), `${pattern}`);
  abort.abort();
  await response.done;
  await until(() => fake.requests[0]?.ended === 'client closed', 'the end is noticed');
  return { text: response.text, logged: fake.requests[0] };
}

/** The text in the deltas of a stream. */
const textIn = (text: string): string =>
  eventsIn(text)
    .map(
      (event) =>
        event?.choices?.[0]?.delta?.content ?? (typeof event?.delta === 'string' ? event.delta : event?.delta?.text),
    )
    .filter((part) => typeof part === 'string')
    .join('');

const first = (count: number) => tokensOf(DEFAULT_TEXT).slice(0, count).join('');
/** What only a complete stream has. */
const END = /"finish_reason":"|response\.completed|message_delta|message_stop|\[DONE\]/;

describe('a connection', () => {
  it('is reset before the headers', async () => {
    const fake = await fakeProvider();
    expect(await request(fake, 'chat_completions', 'reset')).toEqual({ text: '', error: 'ECONNRESET' });
    expect(fake.requests[0]).toMatchObject({ status: null, fault: 'reset', ended: 'fault' });
  });

  it('is closed before the headers', async () => {
    const fake = await fakeProvider();
    expect(await request(fake, 'chat_completions', 'close')).toEqual({ text: '', error: 'UND_ERR_SOCKET' });
  });

  it('stays silent until the client closes it', async () => {
    const fake = await fakeProvider();
    const abort = new AbortController();
    const seen = request(fake, 'chat_completions', 'silence', {}, abort.signal);
    await until(() => fake.requests[0]?.fault === 'silence', 'the request arrives');
    expect(fake.requests[0]?.ended).toBe('open');
    abort.abort();
    expect((await seen).error).toBe('AbortError');
    await until(() => fake.requests[0]?.ended === 'client closed', 'the request ends');
  });

  it('that is silent is closed after ten minutes', async () => {
    const clock = new VirtualClock();
    const fake = await fakeProvider({ clock });
    const seen = request(fake, 'chat_completions', 'silence');
    await until(() => clock.untilNext === 600_000, 'the timer runs');
    clock.advance(600_000);
    expect((await seen).error).toBe('UND_ERR_SOCKET');
    await until(() => fake.requests[0]?.duration_ms === 600_000, 'the request ends');
    expect(fake.requests[0]?.ended).toBe('fault');
  });
});

describe.each(APIS)('a stream of %s', (api) => {
  it.each([
    ['cut-stream', 'UND_ERR_SOCKET'],
    ['reset-stream', 'ECONNRESET'],
  ])('is broken off after 40 tokens by %s', async (fault, error) => {
    const fake = await fakeProvider();
    const seen = await streamed(fake, api, fault);
    expect([seen.status, seen.error, textIn(seen.text)]).toEqual([200, error, first(40)]);
    expect(seen.text).not.toMatch(END);
    expect(fake.requests[0]).toMatchObject({ status: 200, tokens: 40, ended: 'fault' });
  });

  it('ends regularly after two tokens by end-stream', async () => {
    const fake = await fakeProvider();
    const seen = await streamed(fake, api, 'end-stream');
    expect([seen.error, textIn(seen.text)]).toEqual([undefined, first(2)]);
    expect(seen.text).not.toMatch(END);
    expect(fake.requests[0]?.ended).toBe('completed');
  });

  it('stalls after 20 tokens, and continues after a time if the fault says so', async () => {
    const clock = new VirtualClock();
    const fake = await fakeProvider({ clock });
    const seen = streamed(fake, api, 'stall,resume_ms=30000');
    await until(() => clock.untilNext === 30_000, 'the stream stalls');
    expect(fake.requests[0]).toMatchObject({ tokens: 20, ended: 'open' });
    clock.advance(30_000);
    expect([(await seen).error, textIn((await seen).text)]).toEqual([undefined, DEFAULT_TEXT]);
    expect((await seen).text).toMatch(END);
  });

  it('stalls with comments until the client closes it', async () => {
    const { text, logged } = await untilText(api, 'stall,after=1,keep_alive_ms=10', /(: keep-alive\n\n){2}$/);
    expect([textIn(text), logged?.tokens]).toEqual([first(1), 1]);
  });

  it.each([
    ['comments-only', /^(: keep-alive\n\n){3,}$/],
    ['blank-lines-only', /^\n{3,}$/],
  ])('consists of signs of life only by %s', async (fault, pattern) => {
    const { logged } = await untilText(api, `${fault},delay_ms=5`, pattern);
    expect(logged).toMatchObject({ status: 200, tokens: 0 });
  });

  it('consists of events without content by pings-only', async () => {
    const { text } = await untilText(api, 'pings-only,delay_ms=5', /(data: [^\n]*\n\n(event: .*\n)?){3,}/);
    expect(textIn(text)).toBe('');
  });

  it('sends headers at once and the first token late by slow-first-token', async () => {
    const clock = new VirtualClock();
    const fake = await fakeProvider({ clock });
    const seen = streamed(fake, api, 'slow-first-token');
    await until(() => fake.requests[0]?.status === 200 && clock.untilNext === 20_000, 'headers');
    expect(fake.requests[0]?.tokens).toBe(0);
    clock.advance(20_000);
    expect(textIn((await seen).text)).toBe(DEFAULT_TEXT);
  });

  it('sends everything late by slow-headers', async () => {
    const clock = new VirtualClock();
    const fake = await fakeProvider({ clock });
    const seen = streamed(fake, api, 'slow-headers,delay_ms=5000');
    await until(() => clock.untilNext === 5000, 'the timer runs');
    expect(fake.requests[0]?.status).toBeNull();
    clock.advance(5000);
    expect((await seen).status).toBe(200);
  });

  it('has an event that is not JSON by invalid-event, and valid ones after it', async () => {
    const seen = await streamed(await fakeProvider(), api, 'invalid-event');
    const lines = seen.text.split('\n').filter((line) => line.startsWith('data: {'));
    const invalid = lines.filter((line) => !isJson(line.slice('data: '.length)));
    expect(invalid).toHaveLength(1);
    const words = textIn(seen.text);
    expect(words).toBe(first(9) + tokensOf(DEFAULT_TEXT).slice(10).join(''));
    expect(seen.text).toMatch(END);
  });

  it('lacks only its last event by no-done', async () => {
    const fake = await fakeProvider();
    const [whole, seen] = [await streamed(fake, api, 'none'), await streamed(fake, api, 'no-done')];
    const blocks = (text: string) => text.trimEnd().split('\n\n');
    const types = (text: string) =>
      blocks(text).map((block) => /"type":"([\w.]+)"|\[DONE\]|"object":"([\w.]+)"/.exec(block)?.[0]);
    expect(types(seen.text)).toEqual(types(whole.text).slice(0, -1));
    expect(textIn(seen.text)).toBe(DEFAULT_TEXT);
  });

  it('has no content by no-choices, and ends completely', async () => {
    const seen = await streamed(await fakeProvider(), api, 'no-choices');
    expect(textIn(seen.text)).toBe('');
    expect(seen.text).toMatch(/\[DONE\]|response\.completed|message_stop/);
  });

  it('is replaced by an HTML page, nothing, or half of a compressed body', async () => {
    const fake = await fakeProvider();
    const html = await streamed(fake, api, 'html');
    expect([html.status, html.headers?.get('content-type'), html.text.slice(0, 6)]).toEqual([
      200,
      'text/html',
      '<html>',
    ]);
    const empty = await streamed(fake, api, 'empty');
    expect([empty.status, empty.text, empty.error]).toEqual([200, '', undefined]);
    expect(empty.headers?.get('content-type')).toContain('text/event-stream');
    const gzip = await streamed(fake, api, 'truncated-gzip');
    expect(gzip.headers?.get('content-encoding')).toBe('gzip');
    expect(gzip.text).not.toMatch(END);
  });

  it('is replaced by a body with an error by error-in-200', async () => {
    const seen = await streamed(await fakeProvider(), api, 'error-in-200,error=quota');
    expect([seen.status, seen.headers?.get('content-type')]).toEqual([200, 'application/json']);
    expect(JSON.parse(seen.text).error.type).toBe(api === 'messages' ? 'billing_error' : 'insufficient_quota');
  });

  it('ends with a refusal, a filter or the output limit', async () => {
    const fake = await fakeProvider();
    const [refusal, filtered, length] = FINISHES[api];
    expect((await streamed(fake, api, 'refusal')).text).toMatch(refusal);
    expect((await streamed(fake, api, 'content-filter-finish')).text).toMatch(filtered);
    const cut = await streamed(fake, api, 'length-finish,after=5');
    expect(cut.text).toMatch(length);
    expect(textIn(cut.text)).toBe(first(5));
  });

  it('ends within the arguments of a tool call by truncated-arguments', async () => {
    const fake = await fakeProvider();
    const seen = await streamed(fake, api, 'truncated-arguments', { tools: [TOOLS[api]] });
    const parts = eventsIn(seen.text).map((event) => argumentsIn(event) ?? '');
    expect(parts.join('')).toBe('{"ticker');
    expect(seen.text).toMatch(FINISHES[api][2]);
    const claimed = await streamed(fake, api, 'truncated-arguments,finish=tool_calls', { tools: [TOOLS[api]] });
    expect(claimed.text).not.toMatch(FINISHES[api][2]);
  });

  it('is rejected before a fault of its delivery when the request is invalid', async () => {
    const seen = await streamed(await fakeProvider(), api, 'cut-stream', { temperature: 'hot' });
    expect([seen.status, seen.error]).toEqual([400, undefined]);
  });
});

const FINISHES = {
  chat_completions: [/"refusal":"/, /"finish_reason":"content_filter"/, /"finish_reason":"length"/],
  responses: [/response\.refusal\.delta/, /"reason":"content_filter"/, /"reason":"max_output_tokens"/],
  messages: [/"stop_reason":"refusal"/, /"stop_reason":"refusal"/, /"stop_reason":"max_tokens"/],
} as const;

const SCHEMA = { type: 'object', properties: { ticker: { type: 'string' } }, required: ['ticker'] };
const TOOLS = {
  chat_completions: { type: 'function', function: { name: 'price', parameters: SCHEMA } },
  responses: { type: 'function', name: 'price', parameters: SCHEMA },
  messages: { name: 'price', input_schema: SCHEMA },
};

// biome-ignore lint/suspicious/noExplicitAny: events are untyped JSON
function argumentsIn(event: any): string | undefined {
  if (event?.type === 'response.function_call_arguments.delta') return event.delta;
  return event?.choices?.[0]?.delta?.tool_calls?.[0]?.function?.arguments ?? event?.delta?.partial_json;
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

describe.each(APIS)('a body in JSON of %s', (api) => {
  it.each([
    ['cut-stream', 'UND_ERR_SOCKET'],
    ['reset-stream', 'ECONNRESET'],
    ['end-stream', undefined],
  ])('is never complete with %s', async (fault, error) => {
    const seen = await request(await fakeProvider(), api, `${fault},after=1000`);
    expect([seen.status, seen.error, seen.text.length > 100, isJson(seen.text)]).toEqual([200, error, true, false]);
  });

  it('is not JSON with invalid-event, and empty with empty', async () => {
    const fake = await fakeProvider();
    expect(isJson((await request(fake, api, 'invalid-event')).text)).toBe(false);
    expect((await request(fake, api, 'empty')).text).toBe('');
  });

  it('begins after white space as a sign of life', async () => {
    expect((await untilText(api, 'comments-only,delay_ms=5', /^\n{3,}$/, false)).logged?.tokens).toBe(0);
  });
});

describe('the usage', () => {
  it('is absent with no-usage', async () => {
    const fake = await fakeProvider();
    const options = { stream_options: { include_usage: true } };
    expect((await streamed(fake, 'chat_completions', 'none', options)).text).toContain('"prompt_tokens"');
    expect((await streamed(fake, 'chat_completions', 'no-usage', options)).text).not.toContain('"prompt_tokens"');
    expect(JSON.parse((await request(fake, 'responses', 'no-usage')).text).usage).toBeNull();
  });
});

describe('every fault', () => {
  it('leaves the fake provider healthy', async () => {
    const fake = await fakeProvider();
    const faults = faultCatalogue.map(({ name }) => (name.startsWith('slow-') ? `${name},delay_ms=0` : name));
    const over = new AbortController();
    const all = faults.flatMap((fault) => APIS.map((api) => streamed(fake, api, fault, {}, over.signal)));
    const held = () => fake.requests.filter(({ ended }) => ended === 'open').map(({ fault }) => fault);
    const holding = ['silence', 'comments-only', 'pings-only', 'blank-lines-only', 'stall'];
    await until(() => fake.requests.length === all.length && held().length === 3 * holding.length, 'the others end');
    expect([...new Set(held())].sort()).toEqual(holding.sort());
    over.abort();
    await Promise.all(all);
    await until(() => held().length === 0, 'all requests end');
    const after = await request(fake, 'chat_completions', 'none');
    expect([after.status, after.error]).toEqual([200, undefined]);
  });
});
