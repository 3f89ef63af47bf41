import type { LookupAddress } from 'node:dns';
import { connect } from 'node:net';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { addressList } from '../../src/domain/addresses.js';
import { limits } from '../../src/limits.js';
import { checkProvider, type ModelCheck } from '../../src/providers/check_provider.js';
import { lookupAllowed } from '../../src/providers/egress.js';
import { freePort } from '../support/ports.js';
import { until } from '../support/until.js';
import { makeCertificate } from './certificate.js';
import { authority, checkOverTls, goodCertificate, NAME } from './check_with_authority.js';
import { type Handler, KEY, providerRow, startFakeProvider, startTcp, wire } from './fake_provider.js';
import { fakeResolver, type Resolution } from './fake_resolver.js';

/* Failures outside of the service: names, addresses, connections, certificates, timeouts. */

const loopback = addressList(['127.0.0.0/8', '::1/128']);
const noAddresses = addressList([]);

/** Replaces the resolver for a test and returns the list of looked up names. */
function useResolver(table: Readonly<Record<string, Resolution>>): string[] {
  const { lookups, restore } = fakeResolver(table);
  onTestFinished(restore);
  return lookups;
}

async function check(
  base_url: string,
  allowed = loopback,
  timeoutMs = 20_000,
  signal?: AbortSignal,
): Promise<ModelCheck> {
  const [result] = await checkProvider(providerRow('openai', base_url), KEY, [], { allowed, timeoutMs, signal });
  if (!result) throw new Error('no result');
  expect(result.message).not.toMatch(/127\.0\.0|::1|llm\.example|undefined/);
  expect(result.message).not.toContain(KEY);
  return result;
}

const unreachable = (message: RegExp) => ({
  status: 'CHECK_STATUS_UNREACHABLE',
  message: expect.stringMatching(message),
  latencyMs: expect.any(Number),
});

