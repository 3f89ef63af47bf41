import { isIP } from 'node:net';

/** Schemes that gRPC resolves, in addition to `host:port`. */
const TARGET = /^(dns|unix|unix-abstract|ipv4|ipv6|passthrough|xds):./i;

/** Why an address is not valid, as a sentence without its subject. gRPC would only fail to resolve it. */
export function addressProblem(address: string): string | undefined {
  if (TARGET.test(address) || isIP(address) === 6) return undefined;
  const [, inBrackets, plain, port = '443'] = /^(?:\[([^\]]+)\]|([^\s:/@?#[\]]+))(?::(\d{1,5}))?$/.exec(address) ?? [];
  const isHost = inBrackets === undefined ? plain !== undefined && !/^\d+$/.test(plain) : isIP(inBrackets) === 6;
  if (isHost && Number(port) <= 65_535) return undefined;
  const scheme = /^https?:\/\//i.test(address) ? ': leave the scheme out, TLS is an option' : '';
  return `is no host:port, such as 127.0.0.1:50051${scheme}`;
}

/** Returns a valid gRPC target unchanged; throws a TypeError for any other text. */
export function checkAddress(address: string): string {
  const problem = addressProblem(address);
  if (problem) throw new TypeError(`The address ${JSON.stringify(address)} ${problem}`);
  return address;
}

/** Whether gRPC uses port 443 because the address has no port. */
export const lacksPort = (address: string): boolean =>
  !TARGET.test(address) && (isIP(address) === 6 || !/:\d+$/.test(address));

/** The host part of an address. The result is no host for a list of addresses or a path. */
function hostOf(address: string): string {
  const host = address.replace(/^(dns:\/*|ipv[46]:)/, '').replace(/:\d+$/, '');
  return host.replace(/^\[|\]$/g, '').toLowerCase();
}

/** The IP address of a target; undefined if its host is a name. */
export function ipOf(address: string): string | undefined {
  const host = hostOf(address);
  return isIP(host) > 0 ? host : undefined;
}

/** Whether an address is certainly on this machine: a Unix socket, localhost or a loopback address. */
export function isLocal(address: string): boolean {
  if (/^unix(-abstract)?:/.test(address)) return true;
  const host = hostOf(address);
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}
