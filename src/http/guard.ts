import type { IncomingMessage } from 'node:http';
import { type Address, isLoopback } from '../config.js';
import { ServiceError } from '../errors.js';

/** Throws if a request is rejected because of its Host or Origin header. */
export type Guard = (request: IncomingMessage) => void;

/**
 * Creates a guard that rejects requests of web pages. A page of another site can send requests to this machine; its
 * browser sets Origin. A page whose host name resolves to 127.0.0.1 (DNS rebinding) has the same origin, but its host
 * name is in Host.
 */
export function guardOf(address: Address): Guard {
  const isOwnHost = (host: string) => host === address.host.toLowerCase() || isLoopback({ ...address, host });
  const isHostChecked = isLoopback(address);
  return ({ headers, headersDistinct, httpVersion }) => {
    const { length } = headersDistinct['host'] ?? [];
    // Node uses the first of several headers, and a proxy may have used another one (RFC 9112, 3.2).
    if (length > 1 || (length === 0 && httpVersion === '1.1'))
      throw ServiceError.of('INVALID_HEADER', { header: 'host', problem: 'must be given exactly once' });
    const host = hostOf(headers.host ?? '');
    if (isHostChecked && (host === undefined || !isOwnHost(host)))
      throw ServiceError.of('HOST_NOT_ALLOWED', { address: address.text });
    if (headers.origin !== undefined && !isSame(headers.origin, headers.host ?? ''))
      throw ServiceError.of('ORIGIN_NOT_ALLOWED', {});
  };
}

/** The name or address in a Host header, without its port. */
function hostOf(header: string): string | undefined {
  const [, bracketed, plain] = /^(?:\[([\da-f:.]+)\]|([^:[\]]+))(?::\d*)?$/i.exec(header) ?? [];
  return (bracketed ?? plain)?.toLowerCase();
}

// The scheme may differ, because a proxy may terminate TLS. The URL parser drops default ports.
function isSame(origin: string, host: string): boolean {
  if (!/^https?:\/\//i.test(origin) || !URL.canParse(origin)) return false;
  const { protocol, host: originHost } = new URL(origin);
  const ownUrl = `${protocol}//${host}`;
  return URL.canParse(ownUrl) && new URL(ownUrl).host === originHost;
}
