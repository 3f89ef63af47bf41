import type { LookupAddress } from 'node:dns';
import { connect } from 'node:net';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { addressList } from '../../src/domain/addresses.js';
import { limits } from '../../src/limits.js';
import { type Answer, checkProvider } from '../../src/providers/check_provider.js';
import { lookupAllowed } from '../../src/providers/egress.js';
import { freePort } from '../support/ports.js';
import { askTrusting, authority, goodCertificate, NAME } from './ask_trusting.js';
import { makeCertificate } from './certificate.js';
import { type Handler, KEY, providerRow, startFakeProvider, startTcp, wire } from './fake_provider.js';
import { fakeResolver, type Resolution } from './fake_resolver.js';

/* How the world outside can be: names, addresses, connections, certificates, time. */

const local = addressList(['127.0.0.0/8', '::1/128']);
const nowhere = addressList([]);

function resolving(table: Readonly<Record<string, Resolution>>): string[] {
  const { asked, restore } = fakeResolver(table);
  onTestFinished(restore);
  return asked;
}

async function ask(base_url: string, allowed = local, timeoutMs = 5000, signal?: AbortSignal): Promise<Answer> {
  const [answer] = await checkProvider(providerRow('openai', base_url), KEY, [], { allowed, timeoutMs, signal });
  if (!answer) throw new Error('no answer');
  expect(answer.message).not.toMatch(/127\.0\.0|::1|llm\.example|undefined/);
  expect(answer.message).not.toContain(KEY);
  return answer;
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
  ])('in the base URL %s is refused, once it is no longer allowed', async (url) => {
    const { port, sockets } = await startTcp(() => undefined);
    expect(await ask(url.replace('PORT', String(port)), nowhere)).toEqual(
      refused(/^openai was not contacted, because its base_url may not be used; it must be https to a public address/),
    );
    expect(sockets).toEqual([]);
  });

  it.each([
    '',
    'nonsense',
    'ftp://127.0.0.1',
    'https://user:pass@llm.example.com',
    'https://llm.example.com\\@127.0.0.1/v1',
    'https://llm.example.com.',
  ])('that is %j is refused without a look at its name', async (url) => {
    const asked = resolving({ [NAME]: ['127.0.0.1'], localhost: ['127.0.0.1'] });
    expect(await ask(url)).toEqual(refused(/base_url may not be used/));
    expect(asked).toEqual([]);
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
  ])('that a name resolves to, %s %s, is refused', async (...addresses) => {
    resolving({ [NAME]: addresses });
    const { port, sockets } = await startTcp(() => undefined);
    expect(await ask(`https://${NAME}:${port}`, nowhere)).toEqual(
      refused(/the name in its base_url resolves to an address that may not be used/),
    );
    await sleep(20);
    expect(sockets).toEqual([]);
  });

  it.each([['10.0.0.1'], ['127.0.0.1', '10.0.0.1'], ['::ffff:10.0.0.1'], ['fd00::1']])(
    'that a name resolves to, %s %s, is refused beside others that are allowed',
    async (...addresses) => {
      resolving({ [NAME]: addresses });
      const { port, sockets } = await startTcp(() => undefined);
      expect((await ask(`https://${NAME}:${port}`)).status).toBe('CHECK_STATUS_ADDRESS_REFUSED');
      expect(sockets).toEqual([]);
    },
  );

  it.each([['127.0.0.1'], ['::ffff:127.0.0.1'], ['::1', '127.0.0.1'], ['127.0.0.9', '127.0.0.1']])(
    'that a name resolves to, %s %s, is connected to where it is allowed',
    async (...addresses) => {
      resolving({ [NAME]: addresses });
      const { port, sockets } = await startTcp((socket) => socket.end('no TLS'));
      expect((await ask(`https://${NAME}:${port}`)).status).toBe('CHECK_STATUS_UNREACHABLE');
      expect(sockets).toHaveLength(1);
    },
  );

  it.each([
    ['http', 'localhost', ['127.0.0.1']],
    ['http', 'vllm', ['127.0.0.1']],
    ['http', 'vllm.models.svc.cluster.local', ['127.0.0.1']],
    // As /etc/hosts often has it, where only 127.0.0.0/8 is allowed.
    ['http', 'localhost', ['::1', '127.0.0.1']],
    ['http', 'localhost', ['127.0.0.1', '::1']],
  ] as const)('that %s://%s resolves to, %s, is asked when it is in an allowed range', async (scheme, name, found) => {
    const asked = resolving({ [name]: found });
    const fake = await startFakeProvider('openai');
    const base_url = `${scheme}://${name}:${fake.port}/v1`;
    expect(await ask(base_url, addressList(['127.0.0.0/8']))).toMatchObject({ status: 'CHECK_STATUS_OK' });
    expect(asked).toEqual([name]);
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
  ] as const)('that a %s name resolves to, %s, is refused when it is in no allowed range', async (scheme, found) => {
    resolving({ vllm: found });
    const { port, sockets } = await startTcp(() => undefined);
    const answer = await ask(`${scheme}://vllm:${port}/v1`, addressList(['127.0.0.0/8']));
    expect(answer).toEqual(refused(/resolves to an address that may not be used/));
    expect(sockets).toEqual([]);
  });

  it('of the local network is refused without a look at its name while no range is allowed', async () => {
    const asked = resolving({ vllm: ['127.0.0.1'], localhost: ['127.0.0.1'] });
    for (const url of ['http://vllm:8000/v1', 'https://vllm/v1', 'http://localhost:11434/v1'])
      expect(await ask(url, nowhere)).toEqual(refused(/base_url may not be used/));
    expect(asked).toEqual([]);
  });

  // Between a check and a connection that looks the name up once more, the name could resolve to something else.
  it('is looked up once for a request', async () => {
    const asked = resolving({ [NAME]: ['127.0.0.1'] });
    const { port } = await startTcp((socket) => socket.end('no TLS'));
    await ask(`https://${NAME}:${port}`);
    expect(asked).toEqual([NAME]);
  });
});