describe('an address', () => {
  const refused = (message: RegExp) => ({
    status: 'CHECK_STATUS_ADDRESS_REFUSED',
    message: expect.stringMatching(message),
    latencyMs: undefined,
  });

  it.each([
    'http://127.0.0.1:PORT',
    'https://127.0.0.1:PORT',
    'https://[::ffff:127.0.0.1]:PORT',
    'https://2130706433:PORT',
  ])('in the base URL %s is rejected when it is no longer allowed', async (url) => {
    const { port, expectUnused } = await startTcp(() => undefined);
    expect(await check(url.replace('PORT', String(port)), noAddresses)).toEqual(
      refused(/^openai was not contacted, because its base_url may not be used; it must be https to a public address/),
    );
    await expectUnused();
  });

  it.each([
    '',
    'nonsense',
    'ftp://127.0.0.1',
    'https://user:pass@llm.example.com',
    'https://llm.example.com\\@127.0.0.1/v1',
    'https://llm.example.com.',
  ])('in the invalid base URL %j is rejected without a lookup', async (url) => {
    const lookups = useResolver({ [NAME]: ['127.0.0.1'], localhost: ['127.0.0.1'] });
    expect(await check(url)).toEqual(refused(/base_url may not be used/));
    expect(lookups).toEqual([]);
  });

  it.each([
    ['127.0.0.1'],
    ['127.0.0.2'],
    ['::1'],
    ['::ffff:127.0.0.1'],
    ['::ffff:7f00:1'],
    ['10.0.0.1'],
    ['192.168.0.1'],
    ['172.16.0.1'],
    ['169.254.169.254'],
    ['100.64.0.1'],
    ['0.0.0.0'],
    ['fe80::1%eth0'],
    ['fd00::1'],
    ['64:ff9b::7f00:1'],
    ['8.8.8.8', '127.0.0.1'],
    ['127.0.0.1', '8.8.8.8'],
    ['2606:4700::1111', '8.8.8.8', '::ffff:10.0.0.1'],
    ['not an address'],
  ])('is rejected when a name resolves to %s %s', async (...addresses) => {
    useResolver({ [NAME]: addresses });
    const { port, expectUnused } = await startTcp(() => undefined);
    expect(await check(`https://${NAME}:${port}`, noAddresses)).toEqual(
      refused(/the name in its base_url resolves to an address that may not be used/),
    );
    await expectUnused();
  });

  it.each([['10.0.0.1'], ['127.0.0.1', '10.0.0.1'], ['::ffff:10.0.0.1'], ['fd00::1']])(
    'is rejected when a name resolves to %s %s, some of them allowed',
    async (...addresses) => {
      useResolver({ [NAME]: addresses });
      const { port, expectUnused } = await startTcp(() => undefined);
      expect((await check(`https://${NAME}:${port}`)).status).toBe('CHECK_STATUS_ADDRESS_REFUSED');
      await expectUnused();
    },
  );

  it.each([['127.0.0.1'], ['::ffff:127.0.0.1'], ['::1', '127.0.0.1'], ['127.0.0.9', '127.0.0.1']])(
    'is used when a name resolves to allowed addresses: %s %s',
    async (...addresses) => {
      useResolver({ [NAME]: addresses });
      const { port, sockets } = await startTcp((socket) => socket.end('no TLS'));
      expect((await check(`https://${NAME}:${port}`)).status).toBe('CHECK_STATUS_UNREACHABLE');
      expect(sockets).toHaveLength(1);
    },
  );

  it.each([
    ['http', 'localhost', ['127.0.0.1']],
    ['http', 'vllm', ['127.0.0.1']],
    ['http', 'vllm.models.svc.cluster.local', ['127.0.0.1']],
    // A frequent entry in /etc/hosts, while only 127.0.0.0/8 is allowed.
    ['http', 'localhost', ['::1', '127.0.0.1']],
    ['http', 'localhost', ['127.0.0.1', '::1']],
  ] as const)('in an allowed range is used: %s://%s resolves to %s', async (scheme, name, addresses) => {
    const lookups = useResolver({ [name]: addresses });
    const fake = await startFakeProvider('openai');
    const base_url = `${scheme}://${name}:${fake.port}/v1`;
    expect(await check(base_url, addressList(['127.0.0.0/8']))).toMatchObject({ status: 'CHECK_STATUS_OK' });
    expect(lookups).toEqual([name]);
    expect(fake.paths()).toEqual(['GET /v1/models']);
  });

  it.each([
    ['http', ['8.8.8.8']],
    ['http', ['127.0.0.1', '8.8.8.8']],
    ['http', ['10.0.0.1']],
    ['http', ['127.0.0.1', '169.254.169.254']],
    ['http', ['::1']],
    ['https', ['10.0.0.1']],
    ['https', ['::1', '10.0.0.1', '127.0.0.1']],
  ] as const)('in no allowed range is rejected: a name with %s resolves to %s', async (scheme, addresses) => {
    useResolver({ vllm: addresses });
    const { port, expectUnused } = await startTcp(() => undefined);
    const result = await check(`${scheme}://vllm:${port}/v1`, addressList(['127.0.0.0/8']));
    expect(result).toEqual(refused(/resolves to an address that may not be used/));
    await expectUnused();
  });

  it('of the local network is rejected without a lookup when no range is allowed', async () => {
    const lookups = useResolver({ vllm: ['127.0.0.1'], localhost: ['127.0.0.1'] });
    for (const url of ['http://vllm:8000/v1', 'https://vllm/v1', 'http://localhost:11434/v1'])
      expect(await check(url, noAddresses)).toEqual(refused(/base_url may not be used/));
    expect(lookups).toEqual([]);
  });

  // A second lookup for the connection could return another address than the one that was checked.
  it('is looked up once per request', async () => {
    const lookups = useResolver({ [NAME]: ['127.0.0.1'] });
    const { port } = await startTcp((socket) => socket.end('no TLS'));
    await check(`https://${NAME}:${port}`);
    expect(lookups).toEqual([NAME]);
  });
});

