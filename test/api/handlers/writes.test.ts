import { randomUUID } from 'node:crypto';
import { Client, credentials, type ServiceError } from '@grpc/grpc-js';
import { describe, expect, it } from 'vitest';
import type { Adoption } from '../../../gen/ts/agentllm/v1/write.js';
import { withLimits } from '../../feed/support.js';
import { CallError, failure, type TestService, unique, useService } from '../../support/service.js';
import {
  chars,
  configsOf,
  endpoint,
  GPT4,
  getAgent,
  getConfig,
  invalid,
  newAgent,
  newConfig,
  newModel,
  newProvider,
  present,
  refused,
  revision,
  stale,
  status,
} from './support.js';

interface Common {
  readonly request_id?: string;
  readonly validate_only?: boolean;
  readonly reason?: string;
  readonly wait_for_adoption?: object;
}
type Write = (common: Common) => Promise<{ readonly revision: bigint; readonly adoption?: Adoption | undefined }>;

/** One write of each method, each on separate rows. */
const WRITES: Readonly<Record<string, (service: TestService) => Promise<Write>>> = {
  CreateAgent: async ({ agents }) => {
    const agent = { name: unique('agent'), agent_type: 'x' };
    return (common) => agents.createAgent({ agent, ...common });
  },
  UpdateAgent: async (service) => {
    const { id } = await newAgent(service);
    return (common) => service.agents.updateAgent({ agent: { id, role: 'y' }, ...common });
  },
  DeleteAgent: async (service) => {
    const { id } = await newAgent(service);
    return (common) => service.agents.deleteAgent({ agent: { id }, ...common });
  },
  CreateConfig: async (service) => {
    const { id } = await newAgent(service);
    return (common) => service.configs.createConfig({ agent: { id }, config: GPT4, ...common });
  },
  UpdateConfig: async (service) => {
    const { id } = await newConfig(service);
    return (common) => service.configs.updateConfig({ config: { id, temperature: 1 }, ...common });
  },
  DeleteConfig: async (service) => {
    const { id } = await newConfig(service);
    return (common) => service.configs.deleteConfig({ id, ...common });
  },
  UpsertPrimaryConfig: async (service) => {
    const { id } = await newAgent(service);
    return (common) => service.configs.upsertPrimaryConfig({ agent: { id }, config: GPT4, ...common });
  },
  BulkAssignConfig: async (service) => {
    const { id } = await newAgent(service);
    return (common) => service.configs.bulkAssignConfig({ agents: [{ id }], config: GPT4, ...common });
  },
  ReorderConfigs: async (service) => {
    const first = await newConfig(service);
    const second = await newConfig(service, {}, { id: first.agent_id });
    const request = { agent: { id: first.agent_id }, config_ids: [second.id, first.id] };
    return (common) => service.configs.reorderConfigs({ ...request, ...common });
  },
  CreateProvider: async ({ providers }) => {
    const provider = endpoint();
    return (common) => providers.createProvider({ provider, ...common });
  },
  UpdateProvider: async (service) => {
    const { name } = await newProvider(service);
    return (common) => service.providers.updateProvider({ provider: { name, display_name: 'd' }, ...common });
  },
  DeleteProvider: async (service) => {
    const { name } = await newProvider(service);
    return (common) => service.providers.deleteProvider({ name, ...common });
  },
  CreateModel: async ({ providers }) => {
    const model = { provider: 'openai', name: unique('model') };
    return (common) => providers.createModel({ model, ...common });
  },
  UpdateModel: async (service) => {
    const { provider, name } = await newModel(service, { provider: 'openai' });
    return (common) => service.providers.updateModel({ model: { provider, name, display_name: 'd' }, ...common });
  },
  DeleteModel: async (service) => {
    const { provider, name } = await newModel(service, { provider: 'openai' });
    return (common) => service.providers.deleteModel({ provider, name, ...common });
  },
};