describe('lookupAllowed', () => {
  const look = (allowed = local, options: object = {}) =>
    new Promise<[string | undefined, string | LookupAddress[], number?]>((resolve) =>
      lookupAllowed(allowed)(NAME, options, (error, address, family) => resolve([error?.code, address, family])),
    );

  it('gives all addresses, or the first', async () => {
    resolving({ [NAME]: ['::1', '127.0.0.1'] });
    expect(await look(local)).toEqual([undefined, '::1', 6]);
    expect(await look(local, { all: true })).toEqual([
      undefined,
      [
        { address: '::1', family: 6 },
        { address: '127.0.0.1', family: 4 },
      ],
      undefined,
    ]);
  });

  it.each([{}, { all: true }, { all: false }, { family: 4 }])(
    'refuses with %j for one address that is refused',
    async (options) => {
      resolving({ [NAME]: ['127.0.0.1', '10.0.0.1'] });
      expect(await look(local, options)).toEqual(['ADDRESS_REFUSED', '', undefined]);
    },
  );

  it('takes no address for an unknown name', async () => {
    resolving({ [NAME]: [] });
    expect(await look()).toEqual(['ENOTFOUND', '', undefined]);
  });
});

describe('a network', () => {
  it.each([
    [{ code: 'ENOTFOUND' }, /^The name in the base_url of openai is not known; check its spelling/],
    [{ code: 'EAI_AGAIN' }, /^The name in the base_url of openai could not be looked up; check the DNS/],
    [{ code: 'ESOMETHING' }, /^openai could not be reached; check its base_url/],
    ['silence', /^openai did not respond within 300 ms/],
  ] as const)('whose name service says %j', async (resolution, message) => {
    resolving({ [NAME]: resolution });
    expect(await ask(`https://${NAME}`, local, 300)).toEqual(unreachable(message));
  });

  it('that nobody listens in', async () => {
    const { port } = await startTcp(() => undefined);
    const free = port === 65_535 ? 1 : await freePort();
    expect(await ask(`http://127.0.0.1:${free}`)).toEqual(unreachable(/^openai refuses connections; check that it is/));
    resolving({ [NAME]: ['127.0.0.1', '127.0.0.2'] });
    expect(await ask(`https://${NAME}:${free}`)).toEqual(unreachable(/^openai refuses connections/));
  });

  it.each([
    ['at once', () => 0],
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
  ])('that resets the connection %s', async (_, say) => {
    const { port } = await startTcp((socket) => {
      socket.once('data', () => {
        say(socket);
        setTimeout(() => socket.resetAndDestroy(), 30);
      });
    });
    expect(await ask(`http://127.0.0.1:${port}`)).toEqual(unreachable(/^openai closed the connection; check again/));
  });

  it('that ends the connection in the middle of a body', async () => {
    const { port } = await startTcp((socket) => {
      socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"data":[]}'));
    });
    expect(await ask(`http://127.0.0.1:${port}`)).toEqual(unreachable(/^openai closed the connection/));
  });

  it.each(['SSH-2.0-OpenSSH_9.6\r\n', `HTTP/1.1 200 OK\r\nx: ${'a'.repeat(20_000)}\r\n\r\n`])(
    'in which no HTTP is spoken but %.20s',
    async (said) => {
      const { port } = await startTcp((socket) => void socket.once('data', () => socket.end(said)));
      expect(await ask(`http://127.0.0.1:${port}`)).toMatchObject({
        status: 'CHECK_STATUS_PROVIDER_ERROR',
        message: expect.stringMatching(/^openai responded with something that is not HTTP/),
      });
    },
  );

  it('in which HTTP is spoken where TLS should be', async () => {
    const { port } = await startTcp((socket) => void socket.once('data', () => socket.end('HTTP/1.1 400 Bad\r\n\r\n')));
    expect(await ask(`https://127.0.0.1:${port}`)).toEqual(
      unreachable(/^No TLS connection to openai could be established/),
    );
  });

  it.each(['connection: upgrade\r\nupgrade: h2c\r\n', ''])(
    'that switches to another protocol unasked, with %j: at once',
    async (headers) => {
      const { port, sockets } = await startTcp((socket) => {
        socket.once('data', () => socket.write(`HTTP/1.1 101 Switching\r\n${headers}\r\n`));
      });
      const started = performance.now();
      expect(await ask(`http://127.0.0.1:${port}`, local, 10_000)).toEqual({
        status: 'CHECK_STATUS_PROVIDER_ERROR',
        message: 'openai responded with something that is not HTTP; check the scheme and port of its base_url',
        latencyMs: expect.any(Number),
      });
      expect(performance.now() - started).toBeLessThan(3000);
      await vi.waitFor(() => expect(sockets.every(({ destroyed }) => destroyed)).toBe(true));
    },
  );
});

