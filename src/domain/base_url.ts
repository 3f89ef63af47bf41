import { domainToASCII, domainToUnicode } from 'node:url';

/*
 * The canonical form of the base URL of a provider. Only this form is stored. URL parsers disagree about backslashes,
 * user parts, numeric host names, escapes and dots. A key is bound to the host that this service reads, so another
 * parser in an agent process must never read a different one. Only URLs about which all parsers agree are accepted.
 */

/** The result of reading a base URL: its canonical form, or why it is not valid. */
export type ReadBaseUrl = { readonly url: string } | { readonly problem: string };

const FORM = 'must be a URL such as https://llm.example.com/v1';
const HOST = 'must have a host name of letters, digits, hyphens and dots, such as llm.example.com, or an IP address';
const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const SEGMENT = /^[A-Za-z0-9._~:+=,-]+$/;
const MAX_HOST = 253;
const DEFAULT_PORTS: Readonly<Record<string, number>> = { http: 80, https: 443 };

/**
 * Reads a base URL. Scheme and host become lower case; a default port and a trailing slash are removed. `urlProblem`
 * decides whether the service may connect to the host.
 */
export function readBaseUrl(written: string): ReadBaseUrl {
  const invalid = /[^\x21-\x7e]/u.exec(written)?.[0];
  if (invalid !== undefined)
    return { problem: `must consist of visible ASCII characters, and contains ${codePoint(invalid)}` };
  if (written.includes('\\')) return { problem: 'must not contain a backslash' };
  const [, scheme = '', authority = '', rest = ''] = /^([a-z]+):\/\/([^/?#]+)(.*)$/i.exec(written) ?? [];
  if (!scheme) return { problem: FORM };
  if (authority.includes('@')) return { problem: 'must not contain a user or password' };
  if (/[?#]/.test(rest)) return { problem: 'must not have a query or fragment' };
  return join(scheme.toLowerCase(), authority.toLowerCase(), rest);
}

/** The canonical form of a stored base URL; undefined if parsers may disagree about it. */
export function canonicalBaseUrl(stored: string): string | undefined {
  const read = readBaseUrl(stored);
  return 'url' in read ? read.url : undefined;
}

function join(scheme: string, authority: string, rest: string): ReadBaseUrl {
  const defaultPort = DEFAULT_PORTS[scheme];
  if (defaultPort === undefined) return { problem: 'must begin with https:// or http://' };
  const [, host = '', port] = /^(\[[^\]]*\]|[^:[]*)(?::(.*))?$/.exec(authority) ?? [];
  const problem = portProblem(port) ?? hostProblem(host) ?? pathProblem(rest);
  if (problem) return { problem };
  const shownPort = port === undefined || Number(port) === defaultPort ? '' : `:${port}`;
  const address = `${scheme}://${host}${shownPort}`;
  // Node's parser decides: a host that it reads differently is not canonical, even if it passes the rules above.
  const parsed = URL.canParse(address) ? new URL(address) : undefined;
  if (!parsed) return { problem: HOST };
  const canonical = host.startsWith('[') ? parsed.hostname : host;
  if (parsed.hostname !== canonical)
    return { problem: `must write its IP address as ${parsed.hostname}, and not as ${host}` };
  return { url: `${scheme}://${canonical}${shownPort}${rest.replace(/\/$/, '')}` };
}

function portProblem(port: string | undefined): string | undefined {
  if (port === undefined || (/^[1-9]\d{0,4}$/.test(port) && Number(port) <= 65_535)) return undefined;
  return 'must have a port from 1 to 65535, without leading zeros, or none';
}

function hostProblem(host: string): string | undefined {
  if (host.startsWith('[')) return ipv6Problem(host.slice(1, -1));
  if (host.endsWith('.')) return 'must not have a host name that ends with a dot';
  const labels = host.split('.');
  if (host.length > MAX_HOST || !labels.every((label) => LABEL.test(label))) return HOST;
  const undecodable = labels.find((label) => label.startsWith('xn--') && !isEncodedLabel(label));
  return undecodable === undefined
    ? undefined
    : `must have a valid international host name, and ${undecodable} is not the encoded form of any`;
}

/** Node 20 and 22 reject an invalid Punycode label; Node 24 and 26 return it unchanged. */
function isEncodedLabel(label: string): boolean {
  const decoded = domainToUnicode(label);
  return decoded !== label && domainToASCII(decoded) === label;
}

/** A mapped IPv4 address has two forms, and a zone is meaningful on one machine only. */
function ipv6Problem(address: string): string | undefined {
  if (address.includes('%')) return 'must not have an IPv6 address with a zone';
  const literal = `http://[${address}]`;
  if (!URL.canParse(literal)) return HOST;
  const mapped = /^\[::ffff:[0-9a-f]+:[0-9a-f]+\]$/.test(new URL(literal).hostname);
  return mapped ? 'must write an IPv4 address in its own form, and not as IPv6' : undefined;
}

function pathProblem(path: string): string | undefined {
  const segments = path.replace(/\/$/, '').split('/').slice(1);
  if (segments.some((segment) => segment === '.' || segment === '..'))
    return 'must not have the segments . or .. in its path';
  if (segments.includes('')) return 'must not have two slashes next to each other in its path';
  if (segments.every((segment) => SEGMENT.test(segment))) return undefined;
  return 'must have a path of letters, digits and - . _ ~ : + = , only';
}

const codePoint = (character: string): string =>
  `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}`;
