import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { canonicalBaseUrl, readBaseUrl } from '../../src/domain/base_url.js';
import { limits } from '../../src/limits.js';

const python = findPython();

function findPython(): string | undefined {
  try {
    execFileSync('python3', ['-c', 'import urllib.parse'], { stdio: 'ignore' });
    return 'python3';
  } catch {
    return undefined;
  }
}

/** Scheme, host, port and path as parsed by Python's urllib, which shares no code with the parser under test. */
function parseWithPython(urls: readonly string[]): readonly (readonly [string, string, number | null, string])[] {
  const program =
    'import json,sys,urllib.parse as u; print(json.dumps([[s.scheme,s.hostname,s.port,s.path] for s in map(u.urlsplit,json.load(sys.stdin))]))';
  return JSON.parse(execFileSync(python as string, ['-c', program], { input: JSON.stringify(urls), encoding: 'utf8' }));
}

describe('the canonical form of a base URL', () => {
  it.each([
    ['https://llm.example.com/v1', 'https://llm.example.com/v1'],
    ['https://llm.example.com/v1/', 'https://llm.example.com/v1'],
    ['https://llm.example.com/', 'https://llm.example.com'],
    ['HTTPS://LLM.Example.COM/V1', 'https://llm.example.com/V1'],
    ['https://llm.example.com:443/v1', 'https://llm.example.com/v1'],
    ['http://llm.example.com:80/v1', 'http://llm.example.com/v1'],
    ['https://llm.example.com:80/v1', 'https://llm.example.com:80/v1'],
    ['http://vllm:8000/v1', 'http://vllm:8000/v1'],
    ['https://8.8.8.8/v1', 'https://8.8.8.8/v1'],
    ['https://[2606:4700:0:0::1111]:8443/v1', 'https://[2606:4700::1111]:8443/v1'],
    ['https://[2606:4700::ABCD]', 'https://[2606:4700::abcd]'],
    ['https://xn--mller-kva.example/v1', 'https://xn--mller-kva.example/v1'],
    [
      'https://gateway.example.com/v1/accounts/a_b/gw-1/openai',
      'https://gateway.example.com/v1/accounts/a_b/gw-1/openai',
    ],
  ])('of %s is %s', (written, canonical) => {
    expect(readBaseUrl(written)).toEqual({ url: canonical });
    expect(readBaseUrl(canonical)).toEqual({ url: canonical });
  });
});

describe('a base URL that is ambiguous or invalid', () => {
  it.each([
    ['https://example.com\\@10.0.0.1/v1', 'must not contain a backslash'],
    ['https:\\\\example.com\\v1', 'must not contain a backslash'],
    ['https:example.com', /^must be a URL such as/],
    ['https:/example.com', /^must be a URL such as/],
    ['https:///example.com', /^must be a URL such as/],
    ['example.com/v1', /^must be a URL such as/],
    ['https://', /^must be a URL such as/],
    ['https:///', /^must be a URL such as/],
    ['https://user@example.com', 'must not contain a user or password'],
    ['https://@example.com', 'must not contain a user or password'],
    ['https://a:b@10.0.0.1', 'must not contain a user or password'],
    ['https://exam\u202eple.com', 'must consist of visible ASCII characters, and contains U+202E'],
    ['https://\u0435xample.com', 'must consist of visible ASCII characters, and contains U+0435'],
    ['https://example\u3002com', 'must consist of visible ASCII characters, and contains U+3002'],
    ['https://example.com/v1\u{1d7ce}', 'must consist of visible ASCII characters, and contains U+1D7CE'],
    ['https://example.com/\tv1', 'must consist of visible ASCII characters, and contains U+0009'],
    ['https://exam\nple.com/v1', 'must consist of visible ASCII characters, and contains U+000A'],
    [' https://example.com', 'must consist of visible ASCII characters, and contains U+0020'],
    ['ftp://example.com', 'must begin with https:// or http://'],
    ['https://example.com:0', /^must have a port from 1/],
    ['https://example.com:', /^must have a port from 1/],
    ['https://example.com:0443', /^must have a port from 1/],
    ['https://example.com:65536', /^must have a port from 1/],
    ['https://example.com:80:443', /^must have a port from 1/],
    ['https://example.com:+443', /^must have a port from 1/],
    ['https://example.com.', 'must not have a host name that ends with a dot'],
    ['https://127.0.0.1.', 'must not have a host name that ends with a dot'],
    ['https://example..com', /^must have a host name/],
    ['https://-example.com', /^must have a host name/],
    ['https://my_host/v1', /^must have a host name/],
    ['https://ex%61mple.com', /^must have a host name/],
    ['https://xn--a/v1', /xn--a is not the encoded form/],
    // Node 20 parses it as "a", and Node 26 keeps it unchanged.
    ['https://llm.xn--a-.example', /^must have a host name/],
    ['https://XN--999999B.example/v1', /xn--999999b is not the encoded form/],
    ['https://xn--xn---epa/v1', /xn--xn---epa is not the encoded form/],
    ['https://xn--mller-kva.xn--0.example', /xn--0 is not the encoded form/],
    [`https://${'a'.repeat(64)}.com`, /^must have a host name/],
    [`https://${'abc.'.repeat(64)}com`, /^must have a host name/],
    ['https://2130706433', 'must write its IP address as 127.0.0.1, and not as 2130706433'],
    ['https://0x7f.1', 'must write its IP address as 127.0.0.1, and not as 0x7f.1'],
    ['https://0177.0.0.1', 'must write its IP address as 127.0.0.1, and not as 0177.0.0.1'],
    ['https://8.8.2056', 'must write its IP address as 8.8.8.8, and not as 8.8.2056'],
    ['https://256.1.1.1', /^must have a host name/],
    ['https://[::1%25lo]/v1', 'must not have an IPv6 address with a zone'],
    ['https://[::ffff:127.0.0.1]', 'must write an IPv4 address in its own form, and not as IPv6'],
    ['https://[::ffff:7f00:1]', 'must write an IPv4 address in its own form, and not as IPv6'],
    ['https://[::1]llm.example.com', /^must have a host name/],
    ['https://[::1', /^must have a host name/],
    ['https://example.com/../v1', 'must not have the segments . or .. in its path'],
    ['https://example.com/v1/..', 'must not have the segments . or .. in its path'],
    ['https://example.com/./v1', 'must not have the segments . or .. in its path'],
    ['https://example.com/%2e%2e/v1', /^must have a path of letters/],
    ['https://example.com/v1%2f..', /^must have a path of letters/],
    ['https://example.com/..;/v1', /^must have a path of letters/],
    ['https://example.com//v1', /^must not have two slashes/],
    ['https://example.com/v1//', /^must not have two slashes/],
    ['https://example.com/v1?', 'must not have a query or fragment'],
    ['https://example.com/v1#x', 'must not have a query or fragment'],
    ['https://example.com?x=1', 'must not have a query or fragment'],
  ])('is rejected: %j: %s', (written, problem) => {
    const expected = typeof problem === 'string' ? problem : expect.stringMatching(problem);
    expect(readBaseUrl(written)).toEqual({ problem: expected });
    expect(canonicalBaseUrl(written)).toBeUndefined();
  });

  it('is rejected within 1 s at any length', () => {
    for (const part of ['a.', '/', ':', '[', '@', '%2e', '..', 'A'])
      for (const head of ['https://', 'https://a/', 'https://a:']) {
        const started = performance.now();
        readBaseUrl(head + part.repeat(100_000));
        expect(performance.now() - started).toBeLessThan(5_000);
      }
  });
});

