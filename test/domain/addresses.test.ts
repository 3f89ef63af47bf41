import { describe, expect, it } from 'vitest';
import { addressList, addressProblem, urlProblem } from '../../src/domain/addresses.js';

const noRanges = addressList([]);

describe('urlProblem', () => {
  it.each([
    'https://llm.example.com/v1',
    'https://llm.example.com:8443/v1',
    'HTTPS://LLM.EXAMPLE.COM',
    'https://8.8.8.8/v1',
    'https://172.15.0.1',
    'https://172.32.0.1',
    'https://100.63.255.255',
    'https://192.167.1.1',
    'https://[2606:4700::1111]/v1',
    'https://local.example.com',
    'https://localhost.example.com',
    'https://xn--mller-kva.example',
  ])('accepts %s', (url) => expect(urlProblem(url, noRanges)).toBeUndefined());

  it.each([
    ['', /^must be a URL/],
    ['llm.example.com/v1', /^must be a URL/],
    ['https://', /^must be a URL/],
    ['https://256.1.1.1', /^must have a host name/],
    ['http://llm.example.com/v1', 'must be https: http needs an address that PROVIDER_ALLOW_CIDRS allows'],
    ['ftp://llm.example.com', /^must be(gin with https| a URL)/],
    ['file:///etc/passwd', /^must be(gin with https| a URL)/],
    ['data:text/plain,hi', /^must be(gin with https| a URL)/],
    ['https://user@llm.example.com', 'must not contain a user or password'],
    ['https://user:secret@llm.example.com', 'must not contain a user or password'],
    ['https://:secret@llm.example.com', 'must not contain a user or password'],
    ['https://llm.example.com@169.254.169.254/', 'must not contain a user or password'],
    ['https://llm.example.com/v1?a=1', 'must not have a query or fragment'],
    ['https://llm.example.com/v1#a', 'must not have a query or fragment'],
  ])('rejects %s: %s', (url, problem) => {
    expect(urlProblem(url, noRanges)).toEqual(typeof problem === 'string' ? problem : expect.stringMatching(problem));
  });

  // A path appended to such a base URL would become part of the query or the fragment.
  it.each(['https://llm.example.com/v1?', 'https://llm.example.com/v1#'])(
    'rejects the empty query or fragment of %s',
    (url) => expect(urlProblem(url, noRanges)).toBe('must not have a query or fragment'),
  );

  it.each([
    // Loopback, in every notation that a resolver or URL parser understands.
    'https://127.0.0.1/v1',
    'https://127.255.255.254',
    'https://127.1',
    'https://0x7f.1',
    'https://0x7f000001',
    'https://2130706433',
    'https://0177.0.0.1',
    'https://017700000001',
    'https://127.0.0.1.',
    'https://１２７.０.０.１',
    'https://127。0。0。1',
    'https://%31%32%37.0.0.1',
    'https://[::1]/v1',
    'https://[0:0:0:0:0:0:0:1]',
    'https://[::ffff:127.0.0.1]',
    'https://[::ffff:7f00:1]',
    // Unspecified.
    'https://0.0.0.0',
    'https://0',
    'https://[::]',
    // Link-local, including cloud metadata.
    'https://169.254.169.254/latest/meta-data',
    'https://0xa9fea9fe',
    'https://[fe80::1]',
    'https://[::ffff:169.254.169.254]',
    // Private.
    'https://10.0.0.1',
    'https://172.16.0.1',
    'https://172.31.255.255',
    'https://192.168.1.1',
    'https://192.168.257',
    'https://100.64.0.1',
    'https://[fc00::1]',
    'https://[fd12:3456::1]',
    'https://[::ffff:10.0.0.1]',
    'https://[64:ff9b::10.0.0.1]',
    // Not public, or not a single host.
    'https://192.0.0.8',
    'https://198.18.0.1',
    'https://224.0.0.1',
    'https://255.255.255.255',
    'https://[ff02::1]',
    // Names of the local machine or the local network.
    'https://localhost',
    'https://LOCALHOST:8080',
    'https://localhost.',
    'https://a.localhost',
    'https://%6cocalhost',
    'https://ｌocalhost',
    'https://intranet',
    'https://intranet.',
    'https://printer.local',
    'https://db.internal',
    'https://metadata.google.internal',
    'https://box.lan',
    'https://nas.home.arpa.',
  ])('rejects %s when PROVIDER_ALLOW_CIDRS does not allow it', (url) => {
    // A non-canonical notation is rejected with its own message.
    const problem =
      /^must (not point to .*: loopback, link-local and private addresses need|write|have|consist|not have)/;
    expect(urlProblem(url, noRanges)).toMatch(problem);
  });

  // The comment of the list promises "the special-purpose ranges of RFC 6890 and its successors".
  it.each([
    'https://[64:ff9b:1::10.0.0.1]', // RFC 8215: local-use translation, private by definition
    'https://[fec0::1]', // RFC 3879: site-local
    'https://[2002:7f00:1::]', // RFC 3056: 6to4 of 127.0.0.1
    'https://[::127.0.0.1]', // RFC 4291: IPv4-compatible
    'https://[100::1]', // RFC 6666: discard-only
    'https://192.0.2.1', // RFC 5737: documentation
    'https://[2001:db8::1]', // RFC 3849: documentation
    'https://[3fff::1]', // RFC 9637: documentation
    'https://[3fff:fff:ffff::1]',
    'https://[5f00::1]', // RFC 9602: segment routing
    'https://[100:0:0:1::1]', // RFC 9780: dummy prefix
    'https://[2001::1]', // RFC 4380: Teredo
    'https://[2001:2::1]', // RFC 5180: benchmarking
    'https://[2001:10::1]', // RFC 4843: ORCHID
    'https://[2001:20::1]', // RFC 7343: ORCHIDv2
    'https://[2001:1ff:ffff::1]', // RFC 2928: the rest of the IETF's assignments
    'https://[::ffff:0:127.0.0.1]', // RFC 2765: SIIT
    'https://[::ffff:0:a9fe:a9fe]',
  ])('rejects the special-purpose address of %s', (url) => {
    expect(urlProblem(url, noRanges)).toMatch(/^must not point to/);
  });

  it.each(['https://localhost..', 'https://a.internal..', 'https://127.0.0.1..'])(
    'rejects %s, which has an additional trailing dot',
    (url) => expect(urlProblem(url, noRanges)).toBeDefined(),
  );

  describe('with PROVIDER_ALLOW_CIDRS set', () => {
    const allowed = addressList(['127.0.0.0/8', '10.1.0.0/16', 'fd00::/8']);

    it.each([
      'http://127.0.0.1:8080/v1',
      'https://127.0.0.1:8080',
      'http://10.1.2.3',
      'http://[fd00::1]:9000/v1',
      // Names are checked when a connection is made.
      'http://localhost:11434/v1',
      'https://localhost',
      'http://vllm:8000/v1',
      'http://llm.example.com',
      'https://llm.example.com/v1',
    ])('accepts %s', (url) => expect(urlProblem(url, allowed)).toBeUndefined());

    it.each([
      ['ftp://127.0.0.1', 'must begin with https:// or http://'],
      ['http://10.2.0.1', 'must be https: http needs an address that PROVIDER_ALLOW_CIDRS allows'],
      ['https://10.2.0.1', /^must not point to 10\.2\.0\.1/],
      ['https://[::1]', /^must not point to ::1/],
      ['http://8.8.8.8', 'must be https: http needs an address that PROVIDER_ALLOW_CIDRS allows'],
      ['http://0x7f.1', 'must write its IP address as 127.0.0.1, and not as 0x7f.1'],
      ['http://[::ffff:127.0.0.1]', 'must write an IPv4 address in its own form, and not as IPv6'],
      ['http://user:secret@127.0.0.1', 'must not contain a user or password'],
      ['http://127.0.0.1/?a', 'must not have a query or fragment'],
    ])('rejects %s: %s', (url, problem) => {
      expect(urlProblem(url, allowed)).toEqual(typeof problem === 'string' ? problem : expect.stringMatching(problem));
    });
  });
});

