import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { Permission } from '../../gen/ts/agentllm/v1/options.js';
import type { Address } from '../config.js';
import { ServiceError, StartError } from '../errors.js';
import { limits } from '../limits.js';
import type { Log } from '../log.js';
import type { Metrics } from '../metrics.js';
import type { Access } from '../rpc/access.js';
import type { Contract } from '../rpc/contract.js';
import { internalError } from '../rpc/internal_error.js';
import { openSockets } from '../rpc/listen.js';
import type { Invoke } from '../rpc/method.js';
import type { Credentials } from '../rpc/origin.js';
import type { Reflection } from '../rpc/reflection.js';
import type { RequestBudget } from '../rpc/request_budget.js';
import { peerIdentities } from '../tls/peer.js';
import type { ServerTls } from '../tls/tls.js';
import { type Answer, json, Refusal, refuse, send } from './answer.js';
import { readBody } from './body.js';
import { errorAnswer } from './failure.js';
import { type Guard, guardOf } from './guard.js';
import { openApi } from './openapi.js';
import { createRouter, type Route, type Router } from './routes.js';
import { answerJson, requestBytes } from './transcode.js';

export interface HttpServer {
  readonly port: number;
  close(): Promise<void>;
}

export interface HttpContext {
  readonly contract: Contract;
  readonly log: Log;
  readonly metrics: Metrics;
  /** The methods of the contract, by their paths. */
  readonly methods: ReadonlyMap<string, Invoke>;
  readonly access: Access;
  /** The memory of requests over both ports. */
  readonly requests: RequestBudget;
  /** Who may read `/openapi.json`. */
  readonly reflection: Reflection;
  /** Why the service should get no traffic now, or undefined. */
  readonly notReady: () => string | undefined;
  /** Without it the server speaks in clear. */
  readonly tls?: ServerTls | undefined;
}

/** What stands at a fixed path. */
type Page = (credentials: Credentials) => Answer | Promise<Answer>;

interface Site extends HttpContext {
  readonly guard: Guard;
  readonly pages: ReadonlyMap<string, Page>;
  readonly router: Router;
}

/** Time for a whole request to arrive, and for answers under way to leave when the server closes. */
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
    // Node looks every 30 s by default, and so would cut off a slow request only then.
    connectionsCheckingInterval: 1_000,
  };
  const listener = (request: IncomingMessage, response: ServerResponse) => void serve(site, request, response);
  // The second one gets requests that wait to be told to go on before they send a body.
  const server = serverOf(context.tls, options, listener).on('checkContinue', listener);
  const sockets = openSockets(server);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) =>
      reject(new StartError(`HTTP_ADDRESS ${address.text} cannot be listened on: ${error.message}`)),
    );
    server.listen(address.port, address.host, () => {
      // Accepting may fail later, of one connection.
      server.removeAllListeners('error').on('error', () => undefined);
      resolve();
    });
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        const timer = setTimeout(() => {
          server.closeAllConnections();
          sockets.destroy();
        }, CLOSE_GRACE_MS);
        server.close(() => {
          clearTimeout(timer);
          resolve();
        });
      }),
  };
}

function serverOf(tls: ServerTls | undefined, options: ServerOptions, listener: RequestListener): Server {
  const server = tls ? createTlsServer({ ...options, ...tls.options }, listener) : createServer(options, listener);
  if (tls) tls.serve(server as ReturnType<typeof createTlsServer>);
  server.maxConnections = limits.maxConnections;
  return server;
}

const text = (status: number, body: string, type = 'text/plain; charset=utf-8'): Answer => ({
  status,
  body: `${body}\n`,
  type,
});

function pagesOf({ contract, metrics, notReady, access, reflection }: HttpContext, router: Router): Map<string, Page> {
  let described: Answer | undefined;
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
        access.admit(credentials, METRICS);
        return text(200, await metrics.registry.metrics(), metrics.registry.contentType);
      },
    ],
    [
      '/openapi.json',
      (credentials) => {
        if (reflection === 'off') return nothingHere();
        if (reflection === 'authenticated') access.identify(credentials, '/openapi.json');
        described ??= json(200, Buffer.from(JSON.stringify(openApi(contract, router.routes))));
        return described;
      },
    ],
  ]);
}