describe('lookupAllowed', () => {
  const lookUp = (allowed = loopback, options: object = {}) =>
    new Promise<[string | undefined, string | LookupAddress[], number?]>((resolve) =>
      lookupAllowed(allowed)(NAME, options, (error, address, family) => resolve([error?.code, address, family])),
    );

  it('returns all addresses or the first one', async () => {
    useResolver({ [NAME]: ['::1', '127.0.0.1'] });
    expect(await lookUp(loopback)).toEqual([undefined, '::1', 6]);
    expect(await lookUp(loopback, { all: true })).toEqual([
      undefined,
      [
        { address: '::1', family: 6 },
        { address: '127.0.0.1', family: 4 },
      ],
      undefined,
    ]);
  });

  it.each([{}, { all: true }, { all: false }, { family: 4 }])(
    'fails with the options %j when one address is forbidden',
    async (options) => {
      useResolver({ [NAME]: ['127.0.0.1', '10.0.0.1'] });
      expect(await lookUp(loopback, options)).toEqual(['ADDRESS_REFUSED', '', undefined]);
    },
  );

  it('fails with ENOTFOUND for an unknown name', async () => {
    useResolver({ [NAME]: [] });
    expect(await lookUp()).toEqual(['ENOTFOUND', '', undefined]);
  });
});

describe('a check over a failing network', () => {
  it.each([
    [{ code: 'ENOTFOUND' }, /^The name in the base_url of openai is not known; check its spelling/],
    [{ code: 'EAI_AGAIN' }, /^The name in the base_url of openai could not be looked up; check the DNS/],
    [{ code: 'ESOMETHING' }, /^openai could not be reached; check its base_url/],
    ['silence', /^openai did not respond within 300 ms/],
  ] as const)('returns UNREACHABLE when the lookup ends with %j', async (resolution, message) => {
    useResolver({ [NAME]: resolution });
    expect(await check(`https://${NAME}`, loopback, 300)).toEqual(unreachable(message));
  });

  it('returns UNREACHABLE when the port is closed', async () => {
    const { port } = await startTcp(() => undefined);
    const free = port === 65_535 ? 1 : await freePort();
    expect(await check(`http://127.0.0.1:${free}`)).toEqual(
      unreachable(/^openai refuses connections; check that it is/),
    );
    useResolver({ [NAME]: ['127.0.0.1', '127.0.0.2'] });
    expect(await check(`https://${NAME}:${free}`)).toEqual(unreachable(/^openai refuses connections/));
  });

  it.each([
    ['before the response', () => 0],
    ['in the headers', (socket: import('node:net').Socket) => socket.write('HTTP/1.1 200 OK\r\n')],
    [
      'in the body',
      (socket: import('node:net').Socket) => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"da'),
    ],
    [
      'in a chunk',
      (socket: import('node:net').Socket) =>
        socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n'),
    ],
  ])('returns UNREACHABLE when the connection is reset %s', async (_, sendPart) => {
    const { port } = await startTcp((socket) => {
      socket.once('data', () => {
        sendPart(socket);
        setTimeout(() => socket.resetAndDestroy(), 30);
      });
    });
    expect(await check(`http://127.0.0.1:${port}`)).toEqual(unreachable(/^openai closed the connection; check again/));
  });

  it('returns UNREACHABLE when the connection ends within a body', async () => {
    const { port } = await startTcp((socket) => {
      socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"data":[]}'));
    });
    expect(await check(`http://127.0.0.1:${port}`)).toEqual(unreachable(/^openai closed the connection/));
  });

  it.each(['SSH-2.0-OpenSSH_9.6\r\n', `HTTP/1.1 200 OK\r\nx: ${'a'.repeat(20_000)}\r\n\r\n`])(
    'returns PROVIDER_ERROR when the response is not HTTP: %.20s',
    async (response) => {
      const { port } = await startTcp((socket) => void socket.once('data', () => socket.end(response)));
      expect(await check(`http://127.0.0.1:${port}`)).toMatchObject({
        status: 'CHECK_STATUS_PROVIDER_ERROR',
        message: expect.stringMatching(/^openai responded with something that is not HTTP/),
      });
    },
  );

  it('returns UNREACHABLE when the server uses HTTP instead of TLS', async () => {
    const { port } = await startTcp((socket) => void socket.once('data', () => socket.end('HTTP/1.1 400 Bad\r\n\r\n')));
    expect(await check(`https://127.0.0.1:${port}`)).toEqual(
      unreachable(/^No TLS connection to openai could be established/),
    );
  });

  it.each(['connection: upgrade\r\nupgrade: h2c\r\n', ''])(
    'returns PROVIDER_ERROR immediately when the server switches protocols, with the headers %j',
    async (headers) => {
      const { port, sockets } = await startTcp((socket) => {
        socket.once('data', () => socket.write(`HTTP/1.1 101 Switching\r\n${headers}\r\n`));
      });
      const started = performance.now();
      expect(await check(`http://127.0.0.1:${port}`, loopback, 10_000)).toEqual({
        status: 'CHECK_STATUS_PROVIDER_ERROR',
        message: 'openai responded with something that is not HTTP; check the scheme and port of its base_url',
        latencyMs: expect.any(Number),
      });
      expect(performance.now() - started).toBeLessThan(5_000);
      await until(() => sockets.every(({ destroyed }) => destroyed));
    },
  );
});