describe('addressList', () => {
  it('contains exactly the addresses of its ranges', () => {
    const list = addressList(['10.0.0.0/8', 'fd00::/8', '192.0.2.7/32']);
    for (const [address, family, inside] of [
      ['10.255.0.1', 'ipv4', true],
      ['11.0.0.1', 'ipv4', false],
      ['192.0.2.7', 'ipv4', true],
      ['192.0.2.8', 'ipv4', false],
      ['fdff::1', 'ipv6', true],
      ['fc00::1', 'ipv6', false],
    ] as const)
      expect(list.check(address, family), address).toBe(inside);
  });

  it.each(['10.0.0.0/33', 'fd00::/129', '10.0.0.0/x', '10.0.0.0/-1', 'nonsense/8', '10.0.0/8', '/8'])(
    'throws on %s',
    (range) => expect(() => addressList([range])).toThrow(),
  );

  // Number('') is 0, and a prefix of 0 bits contains every address.
  it.each(['10.1.2.3', '10.1.2.3/', 'fd00::1'])(
    'does not treat %s, which has no length, as a range of every address',
    (range) => {
      let list = noRanges;
      try {
        list = addressList([range]);
      } catch {
        return;
      }
      expect(list.check('8.8.8.8', 'ipv4')).toBe(false);
      expect(list.check('2606:4700::1111', 'ipv6')).toBe(false);
    },
  );
});