/** Answers one request, whatever happens on the way. */
async function serve(site: Site, request: IncomingMessage, response: ServerResponse): Promise<void> {
  // Whoever goes away before the answer is out gets none.
  response.on('error', () => {});
  let answer: Answer;
  try {
    answer = await answerTo(site, request, response);
  } catch (thrown) {
    if (response.destroyed) return;
    answer = failed(site, thrown);
  }
  send(request, response, answer);
}

function failed({ contract, log }: Site, thrown: unknown): Answer {
  if (thrown instanceof Refusal) return thrown.answer;
  const error = thrown instanceof ServiceError ? thrown : internalError(thrown, 'http', log);
  return errorAnswer(contract.registry, error);
}

/** The path and query of a request target, which must have no name, no fragment and nothing but ASCII. */
const TARGET = /^(\/[!"$->@-~]*)(?:\?([!"$-~]*))?$/;

async function answerTo(site: Site, request: IncomingMessage, response: ServerResponse): Promise<Answer> {
  const refused = site.guard(request);
  if (refused) return refused;
  const [, path, query = ''] = TARGET.exec(request.url ?? '') ?? [];
  if (path === undefined) return refuse(400, 'INVALID_ARGUMENT', 'The target must be a path, percent-encoded');
  const page = site.pages.get(path);
  if (page) return isReading(request) ? page(credentialsOf(request)) : otherMethod(request, ['GET']);
  // A HEAD is a GET of which only the headers go out.
  const found = site.router.find(request.method === 'HEAD' ? 'GET' : (request.method ?? ''), path);
  if (!found) return nothingHere();
  if ('allowed' in found) return otherMethod(request, found.allowed);
  return callMethod(site, found.route, { values: found.values, query }, request, response);
}

const METRICS = { method: '/metrics', rule: { permission: Permission.METRICS_READ, agentRefs: undefined } } as const;

const nothingHere = () => refuse(404, 'NOT_FOUND', 'There is nothing here; /openapi.json lists what there is');

const credentialsOf = ({ headersDistinct: { authorization }, socket }: IncomingMessage): Credentials => ({
  // Several are no good, and `headers` has the first of them alone.
  authorization: authorization?.join(', '),
  identities: peerIdentities(socket),
});

const isReading = ({ method }: IncomingMessage) => method === 'GET' || method === 'HEAD';

function otherMethod({ method }: IncomingMessage, allowed: readonly string[]): Answer {
  const allow = [...allowed, ...(allowed.includes('GET') ? ['HEAD'] : []), 'OPTIONS'].join(', ');
  if (method === 'OPTIONS') return { status: 204, body: '', headers: { allow } };
  return refuse(405, 'INVALID_ARGUMENT', `Only ${allow} can be sent here`, { allow });
}

async function callMethod(
  { contract: { registry }, access, requests }: Site,
  route: Route,
  target: { values: readonly string[]; query: string },
  request: IncomingMessage,
  response: ServerResponse,
): Promise<Answer> {
  const deadlineMs = readTimeout(request.headers['grpc-timeout']);
  const credentials = credentialsOf(request);
  // Of a stranger no body is taken.
  access.identify(credentials, `${route.method.parent.typeName}/${route.method.name}`);
  const gone = new AbortController();
  response.once('close', () => gone.abort());
  const body = await readBody(request, response, requests);
  const read = () => requestBytes(registry, route, { ...target, body });
  const reply = await route.invoke(read, {
    signal: gone.signal,
    credentials,
    ...(deadlineMs !== undefined && { deadlineMs }),
  });
  return json(200, answerJson(registry, route.method.output, reply));
}

const UNIT_MS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

/** How long the caller waits: the header of gRPC, `2S`, as grpc-gateway takes it. */
function readTimeout(header: string | string[] | undefined): number | undefined {
  if (header === undefined) return undefined;
  const [, count, unit = ''] = /^(\d{1,8})([HMSmun])$/.exec(String(header)) ?? [];
  if (count === undefined)
    throw new Refusal(refuse(400, 'INVALID_ARGUMENT', 'grpc-timeout must be a time like 500m or 2S'));
  return Number(count) * (UNIT_MS[unit] as number);
}
