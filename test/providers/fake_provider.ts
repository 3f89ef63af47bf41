import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from 'node:net';
import { expect, onTestFinished } from 'vitest';
import { newProvider } from '../../src/domain/catalogue.js';
import type { Provider } from '../../src/domain/rows.js';
import { until } from '../support/until.js';
import type { Certificate } from './certificate.js';

/*
 * A local server with the wire format of one of the four built-in providers. It accepts one key and records every
 * request.
 */

export type Kind = 'openai' | 'deepseek' | 'grok' | 'claude';
export const KINDS: readonly Kind[] = ['openai', 'deepseek', 'grok', 'claude'];

/** The key that the fake provider accepts. Tests check that it appears nowhere else. */
export const KEY = 'sk-planted-0123456789abcdefghijKLMNOP';

export interface ReceivedRequest {
  readonly method: string;
  /** The path with its query. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

export interface FakeProvider {
  readonly kind: Kind;
  /** The built-in provider's row, with this server as its base URL. */
  readonly provider: Provider;
  readonly port: number;
  /** All requests so far. */
  readonly seen: readonly ReceivedRequest[];
  readonly paths: () => readonly string[];
  /** Sets the handler of a path (without query); `*` is every path. */
  readonly on: (path: string, handler: Handler) => void;
}

/** A handler that responds with JSON. */
export const json =
  (status: number, body: unknown, headers: Readonly<Record<string, string>> = {}): Handler =>
  (_, response) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
  };

/** A handler that responds with a text. */
export const text =
  (status: number, body: string | Buffer, headers: Readonly<Record<string, string>> = {}): Handler =>
  (_, response) => {
    response.writeHead(status, headers).end(body);
  };

const openaiList = (owner: string, ...ids: string[]) => ({
  object: 'list',
  data: ids.map((id) => ({ id, object: 'model', created: 1_700_000_000, owned_by: owner })),
});
const claudePage = (ids: readonly string[], has_more = false) => ({
  data: ids.map((id) => ({ type: 'model', id, display_name: id, created_at: '2025-01-01T00:00:00Z' })),
  first_id: ids[0] ?? null,
  last_id: ids.at(-1) ?? null,
  has_more,
});
const openaiError = (message: string, type: string, code: string | null) => ({
  error: { message, type, param: null, code },
});
const claudeError = (type: string, message: string, details?: object) => ({
  type: 'error',
  error: { type, message, ...(details && { details }) },
  request_id: 'req_011CXw8h8A796q3f74Ezmhav',
});

