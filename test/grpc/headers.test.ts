import { describe, expect, it } from 'vitest';
import { GetCallerRequest } from '../../gen/ts/agentllm/v1/access_service.js';
import { present } from '../api/handlers/support.js';
import { callHeaders, FLAG, h2, header, Peer, TYPE } from '../hostile/http2_frames.js';
import { send } from '../http/support.js';
import { useService } from '../support/service.js';
import { until } from '../support/until.js';
import { frame } from './http2_client.js';

const GET_CALLER = '/agentllm.v1.AccessService/GetCaller';
const ROLE = 'ROLE_VIEWER' as const;

describe('a gRPC call', () => {
  const service = useService('embedded', {}, [
    { name: 'one', role: ROLE },
    { name: 'two', role: ROLE },
    { name: 'metrics', role: 'ROLE_ADMIN' },
  ]);
  const valid = (at: number) => `Bearer ${present(service().tokens[at]).text}`;
  const http = () => present(service().running.httpPort);

  /** Sends HTTP/2 frames directly, because the client of Node refuses to send a header twice. */
  async function codesOf(...authorization: readonly string[]): Promise<Record<string, number>> {
    const before = await counts();
    const headers = authorization.map((value) => header('authorization', value));
    const peer = await Peer.openWithPreface(
      service().port,
      h2(TYPE.HEADERS, FLAG.END_HEADERS, 1, callHeaders(GET_CALLER, ...headers)),
      h2(TYPE.DATA, FLAG.END_STREAM, 1, frame(GetCallerRequest.encode({ min_revision: 0n }).finish())),
    );
    await until(async () => total(await counts()) - total(before) === 1);
    peer.close();
    const after = await counts();
    return Object.fromEntries(
      Object.entries(after).flatMap(([code, count]) => (count > (before[code] ?? 0) ? [[code, 1]] : [])),
    );
  }

  const total = (all: Record<string, number>) => Object.values(all).reduce((sum, one) => sum + one, 0);

  async function counts(): Promise<Record<string, number>> {
    const headers = { authorization: `Bearer ${present(service().tokens[2]).text}` };
    const { text } = await send(http(), 'GET', '/metrics', { headers });
    const lines = text.matchAll(
      /^agentllm_calls_total\{method="agentllm.v1.AccessService\/GetCaller",code="(\w+)"\} (\d+)$/gm,
    );
    return Object.fromEntries([...lines].map(([, code, count]) => [code, Number(count)]));
  }

  it.each([
    ['with a valid authorization header is accepted', () => [valid(0)], 'OK'],
    ['with a wrong authorization header is rejected', () => ['Bearer wrong'], 'UNAUTHENTICATED'],
    [
      'with a valid and then a wrong authorization header is rejected',
      () => [valid(0), 'Bearer wrong'],
      'UNAUTHENTICATED',
    ],
    [
      'with a wrong and then a valid authorization header is rejected',
      () => ['Bearer wrong', valid(0)],
      'UNAUTHENTICATED',
    ],
    ['with two different valid authorization headers is rejected', () => [valid(0), valid(1)], 'UNAUTHENTICATED'],
    ['with the same authorization header twice is rejected', () => [valid(0), valid(0)], 'UNAUTHENTICATED'],
    ['with a valid and then an empty authorization header is rejected', () => [valid(0), ''], 'UNAUTHENTICATED'],
  ] as [string, () => string[], string][])('%s', async (_, authorization, code) => {
    expect(await codesOf(...authorization())).toEqual({ [code]: 1 });
  });
});
