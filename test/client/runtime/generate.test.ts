import { describe, expect, it } from 'vitest';
import { CallAbortedError, ChainError, TornStreamError } from '../../../src/client/runtime/chain_error.js';
import {
  chatCompletion,
  failure,
  json,
  raw,
  reset,
  silence,
  startScriptedProvider,
} from '../../support/scripted_provider.js';
import { callGenerate, callOf, chainAgent, failedCall, ShiftedClock, summary, TestRuntime } from './support.js';

const ok = chatCompletion('hello');

/** Two providers and an agent with one hop at each. */
async function twoHops(...first: Parameters<typeof startScriptedProvider>) {
  const [a, b] = [await startScriptedProvider(...first), await startScriptedProvider(ok)];
  const agent = chainAgent({ url: a.url }, { url: b.url });
  return { a, b, agent, runtime: new TestRuntime() };
}

describe('generate', () => {
  it('returns the response of the first hop, and a receipt that describes the call', async () => {
    const { a, b, agent, runtime } = await twoHops(json({ ...body(), id: 'x' }, 200, { 'x-request-id': 'req_9' }));
    const { value, receipt } = await callGenerate(runtime, callOf(agent, { runId: 'run-1' }));
    expect(value.choices[0].message.content).toBe('hello');
    expect(receipt).toBe(runtime.receipt);
    expect(receipt).toMatchObject({
      agent_id: 1,
      agent: 'trader',
      config_id: 1,
      revision: 7n,
      run_id: 'run-1',
      mode: 'RECEIPT_MODE_GENERATE',
      outcome: 'RECEIPT_OUTCOME_COMPLETED',
      finish_reason: 'stop',
      error_class: 'ERROR_CLASS_UNSPECIFIED',
      hop_index: 0,
      time_to_first_token_ms: undefined,
      skipped: [],
      usage: { input_tokens: 3, output_tokens: 2, input_cache_read_tokens: undefined },
    });
    const [attempt] = receipt.attempts;
    expect(attempt).toMatchObject({
      provider: 'p0',
      model_name: 'm0',
      wire_api: 'WIRE_API_CHAT_COMPLETIONS',
      key_source: 'KEY_SOURCE_ENVIRONMENT',
      action: 'ATTEMPT_ACTION_NONE',
      status: 200,
      provider_request_id: 'req_9',
      response_model: 'served',
      content_type: 'application/json',
      usage: { input_tokens: 3, raw_json: '{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}' },
    });
    expect(Number(attempt?.response_bytes)).toBeGreaterThan(100);
    expect([a.requests.length, b.requests.length]).toEqual([1, 0]);
  });

  it.each([
    ['500', failure(500), 'SERVER', 2],
    ['503', failure(503), 'OVERLOADED', 2],
    ['408', failure(408), 'SERVER', 2],
    ['429', failure(429), 'RATE_LIMIT', 2],
    ['a reset', reset, 'NETWORK', 2],
    ['401', failure(401), 'AUTH', 1],
    ['402', failure(402), 'QUOTA', 1],
    ['403', failure(403), 'PERMISSION', 1],
    ['404', failure(404), 'MODEL_NOT_FOUND', 1],
    ['an error in a 200', json({ error: { message: 'Rate limit', type: 'rate_limit' } }), 'RATE_LIMIT', 1],
    ['HTML with 200', raw('<html></html>', 200, { 'content-type': 'text/html' }), 'SERVER', 1],
    ['an empty 200', raw('', 200), 'SERVER', 1],
    ['no choices', json({ choices: [] }), 'SERVER', 1],
    ['a redirect', raw('', 307, { location: 'http://127.0.0.1:1/' }), 'SERVER', 2],
  ] as const)('moves to the next hop after %s', async (_, respond, errorClass, requests) => {
    const { a, b, agent, runtime } = await twoHops(respond);
    const { receipt } = await callGenerate(runtime, callOf(agent));
    const tries = requests === 2 ? [`0 ${errorClass} RETRY`, `0 ${errorClass} NEXT_HOP`] : [`0 ${errorClass} NEXT_HOP`];
    expect(summary(receipt)).toEqual([...tries, '1 OK NONE']);
    expect(receipt).toMatchObject({ hop_index: 1, config_id: 2 });
    expect([a.requests.length, b.requests.length]).toEqual([requests, 1]);
  });

  it.each([
    ['400', failure(400), 'INVALID_REQUEST'],
    ['422', failure(422), 'INVALID_REQUEST'],
    ['a content filter', failure(400, { code: 'content_filter' }), 'CONTENT_POLICY'],
  ] as const)('stops after %s and sends nothing to the next hop', async (_, respond, errorClass) => {
    const { a, b, agent, runtime } = await twoHops(respond);
    const error = await failedCall(callGenerate(runtime, callOf(agent)), ChainError);
    expect(error).toMatchObject({ name: 'ChainError', errorClass: `ERROR_CLASS_${errorClass}` });
    expect(error.message).toContain('scripted');
    expect(error.receipt).toBe(runtime.receipt);
    expect(error.receipt).toMatchObject({
      outcome: 'RECEIPT_OUTCOME_FAILED',
      error_class: `ERROR_CLASS_${errorClass}`,
    });
    expect(summary(error.receipt)).toEqual([`0 ${errorClass} STOP`]);
    expect([a.requests.length, b.requests.length]).toEqual([1, 0]);
  });

  it('moves on after a content filter if the caller opted in', async () => {
    const { agent, runtime } = await twoHops(failure(400, { code: 'content_filter' }));
    const { receipt } = await callGenerate(runtime, callOf(agent, { contentPolicyFallback: true }));
    expect(summary(receipt)).toEqual(['0 CONTENT_POLICY NEXT_HOP', '1 OK NONE']);
  });

  it('returns a refusal in a 200 as a response, and moves on only if the caller opted in', async () => {
    const refusal = json({ ...body(), choices: [{ message: { content: '' }, finish_reason: 'content_filter' }] });
    const { agent, runtime } = await twoHops(refusal);
    const { receipt } = await callGenerate(runtime, callOf(agent));
    expect(receipt).toMatchObject({
      outcome: 'RECEIPT_OUTCOME_COMPLETED',
      finish_reason: 'content-filter',
      hop_index: 0,
    });
    const other = await callGenerate(new TestRuntime(), callOf(agent, { contentPolicyFallback: true }));
    expect(summary(other.receipt)).toEqual(['0 CONTENT_POLICY NEXT_HOP', '1 OK NONE']);
    // What the refused response has used is counted.
    expect(other.receipt.usage?.input_tokens).toBe(6);
  });

  it('fails with the failures of all hops when none responds', async () => {
    const a = await startScriptedProvider(failure(503, { message: 'full' }));
    const b = await startScriptedProvider(failure(401, { message: 'no such key' }));
    const runtime = new TestRuntime();
    const agent = chainAgent({ url: a.url }, { url: b.url });
    const error = await failedCall(callGenerate(runtime, callOf(agent)), ChainError);
    expect(error.message).toBe(
      'No hop of agent "trader" produced a response: p0/m0: OVERLOADED (503): full; p0/m0: OVERLOADED (503): full; p1/m1: AUTH (401): no such key',
    );
    expect(error).toMatchObject({ errorClass: 'ERROR_CLASS_AUTH', httpStatus: 401 });
    expect(error).not.toBeInstanceOf(TornStreamError);
    expect(summary(error.receipt)).toEqual(['0 OVERLOADED RETRY', '0 OVERLOADED NEXT_HOP', '1 AUTH STOP']);
    expect(JSON.parse(JSON.stringify(error))).toMatchObject({ name: 'ChainError', receipt: { revision: 7 } });
  });

  it('tries the last hop three times', async () => {
    const a = await startScriptedProvider(failure(500), failure(500), ok);
    const runtime = new TestRuntime();
    const { receipt } = await callGenerate(runtime, callOf(chainAgent({ url: a.url })));
    expect(summary(receipt)).toEqual(['0 SERVER RETRY', '0 SERVER RETRY', '0 OK NONE']);
  });

  it('makes no more attempts than maxAttempts', async () => {
    const { a, b, agent, runtime } = await twoHops(failure(500));
    const error = await failedCall(callGenerate(runtime, callOf(agent, { maxAttempts: 1 })), ChainError);
    expect(summary(error.receipt)).toEqual(['0 SERVER STOP']);
    expect([a.requests.length, b.requests.length]).toEqual([1, 0]);
  });

  it('waits as long as Retry-After asks, with the wait in the receipt', async () => {
    const { a, agent, runtime } = await twoHops(failure(429, {}, { 'retry-after-ms': '120' }), ok);
    const { receipt } = await callGenerate(runtime, callOf(agent));
    expect(summary(receipt)).toEqual(['0 RATE_LIMIT RETRY', '0 OK NONE']);
    expect(receipt.attempts[0]).toMatchObject({ retry_after_ms: 120, backoff_ms: 120 });
    const [first, second] = a.requests;
    expect((second?.at ?? 0) - (first?.at ?? 0)).toBeGreaterThan(110);
  });

  it('moves to the next hop at once when Retry-After does not fit into the deadline', async () => {
    const { agent, runtime } = await twoHops(failure(429, {}, { 'retry-after': '600' }));
    const started = performance.now();
    const { receipt } = await callGenerate(runtime, callOf(agent, { deadlineMs: 60_000 }));
    expect(summary(receipt)).toEqual(['0 RATE_LIMIT NEXT_HOP', '1 OK NONE']);
    expect(receipt.attempts[0]).toMatchObject({ retry_after_ms: 600_000, backoff_ms: undefined });
    expect(performance.now() - started).toBeLessThan(1_000);
  });

  it('moves on when an attempt takes longer than attemptMs, and closes its connection', async () => {
    const { a, agent, runtime } = await twoHops(silence);
    const { receipt } = await callGenerate(runtime, callOf(agent, { attemptMs: 300 }));
    expect(summary(receipt)).toEqual(['0 TIMEOUT NEXT_HOP', '1 OK NONE']);
    await a.requests[0]?.closed;
    expect(a.requests).toHaveLength(1);
  });

  it('ends with TIMEOUT when the deadline is reached, without another attempt', async () => {
    const { a, b, agent, runtime } = await twoHops(silence);
    const error = await failedCall(callGenerate(runtime, callOf(agent, { deadlineMs: 300 })), ChainError);
    expect(error.errorClass).toBe('ERROR_CLASS_TIMEOUT');
    expect(error.name).toBe('ChainError');
    expect([a.requests.length, b.requests.length]).toEqual([1, 0]);
  });

  it.each([
    ['while a request is in progress', [silence]],
    ['while it waits for a retry', [failure(429, {}, { 'retry-after': '30' })]],
  ])('ends within 50 ms when the caller aborts %s, and sends nothing further', async (_, script) => {
    const { a, b, agent, runtime } = await twoHops(...script);
    const controller = new AbortController();
    const call = callGenerate(runtime, callOf(agent, { signal: controller.signal }));
    await expect.poll(() => a.requests.length).toBe(1);
    await new Promise((resolve) => setTimeout(resolve, 30));
    const aborted = performance.now();
    controller.abort();
    const error = await failedCall(call, CallAbortedError);
    expect(performance.now() - aborted).toBeLessThan(50);
    expect(error).toMatchObject({ name: 'AbortError', cause: controller.signal.reason, content: '' });
    expect(error.receipt).toMatchObject({ outcome: 'RECEIPT_OUTCOME_ABORTED', error_class: 'ERROR_CLASS_CANCELLED' });
    expect(runtime.receipts).toHaveLength(1);
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect([a.requests.length, b.requests.length]).toEqual([1, 0]);
    await a.requests[0]?.closed;
  });

  it('makes no request when the signal has aborted before the call', async () => {
    const { a, agent, runtime } = await twoHops(ok);
    const signal = AbortSignal.abort(new DOMException('too late', 'TimeoutError'));
    const error = await failedCall(callGenerate(runtime, callOf(agent, { signal })), CallAbortedError);
    expect(error).toMatchObject({ name: 'TimeoutError', receipt: { attempts: [] } });
    expect(a.requests).toEqual([]);
  });

  it('moves to a hop with a larger context window, skips a smaller one, and never repeats the request', async () => {
    const small = await startScriptedProvider(failure(400, { code: 'context_length_exceeded' }));
    const [same, large] = [await startScriptedProvider(ok), await startScriptedProvider(ok)];
    const agent = chainAgent(
      { url: small.url, facts: { context_window_tokens: 8_000 } },
      { url: same.url, facts: { context_window_tokens: 8_000 } },
      { url: large.url, facts: { context_window_tokens: 128_000 } },
    );
    const { receipt } = await callGenerate(new TestRuntime(), callOf(agent));
    expect(summary(receipt)).toEqual(['0 CONTEXT_OVERFLOW LARGER_CONTEXT', '2 OK NONE']);
    expect(receipt.skipped).toMatchObject([{ hop_index: 1, reason: 'SKIP_REASON_CONTEXT_TOO_SMALL' }]);
    expect(small.requests.length + same.requests.length).toBe(1);
  });

  it('stops after a context overflow when no hop has a larger window', async () => {
    const small = await startScriptedProvider(failure(413));
    const agent = chainAgent(
      { url: small.url, facts: { context_window_tokens: 8_000 } },
      { url: small.url, facts: { context_window_tokens: 4_000 } },
    );
    const error = await failedCall(callGenerate(new TestRuntime(), callOf(agent)), ChainError);
    expect(summary(error.receipt)).toEqual(['0 CONTEXT_OVERFLOW STOP']);
    expect(error.receipt.skipped).toMatchObject([{ hop_index: 1, reason: 'SKIP_REASON_CONTEXT_TOO_SMALL' }]);
  });

  it('omits a rejected parameter and tries once more', async () => {
    const rejected = failure(400, { code: 'unsupported_value', param: 'temperature', message: 'Unsupported value' });
    const a = await startScriptedProvider(rejected, ok);
    const agent = chainAgent({ url: a.url, config: { temperature: 0, top_p: 0 } });
    const { receipt } = await callGenerate(new TestRuntime(), callOf(agent));
    expect(summary(receipt)).toEqual(['0 INVALID_PARAM STRIP', '0 OK NONE']);
    expect(a.requests.map(({ body }) => [body.temperature, body.top_p])).toEqual([
      [0, 0],
      [undefined, 0],
    ]);
    expect(receipt.attempts[1]?.stripped_parameters).toEqual(['temperature']);
    expect(receipt.parameters.map(({ name, value_json, source }) => [name, value_json, source])).toEqual([
      ['top_p', '0', 'PARAMETER_SOURCE_CONFIG'],
    ]);
    expect(receipt.adaptations).toEqual(['temperature is left out for p0/m0: the provider rejected it']);
  });

  it('stops when a second parameter is rejected, and when the rejected field is part of the request', async () => {
    const reject = (param: string) => failure(400, { code: 'unsupported_parameter', param });
    const a = await startScriptedProvider(reject('temperature'), reject('top_p'));
    const agent = chainAgent({ url: a.url, config: { temperature: 1, top_p: 1 } });
    const error = await failedCall(callGenerate(new TestRuntime(), callOf(agent)), ChainError);
    expect(summary(error.receipt)).toEqual(['0 INVALID_PARAM STRIP', '0 INVALID_PARAM STOP']);
    a.script(reject('messages'));
    const second = await failedCall(callGenerate(new TestRuntime(), callOf(agent)), ChainError);
    expect(summary(second.receipt)).toEqual(['0 INVALID_PARAM STOP']);
  });

  it('sends the parameters of the call in place of those of the config, and the receipt shows which won', async () => {
    const a = await startScriptedProvider(ok);
    const agent = chainAgent({
      url: a.url,
      provider: { dialect: 'DIALECT_ANTHROPIC', wire_api: 'WIRE_API_CHAT_COMPLETIONS' },
      config: { temperature: 0.7, top_p: 0.5 },
    });
    const overrides = { temperature: 0, stop_sequences: ['END'] };
    const { receipt } = await callGenerate(new TestRuntime(), callOf(agent, { overrides }), {
      temperature: 1,
      seed: 3,
    });
    expect(a.requests[0]?.body).toMatchObject({ temperature: 0, model: 'm0' });
    // The package set a seed that neither the config nor the call has.
    expect(a.requests[0]?.body).not.toHaveProperty('seed');
    const sources = Object.fromEntries(receipt.parameters.map(({ name, source }) => [name, source]));
    expect(sources).toMatchObject({ temperature: 'PARAMETER_SOURCE_CALL', stop_sequences: 'PARAMETER_SOURCE_CALL' });
  });

  it('sends the API key of each hop to its own origin only, and never gives it to the package', async () => {
    const { a, b, agent, runtime } = await twoHops(failure(401));
    await callGenerate(runtime, callOf(agent));
    expect(a.requests[0]?.headers.authorization).toBe('Bearer sk-secret-0');
    expect(b.requests[0]?.headers.authorization).toBe('Bearer sk-secret-1');
  });

  it('keeps the API key out of the error and the receipt when the provider repeats it', async () => {
    const a = await startScriptedProvider(
      failure(400, { message: 'Bad key sk-secret-0 in request', code: 'sk-secret-0' }),
    );
    const error = await failedCall(callGenerate(new TestRuntime(), callOf(chainAgent({ url: a.url }))), ChainError);
    expect(error.message).toContain('Bad key [API key] in request');
    const everything = [
      error.message,
      String(error.cause),
      JSON.stringify(error),
      JSON.stringify((error.cause as Error).cause),
    ];
    expect(everything.join()).not.toContain('sk-secret-0');
  });

  it('sends no key to a provider without one', async () => {
    const a = await startScriptedProvider(ok);
    const agent = chainAgent({ url: a.url, key: undefined, provider: { api_key_env_vars: [] } });
    const { receipt } = await callGenerate(new TestRuntime(), callOf(agent));
    expect(a.requests[0]?.headers).not.toHaveProperty('authorization');
    expect(receipt.attempts[0]?.key_source).toBe('KEY_SOURCE_NONE');
  });

  it('skips a hop without a key', async () => {
    const { a, b, runtime } = await twoHops(ok);
    const agent = chainAgent({ url: a.url, key: undefined }, { url: b.url });
    const { receipt } = await callGenerate(runtime, callOf(agent));
    expect(receipt.skipped).toMatchObject([{ hop_index: 0, reason: 'SKIP_REASON_NO_KEY' }]);
    expect([a.requests.length, b.requests.length]).toEqual([0, 1]);
  });

  it('fails with what to set and where when no hop has a key', async () => {
    const { a, b, runtime } = await twoHops(ok);
    const agent = chainAgent({ url: a.url, key: undefined }, { url: b.url, key: undefined });
    const error = await failedCall(callGenerate(runtime, callOf(agent)), ChainError);
    expect(error.message).toBe(
      'Agent "trader" has no API key: set P0_API_KEY in the environment of this process, or store a key for p0 with: agentllm configs update 1 --api-key; or set P1_API_KEY in the environment of this process, or store a key for p1 with: agentllm configs update 2 --api-key',
    );
    expect(error.receipt.skipped).toHaveLength(2);
  });

  it('counts a key that cannot be obtained as a failure of its hop, and never replaces it', async () => {
    const { a, b, runtime } = await twoHops(ok);
    const agent = chainAgent({ url: a.url, key: new Error('it cannot be decrypted') }, { url: b.url });
    const { receipt } = await callGenerate(runtime, callOf(agent));
    expect(summary(receipt)).toEqual(['0 AUTH NEXT_HOP', '1 OK NONE']);
    expect([a.requests.length, b.requests.length]).toEqual([0, 1]);
  });

  it('skips a hop that lacks a capability, with its name', async () => {
    const { a, b, runtime } = await twoHops(ok);
    const agent = chainAgent({ url: a.url, facts: { supports_vision: false } }, { url: b.url });
    const { receipt } = await callGenerate(runtime, callOf(agent, { needs: { vision: true, functions: true } }));
    expect(receipt.skipped).toMatchObject([{ hop_index: 0, reason: 'SKIP_REASON_CAPABILITY', detail: 'vision' }]);
  });

  it('skips the other hops when the provider of the first stores the conversation', async () => {
    const { b, agent, runtime } = await twoHops(failure(401));
    const error = await failedCall(
      callGenerate(runtime, callOf(agent, { needs: { storedConversation: true } })),
      ChainError,
    );
    expect(error.receipt.attempts[0]?.action).toBe('ATTEMPT_ACTION_STOP');
    expect(b.requests).toEqual([]);
  });

  it('counts the usage of failed attempts, and leaves unknown usage unknown', async () => {
    const failed = json({ error: { message: 'broken', type: 'server_error' }, usage: { prompt_tokens: 9 } });
    const { agent, runtime } = await twoHops(failed);
    const { receipt } = await callGenerate(runtime, callOf(agent));
    expect(receipt.attempts.map(({ usage }) => usage?.input_tokens)).toEqual([undefined, 3]);
    expect(receipt.usage?.input_tokens).toBe(3);
  });

  it('refuses a second request of the package in one attempt, and a request to another origin', async () => {
    const { a, b, agent, runtime } = await twoHops(ok);
    const { generate } = await import('../../../src/client/runtime/generate.js');
    const twice = generate(runtime, callOf(agent), async ({ fetch, hop }) => {
      await fetch(`${hop.base_url}/one`, { method: 'POST', body: '{}' });
      return fetch(`${hop.base_url}/two`, { method: 'POST', body: '{}' });
    });
    expect((await failedCall(twice, ChainError)).message).toContain('only the chain repeats requests');
    const elsewhere = generate(new TestRuntime(), callOf(agent), ({ fetch }) => fetch(`${b.url}/x`));
    expect((await failedCall(elsewhere, ChainError)).message).toContain('another origin than');
    expect([a.requests.length, b.requests.length]).toEqual([1, 0]);
  });

  it('opens the circuit breaker of a rejected key, and tries it again after the pause', async () => {
    const clock = new ShiftedClock();
    const { a, b, agent } = await twoHops(failure(401));
    const runtime = new TestRuntime({ clock });
    await callGenerate(runtime, callOf(agent));
    const { receipt } = await callGenerate(runtime, callOf(agent));
    expect(receipt.skipped).toMatchObject([{ hop_index: 0, reason: 'SKIP_REASON_BREAKER_OPEN', detail: 'credential' }]);
    expect(a.requests).toHaveLength(1);
    clock.advance(300_001);
    a.script(ok);
    const third = await callGenerate(runtime, callOf(agent));
    expect(third.receipt).toMatchObject({ hop_index: 0, skipped: [] });
    expect(b.requests).toHaveLength(2);
  });

  it('opens the circuit breaker of an unreachable model, makes one trial at a time, and returns to it', async () => {
    const clock = new ShiftedClock();
    const { a, b, agent } = await twoHops(failure(503));
    const runtime = new TestRuntime({ clock });
    for (let call = 0; call < 4; call++) await callGenerate(runtime, callOf(agent));
    // Two failures of each of the first two calls, and one of the third, which finds the breaker open then.
    expect(a.requests).toHaveLength(5);
    clock.advance(10_001);
    await Promise.all(Array.from({ length: 20 }, () => callGenerate(runtime, callOf(agent))));
    expect(a.requests).toHaveLength(6);
    clock.advance(10_001);
    a.script(ok);
    await callGenerate(runtime, callOf(agent));
    const { receipt } = await callGenerate(runtime, callOf(agent));
    expect(receipt.hop_index).toBe(0);
    expect([a.requests.length, b.requests.length]).toEqual([8, 24]);
  });

  it('tries the first hop when the circuit breakers of all hops are open', async () => {
    const a = await startScriptedProvider(failure(401), ok);
    const runtime = new TestRuntime();
    const agent = chainAgent({ url: a.url });
    await failedCall(callGenerate(runtime, callOf(agent)), ChainError);
    const { receipt } = await callGenerate(runtime, callOf(agent));
    expect(receipt).toMatchObject({ hop_index: 0, skipped: [] });
    // The success closed the breaker.
    await callGenerate(runtime, callOf(agent));
    expect(a.requests).toHaveLength(3);
  });

  it('does not open a circuit breaker for bad requests and content filters', async () => {
    const { a, agent, runtime } = await twoHops(
      failure(400),
      failure(400, { code: 'content_filter' }),
      failure(400),
      ok,
    );
    for (let call = 0; call < 3; call++) await failedCall(callGenerate(runtime, callOf(agent)), ChainError);
    expect((await callGenerate(runtime, callOf(agent))).receipt.hop_index).toBe(0);
    expect(a.requests).toHaveLength(4);
  });
});

const body = () => ({
  model: 'served',
  choices: [{ index: 0, message: { role: 'assistant', content: 'hello' }, finish_reason: 'stop' }],
  usage: { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 },
});
