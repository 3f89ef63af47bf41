import { isIP } from 'node:net';
import fc from 'fast-check';
import { describe, expect, it, onTestFinished } from 'vitest';
import { addressList, addressProblem, urlProblem } from '../../src/domain/addresses.js';
import { checkProvider } from '../../src/providers/check_provider.js';
import { lookupAllowed } from '../../src/providers/egress.js';
import { invalid } from '../api/handlers/support.js';
import { errorOf, send } from '../http/support.js';
import { checkInProcess, checkOverTls, goodCertificate, NAME } from '../providers/check_with_authority.js';
import { KEY, providerRow, startFakeProvider, startTcp, text, wire } from '../providers/fake_provider.js';
import { fakeResolver } from '../providers/fake_resolver.js';
import { startCommand, useDirectories } from '../support/command.js';
import { connect, failure, unique } from '../support/service.js';

/*
 * Addresses to which an API key must not be sent: whole ranges, every notation, and the service as a whole.
 * test/domain/addresses.test.ts has examples of the rule, and test/providers/egress.test.ts tests the connections.
 */

const directories = useDirectories();
const noAddresses = addressList([]);
const loopback = addressList(['127.0.0.0/8', '::1/128']);

/** A forbidden range: its first and last address, and the allowed addresses directly before and after it. */
interface Range {
  readonly first: string;
  readonly last: string;
  readonly before?: string;
  readonly after?: string;
}

