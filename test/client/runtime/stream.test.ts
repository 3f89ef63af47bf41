import { getEventListeners } from 'node:events';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { CallAbortedError, ChainError, TornStreamError } from '../../../src/client/runtime/chain_error.js';
import {
  chatStream,
  DONE,
  events,
  failure,
  finishChunk,
  json,
  pause,
  type Respond,
  raw,
  startScriptedProvider,
  textChunk,
  usageChunk,
} from '../../support/scripted_provider.js';
import { callOf, callStream, chainAgent, failedCall, openStream, summary, TestRuntime } from './support.js';

const ok = chatStream('whole ', 'answer');

async function twoHops(...first: Respond[]) {
  const [a, b] = [await startScriptedProvider(...first), await startScriptedProvider(ok)];
  return { a, b, agent: chainAgent({ url: a.url }, { url: b.url }), runtime: new TestRuntime() };
}

const MODES = ['live', 'whole'] as const;

/** Faults before the first content, with the class of the failure and its requests at the first hop. */
const EARLY: readonly (readonly [string, Respond, string])[] = [
  [
    'an error as the first event',
    events([{ error: { message: 'Rate limit reached', type: 'rate_limit' } }]),
    'RATE_LIMIT',
  ],
  [
    'a role and then an error',
    events([roleChunk(), { error: { message: 'x', type: 'overloaded_error' } }]),
    'OVERLOADED',
  ],
  ['an error with a status of its own', events([{ error: { message: 'no', code: 402 } }]), 'QUOTA'],
  ['a JSON error with status 200', json({ error: { message: 'x', code: 'server_error' } }), 'SERVER'],
  ['a complete JSON response', json({ choices: [{ message: { content: 'x' }, finish_reason: 'stop' }] }), 'SERVER'],
  ['HTML', raw('<html>busy</html>', 200, { 'content-type': 'text/html' }), 'SERVER'],
  ['an empty stream', events([]), 'SERVER'],
  ['an empty body without a type', raw(''), 'SERVER'],
  ['a part of an event', events(['data: {"choices":[{"del']), 'TORN'],
  ['a gzip without any event', gzipped(0), 'SERVER'],
  ['no choices before the end marker', events([{ choices: [] }, DONE]), 'SERVER'],
  ['an early end', events([roleChunk()]), 'TORN'],
  ['a reset after the headers', events([roleChunk()], 'reset'), 'TORN'],
  ['an event that is not JSON', events(['data: {"choices":[\n\n', textChunk('x')]), 'SERVER'],
  ['the finish reason error', events([{ choices: [{ delta: {}, finish_reason: 'error' }] }, DONE]), 'SERVER'],
];