describe('time', () => {
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
  const slow: readonly [string, () => Promise<{ url: string; sockets: { destroyed: boolean }[] }>][] = [
    ['a socket that never says a word', silent('http')],
    ['a handshake that never comes', silent('https')],
    ['headers that trickle', drip('HTTP/1.1 200 OK\r\n', 'x: y\r\n')],
    ['interim answers without end', drip('', 'HTTP/1.1 102 Processing\r\n\r\n')],
    ['a body that trickles', drip('HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n', ' ')],
    ['chunks that trickle', drip('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n', '1\r\n \r\n')],
  ];

  it.each(slow)('is not given to %s', async (_, start) => {
    const { url, sockets } = await start();
    const started = performance.now();
    expect(await ask(url, local, 300)).toEqual(unreachable(/^openai did not respond within 300 ms/));
    expect(performance.now() - started).toBeGreaterThan(290);
    expect(performance.now() - started).toBeLessThan(3000);
    await vi.waitFor(() => expect(sockets.every(({ destroyed }) => destroyed)).toBe(true));
  });

  it.each(slow)('ends with the signal, for %s', async (_, start) => {
    const { url, sockets } = await start();
    const controller = new AbortController();
    const started = performance.now();
    setTimeout(() => controller.abort(), 100);
    expect(await ask(url, local, 10_000, controller.signal)).toEqual(
      unreachable(/^The check of openai was stopped before a response arrived/),
    );
    expect(performance.now() - started).toBeLessThan(3000);
    await vi.waitFor(() => expect(sockets.every(({ destroyed }) => destroyed)).toBe(true));
  });

  it('ends with the signal while a name is looked up', async () => {
    resolving({ [NAME]: 'silence' });
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 50);
    const started = performance.now();
    expect(await ask(`https://${NAME}`, local, 10_000, controller.signal)).toEqual(unreachable(/was stopped before/));
    expect(performance.now() - started).toBeLessThan(3000);
  });

  it('that is over before it starts: nobody is asked', async () => {
    const { port, sockets } = await startTcp(() => undefined);
    const answer = await ask(`http://127.0.0.1:${port}`, local, 5000, AbortSignal.abort());
    expect(answer).toEqual({ ...unreachable(/was stopped before/), latencyMs: undefined });
    expect(sockets).toEqual([]);
  });

  it.each([0, -5, Number.NaN])('that is %d is no time', async (timeoutMs) => {
    const { url } = await silent('http')();
    const [answer] = await checkProvider(providerRow('openai', url), KEY, [], { allowed: local, timeoutMs });
    expect(answer?.status).toBe('CHECK_STATUS_UNREACHABLE');
  });

  it.each([Number.POSITIVE_INFINITY, 2 ** 40])('that is %d is enough', async (timeoutMs) => {
    const fake = await startFakeProvider('openai');
    fake.on('/v1/models', (request, response) => void setTimeout(wire.openai.list, 50, request, response));
    const [answer] = await checkProvider(fake.provider, KEY, [], { allowed: local, timeoutMs });
    expect(answer?.status).toBe('CHECK_STATUS_OK');
    expect(answer?.latencyMs).toBeGreaterThanOrEqual(49);
  });

  it('leaves nothing behind: no listener on the signal, no timer', async () => {
    const fake = await startFakeProvider('grok');
    const { signal } = new AbortController();
    const added = vi.spyOn(signal, 'addEventListener');
    const removed = vi.spyOn(signal, 'removeEventListener');
    const cleared = vi.spyOn(globalThis, 'clearTimeout');
    await checkProvider(fake.provider, KEY, ['grok-4'], { allowed: local, timeoutMs: 60_000, signal });
    expect(added).toHaveBeenCalledTimes(1);
    expect(removed.mock.calls[0]?.slice(0, 2)).toEqual(added.mock.calls[0]?.slice(0, 2));
    expect(cleared).toHaveBeenCalled();
    vi.restoreAllMocks();
  });
});