describe('the timeout of a check', () => {
  const drip = (first: string, piece: string) => async () => {
    const { port, sockets } = await startTcp((socket) => {
      socket.once('data', () => {
        socket.write(first);
        const timer = setInterval(() => socket.write(piece), 20);
        socket.once('close', () => clearInterval(timer));
      });
    });
    return { url: `http://127.0.0.1:${port}`, sockets };
  };
  const silent = (scheme: string) => async () => {
    const { port, sockets } = await startTcp((socket) => socket.resume());
    return { url: `${scheme}://127.0.0.1:${port}`, sockets };
  };
  const slow: readonly [string, () => Promise<{ url: string; sockets: readonly { destroyed: boolean }[] }>][] = [
    ['a server that never responds', silent('http')],
    ['a TLS handshake that never completes', silent('https')],
    ['headers that arrive slowly', drip('HTTP/1.1 200 OK\r\n', 'x: y\r\n')],
    ['endless interim responses', drip('', 'HTTP/1.1 102 Processing\r\n\r\n')],
    ['a body that arrives slowly', drip('HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n', ' ')],
    ['chunks that arrive slowly', drip('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n', '1\r\n \r\n')],
  ];

  it.each(slow)('ends the check of %s', async (_, start) => {
    const { url, sockets } = await start();
    const started = performance.now();
    expect(await check(url, loopback, 300)).toEqual(unreachable(/^openai did not respond within 300 ms/));
    expect(performance.now() - started).toBeGreaterThan(290);
    expect(performance.now() - started).toBeLessThan(5_000);
    await until(() => sockets.every(({ destroyed }) => destroyed));
  });

  it.each(slow)('is cut short by the signal for %s', async (_, start) => {
    const { url, sockets } = await start();
    const controller = new AbortController();
    const started = performance.now();
    setTimeout(() => controller.abort(), 100);
    expect(await check(url, loopback, 10_000, controller.signal)).toEqual(
      unreachable(/^The check of openai was stopped before a response arrived/),
    );
    expect(performance.now() - started).toBeLessThan(5_000);
    await until(() => sockets.every(({ destroyed }) => destroyed));
  });

  it('is cut short by the signal during a lookup', async () => {
    useResolver({ [NAME]: 'silence' });
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 50);
    const started = performance.now();
    expect(await check(`https://${NAME}`, loopback, 10_000, controller.signal)).toEqual(
      unreachable(/was stopped before/),
    );
    expect(performance.now() - started).toBeLessThan(5_000);
  });

  it('allows no request when the signal is already aborted', async () => {
    const { port, expectUnused } = await startTcp(() => undefined);
    const result = await check(`http://127.0.0.1:${port}`, loopback, 5000, AbortSignal.abort());
    expect(result).toEqual({ ...unreachable(/was stopped before/), latencyMs: undefined });
    await expectUnused();
  });

  it.each([0, -5, Number.NaN])('of %d ends the check immediately', async (timeoutMs) => {
    const { url } = await silent('http')();
    const [result] = await checkProvider(providerRow('openai', url), KEY, [], { allowed: loopback, timeoutMs });
    expect(result?.status).toBe('CHECK_STATUS_UNREACHABLE');
  });

  it.each([Number.POSITIVE_INFINITY, 2 ** 40])('of %d lets the check complete', async (timeoutMs) => {
    const fake = await startFakeProvider('openai');
    fake.on('/v1/models', (request, response) => void setTimeout(wire.openai.list, 50, request, response));
    const [result] = await checkProvider(fake.provider, KEY, [], { allowed: loopback, timeoutMs });
    expect(result?.status).toBe('CHECK_STATUS_OK');
    expect(result?.latencyMs).toBeGreaterThanOrEqual(49);
  });

  it('leaves no listener on the signal and no timer after the check', async () => {
    const fake = await startFakeProvider('grok');
    const { signal } = new AbortController();
    const added = vi.spyOn(signal, 'addEventListener');
    const removed = vi.spyOn(signal, 'removeEventListener');
    const cleared = vi.spyOn(globalThis, 'clearTimeout');
    onTestFinished(() => void vi.restoreAllMocks());
    await checkProvider(fake.provider, KEY, ['grok-4'], { allowed: loopback, timeoutMs: 60_000, signal });
    expect(added).toHaveBeenCalledTimes(1);
    expect(removed.mock.calls[0]?.slice(0, 2)).toEqual(added.mock.calls[0]?.slice(0, 2));
    expect(cleared).toHaveBeenCalled();
  });
});