describe.each(MODES)('stream in %s mode', (mode) => {
  it('emits the text and returns the receipt', async () => {
    const { a, agent, runtime } = await twoHops(chatStream('a', 'b', 'c'));
    const { text, receipt } = await callStream(runtime, callOf(agent, { mode }));
    expect(text).toBe('abc');
    expect(receipt).toBe(runtime.receipt);
    expect(receipt).toMatchObject({
      mode: `RECEIPT_MODE_${mode.toUpperCase()}`,
      outcome: 'RECEIPT_OUTCOME_COMPLETED',
      finish_reason: 'stop',
      hop_index: 0,
      usage: { input_tokens: 3, output_tokens: 2 },
    });
    expect(receipt.time_to_first_token_ms).toBeGreaterThanOrEqual(0);
    expect(receipt.attempts[0]).toMatchObject({ provider_request_id: 'req_1', content_type: 'text/event-stream' });
    // Usage is requested although the package did not.
    expect(a.requests[0]?.body.stream_options).toEqual({ include_usage: true });
  });

  it.each(EARLY)('moves to the next hop with one request each after %s', async (_, respond, errorClass) => {
    const { a, b, agent, runtime } = await twoHops(respond);
    const { text, receipt } = await callStream(runtime, callOf(agent, { mode }));
    expect(text).toBe('whole answer');
    expect(summary(receipt)).toEqual([`0 ${errorClass} NEXT_HOP`, '1 OK NONE']);
    expect([a.requests.length, b.requests.length]).toEqual([1, 1]);
  });

  it('records the content type and the bytes of a response that is not a stream', async () => {
    const { agent, runtime } = await twoHops(
      raw('<html>busy</html>', 200, { 'content-type': 'text/html; charset=utf-8' }),
    );
    const { receipt } = await callStream(runtime, callOf(agent, { mode }));
    expect(receipt.attempts[0]).toMatchObject({ content_type: 'text/html', response_bytes: 17n, status: 200 });
  });

  it('rejects before any part when no hop responds', async () => {
    const a = await startScriptedProvider(failure(500));
    const error = await failedCall(
      callStream(new TestRuntime(), callOf(chainAgent({ url: a.url }), { mode })),
      ChainError,
    );
    expect(error.receipt.outcome).toBe('RECEIPT_OUTCOME_FAILED');
    expect(error).not.toBeInstanceOf(TornStreamError);
  });

  it.each([
    ['nothing', []],
    ['comments only', Array.from({ length: 20 }, () => [': keep-alive\n\n', pause(50)]).flat()],
    [
      'pings and empty events only',
      Array.from({ length: 20 }, () => ['event: ping\ndata: {"type":"ping"}\n\n', { choices: [] }, pause(50)]).flat(),
    ],
    ['the role only', [roleChunk(), roleChunk()]],
  ])('moves on when the stream has %s before the first-token timer ends', async (_, list) => {
    const { a, agent, runtime } = await twoHops(events(list, 'open'));
    const { text, receipt } = await callStream(runtime, callOf(agent, { mode, firstTokenMs: 300 }));
    expect(text).toBe('whole answer');
    expect(summary(receipt)).toEqual(['0 TIMEOUT NEXT_HOP', '1 OK NONE']);
    await a.requests[0]?.closed;
  });

  it('succeeds without an end marker, with usage, also when the connection stays open', async () => {
    const { agent, runtime } = await twoHops(events([textChunk('x'), finishChunk(), usageChunk()], 'open'));
    const started = performance.now();
    const { text, receipt } = await callStream(runtime, callOf(agent, { mode }));
    expect(text).toBe('x');
    expect(receipt.usage?.output_tokens).toBe(2);
    expect(performance.now() - started).toBeLessThan(4_000);
  });

  it('succeeds when the connection breaks after the finish reason', async () => {
    const { agent, runtime } = await twoHops(events([textChunk('x'), finishChunk()], 'reset'));
    const { receipt } = await callStream(runtime, callOf(agent, { mode }));
    expect(receipt.outcome).toBe('RECEIPT_OUTCOME_COMPLETED');
    expect(receipt.usage).toBeUndefined();
  });

  it('ignores a byte order mark before the first event', async () => {
    const first = `\uFEFFdata: ${JSON.stringify(textChunk('x'))}\n\n`;
    const { agent, runtime } = await twoHops(events([first, finishChunk(), DONE]));
    const { text, receipt } = await callStream(runtime, callOf(agent, { mode }));
    expect(text).toBe('x');
    expect(summary(receipt)).toEqual(['0 OK NONE']);
  });

  it('returns a refusal as a response', async () => {
    const { agent, runtime } = await twoHops(events([finishChunk('content_filter'), usageChunk(), DONE]));
    const { receipt } = await callStream(runtime, callOf(agent, { mode }));
    expect(receipt).toMatchObject({ finish_reason: 'content-filter', hop_index: 0 });
  });

  it('moves on after a refusal before any content if the caller opted in', async () => {
    const { agent, runtime } = await twoHops(events([finishChunk('content_filter'), usageChunk(), DONE]));
    const { receipt } = await callStream(runtime, callOf(agent, { mode, contentPolicyFallback: true }));
    expect(summary(receipt)).toEqual(['0 CONTENT_POLICY NEXT_HOP', '1 OK NONE']);
    expect(receipt.attempts[0]?.usage?.input_tokens).toBe(3);
  });
});

/** Two parts, which the caller has received before the fault. */
const PARTS = [textChunk('one '), pause(50), textChunk('two '), pause(100)];
const CUT = events(PARTS);
const RESET = events(PARTS, 'reset');
const SILENT = events(PARTS, 'open');
const FAILED = events([...PARTS, { error: { message: 'x', type: 'overloaded_error' } }]);
/** Faults after two parts, with the class of the failure. */
const LATE: readonly (readonly [string, Respond, string])[] = [
  ['a regular end without a finish reason', CUT, 'TORN'],
  ['a reset', RESET, 'TORN'],
  ['silence', SILENT, 'TIMEOUT'],
  ['an error', FAILED, 'OVERLOADED'],
];

