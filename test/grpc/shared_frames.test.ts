import { describe, expect, it } from 'vitest';
import { frameOf, installSharedFrames } from '../../src/grpc/shared_frames.js';

const callsOfLibrary = () => ({ serializeMessage: (message: unknown) => Buffer.from(`library: ${message}`) });

describe('frameOf', () => {
  it('puts the gRPC header before the message', () => {
    const message = Buffer.alloc(70_000, 'x');
    const { bytes } = frameOf(message);
    expect([...bytes.subarray(0, 5)]).toEqual([0, 0, 1, 0x11, 0x70]);
    expect(bytes.subarray(5).equals(message)).toBe(true);
    expect([...frameOf(Buffer.alloc(0)).bytes]).toEqual([0, 0, 0, 0, 0]);
  });

  it('returns the same frame when the same message is sent again, and another one for an equal message', () => {
    const message = Buffer.from('message');
    expect(frameOf(message)).toBe(frameOf(message));
    expect(frameOf(Buffer.from('message'))).not.toBe(frameOf(message));
  });
});

describe('installSharedFrames', () => {
  it('makes calls send a frame without a copy, and leaves other messages to grpc-js', () => {
    const calls = callsOfLibrary();
    installSharedFrames(calls);
    const frame = frameOf(Buffer.from('message'));
    expect(calls.serializeMessage(frame)).toBe(frame.bytes);
    expect(String(calls.serializeMessage('response'))).toBe('library: response');
  });

  it('replaces the method once when it is called again', () => {
    const calls = callsOfLibrary();
    installSharedFrames(calls);
    const { serializeMessage } = calls;
    installSharedFrames(calls);
    expect(calls.serializeMessage).toBe(serializeMessage);
  });

  it('accepts the pinned version of grpc-js', () => {
    expect(() => installSharedFrames()).not.toThrow();
  });

  it('throws when grpc-js frames messages in another method', () => {
    expect(() => installSharedFrames({})).toThrow(/frames messages in another method/);
  });
});