describe('many at once', () => {
  /** A provider that answers nobody, and all whom it may. */
  async function full() {
    const silent = await startFakeProvider('openai');
    silent.on('*', () => undefined);
    const controllers = Array.from({ length: limits.providerRequestsAtOnce }, () => new AbortController());
    const asking = controllers.map(({ signal }) =>
      checkProvider(silent.provider, KEY, [], { allowed: local, timeoutMs: 20_000, signal }),
    );
    const stop = async () => {
      for (const controller of controllers) controller.abort();
      await Promise.all(asking);
    };
    onTestFinished(stop);
    await vi.waitFor(() => expect(silent.seen).toHaveLength(limits.providerRequestsAtOnce));
    return stop;
  }

  it('are asked so many at a time, and all of them', async () => {
    const fake = await startFakeProvider('openai');
    let open = 0;
    let most = 0;
    fake.on('/v1/models', (request, response) => {
      most = Math.max(most, ++open);
      response.once('finish', () => open--);
      setTimeout(wire.openai.list, 20, request, response);
    });
    const answers = await Promise.all(Array.from({ length: 100 }, () => ask(fake.provider.base_url)));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set(['CHECK_STATUS_OK']));
    expect(most).toBe(limits.providerRequestsAtOnce);
  });

  it('leave one without a turn within its time, and say so', async () => {
    const stop = await full();
    const fake = await startFakeProvider('openai');
    const started = performance.now();
    expect(await ask(fake.provider.base_url, local, 300)).toEqual({
      status: 'CHECK_STATUS_UNREACHABLE',
      message:
        'The request to openai was not sent in time, because it waited for other checks of this service for most of 300 ms; check again later',
      latencyMs: undefined,
    });
    expect(performance.now() - started).toBeGreaterThan(290);
    expect(performance.now() - started).toBeLessThan(3000);
    const next = ask(fake.provider.base_url, local, 10_000);
    await stop();
    expect((await next).status).toBe('CHECK_STATUS_OK');
    expect(fake.seen).toHaveLength(1);
  });

  it('that all run out of time at once are not let in for their last moment', async () => {
    const lookups = resolving({ [NAME]: 'silence' });
    // Stands still until the time of all is over, so that their timers go off one after another.
    setTimeout(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500), 300);
    const many = Array.from({ length: 200 }, () => ask(`https://${NAME}`, local, 500));
    const said = (await Promise.all(many)).map(({ message }) => message);
    const asked = said.filter((message) => /^openai did not respond within 500 ms/.test(message));
    const late = said.filter((message) => /^The request to openai was not sent in time/.test(message));
    expect([asked.length, late.length]).toEqual([limits.providerRequestsAtOnce, 200 - limits.providerRequestsAtOnce]);
    expect(lookups.length).toBe(limits.providerRequestsAtOnce);
  });

  it('leave who waits for a turn to end with the signal', async () => {
    await full();
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 50);
    const started = performance.now();
    expect((await ask('http://127.0.0.1:1', local, 10_000, controller.signal)).message).toMatch(/was stopped before/);
    expect(performance.now() - started).toBeLessThan(3000);
  });

  it('give a turn back whatever comes of it', async () => {
    const { port } = await startTcp((socket) => socket.resetAndDestroy());
    for (let n = 0; n < limits.providerRequestsAtOnce + 1; n++) {
      await ask(`http://127.0.0.1:${port}`);
      await ask('https://127.0.0.1:1', nowhere);
    }
    const fake = await startFakeProvider('openai');
    expect((await ask(fake.provider.base_url)).status).toBe('CHECK_STATUS_OK');
  });
});

