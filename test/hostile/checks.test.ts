import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packageFile } from '../../src/package.js';
import { present } from '../api/handlers/support.js';
import { frame, rawCall } from '../grpc/http2_client.js';
import { send } from '../http/support.js';
import { startFakeProvider } from '../providers/fake_provider.js';
import { checked, configAt, ending, environment, provide, short } from '../support/checked_provider.js';
import { useService } from '../support/service.js';

const METHODS = {
  CheckConfigHealth: '/agentllm.v1.AgentLLMConfigService/CheckConfigHealth',
  ListConfigHealth: '/agentllm.v1.AgentLLMConfigService/ListConfigHealth',
  ListRetiringModels: '/agentllm.v1.AgentLLMConfigService/ListRetiringModels',
  ValidateApiKey: '/agentllm.v1.ProviderService/ValidateApiKey',
};
const HOSTILE = [
  '\u0000',
  '\ud800',
  '%s%n%x',
  "'; drop table config_health; --",
  '../../../etc/passwd',
  '__proto__',
  'constructor',
  'hasOwnProperty',
  '\u202e',
  '\r\nX-Injected: 1',
  '{{7*7}}',
  '$(id)',
  '𝕏'.repeat(300),
  'x'.repeat(100_000),
  '%00',
  '%ff',
  '/',
  '..',
  ' ',
];

describe.each(['embedded', 'postgres'] as const)('the four methods meet nonsense, on %s', (backend) => {
  const service = useService(backend, environment);
  const unhandled: unknown[] = [];
  const note = (error: unknown) => unhandled.push(error);
  let id = 0;
  afterAll(() => void process.off('unhandledRejection', note));
  beforeAll(async () => {
    process.on('unhandledRejection', note);
    id = (await configAt(service(), await provide(service(), 'http://127.0.0.1:1/v1'))).id;
  });
  const alive = async () => expect((await service().configs.getConfig({ id })).config?.id).toBe(id);

  it.each(Object.entries(METHODS))('%s: random bytes are a status, never INTERNAL', async (_, path) => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 60 }), async (bytes) => {
        const { result } = await rawCall(service().port, { path, body: frame(bytes), waitMs: 15_000 });
        expect(result).toMatch(
          /^grpc (OK|INVALID_ARGUMENT|NOT_FOUND|RESOURCE_EXHAUSTED|UNAVAILABLE REVISION_NOT_REACHED)/,
        );
      }),
      { numRuns: 60, seed: 20261122 },
    );
    await alive();
  });

  it.each(Object.entries(METHODS))('%s: fields of the right number with random values', async (name, path) => {
    const varint = (value: bigint): number[] => {
      const out: number[] = [];
      let rest = BigInt.asUintN(64, value);
      do {
        out.push(Number(rest & 127n) | (rest > 127n ? 128 : 0));
        rest >>= 7n;
      } while (rest > 0n);
      return out;
    };
    // min_revision (10) is left out: it may wait as long as the deadline allows.
    const number = fc.tuple(fc.constantFrom(1, 2, 3, 20), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }));
    const bytes = fc.tuple(fc.constantFrom(1, 2, 3, 21), fc.uint8Array({ maxLength: 20 }));
    const field = fc.oneof(
      number.map(([tag, value]) => [...varint(BigInt(tag << 3)), ...varint(value)]),
      bytes.map(([tag, value]) => [...varint(BigInt((tag << 3) | 2)), value.length, ...value]),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(field, { maxLength: 5 }), async (fields) => {
        const { result } = await rawCall(service().port, {
          path,
          body: frame(Buffer.from(fields.flat())),
          waitMs: 15_000,
        });
        expect(result).toMatch(/^grpc (OK|INVALID_ARGUMENT|NOT_FOUND|RESOURCE_EXHAUSTED)/);
      }),
      { numRuns: 60, seed: 20261123 },
    );
    await alive();
    expect(name).not.toBe('');
  });

  it('hostile texts in every field are a violation, NOT_FOUND or an answer', async () => {
    for (const value of HOSTILE)
      for (const call of [
        () => service().providers.validateApiKey({ provider: value, api_key: 'sk-x' }),
        () => service().providers.validateApiKey({ provider: 'openai', api_key: value }, { deadlineMs: 3_000 }),
        () => service().configs.listConfigHealth({ agent: { name: value } }),
        () => service().configs.listConfigHealth({ page_token: value }),
        () => service().configs.listRetiringModels({ page_token: value }),
      ])
        expect([value.slice(0, 40), await ending(call())]).toEqual([
          value.slice(0, 40),
          expect.stringMatching(/^OK$|^3 |^5 |^8 TOO_MANY_CHECKS/),
        ]);
    await alive();
  });

  it('over HTTP the same, in paths, queries and bodies', async () => {
    const port = present(service().running.httpPort);
    for (const value of HOSTILE.filter((one) => one.length < 2_000)) {
      const inside = encodeURIComponent(value.toWellFormed());
      for (const [method, path, body] of [
        ['POST', `/v1/providers/${inside}:validateApiKey`, { apiKey: 'sk-x' }],
        ['POST', '/v1/providers/mine:validateApiKey', { apiKey: value, modelName: value }],
        ['POST', `/v1/configs/${inside}:checkHealth`, {}],
        ['GET', `/v1/configs:health?pageToken=${inside}`, undefined],
        ['GET', `/v1/configs:health?statuses=${inside}`, undefined],
        ['GET', `/v1/configs:retiringModels?withinDays=${inside}`, undefined],
      ] as const) {
        const { status } = await send(port, method, path, body ? { body } : {});
        expect([method, path.slice(0, 60), status]).toEqual([
          method,
          path.slice(0, 60),
          expect.toBeOneOf([400, 404, 405, 429]),
        ]);
      }
    }
    await alive();
  });

  it('and go on as before: a real question is answered, nothing was left unhandled', async () => {
    const { id: good } = await configAt(service(), await provide(service(), await startFakeProvider('openai')));
    // The other questions have used up the minute, perhaps.
    const outcome = await checked(service(), good).then(
      ({ status }) => short(status),
      (error: { reason: string }) => error.reason,
    );
    expect(outcome).toMatch(/^OK$|^TOO_MANY_CHECKS$/);
    expect(unhandled).toEqual([]);
  });
});

