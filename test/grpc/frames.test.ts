import { gzipSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { GetAgentRequest } from '../../gen/ts/agentllm/v1/agent_service.js';
import { startService, type TestService } from '../support/service.js';
import { CREATE_AGENT, frame, type RawCall, rawCall } from './http2_client.js';

// These calls do not depend on the database, so one backend (embedded) is enough.
let service: TestService;
const uncaught: unknown[] = [];
const record = (error: unknown) => void uncaught.push(error);

beforeAll(async () => {
  service = await startService();
  process.on('uncaughtExceptionMonitor', record);
  process.on('unhandledRejection', record);
});

afterAll(async () => {
  process.off('uncaughtExceptionMonitor', record);
  process.off('unhandledRejection', record);
  await service.stop();
});

const ordinary = frame(GetAgentRequest.encode(GetAgentRequest.fromPartial({ agent: { name: 'trader' } })).finish());
const message = ordinary.subarray(5);
const gzip = { 'grpc-encoding': 'gzip' };
const MEBIBYTE = 1024 * 1024;
const zeros = (mebibytes: number, more = 0) => Buffer.alloc(mebibytes * MEBIBYTE + more);

/** A CreateAgent whose name is these bytes. */
function named(bytes: Buffer): Buffer {
  const agent = Buffer.concat([Buffer.from([0x12, bytes.length]), bytes, Buffer.from([0x1a, 1, 0x78])]);
  return frame(Buffer.concat([Buffer.from([0x0a, agent.length]), agent]));
}

/** A CreateAgent with validate_only whose description is these bytes. */
function described(bytes: Buffer): Buffer {
  const text = Buffer.concat([Buffer.from([0xa2, 0x01, bytes.length]), bytes]);
  const agent = Buffer.concat([Buffer.from([0x12, 1, 0x78, 0x1a, 1, 0x78]), text]);
  return frame(Buffer.concat([Buffer.from([0x0a, agent.length]), agent, Buffer.from([0x58, 1])]));
}

/** A GetAgent for 'trader' of exactly this many bytes, padded with an unknown field. */
function padded(bytes: number): Buffer {
  const filler = Buffer.alloc(bytes - message.length - 6);
  const length = Buffer.alloc(4);
  for (let at = 0, rest = filler.length; at < 4; at++, rest >>>= 7) length[at] = (rest & 0x7f) | (at < 3 ? 0x80 : 0);
  return Buffer.concat([message, Buffer.from([0xfa, 0x7f]), length, filler]);
}

const table: Readonly<Record<string, readonly [RawCall, string]>> = {
  // Frames.
  'an ordinary message': [{ body: ordinary }, 'grpc OK'],
  'no message': [{}, 'grpc UNIMPLEMENTED'],
  'two messages': [{ body: Buffer.concat([ordinary, ordinary]) }, 'grpc UNIMPLEMENTED'],
  'a truncated frame header': [{ body: ordinary.subarray(0, 3) }, 'grpc UNIMPLEMENTED'],
  'a truncated frame': [{ body: ordinary.subarray(0, -1) }, 'grpc UNIMPLEMENTED'],
  'a frame length that is one byte too long': [
    { body: frame(message, { length: message.length + 1 }) },
    'grpc UNIMPLEMENTED',
  ],
  'a frame length that is one byte too short': [
    { body: frame(message, { length: message.length - 1 }) },
    'grpc INVALID_ARGUMENT MALFORMED_REQUEST',
  ],
  'a frame length of 2^31-1': [
    { body: frame(message, { length: 2 ** 31 - 1 }) },
    'grpc RESOURCE_EXHAUSTED REQUEST_TOO_LARGE',
  ],
  'a frame length of 2^32-1': [
    { body: frame(message, { length: 2 ** 32 - 1 }) },
    'grpc RESOURCE_EXHAUSTED REQUEST_TOO_LARGE',
  ],
  'a frame length of 2^31-1 on an open stream': [
    { body: frame(message, { length: 2 ** 31 - 1 }), open: true },
    'grpc RESOURCE_EXHAUSTED REQUEST_TOO_LARGE',
  ],
  'an empty message': [{ body: frame(Buffer.alloc(0)) }, 'grpc INVALID_ARGUMENT INVALID_FIELDS'],

  // Sizes.
  'a message of exactly 4 MiB': [{ body: frame(padded(4 * MEBIBYTE)) }, 'grpc OK'],
  'a message of 4 MiB and one byte': [
    { body: frame(padded(4 * MEBIBYTE + 1)) },
    'grpc RESOURCE_EXHAUSTED REQUEST_TOO_LARGE',
  ],
  'a message of 8 MiB': [{ body: frame(zeros(8)) }, 'grpc RESOURCE_EXHAUSTED REQUEST_TOO_LARGE'],

  // Protobuf.
  'bytes that are not protobuf': [
    { body: frame(Buffer.from('ffffffffffffffffffff', 'hex')) },
    'grpc INVALID_ARGUMENT MALFORMED_REQUEST',
  ],
  'a truncated field': [{ body: frame(Buffer.from([0x0a, 0x7f, 0x01])) }, 'grpc INVALID_ARGUMENT MALFORMED_REQUEST'],
  'a field number of 0': [{ body: frame(Buffer.from([0x00, 0x00])) }, 'grpc INVALID_ARGUMENT MALFORMED_REQUEST'],
  'an undefined wire type': [{ body: frame(Buffer.from([0x0f, 0x00])) }, 'grpc INVALID_ARGUMENT MALFORMED_REQUEST'],
  'a group without an end': [
    { body: frame(Buffer.from([0x0b, 0x0b, 0x0b])) },
    'grpc INVALID_ARGUMENT MALFORMED_REQUEST',
  ],
  'groups nested 100 000 deep': [
    { body: frame(Buffer.alloc(100_000, 0x0b)) },
    'grpc INVALID_ARGUMENT MALFORMED_REQUEST',
  ],
  'a known field of another wire type': [
    { body: frame(Buffer.from([0x08, 0x01])) },
    'grpc INVALID_ARGUMENT INVALID_FIELDS',
  ],
  'an unknown field': [{ body: frame(Buffer.concat([message, Buffer.from([0xf8, 0x7f, 0x01])])) }, 'grpc OK'],
  'invalid UTF-8 in a name': [
    { path: CREATE_AGENT, body: named(Buffer.from([0x61, 0xff, 0xfe])) },
    'grpc INVALID_ARGUMENT INVALID_FIELDS',
  ],
  'half a surrogate pair in UTF-8 in a name': [
    { path: CREATE_AGENT, body: named(Buffer.from([0x61, 0xed, 0xa0, 0x80])) },
    'grpc INVALID_ARGUMENT INVALID_FIELDS',
  ],
  'invalid UTF-8 in a description': [
    { path: CREATE_AGENT, body: described(Buffer.from([0x61, 0xff])) },
    'grpc INVALID_ARGUMENT INVALID_FIELDS',
  ],
  'a NUL in a name': [
    { path: CREATE_AGENT, body: named(Buffer.from([0x61, 0x00])) },
    'grpc INVALID_ARGUMENT INVALID_FIELDS',
  ],
  'a JSON message': [
    { body: frame(Buffer.from('{"agent":{"name":"trader"}}')) },
    'grpc INVALID_ARGUMENT MALFORMED_REQUEST',
  ],

  // Compression.
  'the compressed flag but no grpc-encoding': [{ body: frame(message, { flag: 1 }) }, 'grpc OK'],
  'the undefined frame flag 2': [{ body: frame(message, { flag: 2 }) }, 'grpc OK'],
  'a gzip message': [{ headers: gzip, body: frame(gzipSync(message), { flag: 1 }) }, 'grpc OK'],
  'grpc-encoding gzip and an uncompressed message': [{ headers: gzip, body: ordinary }, 'grpc OK'],
  'bytes that are not gzip': [
    { headers: gzip, body: frame(message, { flag: 1 }) },
    'grpc INVALID_ARGUMENT INVALID_HEADER',
  ],
  'a truncated gzip message': [
    { headers: gzip, body: frame(gzipSync(message).subarray(0, -6), { flag: 1 }) },
    'grpc INVALID_ARGUMENT INVALID_HEADER',
  ],
  'a gzip message that is not protobuf': [
    { headers: gzip, body: frame(gzipSync(Buffer.alloc(10, 0xff)), { flag: 1 }) },
    'grpc INVALID_ARGUMENT MALFORMED_REQUEST',
  ],
  'an empty gzip message': [
    { headers: gzip, body: frame(Buffer.alloc(0), { flag: 1 }) },
    'grpc INVALID_ARGUMENT INVALID_HEADER',
  ],
  'a gzip bomb of 64 MiB': [
    { headers: gzip, body: frame(gzipSync(zeros(64)), { flag: 1 }) },
    'grpc RESOURCE_EXHAUSTED REQUEST_TOO_LARGE',
  ],
  'two gzip bombs': [
    {
      headers: gzip,
      body: Buffer.concat([frame(gzipSync(zeros(64)), { flag: 1 }), frame(gzipSync(zeros(64)), { flag: 1 })]),
    },
    'grpc RESOURCE_EXHAUSTED REQUEST_TOO_LARGE',
  ],
  'bytes that are not deflate': [
    { headers: { 'grpc-encoding': 'deflate' }, body: frame(message, { flag: 1 }) },
    'grpc INVALID_ARGUMENT INVALID_HEADER',
  ],
  'an unknown grpc-encoding': [
    { headers: { 'grpc-encoding': 'br' }, body: frame(message, { flag: 1 }) },
    'grpc UNIMPLEMENTED FEATURE_NOT_AVAILABLE',
  ],
  'a grpc-encoding that is not ASCII': [
    { headers: { 'grpc-encoding': 'gz\u00ffp' }, body: frame(message, { flag: 1 }) },
    'grpc OK',
  ],

  // Headers.
  'the content type application/json': [
    { headers: { 'content-type': 'application/json' }, body: ordinary },
    'grpc INVALID_ARGUMENT INVALID_HEADER',
  ],
  'no content type': [
    { headers: { 'content-type': undefined }, body: ordinary },
    'grpc INVALID_ARGUMENT INVALID_HEADER',
  ],
  'the content type application/grpc-web': [
    { headers: { 'content-type': 'application/grpc-web' }, body: ordinary },
    'grpc OK',
  ],
  'the content type application/grpc+json': [
    { headers: { 'content-type': 'application/grpc+json' }, body: ordinary },
    'grpc OK',
  ],
  'the HTTP method GET': [{ method: 'GET', body: ordinary }, 'grpc OK'],
  'no te header': [{ headers: { te: undefined }, body: ordinary }, 'grpc OK'],
  'the path of an unknown method': [
    { path: '/agentllm.v1.AgentService/NoSuch', body: ordinary },
    'grpc UNIMPLEMENTED METHOD_NOT_FOUND',
  ],
  'the path of an unknown service': [{ path: '/', body: ordinary }, 'grpc UNIMPLEMENTED METHOD_NOT_FOUND'],
  'a path that is not ASCII': [
    { path: '/agentllm.v1.AgentService/Get\u00e9', body: ordinary },
    'grpc UNIMPLEMENTED METHOD_NOT_FOUND',
  ],
  'the path __proto__': [{ path: '__proto__', body: ordinary }, 'rst PROTOCOL_ERROR'],
  'the path /constructor': [{ path: '/constructor', body: ordinary }, 'grpc UNIMPLEMENTED METHOD_NOT_FOUND'],
  '300 headers': [
    { headers: Object.fromEntries(Array.from({ length: 300 }, (_, n) => [`x-${n}`, 'y'])), body: ordinary },
    'rst ENHANCE_YOUR_CALM',
  ],
  'a -bin header that is not base64': [{ headers: { 'trace-bin': '*** no base64 ***' }, body: ordinary }, 'grpc OK'],
  'a grpc-status-details-bin header in the request': [
    { headers: { 'grpc-status-details-bin': '////' }, body: ordinary },
    'grpc OK',
  ],
  'a -bin header with many values': [{ headers: { 'trace-bin': 'AA==,!!,,AA' }, body: ordinary }, 'grpc OK'],
  '100 headers': [
    { headers: Object.fromEntries(Array.from({ length: 100 }, (_, n) => [`x-${n}`, 'y'])), body: ordinary },
    'grpc OK',
  ],
  'header names of Object.prototype': [
    { headers: { ['__proto__']: 'x', constructor: 'x' }, body: ordinary },
    'grpc OK',
  ],
  '15 KB of metadata after the settings exchange': [
    { headers: { 'x-big': 'y'.repeat(15 * 1024) }, body: ordinary, settled: true },
    'grpc OK',
  ],
  // grpc-js 1.14.7 reads no limit for metadata, so the limit of HTTP/2 is the only one.
  '17 KB of metadata after the settings exchange': [
    { headers: { 'x-big': 'y'.repeat(17 * 1024) }, body: ordinary, settled: true },
    'grpc OK',
  ],
  '64 KB of metadata after the settings exchange': [
    { headers: { 'x-big': 'y'.repeat(64 * 1024) }, body: ordinary, settled: true },
    'grpc OK',
  ],
  'a zero byte after the message': [
    { body: frame(Buffer.concat([message, Buffer.from([0])])) },
    'grpc INVALID_ARGUMENT MALFORMED_REQUEST',
  ],
  'a zero byte and more fields after the message': [
    { body: frame(Buffer.concat([message, Buffer.from([0]), message])) },
    'grpc INVALID_ARGUMENT MALFORMED_REQUEST',
  ],
  'the end of a group that has no start': [
    { body: frame(Buffer.concat([message, Buffer.from([0x0c])])) },
    'grpc INVALID_ARGUMENT MALFORMED_REQUEST',
  ],
  'a varint of 11 bytes': [
    { body: frame(Buffer.concat([message, Buffer.from([0xf8, 0x7f]), Buffer.alloc(10, 0x80), Buffer.from([1])])) },
    'grpc OK',
  ],
  'invalid UTF-8 in a reference': [
    { body: frame(Buffer.from([0x0a, 0x04, 0x12, 0x02, 0x61, 0xff])) },
    'grpc INVALID_ARGUMENT INVALID_FIELDS',
  ],
  '12 KB of metadata before the settings exchange': [
    { headers: { 'x-big': 'y'.repeat(12 * 1024) }, body: ordinary },
    'grpc OK',
  ],
};

describe('a gRPC request', () => {
  afterEach(async () => {
    expect(uncaught).toEqual([]);
    const after = await service.agents.getAgent({ agent: { name: 'trader' } });
    expect(after.agent?.name).toBe('trader');
  });

  it.each(Object.entries(table).map(([what, [call, expected]]) => ({ what, call, expected })))(
    'with $what ends with $expected',
    async ({ call, expected }) => {
      expect((await rawCall(service.port, call)).result).toBe(expected);
    },
  );
});
