import { once } from 'node:events';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { Agent, request as sendRequest } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { VirtualClock } from '../../src/fake_provider/clock.js';
import { startFakeProvider } from '../../src/fake_provider/fake_provider.js';
import { limits } from '../../src/limits.js';
import { until } from './faults/streams.js';
import { ANTHROPIC, BODIES, fakeProvider, get, post } from './support.js';

const KEY = 'sk-planted-0123456789abcdef';
const bearer = { authorization: `Bearer ${KEY}` };

describe('a fake provider', () => {
  it('has a base URL for each provider', async () => {
    const fake = await fakeProvider();
    expect(fake.baseUrl('openai')).toBe(`http://127.0.0.1:${fake.port}/openai/v1`);
    expect(fake.baseUrl('deepseek')).toBe(`http://127.0.0.1:${fake.port}/deepseek`);
    expect(fake.baseUrl('xai', 'first-hop')).toBe(`http://127.0.0.1:${fake.port}/xai/first-hop/v1`);
  });

  it('reports a port that is in use, and a script or log that cannot be used', async () => {
    const fake = await fakeProvider();
    await expect(startFakeProvider({ port: fake.port })).rejects.toMatchObject({ code: 'EADDRINUSE' });
    await expect(startFakeProvider({ script: { rules: [{ fault: 'nonsense' }] } })).rejects.toThrow('rules[0].fault');
    await expect(startFakeProvider({ logFile: '/absent/log' })).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('ends open requests when it is closed, and frees its port', async () => {
    const fake = await startFakeProvider();
    const held = post(`${fake.url}/v1/chat/completions`, BODIES.chat_completions, { 'x-fake-fault': 'silence' });
    const failed = expect(held).rejects.toThrow();
    await until(() => fake.requests.length === 1, 'the request arrives');
    await fake.close();
    await failed;
    expect([fake.requests[0]?.ended, fake.connections]).toEqual(['stopped', 0]);
    await (await startFakeProvider({ port: fake.port })).close();
  });

  it('waits as long as its latency and its token delay say', async () => {
    const clock = new VirtualClock();
    const fake = await fakeProvider({
      clock,
      latencyMs: 100,
      tokenDelayMs: 10,
      script: { response: { text: 'a b c' } },
    });
    const body = { ...BODIES.chat_completions, stream: true };
    const streamed = post(`${fake.url}/v1/chat/completions`, body);
    for (const ms of [100, 10, 10]) {
      await until(() => clock.untilNext === ms, `a timer of ${ms} ms`);
      clock.advance(ms);
    }
    expect((await streamed).status).toBe(200);
    await until(() => fake.requests[0]?.duration_ms === 120, 'the request ends');
  });

  it('serves many requests at once', async () => {
    const fake = await fakeProvider();
    const all = Array.from({ length: 200 }, () => post(`${fake.url}/v1/chat/completions`, BODIES.chat_completions));
    expect(new Set((await Promise.all(all)).map(({ status }) => status))).toEqual(new Set([200]));
    expect(new Set((await Promise.all(all)).map(({ json }) => json.id)).size).toBe(200);
  });

  it('counts its open connections', async () => {
    const fake = await fakeProvider();
    const agent = new Agent({ keepAlive: true });
    const response = await new Promise<{ resume(): void }>((resolve) => {
      sendRequest(`${fake.url}/v1/models`, { agent }, resolve).end();
    });
    response.resume();
    expect(fake.connections).toBe(1);
    agent.destroy();
    await until(() => fake.connections === 0, 'the connection is closed');
  });
});

describe('the keys', () => {
  it.each([
    ['/openai/v1/chat/completions', BODIES.chat_completions, 401, 'invalid_api_key'],
    ['/xai/v1/chat/completions', BODIES.chat_completions, 400, 'Incorrect API key provided: sk-o'],
    ['/anthropic/v1/messages', BODIES.messages, 401, 'invalid x-api-key'],
  ])('of a script are the only valid ones at %s', async (path, body, status, problem) => {
    const fake = await fakeProvider({ script: { keys: [KEY] } });
    const wrong = await post(fake.url + path, body, { ...ANTHROPIC, 'x-api-key': 'sk-of-another-test' });
    expect([wrong.status, wrong.text]).toEqual([status, expect.stringContaining(problem)]);
    expect(wrong.text).not.toContain('sk-of-another-test');
    expect((await post(fake.url + path, body, ANTHROPIC)).status).toBe(401);
    expect((await post(fake.url + path, body, { ...ANTHROPIC, 'x-api-key': KEY })).status).toBe(200);
    expect((await post(fake.url + path, body, { ...ANTHROPIC, ...bearer })).status).toBe(200);
  });

  it('are required, but not checked, with requireKey', async () => {
    const fake = await fakeProvider({ requireKey: true });
    const { status, json } = await post(`${fake.url}/v1/chat/completions`, BODIES.chat_completions);
    expect([status, json.error.message]).toEqual([401, expect.stringContaining("You didn't provide an API key")]);
    expect((await post(`${fake.url}/v1/chat/completions`, BODIES.chat_completions, bearer)).status).toBe(200);
  });
});

describe('the models', () => {
  it('that are listed are those of the provider, in its form', async () => {
    const fake = await fakeProvider();
    const { json } = await get(`${fake.baseUrl('openai')}/models`);
    expect(json).toMatchObject({
      object: 'list',
      data: expect.arrayContaining([expect.objectContaining({ id: 'gpt-4o' })]),
    });
    const claude = (await get(`${fake.baseUrl('anthropic')}/models?limit=1000`)).json;
    expect(claude).toMatchObject({ has_more: false, first_id: 'claude-opus-5-5', last_id: 'claude-haiku-4-5' });
    expect((await get(`${fake.baseUrl('openai')}/models/any-name`)).json).toMatchObject({
      id: 'any-name',
      object: 'model',
    });
  });

  it('of a script are the only ones that exist', async () => {
    const fake = await fakeProvider({ script: { served_models: ['gpt-4o'] } });
    expect((await get(`${fake.url}/v1/models`)).json.data).toMatchObject([{ id: 'gpt-4o' }]);
    expect((await get(`${fake.url}/v1/models/gpt-5`)).status).toBe(404);
    const absent = await post(`${fake.url}/v1/chat/completions`, { ...BODIES.chat_completions, model: 'gpt-5' });
    expect([absent.status, absent.json.error.code]).toEqual([404, 'model_not_found']);
    const faulty = { ...BODIES.chat_completions, model: 'gpt-4o@fault=slow-tokens,delay_ms=0' };
    expect((await post(`${fake.url}/v1/chat/completions`, faulty)).status).toBe(200);
  });
});

describe('a path that leads nowhere', () => {
  it('is an error in the form of the provider', async () => {
    const fake = await fakeProvider();
    expect((await post(`${fake.url}/anthropic/v1/complete`, {})).json).toMatchObject({
      error: { type: 'not_found_error' },
    });
    expect((await post(`${fake.url}/xai/v1/complete`, {})).json).toMatchObject({
      code: 'Some requested entity was not found',
    });
    expect((await get(`${fake.url}/openai/v1/responses`)).status).toBe(405);
  });
});

describe('the request log', () => {
  it('has what was request, and how it ended, without keys', async () => {
    const fake = await fakeProvider({ clock: new VirtualClock(Date.UTC(2026, 0, 1)) });
    const body = { ...BODIES.chat_completions, messages: [{ role: 'user', content: `My key is ${KEY}` }] };
    await post(`${fake.url}/v1/chat/completions?key=${KEY}`, body, { ...bearer, 'user-agent': `test ${KEY}` });
    const { json, text } = await get(`${fake.url}/_fake/log`);
    expect(json).toMatchObject({ removed: 0, unwritten: 0 });
    expect(json.requests).toMatchObject([
      {
        id: 1,
        at: '2026-01-01T00:00:00.000Z',
        method: 'POST',
        path: '/v1/chat/completions',
        provider: 'openai',
        api: 'chat_completions',
        model: 'gpt-4o',
        stream: false,
        key: expect.stringMatching(/^sha256:[0-9a-f]{12}$/),
        headers: { 'content-type': 'application/json' },
        body: { model: 'gpt-4o' },
        fault: null,
        status: 200,
        tokens: 60,
        duration_ms: 0,
        ended: 'completed',
      },
    ]);
    expect(json.requests[0].response_bytes).toBeGreaterThan(500);
    expect(text).not.toContain(KEY);
  });

  it('is cleared by DELETE', async () => {
    const fake = await fakeProvider();
    await get(`${fake.url}/v1/models`);
    await fetch(`${fake.url}/_fake/log`, { method: 'DELETE' });
    expect([fake.requests, (await get(`${fake.url}/_fake/log`)).json.requests]).toEqual([[], []]);
  });

  it('is appended to a file that only the user can read', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'fake-provider-'));
    onTestFinished(() => rm(directory, { recursive: true }));
    const logFile = join(directory, 'requests.jsonl');
    for (const fault of ['rate-limit', 'overloaded']) {
      const fake = await startFakeProvider({ logFile });
      await post(`${fake.url}/v1/chat/completions`, BODIES.chat_completions, { ...bearer, 'x-fake-fault': fault });
      await fake.close();
    }
    const text = await readFile(logFile, 'utf8');
    const lines = text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines).toMatchObject([
      { fault: 'rate-limit', status: 429, ended: 'completed' },
      { fault: 'overloaded', status: 503, ended: 'completed' },
    ]);
    expect(text).not.toContain(KEY);
    expect(((await stat(logFile)).mode & 0o777).toString(8)).toBe('600');
  });

  it('notes a client that closes its connection in the middle of its request', async () => {
    const fake = await fakeProvider();
    const socket = connect(fake.port, '127.0.0.1');
    await once(socket, 'connect');
    socket.write('POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"model"');
    await until(() => fake.requests.length === 1, 'the request arrives');
    socket.destroy();
    await until(() => fake.requests[0]?.ended === 'client closed', 'the end is noted');
    expect(fake.requests[0]).toMatchObject({ status: null, body: null });
  });
});

