import { once } from 'node:events';
import http2 from 'node:http2';
import { status as GrpcStatus } from '@grpc/grpc-js';
import { ErrorInfo } from '../../gen/ts/google/rpc/error_details.js';
import { Status } from '../../gen/ts/google/rpc/status.js';

/** The result of a call that is made without a gRPC library. */
export interface Outcome {
  /** `grpc OK`, `grpc NOT_FOUND AGENT_NOT_FOUND`, `http 415`, `rst ENHANCE_YOUR_CALM`, `goaway …` or `nothing`. */
  readonly result: string;
  readonly message: string;
  /** The first message of the response, without its frame. */
  readonly body: Buffer;
}

export interface RawCall {
  readonly path?: string;
  readonly method?: string;
  /** Added to the headers that a gRPC client sends, or replace them; undefined omits a header. */
  readonly headers?: Readonly<Record<string, string | readonly string[] | undefined>>;
  readonly body?: Buffer;
  /** Leaves the request open, as a slow client does. */
  readonly open?: boolean;
  /** Makes the call after both sides have exchanged and acknowledged their HTTP/2 settings. */
  readonly settled?: boolean;
  /** How long to wait for a response. */
  readonly waitMs?: number;
}

export const GET_AGENT = '/agentllm.v1.AgentService/GetAgent';
export const CREATE_AGENT = '/agentllm.v1.AgentService/CreateAgent';

/** A message in its frame: flag, length, bytes. `length` overrides the real length. */
export function frame(message: Uint8Array, { flag = 0, length = message.length } = {}): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(flag, 0);
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, message]);
}

/** Makes one call on a new connection. */
export async function rawCall(port: number, call: RawCall): Promise<Outcome> {
  const session = http2.connect(`http://127.0.0.1:${port}`, { maxSendHeaderBlockLength: 1 << 20 });
  const failed: string[] = [];
  session.on('error', (error: NodeJS.ErrnoException) => failed.push(`session ${error.code ?? error.message}`));
  session.on('goaway', (code) => failed.push(`goaway ${codeName(code)}`));
  try {
    if (call.settled) await settle(session);
    return await exchange(session, call, failed);
  } finally {
    session.destroy();
  }
}

/** Limits in the settings of a server apply once the client has acknowledged the settings. */
async function settle(session: http2.ClientHttp2Session): Promise<void> {
  await once(session, 'remoteSettings');
  await new Promise<void>((resolve) => session.ping(() => resolve()));
}

function exchange(session: http2.ClientHttp2Session, call: RawCall, failed: string[]): Promise<Outcome> {
  const { path = GET_AGENT, method = 'POST', headers = {}, body, open = false, waitMs = 30_000 } = call;
  const sent: http2.OutgoingHttpHeaders = {
    ':method': method,
    ':path': path,
    te: 'trailers',
    'content-type': 'application/grpc',
    ...(headers as http2.OutgoingHttpHeaders),
  };
  for (const [name, value] of Object.entries(sent)) if (value === undefined) delete sent[name];
  return new Promise((resolve) => {
    const stream = session.request(sent, { endStream: false });
    let received: http2.IncomingHttpHeaders = {};
    const chunks: Buffer[] = [];
    const settle = (rstCode: number | undefined, fallback: string) => {
      clearTimeout(timer);
      resolve(outcome(received, Buffer.concat(chunks), rstCode, failed, fallback));
    };
    const timer = setTimeout(() => settle(undefined, 'nothing'), waitMs);
    stream.on('response', (headers) => {
      received = { ...received, ...headers };
    });
    stream.on('trailers', (trailers) => {
      received = { ...received, ...trailers };
    });
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('error', () => undefined);
    stream.on('close', () => settle(stream.rstCode, 'closed without a response'));
    // A stream that is open only on the client side stays open after the response is complete.
    stream.on('end', () => setImmediate(() => settle(stream.rstCode, 'ended without a response')));
    if (body) stream.write(body);
    if (!open) stream.end();
  });
}

function outcome(
  headers: http2.IncomingHttpHeaders,
  data: Buffer,
  rstCode: number | undefined,
  failed: readonly string[],
  fallback: string,
): Outcome {
  const message = decodeURIComponent(String(headers['grpc-message'] ?? ''));
  const body = data.subarray(5);
  const grpc = headers['grpc-status'];
  if (grpc !== undefined)
    return { result: `grpc ${[GrpcStatus[Number(grpc)], reasonOf(headers)].join(' ').trim()}`, message, body };
  if (headers[':status'] !== undefined && Number(headers[':status']) !== 200)
    return { result: `http ${headers[':status']}`, message, body };
  if (rstCode) return { result: `rst ${codeName(rstCode)}`, message, body };
  return { result: failed[0] ?? fallback, message, body };
}

function reasonOf(headers: http2.IncomingHttpHeaders): string {
  const encoded = headers['grpc-status-details-bin'];
  if (encoded === undefined) return '';
  const { details } = Status.decode(Buffer.from(String(encoded), 'base64'));
  const info = details.find((any) => any.type_url.endsWith('.ErrorInfo'));
  return info ? ErrorInfo.decode(info.value).reason : '';
}

const codes = Object.keys(http2.constants).filter((name) =>
  /^NGHTTP2_(NO_ERROR|[A-Z]+_ERROR|CANCEL|REFUSED_STREAM|ENHANCE_YOUR_CALM|STREAM_CLOSED)$/.test(name),
);
const codeName = (code: number): string =>
  codes.find((name) => Reflect.get(http2.constants, name) === code)?.replace('NGHTTP2_', '') ?? String(code);