describe('a body', () => {
  it('is read to the limit and no further', async () => {
    const fake = await startFakeProvider('openai');
    let sent = 0;
    const chunk = Buffer.alloc(64 * 1024, ' ');
    const flood: Handler = (_, response) => {
      const pour = () => {
        while (!response.destroyed && sent < limits.providerAnswerBytes * 8) {
          sent += chunk.length;
          if (!response.write(chunk)) return void response.once('drain', pour);
        }
        response.end();
      };
      pour();
    };
    fake.on('/v1/models', flood);
    const [answer] = await checkProvider(fake.provider, KEY, [], { allowed: local, timeoutMs: 10_000 });
    expect(answer?.message).toBe('openai responded with more than 2 MiB; check that its base_url is right');
    await sleep(50);
    expect(sent).toBeLessThan(limits.providerAnswerBytes * 3);
  });

  it('of the size of the limit is read', async () => {
    const fake = await startFakeProvider('openai');
    const body = '{"data":[{"id":"gpt-4o"}]}';
    fake.on(
      '/v1/models',
      (_, response) => void response.end(body + ' '.repeat(limits.providerAnswerBytes - body.length)),
    );
    const [answer] = await checkProvider(fake.provider, KEY, ['gpt-4o'], { allowed: local, timeoutMs: 10_000 });
    expect(answer?.status).toBe('CHECK_STATUS_OK');
  });

  it.each([`${'['.repeat(1_000_000)}`, `${'[['.repeat(200_000)}${']]'.repeat(200_000)}`, '{"__proto__":{"data":[]}}'])(
    'that is made to hurt is no list: %.20s',
    async (body) => {
      const fake = await startFakeProvider('openai');
      fake.on('/v1/models', (_, response) => void response.end(body));
      const [answer] = await checkProvider(fake.provider, KEY, [], { allowed: local, timeoutMs: 10_000 });
      expect(answer?.status).toBe('CHECK_STATUS_PROVIDER_ERROR');
    },
  );

  it('is read with a byte order mark', async () => {
    const fake = await startFakeProvider('openai');
    fake.on('/v1/models', (_, response) => void response.end('\ufeff{"data":[{"id":"gpt-4o"}]}'));
    const [answer] = await checkProvider(fake.provider, KEY, ['gpt-4o'], { allowed: local, timeoutMs: 10_000 });
    expect(answer?.status).toBe('CHECK_STATUS_OK');
  });
});

