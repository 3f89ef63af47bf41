import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { Duplex } from 'node:stream';
import type { Registry } from '@bufbuild/protobuf';
import { Permission } from '../../gen/ts/agentllm/v1/options.js';
import type { Api } from '../api/api.js';
import type { Credentials } from '../api/dispatch/call_transport.js';
import type { Contract } from '../api/dispatch/contract.js';
import { internalError } from '../api/dispatch/internal_error.js';
import type { Address, Reflection } from '../config.js';
import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import type { Log } from '../log.js';
import type { Metrics } from '../metrics.js';
import { listenOnAll } from '../net/listen.js';
import { peerIdentities } from '../net/peer_identity.js';
import type { ServerTls } from '../net/tls.js';
import type { ConnectionResponses } from '../net/unread_responses.js';
import { readBody } from './body.js';
import { errorResponse } from './failure.js';
import { type Guard, guardOf } from './guard.js';
import { type HttpResponse, json, send } from './http_response.js';
import { openApi } from './openapi.js';
import { oneAtATime } from './pipeline.js';
import { createRouter, type Route, type Router } from './routes.js';
import { requestBytes, responseJson } from './transcode.js';

export interface HttpServer {
  readonly port: number;
  close(): Promise<void>;
}

export interface HttpContext
  extends Pick<Api, 'contract' | 'methods' | 'authorizer' | 'unreadResponses' | 'requestBudget'> {
  readonly log: Log;
  readonly metrics: Metrics;
  /** The clients that may read `/openapi.json`. */
  readonly reflection: Reflection;
  /** The reason why the service must not receive traffic now, or undefined. */
  readonly notReady: () => string | undefined;
  /** Without it the server accepts plaintext connections. */
  readonly tls?: ServerTls | undefined;
}

/** The content of a fixed path. */
type Page = (credentials: Credentials) => HttpResponse | Promise<HttpResponse>;

interface Site extends HttpContext {
  readonly guard: Guard;
  readonly pages: ReadonlyMap<string, Page>;
  readonly router: Router;
}

/** Maximum time for a request to arrive, and for responses in progress to be sent when the server closes. */
const REQUEST_TIMEOUT_MS = 10_000;
const CLOSE_GRACE_MS = 1_000;

/** Serves the contract as JSON under its google.api.http annotations, and `/healthz`, `/readyz`, `/metrics`. */
export async function startHttpServer(address: Address, context: HttpContext): Promise<HttpServer> {
  const router = createRouter(context.contract, context.methods);
  const site = { ...context, guard: guardOf(address), pages: pagesOf(context, router), router };
  const options = {
    requestTimeout: REQUEST_TIMEOUT_MS,
    headersTimeout: REQUEST_TIMEOUT_MS,
    maxHeaderSize: limits.maxHttpHeaderBytes,
    // The guard rejects requests without a Host header, with a reason.
    requireHostHeader: false,
    // Node checks only every 30 s by default, which is too late to end a slow request.
    connectionsCheckingInterval: 1_000,
  };
  // The last response of each connection, for parser errors while it is being sent.
  const responses = new WeakMap<Duplex, ServerResponse>();
  const listener = oneAtATime(context.unreadResponses, (request, response, connection) => {
    responses.set(request.socket, response);
    void serve(site, request, response, connection);
  });
  // `checkContinue` receives requests that wait for 100 Continue before they send a body.
  const create = () =>
    serverOf(context.tls, options, listener)
      .on('checkContinue', listener)
      .on('clientError', (error, socket) => {
        const response = responses.get(socket);
        if (response?.headersSent && !response.writableFinished) socket.destroy();
        else refuseConnection(context.contract, error, socket);
      });
  const { port, stop, destroy } = await listenOnAll('HTTP_ADDRESS', address, create);
  return {
    port,
    async close() {
      const timer = setTimeout(destroy, CLOSE_GRACE_MS);
      await stop();
      clearTimeout(timer);
    },
  };
}

function serverOf(tls: ServerTls | undefined, options: ServerOptions, listener: RequestListener): Server {
  const server = tls ? createTlsServer({ ...options, ...tls.options }, listener) : createServer(options, listener);
  if (tls) tls.serve(server as ReturnType<typeof createTlsServer>);
  server.maxConnections = limits.maxConnections;
  return server;
}

const text = (status: number, body: string, type = 'text/plain; charset=utf-8'): HttpResponse => ({
  status,
  body: `${body}\n`,
  type,
});

function pagesOf(
  { contract, metrics, notReady, authorizer, reflection }: HttpContext,
  router: Router,
): Map<string, Page> {
  let described: HttpResponse | undefined;
  return new Map<string, Page>([
    ['/healthz', () => text(200, 'ok')],
    [
      '/readyz',
      () => {
        const reason = notReady();
        return text(reason ? 503 : 200, reason ?? 'ok');
      },
    ],
    [
      '/metrics',
      async (credentials) => {
        authorizer.admit(credentials, METRICS);
        return text(200, await metrics.registry.metrics(), metrics.registry.contentType);
      },
    ],
    [
      '/openapi.json',
      (credentials) => {
        if (reflection === 'off') throw pathNotFound();
        if (reflection === 'authenticated') authorizer.identify(credentials, '/openapi.json');
        described ??= json(200, Buffer.from(JSON.stringify(openApi(contract, router.routes))));
        return described;
      },
    ],
  ]);
}

