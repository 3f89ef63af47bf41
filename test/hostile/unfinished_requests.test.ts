import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTarget, type Target, underAttack } from './attacked_service.js';
import { gzipBombs, unfinishedBodies, unfinishedUploads } from './uploads.js';

const MAX_GROWTH_MB = 150;
/** The bound for all attacks together: memory that one attack leaves must not hide the growth in the next. */
const MAX_TOTAL_GROWTH_MB = 250;
let target: Target;
let before: number;

beforeAll(async () => {
  target = await startTarget();
  // The service grows with its first ordinary calls, which are not part of the measurement.
  await underAttack(target, () => sleep(3_000));
  before = target.memory();
});

afterAll(() => target?.stop());

const PATHS: readonly (readonly [string, { path: string; headers?: Record<string, string> }])[] = [
  ['the health service', { path: '/grpc.health.v1.Health/Check' }],
  ['reflection', { path: '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo' }],
  ['a method that needs no token here', { path: '/agentllm.v1.AgentService/GetAgent' }],
  ['a watch', { path: '/agentllm.v1.AgentLLMConfigWatchService/WatchConfigs' }],
  ['an unknown method', { path: '/agentllm.v1.AgentService/NoSuch' }],
  ['an unknown service', { path: '/no.such.Service/Method' }],
  ['another content type', { path: '/agentllm.v1.AgentService/GetAgent', headers: { 'content-type': 'text/plain' } }],
];

async function expectBounded(attack: () => Promise<unknown>): Promise<void> {
  const result = await underAttack(target, attack);
  console.log(expect.getState().currentTestName, result);
  expect(result.errors).toEqual([]);
  expect(result.grewMb).toBeLessThan(MAX_GROWTH_MB);
  expect(result.largestMb - before).toBeLessThan(MAX_TOTAL_GROWTH_MB);
  expect(result.longestMs).toBeLessThan(1_000);
}

describe('200 unfinished requests of 3.9 MB', { timeout: 60_000 }, () => {
  it.each(PATHS)('to %s take bounded memory and do not delay other callers', (_, upload) =>
    expectBounded(() => unfinishedUploads(target.grpcPort, upload)),
  );

  it.each(['/v1/agents', '/healthz', '/no/such/path'])(
    'over HTTP to %s take bounded memory and do not delay other callers',
    (path) => expectBounded(() => unfinishedBodies(target.httpPort, path)),
  );
});

describe('600 gzip bombs', { timeout: 60_000 }, () => {
  it.each(PATHS)('to %s take bounded memory and do not delay other callers', (_, upload) =>
    expectBounded(() => gzipBombs(target.grpcPort, upload)),
  );
});