describe('stream in live mode, after the first part', () => {
  it.each(LATE)(
    'fails with the text received so far after %s, and sends nothing to the next hop',
    async (_, respond, errorClass) => {
      const { b, agent, runtime } = await twoHops(respond);
      const emitted: string[] = [];
      const call = callStream(runtime, callOf(agent, { idleMs: 300 }), (text) => emitted.push(text));
      const error = await failedCall(call, TornStreamError);
      expect(error).toMatchObject({
        name: 'TornStreamError',
        content: 'one two ',
        errorClass: `ERROR_CLASS_${errorClass}`,
      });
      expect(error).toBeInstanceOf(ChainError);
      expect(emitted.join('')).toBe('one two ');
      expect(error.receipt).toBe(runtime.receipt);
      expect(error.receipt).toMatchObject({ outcome: 'RECEIPT_OUTCOME_TORN', hop_index: 0, finish_reason: '' });
      expect(summary(error.receipt)).toEqual([`0 ${errorClass} STOP`]);
      expect(b.requests).toEqual([]);
    },
  );

  it('leaves out an event that is not JSON, and reports it in the receipt', async () => {
    const { agent, runtime } = await twoHops(
      events([textChunk('one '), pause(100), 'data: {"choices":[{"del\n\n', textChunk('two'), finishChunk(), DONE]),
    );
    const { text, receipt } = await callStream(runtime, callOf(agent));
    expect(text).toBe('one two');
    expect(receipt.adaptations).toEqual(['1 events of the stream of p0/m0 are left out: they are not JSON']);
  });

  it('does not count the time in which the caller does not read as silence', async () => {
    const { agent, runtime } = await twoHops(events([textChunk('a'), pause(50), textChunk('b'), finishChunk(), DONE]));
    const { text } = await callStream(runtime, callOf(agent, { idleMs: 200 }), pause(400));
    expect(text).toBe('ab');
  });

  it('fails when the deadline is reached', async () => {
    const { agent, runtime } = await twoHops(SILENT);
    const error = await failedCall(callStream(runtime, callOf(agent, { deadlineMs: 400 })), TornStreamError);
    expect(error.errorClass).toBe('ERROR_CLASS_TIMEOUT');
  });

  it.each([
    ['ends within 50 ms when the caller aborts', true],
    ['ends when the caller closes the stream', false],
  ])('%s, with a receipt and a closed connection', async (_, aborts) => {
    const { a, b, agent, runtime } = await twoHops(SILENT);
    const controller = new AbortController();
    const parts = await openStream(runtime, callOf(agent, { signal: controller.signal }));
    await parts.next();
    if (aborts) controller.abort();
    else parts.close();
    expect(runtime.receipt).toMatchObject({ outcome: 'RECEIPT_OUTCOME_ABORTED', error_class: 'ERROR_CLASS_CANCELLED' });
    await a.requests[0]?.closed;
    expect(b.requests).toEqual([]);
    expect(runtime.receipts).toHaveLength(1);
  });

  it('rejects a pending read within 50 ms when the caller aborts, with the text received so far', async () => {
    const { agent, runtime } = await twoHops(SILENT);
    const controller = new AbortController();
    const call = callStream(runtime, callOf(agent, { signal: controller.signal }));
    await new Promise((resolve) => setTimeout(resolve, 400));
    const aborted = performance.now();
    controller.abort();
    const error = await failedCall(call, CallAbortedError);
    expect(performance.now() - aborted).toBeLessThan(50);
    expect(error).toMatchObject({ name: 'AbortError', content: 'one two ' });
  });
});

describe('stream in whole mode, after the first part', () => {
  it.each(LATE)('starts over at the next hop after %s, without the text before', async (_, respond, errorClass) => {
    const { a, b, agent, runtime } = await twoHops(respond);
    const { text, receipt } = await callStream(runtime, callOf(agent, { mode: 'whole', idleMs: 300 }));
    expect(text).toBe('whole answer');
    expect(summary(receipt)).toEqual([`0 ${errorClass} NEXT_HOP`, '1 OK NONE']);
    expect([a.requests.length, b.requests.length]).toEqual([1, 1]);
    expect(b.requests[0]?.body.messages).toEqual([{ role: 'user', content: 'hi' }]);
  });

  it('starts over after a compressed response that breaks off', async () => {
    const { agent, runtime } = await twoHops(gzipped(0.5));
    const { text, receipt } = await callStream(runtime, callOf(agent, { mode: 'whole' }));
    expect(text).toBe('whole answer');
    expect(summary(receipt)).toEqual(['0 TORN NEXT_HOP', '1 OK NONE']);
  });

  it('starts over after an event that is not JSON', async () => {
    const { agent, runtime } = await twoHops(events([textChunk('one '), 'data: {"cho\n\n', finishChunk(), DONE]));
    const { text, receipt } = await callStream(runtime, callOf(agent, { mode: 'whole' }));
    expect(text).toBe('whole answer');
    expect(summary(receipt)).toEqual(['0 SERVER NEXT_HOP', '1 OK NONE']);
  });

  it('starts over after a refusal of content that was received if the caller opted in', async () => {
    const { agent, runtime } = await twoHops(events([textChunk('one'), finishChunk('content_filter'), DONE]));
    const { text } = await callStream(runtime, callOf(agent, { mode: 'whole', contentPolicyFallback: true }));
    expect(text).toBe('whole answer');
  });

  it('repeats the last hop after a torn response', async () => {
    const a = await startScriptedProvider(CUT, ok);
    const { text, receipt } = await callStream(
      new TestRuntime(),
      callOf(chainAgent({ url: a.url }), { mode: 'whole' }),
    );
    expect(text).toBe('whole answer');
    expect(summary(receipt)).toEqual(['0 TORN RETRY', '0 OK NONE']);
  });
});

