import type { Http2Server, IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import type { Server, ServerInterceptingCall, ServerInterceptor } from '@grpc/grpc-js';
import { BaseServerInterceptingCall } from '@grpc/grpc-js/build/src/server-interceptors.js';
import type { Api } from '../api/api.js';
import type { Reflection } from '../config.js';
import { printable } from '../domain/text.js';
import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import { type IncomingRequest, RequestBudget, type RequestStream } from '../net/request_budget.js';
import { type Accept, connectionOf, sessionTracker } from './connection.js';
import { Decompression } from './decompression.js';
import { installRefusalDetails, trailersOf } from './refusal_details.js';
import { grpcStatus } from './status.js';

/** Error codes of HTTP/2 (RFC 9113, 7). */
const NO_ERROR = 0;
const ENHANCE_YOUR_CALM = 11;

/** The part of a grpc-js call that decompresses its messages. */
interface DecompressingCall {
  decompressMessage(message: Buffer, encoding: string): Buffer | Promise<Buffer>;
}

const TIMEOUT = /^\d{1,8}[HMSmun]$/;

/**
 * Runs between HTTP/2 and grpc-js: it rejects calls because of their headers and bounds the memory of their requests.
 * Interceptors of grpc-js could check the headers, but they cost a quarter of the throughput, do not run for unknown
 * methods, and receive a message only when it is completely in memory.
 */
export class RequestGuard {
  /** The budget of calls that never need a token: health checks and public reflection. */
  private readonly publicBudget = new RequestBudget(limits.openRequests);
  private readonly decompression = new Decompression();
  /** The request of the call that grpc-js is starting now, if it may be compressed. */
  private compressed: IncomingRequest | undefined;

  constructor(
    private readonly api: Pick<Api, 'authorizer' | 'anonymous' | 'requestBudget'>,
    private readonly reflection: Reflection,
  ) {}

  /** Replaces the decompression of grpc-js for calls with compressed messages; does not affect other calls. */
  readonly interceptor: ServerInterceptor = (_, call) => {
    const request = this.compressed;
    if (request) this.replaceDecompression(call as unknown as DecompressingCall, request);
    return call as ServerInterceptingCall;
  };

  /**
   * Installs the guard before the stream handler of the server; call it after the connection injector is created.
   * @returns a function through which all connections have to be injected.
   */
  install(server: Server): Accept {
    checkDecompression();
    const { http2Servers, methods } = partsOf(server);
    installRefusalDetails();
    for (const http2Server of http2Servers) {
      const handlers = http2Server.listeners('stream');
      http2Server.removeAllListeners('stream');
      http2Server.on(
        'stream',
        (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, flags: number, raw: string[]) => {
          const refusal = this.refusalOf(stream, headers, raw);
          if (refusal) refuse(stream, refusal);
          else if (!headers['content-type']?.startsWith('application/grpc')) refuse(stream, notGrpc(), 415);
          else if (!methods.has(headers[':path'] ?? '')) refuse(stream, methodNotFound(headers));
          else
            this.startRequest(stream, headers, methods.get(headers[':path'] ?? '')?.type === 'bidi', () => {
              for (const handle of handlers) handle(stream, headers, flags);
            });
        },
      );
    }
    return sessionTracker(http2Servers);
  }

  stop(): void {
    this.publicBudget.stop();
  }

  /** The error of a call that is rejected because of its headers, or undefined. */
  private refusalOf(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, raw: string[]): ServiceError | undefined {
    const path = headers[':path'] ?? '';
    const timeout = headers['grpc-timeout'];
    if (timeout !== undefined && !TIMEOUT.test(String(timeout)))
      return ServiceError.of('INVALID_HEADER', { header: 'grpc-timeout', problem: 'must be a time like 500m or 2S' });
    // Node uses the first of several headers, and a proxy may have used another one. The joined
    // values are not a valid token.
    const authorizations = valuesOf(raw, 'authorization');
    if (authorizations.length > 1) headers.authorization = authorizations.join(', ');
    if (this.isPublic(path)) {
      const encoding = headers['grpc-encoding'] ?? 'identity';
      if (encoding !== 'identity')
        return ServiceError.of('FEATURE_NOT_AVAILABLE', { feature: 'Compression of requests to this service' });
    } else if (this.api.anonymous === 'never') {
      const { authorization } = headers;
      const credentials = connectionOf(stream.session)?.credentials(authorization) ?? { authorization };
      try {
        this.api.authorizer.identify(credentials, path.slice(1));
      } catch (error) {
        return error as ServiceError;
      }
    }
    return undefined;
  }

  /** Whether a path needs no token. */
  private isPublic(path: string): boolean {
    return path.startsWith('/grpc.health.') || (path.startsWith('/grpc.reflection.') && this.reflection === 'on');
  }

  private startRequest(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    isStream: boolean,
    start: () => void,
  ): void {
    const isPublic = this.isPublic(headers[':path'] ?? '');
    const budget = isPublic ? this.publicBudget : this.api.requestBudget;
    const [connection, sent] = [stream.session ?? this, new GrpcRequestStream(stream, this.decompression)];
    // A stream of reflection is short, and its requests are small.
    const request = isStream && !isPublic ? budget.openStream(connection, sent) : budget.open(connection, sent);
    if (request.isClosed) return;
    const encoding = headers['grpc-encoding'];
    this.compressed = encoding === undefined || encoding === 'identity' ? undefined : request;
    (stream as GuardedStream)[REQUEST] = request;
    start();
    this.compressed = undefined;
    // grpc-js has already rejected the call because of its headers, and Node discards its data.
    if (stream.headersSent || stream.destroyed) {
      request.close();
      return;
    }
    stream.prependListener('data', addChunk);
    stream.on('close', closeRequest);
  }

  private replaceDecompression(call: DecompressingCall, request: IncomingRequest): void {
    call.decompressMessage = async (message, encoding) => {
      const bytes = message.subarray(5);
      if (encoding === 'identity') return bytes;
      const decompressed = await this.decompression.run(bytes, encoding, request);
      try {
        request.hold(decompressed.length);
      } catch (error) {
        // grpc-js sends a thrown status with its details.
        throw grpcStatus(error as ServiceError);
      }
      return decompressed;
    };
  }
}

/** The stream of a request, for its budget. */
class GrpcRequestStream implements RequestStream {
  constructor(
    private readonly stream: ServerHttp2Stream,
    private readonly decompression: Decompression,
  ) {}

  refuse(error: ServiceError): void {
    refuse(this.stream, error);
  }

  isComplete(request: IncomingRequest): boolean {
    return this.stream.readableEnded && !this.decompression.isFor(request);
  }
}

const REQUEST = Symbol('request');

interface GuardedStream extends ServerHttp2Stream {
  [REQUEST]?: IncomingRequest;
}

/** The counted request of a call of grpc-js; undefined after the call has ended. */
export const requestOfCall = (call: object): IncomingRequest | undefined =>
  (call as { readonly call: { readonly stream: Partial<GuardedStream> } }).call.stream[REQUEST];

// Listeners that all streams share; a closure for each call costs more than the rest of the budget.
function addChunk(this: GuardedStream, chunk: Buffer): void {
  this[REQUEST]?.add(chunk.length);
}

function closeRequest(this: GuardedStream): void {
  this[REQUEST]?.close();
}

/** The private parts of a server of grpc-js that the guard needs. */
interface ServerParts {
  readonly http2Servers: readonly Http2Server[];
  /** By their paths. */
  readonly methods: ReadonlyMap<string, { readonly type: string }>;
}

/**
 * grpc-js has no public access to its HTTP/2 servers. Its version is pinned; the service does not start with another
 * layout.
 */
function partsOf(server: Server): ServerParts {
  const { http2Servers, handlers } = server as unknown as Readonly<Record<string, unknown>>;
  if (!(http2Servers instanceof Map) || http2Servers.size === 0 || !(handlers instanceof Map))
    throw new Error(
      'this version of @grpc/grpc-js stores its HTTP/2 servers or its methods in another field; update src/grpc/request_guard.ts',
    );
  return { http2Servers: [...http2Servers.keys()], methods: handlers };
}

// grpc-js rejects these calls, too, but without details.
const notGrpc = () =>
  ServiceError.of('INVALID_HEADER', {
    header: 'content-type',
    problem: 'must be application/grpc; the JSON API has another port',
  });

function methodNotFound({ ':path': path = '' }: IncomingHttpHeaders): ServiceError {
  return ServiceError.of('METHOD_NOT_FOUND', { method: printable(path.slice(1) || path, 100) });
}

/**
 * Throws if the decompression cannot be replaced: a compressed request of a few KB could then use gigabytes of memory.
 */
function checkDecompression(): void {
  const { decompressMessage } = BaseServerInterceptingCall.prototype as unknown as Partial<DecompressingCall>;
  if (typeof decompressMessage !== 'function')
    throw new Error(
      'this version of @grpc/grpc-js decompresses messages in another method; update src/grpc/request_guard.ts',
    );
}

function valuesOf(raw: readonly string[], name: string): string[] {
  const values: string[] = [];
  for (let at = 0; at < raw.length; at += 2) if (raw[at] === name) values.push(raw[at + 1] as string);
  return values;
}

/** Ends a call with a status and tells the client to stop sending the request. */
function refuse(stream: ServerHttp2Stream, error: ServiceError, httpStatus = 200): void {
  if (stream.destroyed || stream.closed) return;
  stream.on('error', () => {});
  if (stream.headersSent) {
    stream.close(ENHANCE_YOUR_CALM);
    return;
  }
  stream.respond(
    { ':status': httpStatus, 'content-type': 'application/grpc+proto', ...trailersOf(error) },
    { endStream: true },
  );
  stream.close(NO_ERROR);
}