describe('concurrent checks', () => {
  /** Occupies all slots with checks of a provider that never responds. Returns a function that ends them. */
  async function occupyAllSlots() {
    const silent = await startFakeProvider('openai');
    silent.on('*', () => undefined);
    const controllers = Array.from({ length: limits.concurrentProviderRequests }, () => new AbortController());
    const checks = controllers.map(({ signal }) =>
      checkProvider(silent.provider, KEY, [], { allowed: loopback, timeoutMs: 20_000, signal }),
    );
    const stop = async () => {
      for (const controller of controllers) controller.abort();
      await Promise.all(checks);
    };
    onTestFinished(stop);
    await until(() => silent.seen.length === limits.concurrentProviderRequests);
    return stop;
  }

  it('all complete, with a bounded number of concurrent requests', async () => {
    const fake = await startFakeProvider('openai');
    let open = 0;
    let maxOpen = 0;
    fake.on('/v1/models', (request, response) => {
      maxOpen = Math.max(maxOpen, ++open);
      response.once('finish', () => open--);
      setTimeout(wire.openai.list, 20, request, response);
    });
    const results = await Promise.all(Array.from({ length: 100 }, () => check(fake.provider.base_url)));
    expect(new Set(results.map(({ status }) => status))).toEqual(new Set(['CHECK_STATUS_OK']));
    expect(maxOpen).toBe(limits.concurrentProviderRequests);
  });

  it('beyond the limit end with a message when no slot becomes free within the timeout', async () => {
    const stop = await occupyAllSlots();
    const fake = await startFakeProvider('openai');
    const started = performance.now();
    expect(await check(fake.provider.base_url, loopback, 300)).toEqual({
      status: 'CHECK_STATUS_UNREACHABLE',
      message:
        'The request to openai was not sent in time, because it waited for other checks of this service for most of 300 ms; check again later',
      latencyMs: undefined,
    });
    expect(performance.now() - started).toBeGreaterThan(290);
    expect(performance.now() - started).toBeLessThan(5_000);
    const next = check(fake.provider.base_url, loopback, 10_000);
    await stop();
    expect((await next).status).toBe('CHECK_STATUS_OK');
    expect(fake.seen).toHaveLength(1);
  });

  it('that time out together do not start requests for the remaining moment', async () => {
    const lookups = useResolver({ [NAME]: 'silence' });
    // Blocks the event loop until all timeouts have passed, so that the timers fire one after another.
    setTimeout(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500), 300);
    const many = Array.from({ length: 200 }, () => check(`https://${NAME}`, loopback, 500));
    const messages = (await Promise.all(many)).map(({ message }) => message);
    const sent = messages.filter((message) => /^openai did not respond within 500 ms/.test(message));
    const notSent = messages.filter((message) => /^The request to openai was not sent in time/.test(message));
    expect([sent.length, notSent.length]).toEqual([
      limits.concurrentProviderRequests,
      200 - limits.concurrentProviderRequests,
    ]);
    expect(lookups.length).toBe(limits.concurrentProviderRequests);
  });

  it('that wait for a slot end when their signal aborts', async () => {
    await occupyAllSlots();
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 50);
    const started = performance.now();
    expect((await check('http://127.0.0.1:1', loopback, 10_000, controller.signal)).message).toMatch(
      /was stopped before/,
    );
    expect(performance.now() - started).toBeLessThan(5_000);
  });

  it('release their slot after every outcome', async () => {
    const { port } = await startTcp((socket) => socket.resetAndDestroy());
    for (let n = 0; n < limits.concurrentProviderRequests + 1; n++) {
      await check(`http://127.0.0.1:${port}`);
      await check('https://127.0.0.1:1', noAddresses);
    }
    const fake = await startFakeProvider('openai');
    expect((await check(fake.provider.base_url)).status).toBe('CHECK_STATUS_OK');
  });
});

