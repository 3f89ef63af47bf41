import { fromJson, type JsonValue, toBinary } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import { readContract } from '../../../src/api/dispatch/contract.js';
import { requestCheckOf } from '../../../src/api/dispatch/request_shape.js';
import { ServiceError } from '../../../src/errors.js';

const { registry } = readContract();

/** The request of a method with a time at `path`, and the violations of its check. */
function violationsOf(type: string, path: string, time: { seconds: bigint; nanos: number }) {
  const desc = registry.getMessage(`agentllm.v1.${type}`);
  if (!desc) throw new Error(`no message ${type}`);
  const names = path.split('.');
  const json = names.reduceRight<JsonValue>((inner, name) => ({ [name]: inner }), '2026-01-01T00:00:00Z');
  const message = fromJson(desc, json, { registry });
  const last = names.pop() as string;
  const parent = names.reduce<Record<string, unknown>>(
    (outer, name) => outer[camel(name)] as Record<string, unknown>,
    message as unknown as Record<string, unknown>,
  );
  Object.assign(parent[camel(last)] as object, time);
  try {
    requestCheckOf(desc)(toBinary(desc, message));
    return [];
  } catch (error) {
    if (error instanceof ServiceError) return error.violations;
    throw error;
  }
}

const camel = (name: string) => name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());

describe('the check of a request', () => {
  const times = [
    ['CreateModelRequest', 'model.as_of'],
    ['UpdateModelRequest', 'model.retires_at'],
    // Output-only fields are ignored, but the whole request is encoded for its idempotency key.
    ['UpdateAgentRequest', 'agent.created_at'],
    ['ListAuditEventsRequest', 'since'],
  ] as const;

  it.each(times)('rejects a time of %s at %s that is out of range or has invalid nanos', (type, path) => {
    for (const seconds of [-62_135_596_801n, 253_402_300_800n, 2n ** 63n - 1n, -(2n ** 63n)])
      expect(violationsOf(type, path, { seconds, nanos: 0 })).toEqual([
        { field: path, description: 'must be a time between the years 1 and 9999' },
      ]);
    for (const nanos of [-1, -(2 ** 31), 1_000_000_000, 2 ** 31 - 1])
      expect(violationsOf(type, path, { seconds: 1n, nanos })).toEqual([
        { field: path, description: `must have nanos of 0 to 999999999, not ${nanos}` },
      ]);
  });

  it.each(times)('accepts every valid time of %s at %s', (type, path) => {
    for (const seconds of [-62_135_596_800n, -1n, 0n, 253_402_300_799n])
      for (const nanos of [0, 1, 999_999_999]) expect(violationsOf(type, path, { seconds, nanos })).toEqual([]);
  });
});
