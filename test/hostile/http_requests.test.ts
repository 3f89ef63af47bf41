import { connect } from 'node:net';
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { Feed } from '../../src/feed/feed.js';
import { raw, send } from '../http/support.js';
import { useService } from '../support/service.js';
import { until } from '../support/until.js';

const service = useService('embedded');
const port = () => service().running.httpPort as number;

// After each test the service responds to the next call over both transports.
afterEach(async () => {
  expect((await send(port(), 'GET', '/v1/agents/8')).status).toBe(200);
  expect((await service().agents.getAgent({ agent: { id: 8 } })).agent?.name).toBe('trader');
});

const HEAD = 'Host: localhost\r\n';
const statuses = (text: string) => [...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => Number(status));

describe('the HTTP server', () => {
  it.each([
    ['random bytes', Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7919) % 256)), [400]],
    ['an HTTP/2 preface', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', [400, 505]],
    ['a TLS hello', Buffer.from('1603010200010001fc0303', 'hex'), [400]],
    ['64 KB of one header', `GET /v1/agents HTTP/1.1\r\n${HEAD}x: ${'a'.repeat(65_536)}\r\n\r\n`, [431]],
    ['a path of 64 KB', `GET /v1/agents/${'a'.repeat(65_536)} HTTP/1.1\r\n${HEAD}\r\n`, [431]],
    ['no Host', 'GET /v1/agents HTTP/1.1\r\n\r\n', [400]],
    ['an empty Host', 'GET /v1/agents HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n', [421]],
    ['no Host in HTTP/1.0', 'GET /v1/agents HTTP/1.0\r\n\r\n', [421]],
    ['an absolute target', `GET http://evil.example/v1/agents HTTP/1.1\r\n${HEAD}Connection: close\r\n\r\n`, [400]],
    [
      'a raw byte in the path',
      Buffer.from(`GET /v1/agents/\xe9 HTTP/1.1\r\n${HEAD}Connection: close\r\n\r\n`, 'latin1'),
      [400],
    ],
    ['two lengths', `POST /v1/agents HTTP/1.1\r\n${HEAD}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}`, [400]],
    [
      'a length and chunks',
      `POST /v1/agents HTTP/1.1\r\n${HEAD}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}`,
      [400],
    ],
    [
      'an invalid chunk',
      `POST /v1/agents HTTP/1.1\r\n${HEAD}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n`,
      [400],
    ],
    ['an upgrade', `GET /v1/agents HTTP/1.1\r\n${HEAD}Connection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n`, [200]],
    ['CONNECT', `CONNECT evil.example:443 HTTP/1.1\r\n${HEAD}\r\n`, []],
  ] as [string, string | Buffer, number[]][])(
    'returns the expected status or closes the connection for %s',
    async (_, bytes, allowed) => {
      const found = statuses(await raw(port(), bytes));
      if (allowed.length === 0) expect(found).toEqual([]);
      else expect(allowed).toContain(found[0]);
    },
  );

  it('responds to pipelined requests in order', async () => {
    const get = (path: string, more = '') => `GET ${path} HTTP/1.1\r\n${HEAD}${more}\r\n`;
    const response = await raw(port(), get('/v1/agents/1') + get('/nothing') + get('/readyz', 'Connection: close\r\n'));
    expect(statuses(response)).toEqual([200, 404, 200]);
  });

  it('reads no second request from the body of a rejected request', async () => {
    const inner = `GET /v1/agents HTTP/1.1\r\n${HEAD}\r\n`;
    const outer = `POST /v1/agents HTTP/1.1\r\n${HEAD}Content-Type: text/plain\r\nContent-Length: ${inner.length}\r\n\r\n`;
    expect(statuses(await raw(port(), outer + inner))[0]).toBe(415);
    expect(statuses(await raw(port(), outer + inner, { end: true }))).not.toContain(200);
  });

  it('sends 100 Continue only when the length of the body is allowed', async () => {
    const head = (length: number) =>
      `POST /v1/agents HTTP/1.1\r\n${HEAD}Content-Type: application/json\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: ${length}\r\n\r\n`;
    expect(statuses(await raw(port(), `${head(2)}{}`))).toEqual([100, 400]);
    expect(statuses(await raw(port(), head(100_000_000)))).toEqual([413]);
  });

  it('aborts the call of a caller that disconnects', async () => {
    const endedCalls = async () => {
      const { text } = await send(port(), 'GET', '/metrics');
      const counts = text.matchAll(/^agentllm_calls_total\{method="agentllm.v1.AgentService\/GetAgent".*\} (\d+)$/gm);
      return [...counts].reduce((sum, [, count]) => sum + Number(count), 0);
    };
    const before = await endedCalls();
    const sockets = Array.from({ length: 50 }, () => connect(port(), '127.0.0.1'));
    const waits = vi.spyOn(Feed.prototype, 'reached');
    onTestFinished(() => waits.mockRestore());
    for (const socket of sockets) socket.write(`GET /v1/agents/8?min_revision=999999 HTTP/1.1\r\n${HEAD}\r\n`);
    await until(() => waits.mock.calls.length === sockets.length, 'all calls wait');
    expect(await endedCalls()).toBe(before);
    for (const socket of sockets) socket.destroy();
    await until(async () => (await endedCalls()) === before + sockets.length);
  });

  it('returns 408 for headers and bodies that do not arrive in time', async () => {
    const started = performance.now();
    const headers = raw(port(), `GET /v1/agents HTTP/1.1\r\n${HEAD}x: `);
    const body = raw(
      port(),
      `POST /v1/agents HTTP/1.1\r\n${HEAD}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"a`,
    );
    const rejected = raw(port(), `POST /v1/agents HTTP/1.1\r\n${HEAD}Content-Length: 100\r\n\r\n{"a`);
    expect(statuses(await rejected)).toEqual([415]);
    expect(performance.now() - started).toBeLessThan(5_000);
    expect(statuses(await headers)).toEqual([408]);
    expect(statuses(await body)).toEqual([408]);
    expect(performance.now() - started).toBeLessThan(20_000);
  });
});