describe('the contract that is served', () => {
  const service = useService('embedded');

  it.each(['v1', 'v1alpha'])('reflection %s shows the methods with their comments', async (version) => {
    for (const [symbol, words] of [
      [
        'agentllm.v1.AgentLLMConfigService',
        ['CheckConfigHealth', 'ListConfigHealth', 'ListRetiringModels', 'Checks with the providers of a config'],
      ],
      ['agentllm.v1.ProviderService', ['ValidateApiKey', 'Checks with a provider that an API key is valid']],
      ['agentllm.v1.CheckStatus', ['CHECK_STATUS_KEY_UNREADABLE', 'A stored key cannot be decrypted']],
    ] as const) {
      const name = Buffer.from(symbol);
      const { result, body } = await rawCall(service().port, {
        path: `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`,
        body: frame(Buffer.concat([Buffer.from([0x22, name.length]), name])),
      });
      expect(result).toBe('grpc OK');
      for (const word of words) expect([symbol, word, body.includes(word)]).toEqual([symbol, word, true]);
    }
  });

  it('each new method declares a permission and an HTTP route; checks need PERMISSION_CHECK, lists a read', () => {
    for (const [file, method, permission] of [
      ['agent_llm_config_service', 'CheckConfigHealth', 'PERMISSION_CHECK'],
      ['agent_llm_config_service', 'ListConfigHealth', 'PERMISSION_CONFIGS_READ'],
      ['agent_llm_config_service', 'ListRetiringModels', 'PERMISSION_CONFIGS_READ'],
      ['provider_service', 'ValidateApiKey', 'PERMISSION_CHECK'],
    ] as const) {
      const proto = readFileSync(packageFile(`proto/agentllm/v1/${file}.proto`), 'utf8');
      const [, block] = new RegExp(`rpc ${method}\\([^{]*\\{([\\s\\S]*?)\\n  \\}`).exec(proto) ?? [];
      expect(block).toContain(permission);
      expect(block).toContain('google.api.http');
    }
  });
});
