import { BlockList, isIP } from 'node:net';
import { readBaseUrl } from './base_url.js';

/*
 * The addresses that a provider may have. API keys are sent to the base URL of a provider, so only this file has this
 * rule. The rule is checked when a base URL is stored, and when the service connects, for every address that the host
 * name resolves to.
 */

const LOCAL_NAME = /^(localhost|[^.]+|.*\.(localhost|local|internal|lan|home\.arpa))$/i;

/**
 * The special-purpose ranges of RFC 6890 and its successors. Node's BlockList
 * handles IPv4-mapped IPv6 addresses and zones.
 */
const privateAddresses = addressList([
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '192.88.99.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '224.0.0.0/4',
  '240.0.0.0/4',
  '::/96',
  '::ffff:0:0:0/96',
  '64:ff9b::/96',
  '64:ff9b:1::/48',
  '100::/64',
  '100:0:0:1::/64',
  '2001::/23',
  '2001:db8::/32',
  '2002::/16',
  '3fff::/20',
  '5f00::/16',
  'fc00::/7',
  'fec0::/10',
  'fe80::/10',
  'ff00::/8',
]);

/** Parses address ranges; throws a RangeError for the first invalid one. Every range needs a prefix length. */
export function addressList(cidrs: readonly string[]): BlockList {
  const addresses = new BlockList();
  for (const cidr of cidrs) {
    const [, address, bits] = /^([^/]+)\/(\d{1,3})$/.exec(cidr) ?? [];
    if (!address) throw new RangeError(`${cidr} is not an address range`);
    const family = isIP(address) === 6 ? 'ipv6' : 'ipv4';
    // Node's BlockList finds IPv4 addresses in ::ffff:0:0/96, so ::/0 would silently include every IPv4 address.
    if (family === 'ipv6' && Number(bits) <= 80 && hasMapped(address, Number(bits)))
      throw new RangeError(`${cidr} includes all IPv4 addresses`);
    addresses.addSubnet(address, Number(bits), family);
  }
  return addresses;
}

function hasMapped(address: string, bits: number): boolean {
  const range = new BlockList();
  range.addSubnet(address, bits, 'ipv6');
  return range.check('::ffff:0:0', 'ipv6');
}

const has = (addresses: BlockList, ip: string) => addresses.check(ip, isIP(ip) === 6 ? 'ipv6' : 'ipv4');

/** Why the service must not connect to an IP address, or undefined. Text that is not an IP address is rejected. */
export function addressProblem(ip: string, allowed: BlockList): string | undefined {
  if (!isIP(ip)) return 'is not an IP address';
  if (has(allowed, ip) || !has(privateAddresses, ip)) return undefined;
  return NEEDS_RANGE;
}

const loopback = addressList(['127.0.0.0/8', '::1/128']);

/** Whether an IP address is a loopback address. */
export const isLoopback = (ip: string): boolean => isIP(ip) !== 0 && has(loopback, ip);

/**
 * Whether an IP address is in the ranges of PROVIDER_ALLOW_CIDRS; a key may be sent without TLS only to such an
 * address.
 */
export const isInRange = (ip: string, allowed: BlockList): boolean => isIP(ip) !== 0 && has(allowed, ip);

const NEEDS_RANGE = 'loopback, link-local and private addresses need PROVIDER_ALLOW_CIDRS';
const NEEDS_HTTPS = 'must be https: http needs an address that PROVIDER_ALLOW_CIDRS allows';

/**
 * Why the service may not use a base URL, or undefined. API keys are sent to it, so it must be https to a public
 * address. If PROVIDER_ALLOW_CIDRS allows a range, http and local names are accepted too, because a name can resolve
 * into that range. The addresses of a name are checked when the service connects, because they can change at any time.
 */
export function urlProblem(text: string, allowed: BlockList): string | undefined {
  const read = readBaseUrl(text);
  if ('problem' in read) return read.problem;
  const { protocol, hostname } = new URL(read.url);
  const host = hostname.replace(/^\[|\]$/g, '');
  if (!isIP(host) && allowed.rules.length > 0) return undefined;
  if (protocol === 'http:' && !isInRange(host, allowed)) return NEEDS_HTTPS;
  const local = isIP(host) ? addressProblem(host, allowed) : LOCAL_NAME.test(host) ? NEEDS_RANGE : undefined;
  return local && `must not point to ${host}: ${local}`;
}
