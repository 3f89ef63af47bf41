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

/** What a provider answered. */
export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** Empty when it was not read: of a redirect, or for the reason in `unread`. */
  readonly body: string;
  readonly unread?: 'compressed' | 'too large';
}

export interface Egress {
  /** Addresses that PROVIDER_ALLOW_CIDRS allows. */
  readonly allowed: BlockList;
  /** Ends a request at once, in whatever state it is; its reason is what `get` throws. */
  readonly signal: AbortSignal;
}

/** Codes of the errors for a base URL, and for what its name resolves to, that must not be connected to. */
export const URL_REFUSED = 'URL_REFUSED';
export const ADDRESS_REFUSED = 'ADDRESS_REFUSED';

/** Codes of the errors for a signal that ends because its time is over, and for one that did so before its turn, or soon after. */
export const TIMED_OUT = 'TIMED_OUT';
export const NO_TURN = 'NO_TURN';
/** Code of the error for an answer that switches to another protocol. */
export const SWITCHES_PROTOCOL = 'SWITCHES_PROTOCOL';

export const coded = (code: string) => Object.assign(new Error(code), { code });

/** Bounds the memory that answers take, however many calls ask: without, 600 at once took 1.2 GB. */
const turns = new Semaphore(limits.providerRequestsAtOnce);

type FamilyOptions = Pick<TcpNetConnectOpts, 'autoSelectFamily' | 'autoSelectFamilyAttemptTimeout'>;

const OURS = { accept: 'application/json', 'accept-encoding': 'identity', 'user-agent': `agentllm/${version}` };

/**
 * One GET of a provider: the only way in which this service talks to one. The path
 * is appended to the base URL's own. What it throws has a `code`, mostly Node's.
 */
export async function get(
  base: string,
  path: string,
  headers: Readonly<Record<string, string>>,
  { allowed, signal }: Egress,
): Promise<Reply> {
  signal.throwIfAborted();
  // Checked again: the environment may no longer allow what it allowed when the base URL was stored.
  const canonical = urlProblem(base, allowed) === undefined ? canonicalBaseUrl(base) : undefined;
  if (canonical === undefined) throw coded(URL_REFUSED);
  const url = new URL(canonical);
  const options: RequestOptions & FamilyOptions = {
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port,
    path: url.pathname.replace(/\/$/, '') + path,
    headers: { ...headers, ...OURS },
    lookup: lookupAllowed(allowed, url.protocol),
    // A connection of its own: nothing is left over for the next key, and no global agent has a proxy.
    agent: false,
    // Said aloud, because NODE_TLS_REJECT_UNAUTHORIZED=0 would turn it off.
    rejectUnauthorized: true,
    autoSelectFamily: true,
    // Node's own 250 ms are less than a slow link needs: nodejs/node#54359.
    autoSelectFamilyAttemptTimeout: limits.providerConnectAttemptMs,
  };
  const request = url.protocol === 'https:' ? requestHttps : requestHttp;
  return await inTurn(signal, () => replyTo(request(options), signal));
}

/** Asks when the turn comes. A time that was over before, or was mostly spent waiting, is not the provider's fault. */
async function inTurn(signal: AbortSignal, ask: () => Promise<Reply>): Promise<Reply> {
  const came = performance.now();
  let began: number | undefined;
  try {
    await turns.take(signal);
    began = performance.now();
    signal.throwIfAborted();
    return await ask();
  } catch (error) {
    const isLate = began === undefined || began - came > performance.now() - began;
    throw isLate && (error as { code?: unknown } | undefined)?.code === TIMED_OUT ? coded(NO_TURN) : error;
  } finally {
    // Not before those have left whose time ends now as well: each would be let in for a moment, and connect.
    if (began !== undefined) setImmediate(() => turns.end());
  }
}

/**
 * Looks a name up and gives the addresses that may be connected to; refuses the name when there are none. Node connects to
 * the very addresses that were checked, so a name cannot resolve to another one in between. An address in the URL itself
 * is not looked up: urlProblem has checked it.
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
 * The addresses of a name when all of them may be connected to, over http only in the ranges of PROVIDER_ALLOW_CIDRS; else
 * none. `localhost` often has ::1 beside 127.0.0.1: where one of them is allowed, the other is left out.
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

/** Sends a request and reads its reply. The connection is closed whatever happens. */
async function replyTo(request: ClientRequest, signal: AbortSignal): Promise<Reply> {
  let release = () => {};
  try {
    return await new Promise((resolve, reject) => {
      release = onAbort(signal, () => reject(signal.reason));
      request.on('error', reject);
      // Unheard, it closes the connection without an error or a response.
      request.on('upgrade', (_, socket) => {
        socket.destroy();
        reject(coded(SWITCHES_PROTOCOL));
      });
      request.on('response', (response) => void readReply(response).then(resolve, reject));
      request.end();
    });
  } finally {
    release();
    request.destroy();
  }
}

async function readReply(response: IncomingMessage): Promise<Reply> {
  const { statusCode: status = 0, headers } = response;
  // What follows a 101 without an `upgrade` header, Node takes for a body that has no end.
  if (status === 101) throw coded(SWITCHES_PROTOCOL);
  if (status >= 300 && status < 400) return { status, headers, body: '' };
  const encoding = headers['content-encoding'];
  // Not asked for, and not unpacked: a few bytes can unpack to more than there is memory.
  if (encoding && encoding !== 'identity') return { status, headers, body: '', unread: 'compressed' };
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > limits.providerAnswerBytes) return { status, headers, body: '', unread: 'too large' };
    chunks.push(chunk);
  }
  return { status, headers, body: new TextDecoder().decode(Buffer.concat(chunks)) };
}