describe('a response body', () => {
  it('is read only up to the size limit', async () => {
    const fake = await startFakeProvider('openai');
    let sent = 0;
    const chunk = Buffer.alloc(64 * 1024, ' ');
    const flood: Handler = (_, response) => {
      const writeChunks = () => {
        while (!response.destroyed && sent < limits.providerResponseBytes * 8) {
          sent += chunk.length;
          if (!response.write(chunk)) return void response.once('drain', writeChunks);
        }
        response.end();
      };
      writeChunks();
    };
    fake.on('/v1/models', flood);
    const [result] = await checkProvider(fake.provider, KEY, [], { allowed: loopback, timeoutMs: 10_000 });
    expect(result?.message).toBe('openai responded with more than 2 MiB; check that its base_url is right');
    await sleep(50);
    expect(sent).toBeLessThan(limits.providerResponseBytes * 3);
  });

  it('of the maximum size is read', async () => {
    const fake = await startFakeProvider('openai');
    const body = '{"data":[{"id":"gpt-4o"}]}';
    fake.on(
      '/v1/models',
      (_, response) => void response.end(body + ' '.repeat(limits.providerResponseBytes - body.length)),
    );
    const [result] = await checkProvider(fake.provider, KEY, ['gpt-4o'], { allowed: loopback, timeoutMs: 10_000 });
    expect(result?.status).toBe('CHECK_STATUS_OK');
  });

  it.each([`${'['.repeat(1_000_000)}`, `${'[['.repeat(200_000)}${']]'.repeat(200_000)}`, '{"__proto__":{"data":[]}}'])(
    'with hostile JSON is not accepted as a list: %.20s',
    async (body) => {
      const fake = await startFakeProvider('openai');
      fake.on('/v1/models', (_, response) => void response.end(body));
      const [result] = await checkProvider(fake.provider, KEY, [], { allowed: loopback, timeoutMs: 10_000 });
      expect(result?.status).toBe('CHECK_STATUS_PROVIDER_ERROR');
    },
  );

  it('with a byte order mark is read', async () => {
    const fake = await startFakeProvider('openai');
    fake.on('/v1/models', (_, response) => void response.end('\ufeff{"data":[{"id":"gpt-4o"}]}'));
    const [result] = await checkProvider(fake.provider, KEY, ['gpt-4o'], { allowed: loopback, timeoutMs: 10_000 });
    expect(result?.status).toBe('CHECK_STATUS_OK');
  });
});