/** Handles one request; every failure results in an error response. */
async function serve(
  site: Site,
  request: IncomingMessage,
  response: ServerResponse,
  connection: ConnectionResponses,
): Promise<void> {
  // A client that disconnects early gets no response.
  response.on('error', () => {});
  let result: HttpResponse;
  try {
    result = await respondTo(site, request, response);
  } catch (thrown) {
    result = failed(site, thrown);
    if (response.destroyed) return;
  }
  response.once('close', connection.add(Buffer.byteLength(result.body)));
  send(request, response, result);
}

function failed({ contract, log }: Site, thrown: unknown): HttpResponse {
  const error = thrown instanceof ServiceError ? thrown : internalError(thrown, 'http', log);
  return errorResponse(contract.registry, error);
}

/** Responds to a request that Node's parser rejects, in the format of all other errors, and closes the connection. */
function refuseConnection({ registry }: Contract, error: NodeJS.ErrnoException, socket: Duplex): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const { status, type, body } = connectionError(registry, error.code ?? '');
  const head = `HTTP/1.1 ${status} ${PHRASES[status]}\r\ncontent-type: ${type}\r\nconnection: close\r\n`;
  socket.end(`${head}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
}

const PHRASES: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  408: 'Request Timeout',
  431: 'Request Header Fields Too Large',
};

function connectionError(registry: Registry, code: string): HttpResponse {
  const max_bytes = String(limits.maxHttpHeaderBytes);
  if (code === 'HPE_HEADER_OVERFLOW')
    return errorResponse(registry, ServiceError.of('REQUEST_TOO_LARGE', { what: 'head of the request', max_bytes }), {
      status: 431,
    });
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT')
    return errorResponse(registry, ServiceError.of('DEADLINE_EXCEEDED', {}), { status: 408 });
  return errorResponse(registry, ServiceError.of('MALFORMED_HTTP', { problem: 'request is not valid HTTP/1.1' }));
}

/** The path and query of a request target, which must have no host, no fragment and only ASCII. */
const TARGET = /^(\/[!"$->@-~]*)(?:\?([!"$-~]*))?$/;

async function respondTo(site: Site, request: IncomingMessage, response: ServerResponse): Promise<HttpResponse> {
  site.guard(request);
  const [, path, query = ''] = TARGET.exec(request.url ?? '') ?? [];
  if (path === undefined)
    throw ServiceError.of('MALFORMED_HTTP', {
      problem: 'target of the request must be a path in ASCII, percent-encoded',
    });
  const page = site.pages.get(path);
  if (page) return isReading(request) ? page(credentialsOf(request)) : methodNotAllowed(site, request, ['GET']);
  // A HEAD request is handled like GET, and only the headers are sent.
  const found = site.router.find(request.method === 'HEAD' ? 'GET' : (request.method ?? ''), path);
  if (!found) throw pathNotFound();
  if ('allowed' in found) return methodNotAllowed(site, request, found.allowed);
  return callMethod(site, found.route, { values: found.values, query }, request, response);
}

const METRICS = { method: '/metrics', rule: { permission: Permission.METRICS_READ, agentRefs: undefined } } as const;

const pathNotFound = () => ServiceError.of('PATH_NOT_FOUND', {});

const credentialsOf = ({ headersDistinct: { authorization }, socket }: IncomingMessage): Credentials => ({
  // Repeated headers are invalid; `headers` would have only the first.
  authorization: authorization?.join(', '),
  identities: peerIdentities(socket),
});

const isReading = ({ method }: IncomingMessage) => method === 'GET' || method === 'HEAD';

function methodNotAllowed({ contract }: Site, { method }: IncomingMessage, allowed: readonly string[]): HttpResponse {
  const allow = [...allowed, ...(allowed.includes('GET') ? ['HEAD'] : []), 'OPTIONS'].join(', ');
  if (method === 'OPTIONS') return { status: 204, body: '', headers: { allow } };
  const error = ServiceError.of('HTTP_METHOD_NOT_ALLOWED', { allowed: allow });
  return errorResponse(contract.registry, error, { headers: { allow } });
}

async function callMethod(
  { contract: { registry }, authorizer, requestBudget }: Site,
  route: Route,
  target: { values: readonly string[]; query: string },
  request: IncomingMessage,
  response: ServerResponse,
): Promise<HttpResponse> {
  const deadlineMs = readTimeout(request.headers['grpc-timeout']);
  const credentials = credentialsOf(request);
  // The body of an unauthenticated caller is not read.
  authorizer.identify(credentials, `${route.method.parent.typeName}/${route.method.name}`);
  const disconnected = new AbortController();
  response.once('close', () => disconnected.abort());
  const body = await readBody(request, response, requestBudget);
  const read = () => requestBytes(registry, route, { ...target, body });
  const bytes = await route.invoke(read, {
    signal: disconnected.signal,
    credentials,
    ...(deadlineMs !== undefined && { deadlineMs }),
  });
  return json(200, responseJson(registry, route.method.output, bytes));
}

const UNIT_MS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

/** The deadline of the call in ms: the gRPC header `grpc-timeout`, `2S`, as in grpc-gateway. */
function readTimeout(header: string | string[] | undefined): number | undefined {
  if (header === undefined) return undefined;
  const [, count, unit = ''] = /^(\d{1,8})([HMSmun])$/.exec(String(header)) ?? [];
  if (count === undefined)
    throw ServiceError.of('INVALID_HEADER', { header: 'grpc-timeout', problem: 'must be a time like 500m or 2S' });
  return Number(count) * (UNIT_MS[unit] as number);
}