describe('PUT /_fake/faults', () => {
  const put = async (url: string, body: string, headers: Record<string, string> = {}) => {
    const response = await fetch(`${url}/_fake/faults`, { method: 'PUT', body, headers });
    return { status: response.status, json: (await response.json()) as { error?: { message: string } } };
  };

  it('replaces the script, and begins to count anew', async () => {
    const fake = await fakeProvider();
    const script = JSON.stringify({ rules: [{ match: { attempt: 1, key: KEY }, fault: 'overloaded' }], keys: [KEY] });
    const send = async () => (await post(`${fake.url}/v1/chat/completions`, BODIES.chat_completions, bearer)).status;
    for (let round = 0; round < 2; round++) {
      const { status, json } = await put(fake.url, script);
      expect([status, json]).toEqual([
        200,
        expect.objectContaining({
          rules: [{ match: { attempt: { first: 1, last: 1 } }, fault: 'overloaded' }],
          keys: 1,
        }),
      ]);
      expect([await send(), await send()]).toEqual([503, 200]);
    }
    expect((await get(`${fake.url}/_fake/faults`)).text).not.toContain(KEY);
    await fetch(`${fake.url}/_fake/faults`, { method: 'DELETE' });
    expect((await get(`${fake.url}/_fake/faults`)).json.rules).toEqual([]);
  });

  it.each([
    ['{', 'the script: is not valid JSON'],
    ['{"rules":[{"fault":"nonsense"}]}', 'rules[0].fault: there is no fault "nonsense"'],
    ['['.repeat(200), 'the script: is nested too deeply'],
  ])('rejects %.40s and keeps the script', async (body, problem) => {
    const fake = await fakeProvider({ script: { rules: [{ fault: 'overloaded' }] } });
    const { status, json } = await put(fake.url, body);
    expect([status, json.error?.message]).toEqual([400, expect.stringContaining(problem)]);
    expect((await get(`${fake.url}/_fake/faults`)).json.rules).toHaveLength(1);
  });

  it('rejects a page in a browser, another method and another path', async () => {
    const fake = await fakeProvider();
    expect((await put(fake.url, '{}', { origin: 'https://example.com' })).status).toBe(403);
    expect((await get(`${fake.url}/_fake/log`, { origin: 'https://example.com' })).status).toBe(403);
    expect((await post(`${fake.url}/_fake/log`, {})).status).toBe(405);
    expect((await get(`${fake.url}/_fake/other`)).status).toBe(404);
  });

  it('rejects a script of more than four MiB', async () => {
    const fake = await fakeProvider();
    const { status } = await put(fake.url, 'x'.repeat(limits.fakeProvider.scriptBytes + 1));
    expect(status).toBe(413);
  });
});

describe('a body', () => {
  it('of more than 32 MiB is received, discarded and rejected', async () => {
    const fake = await fakeProvider();
    const chunk = Buffer.alloc(1024 * 1024, 'x');
    const status = await new Promise<number | undefined>((resolve, reject) => {
      const call = sendRequest(`${fake.url}/v1/messages`, { method: 'POST', agent: false }, (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      call.on('error', reject);
      let sent = 0;
      const more = () => {
        while (sent++ < 40) if (!call.write(chunk)) return void call.once('drain', more);
        call.end();
      };
      more();
    });
    expect(status).toBe(413);
    expect(fake.requests[0]).toMatchObject({ status: 413, body: null });
  });
});