describe('TLS', () => {
  const DAY = 86_400_000;
  const at = (days: number) => new Date(Date.now() + days * DAY);

  it('with a certificate from a trusted authority, past an address that is dead', async () => {
    const { fake, answer, stderr } = await askTrusting(goodCertificate());
    expect(answer).toMatchObject({ status: 'CHECK_STATUS_OK' });
    expect(fake.seen[0]?.headers['host']).toBe(`${NAME}:${fake.port}`);
    expect(stderr).toBe('');
  });

  it('and no proxy, whatever the environment says', async () => {
    const { port, sockets } = await startTcp((socket) => socket.end());
    const proxy = `http://127.0.0.1:${port}`;
    const names = ['HTTPS_PROXY', 'HTTP_PROXY', 'ALL_PROXY', 'https_proxy', 'http_proxy', 'all_proxy'];
    const environment = { ...Object.fromEntries(names.map((name) => [name, proxy])), NODE_USE_ENV_PROXY: '1' };
    expect((await askTrusting(goodCertificate(), { environment })).answer).toMatchObject({ status: 'CHECK_STATUS_OK' });
    expect(sockets).toEqual([]);
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
    ['that it signed itself', () => makeCertificate({ name: NAME }), /is not trusted by this service/],
  ])('with a certificate %s: nothing is said to it', async (_, certificate, message) => {
    const { fake, answer } = await askTrusting(certificate(), { environment: { NODE_TLS_REJECT_UNAUTHORIZED: '0' } });
    expect(answer).toMatchObject(unreachable(message));
    expect(fake.seen).toEqual([]);
  });

  it('with a certificate from an authority that nobody knows', async () => {
    resolving({ [NAME]: ['127.0.0.1'] });
    const fake = await startFakeProvider('openai', { ...goodCertificate(), name: NAME });
    expect(await ask(fake.provider.base_url)).toEqual(
      unreachable(/is not trusted by this service; .*NODE_EXTRA_CA_CERTS$/),
    );
    expect(fake.seen).toEqual([]);
  });

  it('where none is spoken', async () => {
    const fake = await startFakeProvider('openai', { ...goodCertificate(), name: NAME });
    const answer = await ask(`http://127.0.0.1:${fake.port}`);
    expect(answer.status).toMatch(/UNREACHABLE|PROVIDER_ERROR/);
  });
});

it('the fake server can be reached, or the tests above would prove nothing', async () => {
  const { port, sockets } = await startTcp(() => undefined);
  connect(port, '127.0.0.1');
  await vi.waitFor(() => expect(sockets).toHaveLength(1));
});
