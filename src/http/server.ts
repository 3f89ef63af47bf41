import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Address } from '../config.js';
import type { Metrics } from '../metrics.js';

export interface HttpServer {
  readonly port: number;
  close(): Promise<void>;
}

export interface HttpContext {
  readonly metrics: Metrics;
  /** Why the service should get no traffic now, or undefined. */
  readonly notReady: () => string | undefined;
}

type Route = (response: ServerResponse) => void | Promise<void>;

/** Serves `/healthz`, `/readyz` and `/metrics`. */
export async function startHttpServer(address: Address, context: HttpContext): Promise<HttpServer> {
  const routes: Readonly<Record<string, Route>> = {
    '/healthz': (response) => answer(response, 200, 'ok'),
    '/readyz': (response) => {
      const reason = context.notReady();
      answer(response, reason ? 503 : 200, reason ?? 'ok');
    },
    '/metrics': async (response) => {
      const { registry } = context.metrics;
      answer(response, 200, await registry.metrics(), registry.contentType);
    },
  };
  const server = createServer((request, response) => void serve(routes, request, response));
  server.requestTimeout = 10_000;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) =>
      reject(new Error(`HTTP_ADDRESS ${address.text} cannot be listened on: ${error.message}`)),
    );
    server.listen(address.port, address.host, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function serve(routes: Readonly<Record<string, Route>>, request: IncomingMessage, response: ServerResponse) {
  const path = (request.url ?? '').split('?', 1)[0] as string;
  const route = Object.hasOwn(routes, path) ? routes[path] : undefined;
  if (!route) return answer(response, 404, `There is nothing here; try ${Object.keys(routes).join(', ')}`);
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('allow', 'GET, HEAD');
    return answer(response, 405, 'Only GET and HEAD are answered here');
  }
  await route(response);
}

function answer(response: ServerResponse, status: number, body: string, type = 'text/plain; charset=utf-8'): void {
  response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
  response.end(response.req.method === 'HEAD' ? undefined : `${body}\n`);
}