/** The responses of each provider. Real providers repeat parts of the key in the body; these repeat the whole key. */
export const wire: Readonly<Record<Kind, Readonly<Record<Situation, Handler>>>> = {
  openai: {
    list: json(200, openaiList('openai', 'gpt-4o', 'gpt-4o-mini', 'o3')),
    wrongKey: json(
      401,
      openaiError(
        `Incorrect API key provided: ${KEY}. You can find your API key at https://platform.openai.com/account/api-keys.`,
        'invalid_request_error',
        'invalid_api_key',
      ),
    ),
    restricted: json(
      403,
      openaiError(
        "You have insufficient permissions for this operation. Missing scopes: api.model.read. Check that you have the correct role in your organization (Reader, Writer, Owner) and project (Member, Owner), and if you're using a restricted API key, that it has the necessary scopes.",
        'invalid_request_error',
        null,
      ),
    ),
    noCredit: json(
      429,
      openaiError(
        'You exceeded your current quota, please check your plan and billing details. For more information on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.',
        'insufficient_quota',
        'insufficient_quota',
      ),
    ),
    rateLimit: json(
      429,
      openaiError(
        `Rate limit reached for ${KEY} on requests per min (RPM): Limit 3, Used 3. Visit https://platform.openai.com/account/rate-limits to learn more. You can increase your rate limit by adding a payment method to your account at https://platform.openai.com/account/billing.`,
        'requests',
        'rate_limit_exceeded',
      ),
      { 'retry-after': '13', 'retry-after-ms': '12345', 'x-ratelimit-remaining-requests': '0' },
    ),
    overloaded: json(503, openaiError('The server is overloaded', 'server_error', 'server_is_overloaded')),
    noModel: json(404, openaiError("The model 'x' does not exist", 'invalid_request_error', 'model_not_found')),
  },
  deepseek: {
    list: json(200, openaiList('deepseek', 'deepseek-chat', 'deepseek-reasoner')),
    wrongKey: json(
      401,
      openaiError(
        `Authentication Fails, Your api key: ${KEY} is invalid`,
        'authentication_error',
        'invalid_request_error',
      ),
    ),
    restricted: json(403, openaiError('Permission denied', 'permission_error', 'invalid_request_error')),
    noCredit: json(402, openaiError('Insufficient Balance', 'unknown_error', 'invalid_request_error')),
    rateLimit: json(429, openaiError('Rate limit reached', 'rate_limit_error', 'invalid_request_error')),
    overloaded: json(503, openaiError('Service is too busy', 'service_unavailable_error', null)),
    noModel: json(400, openaiError('Model Not Exist', 'invalid_request_error', 'invalid_request_error')),
  },
  grok: {
    list: json(200, openaiList('xai', 'grok-4', 'grok-4-fast')),
    wrongKey: json(400, {
      code: 'Client specified an invalid argument',
      error: `Incorrect API key provided: ${KEY}. You can obtain an API key from https://console.x.ai.`,
    }),
    restricted: json(403, {
      code: 'permission-denied',
      error:
        "Access is denied. Please ensure you're using the correct credentials. If you believe this is a mistake, please log into console.x.ai and update the permissions.",
    }),
    noCredit: json(403, {
      code: 'The caller does not have permission to execute the specified operation',
      error:
        "Your newly created team doesn't have any credits or licenses yet. You can purchase those on https://console.x.ai/team/0.",
    }),
    rateLimit: json(
      429,
      { code: 'Some resource has been exhausted', error: `Too many requests for ${KEY}` },
      { 'retry-after': '7' },
    ),
    overloaded: json(503, { error: 'Service temporarily unavailable' }),
    noModel: json(404, { code: 'Some requested entity was not found', error: 'The model x does not exist' }),
  },
  claude: {
    list: json(200, claudePage(['claude-sonnet-4-5-20250929', 'claude-3-haiku-20240307'])),
    wrongKey: json(401, claudeError('authentication_error', `invalid x-api-key ${KEY}`)),
    restricted: json(
      403,
      claudeError('permission_error', 'Your API key does not have permission to use the specified resource.'),
    ),
    noCredit: json(
      429,
      claudeError('rate_limit_error', 'Your organization has reached its limit', {
        error_code: 'enforced_spend_limit_reached',
      }),
    ),
    rateLimit: json(
      429,
      claudeError('rate_limit_error', 'This request would exceed the rate limit for your organization'),
      { 'retry-after': '30' },
    ),
    overloaded: json(529, claudeError('overloaded_error', 'Overloaded')),
    noModel: json(404, claudeError('not_found_error', 'model: x')),
  },
};
export type Situation = 'list' | 'wrongKey' | 'restricted' | 'noCredit' | 'rateLimit' | 'overloaded' | 'noModel';

/** A page of the model list of Anthropic. */
export const claudeList = (ids: readonly string[], hasMore: boolean): Handler => json(200, claudePage(ids, hasMore));

/** A response of the key endpoint of xAI. */
export const grokKey = (fields: object = {}): Handler =>
  json(200, {
    redacted_api_key: 'sk-...MNOP',
    user_id: '59fbe5f2-040b-46d5-8325-868bb8f23eb2',
    name: KEY,
    team_id: '5ea6f6bd-7815-4b8a-9135-28b2d7ba6722',
    acls: ['api-key:model:*', 'api-key:endpoint:*'],
    team_blocked: false,
    api_key_blocked: false,
    api_key_disabled: false,
    ...fields,
  });

/** A response of the balance endpoint of DeepSeek. */
export const deepseekBalance = (is_available: boolean): Handler =>
  json(200, {
    is_available,
    balance_infos: [{ currency: 'USD', total_balance: is_available ? '9.90' : '0.00', granted_balance: '0.00' }],
  });