describe('truncated tool calls', () => {
  const call = (input: string) => ({
    choices: [{ delta: { tool_calls: [{ index: 0, id: 'c1', function: { name: 'trade', arguments: input } }] } }],
  });

  it.each(['length', 'tool_calls'])('fail the attempt when the finish reason is %s', async (reason) => {
    const { agent, runtime } = await twoHops(events([call('{"a":'), finishChunk(reason), usageChunk(), DONE]));
    const { text, receipt } = await callStream(runtime, callOf(agent, { mode: 'whole' }));
    expect(text).toBe('whole answer');
    expect(summary(receipt)).toEqual(['0 TORN NEXT_HOP', '1 OK NONE']);
    expect(receipt.attempts[0]?.usage?.output_tokens).toBe(2);
  });

  it('are a torn stream in live mode after text', async () => {
    const list = [textChunk('I buy'), pause(100), call('{"a":'), finishChunk('tool_calls'), usageChunk(), DONE];
    const { agent, runtime } = await twoHops(events(list));
    const error = await failedCall(callStream(runtime, callOf(agent)), TornStreamError);
    expect(error.message).toContain('The arguments of the tool call "trade" are incomplete');
    expect(error.content).toBe('I buy');
  });

  it('are no failure when the arguments are complete or empty', async () => {
    for (const input of ['{"a":1}', '']) {
      const { agent, runtime } = await twoHops(events([call(input), finishChunk('tool_calls'), DONE]));
      const { receipt } = await callStream(runtime, callOf(agent));
      expect(receipt.finish_reason).toBe('tool-calls');
    }
  });
});

describe('many calls at once', () => {
  it('share no state and leave no sockets, timers or listeners behind', async () => {
    const silent: Respond = (response) =>
      response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders();
    const faults = [failure(503), CUT, silent, chatStream('fine')];
    const flapping: Respond = (response, request) => faults[a.requests.length % faults.length]?.(response, request);
    const { agent, a, b } = await twoHops(flapping);
    const runtime = new TestRuntime();
    const controller = new AbortController();
    const { signal } = controller;
    const before = process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
    const results = await Promise.all(
      Array.from({ length: 200 }, () =>
        callStream(runtime, callOf(agent, { mode: 'whole', firstTokenMs: 10_000, signal })),
      ),
    );
    expect(results.every(({ text }) => text === 'fine' || text === 'whole answer')).toBe(true);
    expect(runtime.receipts).toHaveLength(200);
    expect(a.requests.length + b.requests.length).toBe(runtime.receipts.flatMap(({ attempts }) => attempts).length);
    await expect
      .poll(() => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length)
      .toBeLessThanOrEqual(before + 3);
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
    // An idle connection is closed after about 5 s; one whose response is still open, as the silent one is, would stay.
    await expect.poll(() => a.sockets.size + b.sockets.size, { timeout: 30_000 }).toBe(0);
  }, 60_000);
});

/** A compressed stream that breaks off after a part of its bytes. */
function gzipped(part: number): Respond {
  const words = Array.from({ length: 200 }, () => `data: ${JSON.stringify(textChunk(crypto.randomUUID()))}\n\n`);
  const bytes = gzipSync(words.join(''));
  const headers = { 'content-type': 'text/event-stream', 'content-encoding': 'gzip' };
  return raw(bytes.subarray(0, Math.max(20, bytes.length * part)), 200, headers);
}

function roleChunk() {
  return { choices: [{ index: 0, delta: { role: 'assistant', content: '' } }] };
}