/** Parts that parsers are known to interpret differently, mixed with parts that they interpret alike. */
const piece = fc.constantFrom(
  ...[
    'https://',
    'http://',
    'HTTPS:',
    '//',
    '/',
    '\\',
    '@',
    ':',
    ':443',
    ':080',
    ':8443',
    '.',
    '..',
    '%2e',
    '%00',
    '#',
  ],
  ...[
    '?',
    ';',
    '[::1]',
    '[::ffff:1.2.3.4]',
    '127.0.0.1',
    '0x7f.1',
    '10.1',
    'a',
    'Example.com',
    'xn--mller-kva',
    '-',
    '_',
  ],
  ...['\t', '\n', ' ', '\u202e', '。', 'ｅ', 'v1', '~', '+', '&', "'", '|', '^', '{', '"', '<'],
);
const written = fc
  .tuple(fc.constantFrom('https://', 'http://', 'https:', 'HTTPS://', ''), fc.array(piece, { maxLength: 7 }))
  .map(([scheme, pieces]) => scheme + pieces.join(''));

describe('a generated base URL', () => {
  const accepted = [...new Set(fc.sample(written, { numRuns: 100_000, seed: 17 }).map(canonicalBaseUrl))].filter(
    (url) => url !== undefined,
  );

  it('is accepted in more than 100 of 100,000 samples', () => {
    expect(accepted.length).toBeGreaterThan(100);
  });

  it('is canonical and parsed by Node without a change when it is accepted', () => {
    for (const url of accepted) {
      expect(canonicalBaseUrl(url)).toBe(url);
      const { protocol, host, pathname, username, password, search, hash } = new URL(url);
      expect(`${protocol}//${host}${pathname === '/' ? '' : pathname}`).toBe(url);
      expect([username, password, search, hash]).toEqual(['', '', '', '']);
      expect(url).not.toMatch(/\/$/);
      expect(url.length).toBeLessThan(limits.baseUrl);
    }
  });

  it.runIf(python)('has the same host, port and path in Python urllib when it is accepted', () => {
    const parsedByPython = parseWithPython(accepted);
    const parsedByNode = accepted.map((url) => {
      const { protocol, hostname, port, pathname } = new URL(url);
      const host = hostname.replace(/^\[|\]$/g, '');
      return [protocol.slice(0, -1), host, port === '' ? null : Number(port), pathname === '/' ? '' : pathname];
    });
    expect(parsedByPython).toEqual(parsedByNode);
  });
});
