import { expect, test } from 'vitest';
import { type Frame, FrameReader, WireError } from '../../../src/store/embedded/wire_frames.js';

function message(type: string, body = ''): Buffer {
  const head = Buffer.alloc(5);
  head.write(type);
  head.writeUInt32BE(body.length + 4, 1);
  return Buffer.concat([head, Buffer.from(body)]);
}

function untyped(code: number, body = ''): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32BE(8 + body.length, 0);
  head.writeUInt32BE(code, 4);
  return Buffer.concat([head, Buffer.from(body)]);
}

const startup = untyped(3 << 16, 'user\0somebody\0\0');

function kinds(frames: Frame[]): string[] {
  return frames.map((frame) => (frame.kind === 'exchange' ? Buffer.from(frame.bytes).toString('latin1') : frame.kind));
}

test('messages are grouped until one that the backend responds to, for any chunking of the bytes', () => {
  const session = Buffer.concat([
    untyped(80877103),
    startup,
    message('Q', 'select 1\0'),
    message('P', 'parse'),
    message('B', 'bind'),
    message('S'),
    message('P', 'lost'),
    message('X'),
  ]);
  const expected = [
    'encryption',
    expect.stringContaining('user\0postgres\0'),
    message('Q', 'select 1\0').toString('latin1'),
    Buffer.concat([message('P', 'parse'), message('B', 'bind'), message('S')]).toString('latin1'),
    'goodbye',
  ];
  for (const size of [1, 3, 7, 50, session.length]) {
    const reader = new FrameReader();
    const frames: Frame[] = [];
    for (let at = 0; at < session.length; at += size) frames.push(...reader.read(session.subarray(at, at + size)));
    expect(kinds(frames)).toEqual(expected);
  }
});

test('a cancel request ends the connection', () => {
  expect(kinds(new FrameReader().read(untyped(80877102, '12345678')))).toEqual(['goodbye']);
});

test('bytes that are not the PostgreSQL protocol are rejected', () => {
  expect(() => new FrameReader().read(Buffer.from('GET / HTTP/1.1\r\n\r\n'))).toThrow(WireError);
  expect(() => new FrameReader().read(untyped(2 << 16))).toThrow(WireError);
  const reader = new FrameReader();
  reader.read(startup);
  expect(() => reader.read(Buffer.from([0x51, 0xff, 0xff, 0xff, 0xff]))).toThrow(WireError);
  const tooShort = new FrameReader();
  tooShort.read(startup);
  expect(() => tooShort.read(Buffer.from([0x51, 0, 0, 0, 3]))).toThrow(WireError);
});

test('a frame owns its bytes, because they are transferred to the worker', () => {
  const reader = new FrameReader();
  reader.read(startup);
  const [frame] = reader.read(message('Q', 'select 1\0'));
  if (frame?.kind !== 'exchange') throw new Error('no exchange');
  expect(frame.bytes.buffer.byteLength).toBe(frame.bytes.length);
});
