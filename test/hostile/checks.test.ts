import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packageFile } from '../../src/package.js';
import { present } from '../api/handlers/support.js';
import { withLimits } from '../feed/support.js';
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

describe.each(['embedded', 'postgres'] as const)('the four check methods on %s', (backend) => {
  const service = useService(backend, environment);
  const unhandled: unknown[] = [];
  const onUnhandled = (error: unknown) => unhandled.push(error);
  let id = 0;
  afterAll(() => void process.off('unhandledRejection', onUnhandled));
  beforeAll(async () => {
    process.on('unhandledRejection', onUnhandled);
    id = (await configAt(service(), await provide(service(), 'http://127.0.0.1:1/v1'))).id;
  });
  const expectAlive = async () => expect((await service().configs.getConfig({ id })).config?.id).toBe(id);

  it.each(Object.entries(METHODS))('%s returns a status other than INTERNAL for random bytes', async (_, path) => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 60 }), async (bytes) => {
        const { result } = await rawCall(service().port, { path, body: frame(bytes), waitMs: 15_000 });
        expect(result).toMatch(
          /^grpc (OK|INVALID_ARGUMENT|NOT_FOUND|RESOURCE_EXHAUSTED|UNAVAILABLE REVISION_NOT_REACHED)/,
        );
      }),
      { numRuns: 60, seed: 20261122 },
    );
    await expectAlive();
  });

  it.each(Object.entries(METHODS))(
    '%s returns a status other than INTERNAL for known fields with random values',
    async (name, path) => {
      const varint = (value: bigint): number[] => {
        const out: number[] = [];
        let rest = BigInt.asUintN(64, value);
        do {
          out.push(Number(rest & 127n) | (rest > 127n ? 128 : 0));
          rest >>= 7n;
        } while (rest > 0n);
        return out;
      };
      // min_revision (10) is not generated: it can wait until the deadline.
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
      await expectAlive();
      expect(name).not.toBe('');
    },
  );

  it('return OK, a violation or NOT_FOUND for a hostile text in any field', async () => {
    withLimits({ providerCheckMs: 2_000 });
    for (const value of HOSTILE)
      for (const call of [
        () => service().providers.validateApiKey({ provider: value, api_key: 'sk-x' }),
        () => service().providers.validateApiKey({ provider: 'openai', api_key: value }),
        () => service().configs.listConfigHealth({ agent: { name: value } }),
        () => service().configs.listConfigHealth({ page_token: value }),
        () => service().configs.listRetiringModels({ page_token: value }),
      ])
        expect([value.slice(0, 40), await ending(call())]).toEqual([
          value.slice(0, 40),
          expect.stringMatching(/^OK$|^3 |^5 |^8 TOO_MANY_CHECKS/),
        ]);
    await expectAlive();
  });

  it('return 400, 404, 405 or 429 for a hostile text in a path, query or body of HTTP', async () => {
    const port = present(service().running.httpPort);
    for (const value of HOSTILE.filter((text) => text.length < 2_000)) {
      const encoded = encodeURIComponent(value.toWellFormed());
      for (const [method, path, body] of [
        ['POST', `/v1/providers/${encoded}:validateApiKey`, { apiKey: 'sk-x' }],
        ['POST', '/v1/providers/mine:validateApiKey', { apiKey: value, modelName: value }],
        ['POST', `/v1/configs/${encoded}:checkHealth`, {}],
        ['GET', `/v1/configs:health?pageToken=${encoded}`, undefined],
        ['GET', `/v1/configs:health?statuses=${encoded}`, undefined],
        ['GET', `/v1/configs:retiringModels?withinDays=${encoded}`, undefined],
      ] as const) {
        const { status } = await send(port, method, path, body ? { body } : {});
        expect([method, path.slice(0, 60), status]).toEqual([
          method,
          path.slice(0, 60),
          expect.toBeOneOf([400, 404, 405, 429]),
        ]);
      }
    }
    await expectAlive();
  });

  it('still serve a valid check afterwards, with no unhandled rejection', async () => {
    const { id: validId } = await configAt(service(), await provide(service(), await startFakeProvider('openai')));
    // The tests above can have reached the limit of checks per minute.
    const outcome = await checked(service(), validId).then(
      ({ status }) => short(status),
      (error: { reason: string }) => error.reason,
    );
    expect(outcome).toMatch(/^OK$|^TOO_MANY_CHECKS$/);
    expect(unhandled).toEqual([]);
  });
});

describe('the contract of the check methods', () => {
  const service = useService('embedded');

  it.each(['v1', 'v1alpha'])('is served by reflection %s with its comments', async (version) => {
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

  it('declares an HTTP route and a permission for each method: PERMISSION_CHECK for checks, a read for lists', () => {
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