describe('addressProblem', () => {
  const allowed = addressList(['127.0.0.0/8', '10.1.0.0/16', 'fd00::/8']);

  it.each([
    '8.8.8.8',
    '2606:4700::1111',
    '2001:4860:4860::8888',
    '2001:200::1',
    '2001:67c:2e8::1',
    '2620:fe::fe',
    '2a00:1450:4001::1',
    '3ffe:ffff::1',
    '::ffff:8.8.8.8',
    '172.32.0.1',
  ])('is undefined for the public address %s', (ip) => expect(addressProblem(ip, noRanges)).toBeUndefined());

  it.each([
    '127.0.0.1',
    '::1',
    '::',
    '::ffff:127.0.0.1',
    '::ffff:7f00:1',
    '10.1.2.3',
    '192.168.1.1',
    '169.254.169.254',
    '::ffff:169.254.169.254',
    'fd00::1',
    'fe80::1',
    'fe80::1%eth0',
  ])('names PROVIDER_ALLOW_CIDRS for the non-public address %s', (ip) =>
    expect(addressProblem(ip, noRanges)).toMatch(/need PROVIDER_ALLOW_CIDRS$/),
  );

  it.each(['127.0.0.1', '::ffff:127.0.0.1', '10.1.2.3', 'fd00::1', 'fd00::1%eth0', '8.8.8.8'])(
    'is undefined for %s when PROVIDER_ALLOW_CIDRS allows it',
    (ip) => expect(addressProblem(ip, allowed)).toBeUndefined(),
  );

  it.each(['10.2.0.1', '::1', 'fe80::1%eth0', '::ffff:10.2.0.1'])(
    'is defined for %s when it is outside the allowed ranges',
    (ip) => expect(addressProblem(ip, allowed)).toBeDefined(),
  );

  it.each(['', 'localhost', '127.1', '0x7f.1', '1.2.3.4.5', '[::1]'])('reports that %j is not an IP address', (ip) =>
    expect(addressProblem(ip, addressList(['0.0.0.0/0', '::ffff:0:0/96']))).toBe('is not an IP address'),
  );
});
