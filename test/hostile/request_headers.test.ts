import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { frame, rawCall } from '../grpc/http2_client.js';
import { useService } from '../support/service.js';
import { until } from '../support/until.js';
import { callHeaders, FLAG, h2, header, Peer, TYPE } from './http2_frames.js';

const CHECK = '/grpc.health.v1.Health/Check';
const REFLECT = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo';
const service = useService('embedded', {}, [{ role: 'ROLE_ADMIN' }]);
const gzip = { 'grpc-encoding': 'gzip' };

describe('gRPC methods that need no token', () => {
  it.each([CHECK, REFLECT])('%s rejects compressed requests', async (path) => {
    const body = frame(gzipSync(Buffer.alloc(0)), { flag: 1 });
    const { result } = await rawCall(service().port, { path, headers: gzip, body });
    expect(result).toBe('grpc UNIMPLEMENTED FEATURE_NOT_AVAILABLE');
  });

  it.each([CHECK, REFLECT])('%s rejects requests larger than 64 KiB', async (path) => {
    const { result } = await rawCall(service().port, { path, body: frame(Buffer.alloc(70_000)) });
    expect(result).toBe('grpc RESOURCE_EXHAUSTED REQUEST_TOO_LARGE');
  });

  it('Check returns OK for an ordinary request', async () => {
    expect((await rawCall(service().port, { path: CHECK, body: frame(Buffer.alloc(0)) })).result).toBe('grpc OK');
  });
});

describe('a call', () => {
  const token = () => `Bearer ${service().tokens[0]?.text}`;

  /** The types of the frames of the response to a call with these authorization headers. */
  async function frames(...values: readonly string[]): Promise<readonly string[]> {
    const peer = await Peer.openWithPreface(service().port);
    const path = '/agentllm.v1.AgentService/ListAgents';
    peer.send(
      h2(
        TYPE.HEADERS,
        FLAG.END_HEADERS,
        1,
        callHeaders(path, ...values.map((value) => header('authorization', value))),
      ),
      h2(TYPE.DATA, FLAG.END_STREAM, 1, frame(Buffer.alloc(0))),
    );
    await until(() => peer.hasEnded(1) || peer.isClosed, 'the service ends the call');
    peer.close();
    return peer.receivedFrames();
  }

  it('returns a message when it has one valid authorization header', async () => {
    expect(await frames(token())).toContain(`${TYPE.DATA}`);
  });

  it.each([
    ['the second is wrong', () => [token(), 'Bearer al_wrong']],
    ['the second is empty', () => [token(), '']],
    ['both are the same', () => [token(), token()]],
  ])('is rejected when it has two authorization headers and %s', async (_, values) => {
    expect(await frames(...values())).not.toContain(`${TYPE.DATA}`);
  });
});