const ranges: Readonly<Record<string, Range>> = {
  'this network': { first: '0.0.0.0', last: '0.255.255.255', after: '1.0.0.0' },
  'private, 10/8': { first: '10.0.0.0', last: '10.255.255.255', before: '9.255.255.255', after: '11.0.0.0' },
  'carrier-grade NAT': { first: '100.64.0.0', last: '100.127.255.255', before: '100.63.255.255', after: '100.128.0.0' },
  loopback: { first: '127.0.0.0', last: '127.255.255.255', before: '126.255.255.255', after: '128.0.0.0' },
  'link-local': { first: '169.254.0.0', last: '169.254.255.255', before: '169.253.255.255', after: '169.255.0.0' },
  'the metadata of a cloud': { first: '169.254.169.254', last: '169.254.170.2' },
  'private, 172.16/12': { first: '172.16.0.0', last: '172.31.255.255', before: '172.15.255.255', after: '172.32.0.0' },
  'private, 192.168/16': {
    first: '192.168.0.0',
    last: '192.168.255.255',
    before: '192.167.255.255',
    after: '192.169.0.0',
  },
  'for protocols': { first: '192.0.0.0', last: '192.0.0.255', before: '191.255.255.255', after: '192.0.1.0' },
  'for documentation': { first: '192.0.2.0', last: '192.0.2.255', before: '192.0.1.255', after: '192.0.3.0' },
  'for documentation, 2': {
    first: '198.51.100.0',
    last: '198.51.100.255',
    before: '198.51.99.255',
    after: '198.51.101.0',
  },
  'for documentation, 3': {
    first: '203.0.113.0',
    last: '203.0.113.255',
    before: '203.0.112.255',
    after: '203.0.114.0',
  },
  '6to4 relays': { first: '192.88.99.0', last: '192.88.99.255', before: '192.88.98.255', after: '192.88.100.0' },
  'for benchmarks': { first: '198.18.0.0', last: '198.19.255.255', before: '198.17.255.255', after: '198.20.0.0' },
  multicast: { first: '224.0.0.0', last: '239.255.255.255', before: '223.255.255.255' },
  'reserved, and broadcast': { first: '240.0.0.0', last: '255.255.255.255' },
  'unspecified, loopback and IPv4-compatible': { first: '::', last: '::ffff:ffff' },
  'IPv4-mapped, private': { first: '::ffff:10.0.0.0', last: '::ffff:10.255.255.255', before: '::ffff:9.255.255.255' },
  'IPv4-mapped, loopback': { first: '::ffff:7f00:0', last: '::ffff:7fff:ffff', after: '::ffff:8000:0' },
  'IPv4-translated': { first: '::ffff:0:0:0', last: '::ffff:0:ffff:ffff' },
  NAT64: { first: '64:ff9b::', last: '64:ff9b::ffff:ffff' },
  'local NAT64': { first: '64:ff9b:1::', last: '64:ff9b:1:ffff:ffff:ffff:ffff:ffff', after: '64:ff9b:2::' },
  'discard-only': { first: '100::', last: '100::ffff:ffff:ffff:ffff' },
  Teredo: { first: '2001::', last: '2001:0:ffff:ffff:ffff:ffff:ffff:ffff' },
  'for protocols, IPv6': { first: '2001:1::', last: '2001:1ff:ffff::', after: '2001:200::' },
  'for documentation, IPv6': {
    first: '2001:db8::',
    last: '2001:db8:ffff::',
    before: '2001:db7::',
    after: '2001:db9::',
  },
  '6to4': { first: '2002::', last: '2002:ffff:ffff::', before: '2001:ffff::', after: '2003::' },
  'unique local': { first: 'fc00::', last: 'fdff:ffff::ffff', before: 'fbff::' },
  'link-local, IPv6': { first: 'fe80::', last: 'febf:ffff::ffff', before: 'fe00::' },
  'site-local': { first: 'fec0::', last: 'feff:ffff::ffff' },
  'multicast, IPv6': { first: 'ff00::', last: 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff' },
};

const urlOf = (ip: string) => (isIP(ip) === 6 ? `https://[${ip}]/v1` : `https://${ip}/v1`);

describe('a forbidden range', () => {
  it.each(Object.entries(ranges))(
    'is rejected exactly from its first to its last address: %s',
    (_, { first, last, before, after }) => {
      for (const ip of [first, last]) {
        expect([ip, addressProblem(ip, noAddresses)]).toEqual([ip, expect.stringMatching(/PROVIDER_ALLOW_CIDRS/)]);
        const problem = /^must (not point to|write an IPv4 address in its own form)/;
        expect([ip, urlProblem(urlOf(ip), noAddresses)]).toEqual([ip, expect.stringMatching(problem)]);
      }
      for (const ip of [before, after].filter((one) => one !== undefined)) {
        expect([ip, addressProblem(ip, noAddresses)]).toEqual([ip, undefined]);
        if (!ip.startsWith('::ffff:')) expect([ip, urlProblem(urlOf(ip), noAddresses)]).toEqual([ip, undefined]);
      }
    },
  );

  it.each(Object.entries(ranges))(
    'is rejected for a name that resolves to it, alone or among other addresses: %s',
    async (_, { first, last }) => {
      const open = ['8.8.8.8', '2606:4700::1111', '9.9.9.9'];
      for (const ip of [first, last])
        for (let at = 0; at <= open.length; at++) {
          const { restore } = fakeResolver({ [NAME]: open.toSpliced(at, 0, ip) });
          const code = await new Promise((resolve) =>
            lookupAllowed(noAddresses)(NAME, { all: true }, (error) => resolve(error?.code)),
          );
          restore();
          expect([ip, at, code]).toEqual([ip, at, 'ADDRESS_REFUSED']);
        }
    },
  );
});

/* Notations of IPv4 addresses. */

type Parts = readonly [number, number, number, number];
const byte = fc.nat({ max: 255 });
const forbidden: fc.Arbitrary<Parts> = fc.oneof(
  fc.tuple(fc.constantFrom(0, 10, 127), byte, byte, byte),
  fc.tuple(fc.constant(169), fc.constant(254), byte, byte),
  fc.tuple(fc.constant(172), fc.integer({ min: 16, max: 31 }), byte, byte),
  fc.tuple(fc.constant(192), fc.constant(168), byte, byte),
  fc.tuple(fc.constant(100), fc.integer({ min: 64, max: 127 }), byte, byte),
  fc.tuple(fc.integer({ min: 224, max: 255 }), byte, byte, byte),
);
const allowed: fc.Arbitrary<Parts> = fc.tuple(fc.constantFrom(1, 8, 9, 93, 151, 216), byte, byte, byte);

const numberOf = ([a, b, c, d]: Parts) => ((a << 24) | (b << 16) | (c << 8) | d) >>> 0;
const hex4 = (value: number) => value.toString(16);
const halves = (parts: Parts) => [hex4(numberOf(parts) >>> 16), hex4(numberOf(parts) & 0xffff)] as const;
const digits = (zero: string) => (text: string) =>
  text.replace(/\d/g, (digit) => String.fromCodePoint((zero.codePointAt(0) as number) + Number(digit)));
const base = (radix: 8 | 10 | 16, value: number) =>
  ({ 8: `0${value.toString(8)}`, 10: String(value), 16: `0x${value.toString(16)}` })[radix];

/** Notations of a host that some URL parsers read as this address. */
const notations: Readonly<Record<string, (parts: Parts) => string>> = {
  'with a dot at the end': (parts) => `${parts.join('.')}.`,
  decimal: (parts) => String(numberOf(parts)),
  hexadecimal: (parts) => base(16, numberOf(parts)),
  'HEXADECIMAL with zeros': (parts) => `0X000000${numberOf(parts).toString(16).toUpperCase()}`,
  octal: (parts) => base(8, numberOf(parts)),
  'octal parts': (parts) => parts.map((part) => base(8, part)).join('.'),
  'hexadecimal parts': (parts) => parts.map((part) => base(16, part)).join('.'),
  'mixed parts': ([a, b, c, d]) => [base(16, a), base(8, b), base(10, c), base(16, d)].join('.'),
  'two parts': ([a, b, c, d]) => `${a}.${(b << 16) | (c << 8) | d}`,
  'three parts': ([a, b, c, d]) => `${a}.${b}.${(c << 8) | d}`,
  'full-width digits': (parts) => digits('０')(parts.join('.')),
  'mathematical digits': (parts) => digits('𝟎')(parts.join('.')),
  'ideographic dots': (parts) => parts.join('。'),
  'half-width dots': (parts) => parts.join('｡'),
  'percent-encoded': (parts) => parts.join('.').replace(/./g, (one) => `%${one.charCodeAt(0).toString(16)}`),
  'a soft hyphen in it': (parts) => `\u00ad${parts.join('.')}`,
  'IPv4-mapped': (parts) => `[::ffff:${parts.join('.')}]`,
  'IPv4-mapped in hexadecimal': (parts) => `[0:0:0:0:0:FFFF:${halves(parts).join(':')}]`,
};

/** IPv6 addresses that reach an IPv4 address through a translator or a tunnel. */
const embeddings: Readonly<Record<string, (parts: Parts) => string>> = {
  'IPv4-compatible': (parts) => `[::${halves(parts).join(':')}]`,
  'IPv4-translated': (parts) => `[::ffff:0:${halves(parts).join(':')}]`,
  NAT64: (parts) => `[64:ff9b::${halves(parts).join(':')}]`,
  'local NAT64': (parts) => `[64:ff9b:1:${halves(parts).join(':')}::]`,
  '6to4': (parts) => `[2002:${halves(parts).join(':')}::1]`,
  Teredo: (parts) => `[2001:0:${halves(parts).join(':')}:8000:63bf:3fff:fdd2]`,
};

describe('a base URL', () => {
  it('with a dotted address is rejected in a forbidden range and accepted outside of it', () => {
    fc.assert(
      fc.property(forbidden, (parts) => {
        expect(urlProblem(`https://${parts.join('.')}:8443/v1`, noAddresses)).toMatch(/^must not point to/);
      }),
    );
    fc.assert(
      fc.property(allowed, (parts) => {
        expect(urlProblem(`https://${parts.join('.')}/v1`, noAddresses)).toBeUndefined();
      }),
    );
  });

  // URL parsers interpret these differently, so a key could be sent to another origin than the one it is bound to.
  it.each(Object.entries(notations))(
    'with an address in this notation is rejected, even if PROVIDER_ALLOW_CIDRS allows it: %s',
    (_, write) => {
      const everyAddress = addressList(['0.0.0.0/0']);
      fc.assert(
        fc.property(fc.oneof(forbidden, allowed), fc.constantFrom(noAddresses, everyAddress), (parts, list) => {
          expect(urlProblem(`https://${write(parts)}/v1`, list)).toMatch(/^must (write|consist|have|not have)/);
        }),
      );
    },
  );

  it.each(Object.entries(embeddings))('with an embedded IPv4 address is rejected: %s', (_, embed) => {
    fc.assert(
      fc.property(fc.oneof(forbidden, allowed), (parts) => {
        expect(urlProblem(`https://${embed(parts)}/v1`, noAddresses)).toMatch(/^must not point to/);
      }),
    );
  });

  // URLs in which one parser finds a public host and another one the local machine.
  it.each([
    'https://llm.example.com@127.0.0.1/v1',
    'https://llm.example.com:443@127.0.0.1/v1',
    'https://llm.example.com%40127.0.0.1/v1',
    'https://127.0.0.1\\@llm.example.com/v1',
    'https://127.0.0.1:8080\\.llm.example.com/v1',
    'https:\\\\127.0.0.1\\v1',
    'https:127.0.0.1/v1',
    'https:///127.0.0.1/v1',
    'https:////127.0.0.1/v1',
    ' https://127.0.0.1/v1',
    'ht\ntps://127.0.0.1/v1',
    'https://127.\t0.0.1/v1',
    'https://127.0.0.1\r\n/v1',
    'https://127.0.0.1%00.llm.example.com',
    'https://127.0.0.1%2f.llm.example.com',
    'https://127.0.0.1%23.llm.example.com',
    'https://127.0.0.1#@llm.example.com/',
    'https://127.0.0.1?@llm.example.com/',
    'https://127.0.0.1 llm.example.com/',
    'https://127.0.0.1:80:443/',
    'https://[fe80::1%25eth0]/v1',
    'https://[::1%25lo]/v1',
    'https://[::1]llm.example.com/v1',
    'https://①②⑦.⓪.⓪.①/v1',
    'https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/v1',
    'https://loc\u00adalhost/v1',
    'https://LOCALHOST。/v1',
    'https://localhost:443/v1',
    'https://x.localhost/v1',
    'https://metadata/computeMetadata/v1',
    'https://metadata.google.internal./v1',
    'https://kubernetes.default.svc.internal/v1',
    'gopher://127.0.0.1:6379/_FLUSHALL',
    'file:///etc/passwd',
    'unix:/var/run/docker.sock',
    'http+unix://%2fvar%2frun%2fdocker.sock/v1',
    'dict://127.0.0.1:11211',
    'javascript:fetch(1)',
    'blob:https://127.0.0.1/x',
  ])('is rejected when parsers disagree on its host or it has another scheme: %j', (url) =>
    expect(urlProblem(url, noAddresses)).toEqual(expect.any(String)),
  );
});

describe('the service', () => {
  it('rejects such base URLs over gRPC and HTTP, for new and existing providers, and stores none', async () => {
    const command = await startCommand({ DATA_DIR: await directories.started(), HTTP_ADDRESS: '127.0.0.1:0' });
    const port = Number((await command.untilOutput(/HTTP {6}[^:\s]+:(\d+)/))[1]);
    const clients = connect(command.port);
    onTestFinished(() => clients.close());
    const { providers } = clients;
    const fields = { dialect: 'DIALECT_OPENAI', base_url: 'https://llm.example.com/v1' } as const;
    const existing = unique('old');
    await providers.createProvider({ provider: { ...fields, name: existing } });
    const parts: Parts = [169, 254, 169, 254];
    const hosts = [...Object.values(notations), ...Object.values(embeddings)].map((write) => write(parts));
    for (const base_url of [
      ...hosts.map((host) => `https://${host}/v1`),
      'http://llm.example.com',
      'https://localhost',
    ]) {
      await invalid(
        providers.createProvider({ provider: { ...fields, name: unique('new'), base_url } }),
        'provider.base_url',
      );
      await invalid(providers.updateProvider({ provider: { name: existing, base_url } }), 'provider.base_url');
      const body = { provider: { name: unique('new'), dialect: fields.dialect, baseUrl: base_url } };
      const result = await send(port, 'POST', '/v1/providers', { body });
      expect([base_url, result.status, errorOf(result).fields]).toEqual([base_url, 400, ['provider.base_url']]);
    }
    const { providers: stored } = await providers.listProviders({});
    expect(stored.filter(({ built_in }) => !built_in).map(({ base_url }) => base_url)).toEqual([fields.base_url]);
  });

  it('sends nothing to an address that was allowed only when the provider was stored', async () => {
    const DATA_DIR = await directories.started();
    const fake = await startFakeProvider('openai');
    const first = await startCommand({ DATA_DIR, PROVIDER_ALLOW_CIDRS: '127.0.0.0/8' });
    const before = connect(first.port);
    const name = unique('mine');
    const provider = { name, dialect: 'DIALECT_OPENAI', base_url: fake.provider.base_url } as const;
    await before.providers.createProvider({ provider });
    const request = { provider: name, api_key: KEY };
    expect(await before.providers.validateApiKey(request)).toMatchObject({ check: { status: 'CHECK_STATUS_OK' } });
    before.close();
    first.child.kill('SIGTERM');
    await first.ended;
    const requestsBefore = fake.seen.length;
    const again = await startCommand({ DATA_DIR });
    const after = connect(again.port);
    onTestFinished(() => after.close());
    const { check } = await after.providers.validateApiKey(request);
    expect(check).toMatchObject({ status: 'CHECK_STATUS_ADDRESS_REFUSED' });
    expect(fake.seen.length).toBe(requestsBefore);
  });

  it('does not reveal whether a port of a forbidden address is open', async () => {
    const command = await startCommand({ DATA_DIR: await directories.started() });
    const clients = connect(command.port);
    onTestFinished(() => clients.close());
    const { port, sockets } = await startTcp(() => undefined);
    const messages = new Set<string>();
    for (const at of [port, 1, 65_535]) {
      const provider = { name: unique('new'), dialect: 'DIALECT_OPENAI', base_url: `https://127.0.0.1:${at}` } as const;
      const error = await failure(clients.providers.createProvider({ provider }));
      messages.add(error.message);
    }
    expect([messages.size, sockets]).toEqual([1, []]);
  });
});

describe('a name that resolves differently over time', () => {
  it.each([['10.0.0.1'], ['169.254.169.254'], ['::ffff:10.0.0.1'], ['127.0.0.1', '10.0.0.1'], ['fe80::1']])(
    'is rejected before the second request of a check when it then resolves to %s %s',
    async (...later) => {
      const resolves = { inTurn: [['127.0.0.1'], later] };
      const models = ['not-on-the-list'];
      const { fake, results } = await checkOverTls(goodCertificate(), { models, resolves });
      expect(fake.paths()).toEqual(['GET /v1/models']);
      expect(results.map(({ status }) => status)).toEqual(['CHECK_STATUS_ADDRESS_REFUSED']);
    },
  );

  it('is looked up only once per request', async () => {
    // A second lookup, to connect or to try another address, would return another machine.
    const resolves = { inTurn: [['::1', '127.0.0.1'], ['10.0.0.1']] };
    const { fake, result } = await checkOverTls(goodCertificate(), { resolves });
    expect(result).toMatchObject({ status: 'CHECK_STATUS_OK' });
    expect(fake.seen[0]?.headers['host']).toBe(`${NAME}:${fake.port}`);
  });
});

describe('a provider', () => {
  const TARGETS = ['http://169.254.169.254/latest/meta-data', '//10.0.0.1/v1', '/v1/elsewhere', 'file:///etc/passwd'];

  it.each([300, 301, 302, 303, 305, 307, 308])('that redirects with %i causes no further request', async (status) => {
    const { port, expectUnused } = await startTcp(() => undefined);
    for (const location of [`http://127.0.0.1:${port}/v1/models`, `http://${KEY}@127.0.0.1:${port}/`, ...TARGETS]) {
      const fake = await startFakeProvider('openai');
      fake.on('*', text(status, '', { location, refresh: `0; url=${location}` }));
      const [result] = await checkProvider(fake.provider, KEY, ['gpt-4o'], { allowed: loopback, timeoutMs: 5_000 });
      expect([location, result?.status]).toEqual([location, 'CHECK_STATUS_PROVIDER_ERROR']);
      expect(result?.message).not.toMatch(/169\.254|10\.0\.0|elsewhere|passwd|sk-/);
      expect(fake.paths()).toEqual(['GET /v1/models']);
    }
    await expectUnused();
  });

  it('that names another URL in headers causes no request to it', async () => {
    const { port, expectUnused } = await startTcp(() => undefined);
    const elsewhere = `http://127.0.0.1:${port}/v1/models`;
    const fake = await startFakeProvider('openai');
    fake.on('/v1/models', (request, response) => {
      response.setHeader('refresh', `0; url=${elsewhere}`);
      response.setHeader('alt-svc', `h2="127.0.0.1:${port}"`);
      response.setHeader('link', `<${elsewhere}>; rel=next`);
      response.setHeader('content-location', elsewhere);
      wire.openai.list(request, response);
    });
    const [result] = await checkProvider(fake.provider, KEY, ['gpt-4o'], { allowed: loopback, timeoutMs: 5_000 });
    expect(result).toMatchObject({ status: 'CHECK_STATUS_OK' });
    await expectUnused();
  });

  it.each([
    '@127.0.0.1:1/',
    '/../../latest/meta-data',
    '\r\nhost: 10.0.0.1',
    '#x',
    '?x',
    '//10.0.0.1',
    '\\..\\',
    '%2e%2e/',
  ])('that returns the model name %j causes only requests with that name encoded in the path', async (name) => {
    const fake = await startFakeProvider('claude');
    const page = JSON.stringify({ data: [{ type: 'model', id: 'a' }], has_more: true, last_id: name });
    fake.on('*', (request, response) =>
      request.url?.includes('after_id') ? wire.claude.list(request, response) : void response.end(page),
    );
    await checkProvider(fake.provider, KEY, [name], { allowed: loopback, timeoutMs: 5_000 });
    const encoded = encodeURIComponent(name);
    expect(new Set(fake.paths())).toEqual(
      new Set([
        'GET /v1/models?limit=1000',
        `GET /v1/models?limit=1000&after_id=${encoded}`,
        `GET /v1/models/${encoded}`,
      ]),
    );
    expect(new Set(fake.seen.map(({ headers }) => headers['host']))).toEqual(new Set([`127.0.0.1:${fake.port}`]));
  });
});

it('a check of a provider without TLS ignores the proxies of the environment', async () => {
  const { port, expectUnused } = await startTcp((socket) => socket.end());
  const fake = await startFakeProvider('openai');
  const names = ['HTTP_PROXY', 'ALL_PROXY', 'http_proxy', 'all_proxy', 'GLOBAL_AGENT_HTTP_PROXY', 'npm_config_proxy'];
  const proxies = Object.fromEntries(names.map((name) => [name, `http://127.0.0.1:${port}`]));
  const { result } = await checkInProcess(fake, { environment: { ...proxies, NODE_USE_ENV_PROXY: '1', NO_PROXY: '' } });
  expect(result).toMatchObject({ status: 'CHECK_STATUS_OK' });
  await expectUnused();
});

it('a check of a stored row with a forbidden base URL sends no request', async () => {
  for (const base_url of [
    'https://[::ffff:127.0.0.1]',
    'https://2130706433',
    'https://0x7f.1',
    'https://127.1',
    '//127.0.0.1',
  ]) {
    const [result] = await checkProvider(providerRow('openai', base_url), KEY, [], {
      allowed: noAddresses,
      timeoutMs: 500,
    });
    expect([base_url, result?.status]).toEqual([base_url, 'CHECK_STATUS_ADDRESS_REFUSED']);
  }
});
