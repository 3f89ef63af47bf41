import { describe, expect, it } from 'vitest';
import { type OpenEntry, RequestLog } from '../../src/fake_provider/request_log.js';
import { limits } from '../../src/limits.js';

const { loggedRequests, loggedBodyBytes, logBytes } = limits.fakeProvider;

const entry = (id: number): OpenEntry => ({
  id,
  at: '2026-01-01T00:00:00.000Z',
  method: 'POST',
  path: '/v1/chat/completions',
  provider: 'openai',
  api: 'chat_completions',
  model: 'gpt-4o',
  stream: false,
  key: null,
  headers: {},
  body: null,
  body_bytes: 0,
  fault: null,
  status: null,
  response_bytes: 0,
  tokens: 0,
  duration_ms: null,
  ended: 'open',
});

describe('RequestLog', () => {
  it('keeps the newest thousand requests', () => {
    const log = new RequestLog();
    for (let id = 1; id <= loggedRequests + 100; id++) log.add(entry(id));
    expect([log.all.length, log.all[0]?.id, log.lost.removed]).toEqual([loggedRequests, 101, 100]);
    log.clear();
    expect([log.all, log.lost]).toEqual([[], { removed: 0, unwritten: 0 }]);
  });

  it('keeps a body as JSON, and the beginning of a long one as text', () => {
    const log = new RequestLog();
    const [short, long, none] = [entry(1), entry(2), entry(3)];
    log.setBody(short, '{"model":"gpt-4o"}', undefined);
    log.setBody(long, `{"prompt":"${'x'.repeat(loggedBodyBytes)}"}`, undefined);
    log.setBody(none, '', undefined);
    expect([short.body, none.body]).toEqual([{ model: 'gpt-4o' }, null]);
    expect(long.body).toMatch(/^\{"prompt":"x+$/);
    expect((long.body as string).length).toBe(loggedBodyBytes);
  });

  it('counts nothing for a request that was removed before its body arrived', () => {
    const log = new RequestLog();
    const body = JSON.stringify('x'.repeat(loggedBodyBytes - 2));
    for (let id = 1; id <= 600; id++) {
      const one = entry(id);
      log.add(one);
      log.clear();
      log.setBody(one, body, undefined);
    }
    for (let id = 1; id <= 3; id++) log.add(entry(id));
    expect(log.all.length).toBe(3);
  });

  it('replaces the key in a body', () => {
    const log = new RequestLog();
    const one = entry(1);
    log.setBody(one, '{"prompt":"sk-of-a-test and sk-of-a-test"}', 'sk-of-a-test');
    expect(one.body).toEqual({ prompt: expect.stringMatching(/^(sha256:[0-9a-f]{12})( and \1)$/) });
  });

  it('removes the oldest requests when the bodies are too large', () => {
    const log = new RequestLog();
    const body = JSON.stringify('x'.repeat(loggedBodyBytes - 2));
    for (let id = 1; id <= 600; id++) {
      const one = entry(id);
      log.add(one);
      log.setBody(one, body, undefined);
    }
    const bytes = log.all.reduce((sum, one) => sum + JSON.stringify(one).length, 0);
    expect(bytes).toBeLessThanOrEqual(logBytes);
    expect(bytes).toBeGreaterThan(logBytes * 0.98);
    expect(log.all.at(-1)?.id).toBe(600);
  });
});
