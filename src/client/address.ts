import { isIP } from 'node:net';

/** A target for gRPC; what people write from habit and gRPC would only fail to find is refused at once. */
export function checkAddress(address: string): string {
  if (address.trim() === '') throw new TypeError('The address is empty; write host:port');
  if (/^https?:\/\//i.test(address))
    throw new TypeError(`The address is ${address}: write host:port without a scheme; tls: true encrypts`);
  return address;
}

/** The host of an address as it stands there; of a list of addresses and of a path it is none. */
function hostOf(address: string): string {
  const host = address.replace(/^(dns:\/*|ipv[46]:)/, '').replace(/:\d+$/, '');
  return host.replace(/^\[|\]$/g, '').toLowerCase();
}

/** The IP that an address names, where it is one. */
export function ipOf(address: string): string | undefined {
  const host = hostOf(address);
  return isIP(host) > 0 ? host : undefined;
}

/** Whether an address cannot be anywhere but on this machine. */
export function isLocal(address: string): boolean {
  if (/^unix(-abstract)?:/.test(address)) return true;
  const host = hostOf(address);
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}