const BASE_PATH: Readonly<Record<Kind, string>> = { openai: '/v1', deepseek: '', grok: '/v1', claude: '/v1' };

/** Starts a provider that accepts KEY and ends with the test. With `tls` it uses TLS and the host name `name`. */
export async function startFakeProvider(kind: Kind, tls?: Certificate & { name: string }): Promise<FakeProvider> {
  const seen: ReceivedRequest[] = [];
  const handlers = new Map<string, Handler>(defaults(kind));
  const handle: Handler = (request, response) => {
    const { method = '', url = '', headers } = request;
    seen.push({ method, path: url, headers: { ...headers } });
    const path = url.replace(/\?.*$/, '');
    const handler = handlers.get('*') ?? (isKeyed(kind, headers) ? handlers.get(path) : wire[kind].wrongKey);
    (handler ?? wire[kind].noModel)(request, response);
  };
  const server = tls ? createTlsServer(tls, handle) : createServer(handle);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  const { port } = server.address() as AddressInfo;
  const origin = tls ? `https://${tls.name}:${port}` : `http://127.0.0.1:${port}`;
  return {
    kind,
    provider: providerRow(kind, origin + BASE_PATH[kind]),
    port,
    seen,
    paths: () => seen.map(({ method, path }) => `${method} ${path}`),
    on: (path, handler) => void handlers.set(path, handler),
  };
}

const isKeyed = (kind: Kind, headers: IncomingMessage['headers']) =>
  kind === 'claude'
    ? headers['x-api-key'] === KEY && headers['anthropic-version'] === '2023-06-01'
    : headers['authorization'] === `Bearer ${KEY}`;

const defaults = (kind: Kind): [string, Handler][] => [
  [`${BASE_PATH[kind]}/models`, wire[kind].list],
  ...(kind === 'grok' ? [['/v1/api-key', grokKey()] satisfies [string, Handler]] : []),
  ...(kind === 'deepseek' ? [['/user/balance', deepseekBalance(true)] satisfies [string, Handler]] : []),
];

const VARIABLES: Readonly<Record<Kind, readonly string[]>> = {
  openai: ['OPENAI_API_KEY'],
  deepseek: ['DEEPSEEK_API_KEY'],
  grok: ['GROK_API_KEY', 'XAI_API_KEY'],
  claude: ['ANTHROPIC_API_KEY'],
};
const DIALECTS = {
  openai: 'DIALECT_OPENAI',
  deepseek: 'DIALECT_OPENAI_COMPATIBLE',
  grok: 'DIALECT_OPENAI_COMPATIBLE',
  claude: 'DIALECT_ANTHROPIC',
} as const;

export const providerRow = (kind: Kind, base_url: string, fields: Partial<Provider> = {}): Provider => ({
  ...newProvider(),
  name: kind,
  dialect: DIALECTS[kind],
  api_key_env_vars: VARIABLES[kind],
  base_url,
  built_in: true,
  ...fields,
});

/** A TCP server that records its connections. */
export interface TcpServer {
  readonly port: number;
  readonly sockets: readonly Socket[];
  /** Fails if something has connected. Connections arrive in order, so they would arrive before one of the test. */
  expectUnused(): Promise<void>;
}

/** A TCP server that passes each connection to a function and ends with the test. */
export async function startTcp(onConnection: (socket: Socket) => void): Promise<TcpServer> {
  const sockets: Socket[] = [];
  const from: (number | undefined)[] = [];
  const server = createTcpServer((socket) => {
    sockets.push(socket.on('error', () => undefined));
    from.push(socket.remotePort);
    onConnection(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  const { port } = server.address() as AddressInfo;
  return {
    port,
    sockets,
    async expectUnused() {
      const control = connect(port, '127.0.0.1');
      await once(control, 'connect');
      const { localPort } = control;
      await until(() => from.includes(localPort), 'the connection of the test arrives');
      control.destroy();
      expect(from).toEqual([localPort]);
    },
  };
}
