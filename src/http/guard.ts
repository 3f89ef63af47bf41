import type { IncomingMessage } from 'node:http';
import { type Address, isLoopback } from '../config.js';
import { type Answer, refuse } from './answer.js';

/** Says why a request is refused for where it comes from, or undefined. */
export type Guard = (request: IncomingMessage) => Answer | undefined;

/**
 * Keeps web pages out. A page of another site can send requests to this
 * machine: its browser says so in Origin. A page whose own name was pointed at
 * 127.0.0.1 (DNS rebinding) is of the same origin, but its name stands in Host.
 */
export function guardOf(address: Address): Guard {
  const names = (host: string) => host === address.host.toLowerCase() || isLoopback({ ...address, host });
  const checked = isLoopback(address);
  return ({ headers, headersDistinct }) => {
    // Node reads the first one; whoever stands in front may have read another (RFC 9112, 3.2).
    if ((headersDistinct['host']?.length ?? 0) > 1)
      return refuse(400, 'INVALID_ARGUMENT', 'There must be one Host header');
    const host = hostOf(headers.host ?? '');
    if (checked && (host === undefined || !names(host)))
      return refuse(421, 'INVALID_ARGUMENT', `The Host header must name ${address.text} or localhost`);
    if (headers.origin !== undefined && !isSame(headers.origin, headers.host ?? ''))
      return refuse(403, 'PERMISSION_DENIED', 'Requests from web pages of other origins are refused');
    return undefined;
  };
}

/** The name or address in a Host header, without its port. */
function hostOf(header: string): string | undefined {
  const [, bracketed, plain] = /^(?:\[([\da-f:.]+)\]|([^:[\]]+))(?::\d*)?$/i.exec(header) ?? [];
  return (bracketed ?? plain)?.toLowerCase();
}

// The scheme may differ: a proxy in front may speak TLS. The URL parser drops ports that go without saying.
function isSame(origin: string, host: string): boolean {
  if (!/^https?:\/\//i.test(origin) || !URL.canParse(origin)) return false;
  const { protocol, host: from } = new URL(origin);
  const here = `${protocol}//${host}`;
  return URL.canParse(here) && new URL(here).host === from;
}