describe.each(['embedded', 'postgres'] as const)('writes on %s', (backend) => {
  const service = useService(backend);

  describe.each(Object.entries(WRITES))('%s', (_, prepare) => {
    it('writes nothing with validate_only, and returns what would be stored', async () => {
      const write = await prepare(service());
      const before = await revision(service());
      const preview = await write({ validate_only: true });
      expect(preview.revision).toBe(before);
      expect(await revision(service())).toBe(before);
      const written = await write({});
      expect(written.revision).toBeGreaterThan(before);
      expect(stored(preview)).toEqual(stored(written));
    });

    it('returns the stored response for a repeated request_id without a second write', async () => {
      const write = await prepare(service());
      const request_id = randomUUID();
      const first = await write({ request_id });
      const at = await revision(service());
      expect(await write({ request_id })).toEqual(first);
      expect(await revision(service())).toBe(at);
    });

    it('rejects a request_id that was used for another request', async () => {
      const write = await prepare(service());
      const request_id = randomUUID();
      await write({ request_id });
      const at = await revision(service());
      const call = write({ request_id, reason: 'another request' });
      const error = await refused(call, status.INVALID_ARGUMENT, 'REQUEST_ID_REUSED');
      expect(error.message).toContain(request_id);
      expect(await revision(service())).toBe(at);
    });

    it('does not store a request_id with validate_only', async () => {
      const write = await prepare(service());
      const request_id = randomUUID();
      const before = await revision(service());
      await write({ request_id, validate_only: true });
      expect((await write({ request_id })).revision).toBeGreaterThan(before);
    });

    it('returns the adoption with wait_for_adoption, and rejects a timeout of more than 60 s', async () => {
      const write = await prepare(service());
      const before = await revision(service());
      await invalid(write({ wait_for_adoption: { timeout: { seconds: 61n, nanos: 0 } } }), 'wait_for_adoption.timeout');
      expect(await revision(service())).toBe(before);
      const { revision: at, adoption } = await write({ wait_for_adoption: { timeout: { seconds: 1n, nanos: 0 } } });
      expect(at).toBeGreaterThan(before);
      // There are no watchers.
      expect(adoption).toEqual({ complete: true, applied_count: 0, pending_count: 0, applied: [], pending: [] });
    });

    it('accepts a reason of at most 500 characters', async () => {
      const write = await prepare(service());
      await invalid(write({ reason: chars(501, '🎈') }), 'reason');
      await write({ reason: chars(500, '🎈') });
    });
  });

  it('get gapless revisions, also when they are concurrent', async () => {
    const agent = await newAgent(service());
    const before = await revision(service());
    const calls = Array.from({ length: 30 }, (_, i) =>
      i % 3 === 0
        ? service().configs.createConfig({ agent: { id: agent.id }, config: GPT4 })
        : i % 3 === 1
          ? service().agents.updateAgent({ agent: { id: agent.id, description: `${i}` } })
          : service().providers.createProvider({ provider: endpoint() }),
    );
    const revisions = (await Promise.all(calls)).map((response) => response.revision).sort((a, b) => (a < b ? -1 : 1));
    expect(revisions).toEqual(revisions.map((_, i) => before + BigInt(i) + 1n));
    expect(await revision(service())).toBe(before + 30n);
  });

  it('get no revision when they fail', async () => {
    const { id } = await newConfig(service());
    const before = await revision(service());
    await failure(service().configs.updateConfig({ config: { id, temperature: 3 } }));
    await failure(service().configs.updateConfig({ config: { id, etag: 'x', temperature: 1 } }));
    await failure(service().agents.createAgent({ agent: { name: 'trader', agent_type: 'x' } }));
    const { config } = await service().configs.updateConfig({ config: { id, temperature: 1 } });
    expect(config?.revision).toBe(before + 1n);
  });

  it('are visible to every later read', async () => {
    const { id } = await newConfig(service());
    for (let i = 1; i <= 20; i += 1) {
      const { revision: at } = await service().configs.updateConfig({ config: { id, max_tokens: i } });
      const read = await service().configs.getConfig({ id });
      expect(read.config?.max_tokens).toBe(i);
      expect(read.revision).toBeGreaterThanOrEqual(at);
    }
  });

  describe('request_id', () => {
    it('creates one row for 20 concurrent calls, which get the same response', async () => {
      const { id } = await newAgent(service());
      const request_id = randomUUID();
      const responses = await Promise.all(
        Array.from({ length: 20 }, () => service().configs.createConfig({ agent: { id }, config: GPT4, request_id })),
      );
      for (const response of responses) expect(response).toEqual(responses[0]);
      expect(await configsOf(service(), id)).toHaveLength(1);
    });

    it('returns the stored response after the created row was deleted', async () => {
      const { id } = await newAgent(service());
      const request = { agent: { id }, config: GPT4, request_id: randomUUID() };
      const first = await service().configs.createConfig(request);
      await service().configs.deleteConfig({ id: present(first.config).id });
      expect(await service().configs.createConfig(request)).toEqual(first);
      expect(await configsOf(service(), id)).toEqual([]);
    });

    it('returns the stored response for an update whose etag has become stale', async () => {
      const { id, etag } = await newConfig(service());
      const request = { config: { id, etag, temperature: 1 }, request_id: randomUUID() };
      const first = await service().configs.updateConfig(request);
      expect(await service().configs.updateConfig(request)).toEqual(first);
      await stale(service().configs.updateConfig({ ...request, request_id: randomUUID() }));
    });

    it.each(['not-a-uuid', `${randomUUID()}0`, '{}', "' OR 1=1"])(
      'is rejected when it is not a UUID: %s',
      async (request_id) => {
        const agent = { name: unique('agent'), agent_type: 'x' };
        await invalid(service().agents.createAgent({ agent, request_id }), 'request_id');
        await invalid(service().agents.createAgent({ agent, request_id, reason: chars(501) }), 'request_id', 'reason');
      },
    );

    it('is case-insensitive', async () => {
      const agent = { name: unique('agent'), agent_type: 'x' };
      const request_id = randomUUID();
      const first = await service().agents.createAgent({ agent, request_id });
      const second = await service().agents.createAgent({ agent, request_id: request_id.toUpperCase() });
      expect(second).toEqual(first);
    });

    it('can be used again after a failure', async () => {
      const { id } = await newConfig(service());
      const request_id = randomUUID();
      await invalid(
        service().configs.updateConfig({ config: { id, temperature: 3 }, request_id }),
        'config.temperature',
      );
      await service().configs.updateConfig({ config: { id, temperature: 1 }, request_id });
      expect((await getConfig(service(), id)).temperature).toBe(1);
    });

    it('is separate for each method', async () => {
      const { id } = await newConfig(service());
      const request_id = randomUUID();
      await service().configs.updateConfig({ config: { id, temperature: 1 }, request_id });
      await service().configs.deleteConfig({ id, request_id });
    });

    it('is rejected with another body after a successful create', async () => {
      const { id } = await newAgent(service());
      const request_id = randomUUID();
      await service().configs.createConfig({ agent: { id }, config: GPT4, request_id });
      const other = service().configs.createConfig({ agent: { id }, config: { ...GPT4, temperature: 0 }, request_id });
      await refused(other, status.INVALID_ARGUMENT, 'REQUEST_ID_REUSED');
      expect(await configsOf(service(), id)).toHaveLength(1);
    });
  });

  describe('validate_only', () => {
    it('returns ids and revisions of 0 for resources that would be created', async () => {
      const name = unique('dry');
      const { agent } = await service().agents.createAgent({ agent: { name, agent_type: 'x' }, validate_only: true });
      expect(agent).toMatchObject({ id: 0, revision: 0n, name, role: 'analyst' });
      const owner = await newAgent(service());
      const { config, findings } = await service().configs.createConfig({
        agent: { id: owner.id },
        config: { provider: 'openai', model_name: 'o4-mini' },
        validate_only: true,
      });
      expect(config).toMatchObject({ id: 0, revision: 0n, agent_id: owner.id, temperature: 0.7 });
      expect(findings.map((finding) => finding.reason)).toContain('FINDING_REASON_PARAMETER_REJECTED');
      const upsert = await service().configs.upsertPrimaryConfig({
        agent: { id: owner.id },
        config: GPT4,
        validate_only: true,
      });
      expect(upsert).toMatchObject({ created: true, config: { id: 0, revision: 0n } });
      expect(await configsOf(service(), owner.id)).toEqual([]);
    });

    it('fails like the write', async () => {
      const { id, etag } = await newConfig(service());
      const call = service().configs.updateConfig({ config: { id, temperature: 3 }, validate_only: true });
      await invalid(call, 'config.temperature');
      await service().configs.updateConfig({ config: { id, temperature: 1 } });
      await stale(service().configs.updateConfig({ config: { id, etag }, validate_only: true }));
      await stale(service().configs.deleteConfig({ id, etag, validate_only: true }));
    });
  });

  describe('etags', () => {
    it('let exactly one of 20 concurrent updates succeed', async () => {
      const { id, etag } = await newConfig(service());
      const results = await Promise.allSettled(
        Array.from({ length: 20 }, (_, i) =>
          service().configs.updateConfig({ config: { id, etag, max_tokens: i + 1 } }),
        ),
      );
      const succeeded = results.filter((result) => result.status === 'fulfilled');
      expect(succeeded).toHaveLength(1);
      for (const result of results) {
        if (result.status === 'rejected')
          expect(result.reason).toMatchObject({ code: status.ABORTED, reason: 'STALE_ETAG' });
      }
      expect(await getConfig(service(), id)).toEqual(succeeded[0]?.value.config);
    });

    it('are optional: without them the last write wins', async () => {
      const { id } = await newConfig(service());
      const responses = await Promise.all(
        Array.from({ length: 10 }, (_, i) => service().configs.updateConfig({ config: { id, max_tokens: i + 1 } })),
      );
      const last = responses.reduce((a, b) => (b.revision > a.revision ? b : a));
      expect(await getConfig(service(), id)).toEqual(last.config);
    });

    it('of an agent do not change with its configs, while chain_etag does', async () => {
      const agent = await newAgent(service());
      await newConfig(service(), {}, agent);
      const after = await getAgent(service(), agent.id);
      expect(after.etag).toBe(agent.etag);
      expect(after.chain_etag).not.toBe(agent.chain_etag);
    });
  });

  describe('min_revision', () => {
    it('delays a read until it is reached', async () => {
      const { id } = await newConfig(service());
      const next = (await revision(service())) + 1n;
      const reading = service().configs.getConfig({ id, min_revision: next });
      await service().configs.updateConfig({ config: { id, temperature: 1 } });
      const read = await reading;
      expect(read.revision).toBeGreaterThanOrEqual(next);
      expect(read.config?.temperature).toBe(1);
    });

    it('does not delay a read when it is already reached', async () => {
      const { id, revision: at } = await newConfig(service());
      const { revision: served } = await service().configs.getConfig({ id, min_revision: at });
      expect(served).toBeGreaterThanOrEqual(at);
    });

    it('results in REVISION_NOT_REACHED for every read when it is not reached in time', async () => {
      const { id, agent_id } = await newConfig(service());
      const min_revision = (await revision(service())) + 1000n;
      const { agents, configs, providers } = service();
      withLimits({ maxCallMs: 500 });
      const reads = [
        agents.getAgent({ agent: { id: agent_id }, min_revision }),
        agents.listAgents({ min_revision }),
        configs.getConfig({ id, min_revision }),
        configs.listConfigs({ min_revision }),
        configs.getPrimaryConfig({ agent: { id: agent_id }, min_revision }),
        configs.batchGetPrimaryConfigs({ min_revision }),
        configs.validateConfig({ id, min_revision }),
        providers.listProviders({ min_revision }),
        providers.getProvider({ name: 'openai', min_revision }),
        providers.listModels({ min_revision }),
        providers.getModel({ provider: 'openai', name: 'gpt-4', min_revision }),
      ].map((call) => failure(call));
      for (const error of await Promise.all(reads)) {
        expect({ code: error.code, reason: error.reason }).toEqual({
          code: status.UNAVAILABLE,
          reason: 'REVISION_NOT_REACHED',
        });
        expect(error.retry).toBeDefined();
        expect(error.message).toContain(String(min_revision));
      }
    });
  });

  it('are rejected with MALFORMED_REQUEST when the bytes are not the message, and the service stays available', async () => {
    const client = new Client(`127.0.0.1:${service().port}`, credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
    });
    try {
      for (const path of ['AgentLLMConfigService/GetConfig', 'AgentService/CreateAgent', 'ProviderService/GetModel']) {
        const error = await new Promise<ServiceError | null>((resolve) =>
          client.makeUnaryRequest(
            `/agentllm.v1.${path}`,
            (bytes: Buffer) => bytes,
            (bytes: Buffer) => bytes,
            Buffer.from([0x0a, 0xff, 0xff, 0xff]),
            (failed) => resolve(failed),
          ),
        );
        const { code, reason, message } = new CallError(present(error));
        expect({ code, reason }).toEqual({ code: status.INVALID_ARGUMENT, reason: 'MALFORMED_REQUEST' });
        expect(message).toContain(`agentllm.v1.${path.split('/')[1]}Request`);
      }
    } finally {
      client.close();
    }
    await newAgent(service());
  });
});

const GENERATED = new Set(['id', 'revision', 'etag', 'chain_etag', 'created_at', 'updated_at', 'valid_from']);

/** A response without the fields that only the store generates. */
function stored(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(stored);
  if (value === null || typeof value !== 'object' || value instanceof Date) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => !GENERATED.has(key))
      .map(([key, inner]) => [key, stored(inner)]),
  );
}