describe('a check over TLS', () => {
  const DAY = 86_400_000;
  const at = (days: number) => new Date(Date.now() + days * DAY);

  it('returns OK for a certificate of a trusted authority, after trying an unreachable address', async () => {
    const { fake, result, stderr } = await checkOverTls(goodCertificate());
    expect(result).toMatchObject({ status: 'CHECK_STATUS_OK' });
    expect(fake.seen[0]?.headers['host']).toBe(`${NAME}:${fake.port}`);
    expect(stderr).toBe('');
  });

  it('ignores the proxies of the environment', async () => {
    const { port, expectUnused } = await startTcp((socket) => socket.end());
    const proxy = `http://127.0.0.1:${port}`;
    const names = ['HTTPS_PROXY', 'HTTP_PROXY', 'ALL_PROXY', 'https_proxy', 'http_proxy', 'all_proxy'];
    const environment = { ...Object.fromEntries(names.map((name) => [name, proxy])), NODE_USE_ENV_PROXY: '1' };
    expect((await checkOverTls(goodCertificate(), { environment })).result).toMatchObject({
      status: 'CHECK_STATUS_OK',
    });
    await expectUnused();
  });

  it.each([
    ['for another name', () => makeCertificate({ name: 'other.example.com', by: authority }), /is for another name/],
    [
      'that has expired',
      () => makeCertificate({ name: NAME, by: authority, from: at(-9), until: at(-2) }),
      /not valid today/,
    ],
    [
      'that is not valid yet',
      () => makeCertificate({ name: NAME, by: authority, from: at(2), until: at(9) }),
      /not valid today/,
    ],
    ['that is self-signed', () => makeCertificate({ name: NAME }), /is not trusted by this service/],
  ])('sends no request to a server with a certificate %s', async (_, certificate, message) => {
    const { fake, result } = await checkOverTls(certificate(), { environment: { NODE_TLS_REJECT_UNAUTHORIZED: '0' } });
    expect(result).toMatchObject(unreachable(message));
    expect(fake.seen).toEqual([]);
  });

  it('sends no request to a server with a certificate of an unknown authority', async () => {
    useResolver({ [NAME]: ['127.0.0.1'] });
    const fake = await startFakeProvider('openai', { ...goodCertificate(), name: NAME });
    expect(await check(fake.provider.base_url)).toEqual(
      unreachable(/is not trusted by this service; .*NODE_EXTRA_CA_CERTS$/),
    );
    expect(fake.seen).toEqual([]);
  });

  it('fails when the base URL has http and the server uses TLS', async () => {
    const fake = await startFakeProvider('openai', { ...goodCertificate(), name: NAME });
    const result = await check(`http://127.0.0.1:${fake.port}`);
    expect(result.status).toMatch(/UNREACHABLE|PROVIDER_ERROR/);
  });
});

it('startTcp records connections, on which the tests above depend', async () => {
  const { port, sockets } = await startTcp(() => undefined);
  connect(port, '127.0.0.1');
  await until(() => sockets.length === 1);
});
