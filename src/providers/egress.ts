import { type LookupAddress, lookup as lookupName } from 'node:dns';
import { type ClientRequest, type IncomingHttpHeaders, type IncomingMessage, request as requestHttp } from 'node:http';
import { type RequestOptions, request as requestHttps } from 'node:https';
import type { BlockList, LookupFunction, TcpNetConnectOpts } from 'node:net';
import { onAbort } from '../abort.js';
import { addressProblem, isInRange, isLoopback, urlProblem } from '../domain/addresses.js';
import { canonicalBaseUrl } from '../domain/base_url.js';
import { limits } from '../limits.js';
import { version } from '../package.js';
import { Semaphore } from './semaphore.js';

/** The response of a provider. */
export interface ProviderResponse {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** Empty if it was not read: for a redirect, or for the reason in `unread`. */
  readonly body: string;
  readonly unread?: 'compressed' | 'too large';
}

export interface Egress {
  /** Addresses that PROVIDER_ALLOW_CIDRS allows. */
  readonly allowed: BlockList;
  /** Ends a request immediately, in any state; `get` throws the reason of the signal. */
  readonly signal: AbortSignal;
}

/** Error codes for a base URL, or a resolved address, that the service must not connect to. */
export const URL_REFUSED = 'URL_REFUSED';
export const ADDRESS_REFUSED = 'ADDRESS_REFUSED';

/** Error codes for a request that timed out. NO_SLOT: most of the time was spent waiting for a free slot. */
export const TIMED_OUT = 'TIMED_OUT';
export const NO_SLOT = 'NO_SLOT';
/** Error code for a response that switches to another protocol. */
export const SWITCHES_PROTOCOL = 'SWITCHES_PROTOCOL';

export const coded = (code: string) => Object.assign(new Error(code), { code });

/** Bounds the memory for responses: without it, 600 concurrent requests used 1.2 GB. */
const requestSlots = new Semaphore(limits.concurrentProviderRequests);

type FamilyOptions = Pick<TcpNetConnectOpts, 'autoSelectFamily' | 'autoSelectFamilyAttemptTimeout'>;

const COMMON_HEADERS = {
  accept: 'application/json',
  'accept-encoding': 'identity',
  'user-agent': `agentllm/${version}`,
};

/**
 * Sends one GET request to a provider: the only way in which the service calls
 * one. The path is appended to that of the base URL. Errors have a `code`, in most
 * cases that of Node.
 */
export async function get(
  base: string,
  path: string,
  headers: Readonly<Record<string, string>>,
  { allowed, signal }: Egress,
): Promise<ProviderResponse> {
  signal.throwIfAborted();
  // Checked again, because the environment may have changed since the base URL was stored.
  const canonical = urlProblem(base, allowed) === undefined ? canonicalBaseUrl(base) : undefined;
  if (canonical === undefined) throw coded(URL_REFUSED);
  const url = new URL(canonical);
  const options: RequestOptions & FamilyOptions = {
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port,
    path: url.pathname.replace(/\/$/, '') + path,
    headers: { ...headers, ...COMMON_HEADERS },
    lookup: lookupAllowed(allowed, url.protocol),
    // A separate connection: it is never reused with another key, and no global agent adds a proxy.
    agent: false,
    // Explicit, because NODE_TLS_REJECT_UNAUTHORIZED=0 would disable it.
    rejectUnauthorized: true,
    autoSelectFamily: true,
    // Node's default of 250 ms is too short for a slow link: nodejs/node#54359.
    autoSelectFamilyAttemptTimeout: limits.providerConnectAttemptMs,
  };
  const request = url.protocol === 'https:' ? requestHttps : requestHttp;
  return await inSlot(signal, () => responseTo(request(options), signal));
}

/** Sends a request when a slot is free. A timeout that was mostly spent waiting for a slot is reported as NO_SLOT. */
async function inSlot(signal: AbortSignal, send: () => Promise<ProviderResponse>): Promise<ProviderResponse> {
  const queuedAt = performance.now();
  let sentAt: number | undefined;
  try {
    await requestSlots.acquire(signal);
    sentAt = performance.now();
    signal.throwIfAborted();
    return await send();
  } catch (error) {
    const isLate = sentAt === undefined || sentAt - queuedAt > performance.now() - sentAt;
    throw isLate && (error as { code?: unknown } | undefined)?.code === TIMED_OUT ? coded(NO_SLOT) : error;
  } finally {
    // Deferred, so that waiting requests that time out now leave the queue first and do not connect for a moment.
    if (sentAt !== undefined) setImmediate(() => requestSlots.release());
  }
}

/**
 * Resolves a name and returns its permitted addresses; fails if there are none. Node connects to exactly the checked
 * addresses, so the name cannot resolve to another one in between. An address in the URL is not resolved: urlProblem has
 * checked it.
 */
export const lookupAllowed =
  (allowed: BlockList, protocol = 'https:'): LookupFunction =>
  (name, { all, ...options }, done) => {
    lookupName(name, { ...options, all: true }, (error, found) => {
      if (error) return done(error, '');
      const usable = usableOf(found, allowed, protocol);
      const [first] = usable;
      if (!first) done(coded(found.length > 0 ? ADDRESS_REFUSED : 'ENOTFOUND'), '');
      else if (all) done(null, usable);
      else done(null, first.address, first.family);
    });
  };

/**
 * The addresses of a name if all of them are permitted, else none. Over http only the ranges of PROVIDER_ALLOW_CIDRS are
 * permitted. `localhost` often has both ::1 and 127.0.0.1: if only one of them is permitted, the other is ignored.
 */
function usableOf(found: readonly LookupAddress[], allowed: BlockList, protocol: string): LookupAddress[] {
  const isAllowedLoopback = ({ address }: LookupAddress) => isLoopback(address) && isInRange(address, allowed);
  const considered = found.some(isAllowedLoopback)
    ? found.filter((one) => !isLoopback(one.address) || isAllowedLoopback(one))
    : [...found];
  const isUsable = ({ address }: LookupAddress) =>
    protocol === 'http:' ? isInRange(address, allowed) : addressProblem(address, allowed) === undefined;
  return considered.every(isUsable) ? considered : [];
}

/** Sends a request and reads its response. The connection is always closed. */
async function responseTo(request: ClientRequest, signal: AbortSignal): Promise<ProviderResponse> {
  let release = () => {};
  try {
    return await new Promise((resolve, reject) => {
      release = onAbort(signal, () => reject(signal.reason));
      request.on('error', reject);
      // Without a listener, Node closes the connection without an error or a response.
      request.on('upgrade', (_, socket) => {
        socket.destroy();
        reject(coded(SWITCHES_PROTOCOL));
      });
      request.on('response', (response) => void readResponse(response).then(resolve, reject));
      request.end();
    });
  } finally {
    release();
    request.destroy();
  }
}

async function readResponse(response: IncomingMessage): Promise<ProviderResponse> {
  const { statusCode: status = 0, headers } = response;
  // Node treats the data after a 101 without an `upgrade` header as an endless body.
  if (status === 101) throw coded(SWITCHES_PROTOCOL);
  if (status >= 300 && status < 400) return { status, headers, body: '' };
  const encoding = headers['content-encoding'];
  // Not requested and not decompressed: a few bytes can expand to more than the memory.
  if (encoding && encoding !== 'identity') return { status, headers, body: '', unread: 'compressed' };
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > limits.providerResponseBytes) return { status, headers, body: '', unread: 'too large' };
    chunks.push(chunk);
  }
  return { status, headers, body: new TextDecoder().decode(Buffer.concat(chunks)) };
}
