import { BaseServerInterceptingCall } from '@grpc/grpc-js/build/src/server-interceptors.js';

/*
 * grpc-js allocates a buffer for every message of every stream and copies the encoded message into it, after the 5 bytes
 * of the gRPC header. For 2 000 watches that start at the same time these are 2 000 copies of the catalogue, and the
 * memory is not returned to the system. Here a message is framed once and all streams send the same buffer.
 */

/** A message with its gRPC header. */
class Frame {
  constructor(readonly bytes: Buffer) {}
}

/** The part of a grpc-js call that frames its messages. */
interface FramingCall {
  serializeMessage(message: unknown): Buffer;
}

const HEADER_BYTES = 5;
const frames = new WeakMap<Buffer, Frame>();
const installed = new WeakSet<object>();

/** The frame of a message; streams that get the same message send the same buffer. */
export function frameOf(message: Buffer): Frame {
  const known = frames.get(message);
  if (known) return known;
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + message.length);
  // The first byte is the flag of a compressed message.
  bytes.writeUInt8(0, 0);
  bytes.writeUInt32BE(message.length, 1);
  message.copy(bytes, HEADER_BYTES);
  const frame = new Frame(bytes);
  frames.set(message, frame);
  return frame;
}

/** Makes grpc-js send frames as they are. Throws if its version frames messages in another method. */
export function installSharedFrames(calls: object = BaseServerInterceptingCall.prototype): void {
  if (installed.has(calls)) return;
  const { serializeMessage } = calls as Partial<FramingCall>;
  if (typeof serializeMessage !== 'function')
    throw new Error(
      'this version of @grpc/grpc-js frames messages in another method; update src/grpc/shared_frames.ts',
    );
  Object.assign(calls, {
    serializeMessage(this: FramingCall, message: unknown) {
      return message instanceof Frame ? message.bytes : serializeMessage.call(this, message);
    },
  });
  installed.add(calls);
}
