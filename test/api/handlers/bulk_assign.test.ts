import { describe, expect, it } from 'vitest';
import { unique, useService } from '../../support/service.js';
import {
  configsOf,
  GPT4,
  getConfig,
  HAIKU,
  invalid,
  newAgent,
  newConfig,
  notFound,
  present,
  reasonsOf,
  revision,
  status,
  statusOf,
} from './support.js';

describe('BulkAssignConfig', () => {
  const service = useService('embedded');

  it('writes each agent as UpsertPrimaryConfig does, in request order', async () => {
    const none = await newAgent(service());
    const enabled = await newConfig(service(), { max_tokens: 5 });
    const disabled = await newConfig(service(), { enabled: false, max_tokens: 6 });
    const {
      results,
      findings,
      revision: at,
    } = await service().configs.bulkAssignConfig({
      agents: [{ id: disabled.agent_id }, { name: none.name }, { id: enabled.agent_id }],
      config: { ...HAIKU, temperature: 0 },
    });
    expect(results.map((result) => [result.agent_id, result.agent_name, result.created])).toEqual([
      [disabled.agent_id, disabled.agent_name, false],
      [none.id, none.name, true],
      [enabled.agent_id, enabled.agent_name, false],
    ]);
    expect(results[0]?.config).toMatchObject({
      id: disabled.id,
      ...HAIKU,
      enabled: true,
      temperature: 0,
      max_tokens: 6,
    });
    expect(results[1]?.config).toMatchObject({ ...HAIKU, temperature: 0 });
    expect(results[2]?.config).toMatchObject({ id: enabled.id, ...HAIKU, temperature: 0, max_tokens: 5 });
    for (const { config, status: error } of results) {
      expect(error).toBeUndefined();
      expect(await getConfig(service(), present(config).id)).toEqual(config);
      expect(present(config).revision).toBeLessThanOrEqual(at);
    }
    expect(reasonsOf(findings)).toContain('PARAMETER_REQUIRED');
  });

  it('stores nothing when agents are missing, and lists every missing agent', async () => {
    const config = await newConfig(service());
    const names = [unique('none'), unique('none')];
    const before = await revision(service());
    const error = await notFound(
      service().configs.bulkAssignConfig({
        agents: [{ id: config.agent_id }, ...names.map((name) => ({ name }))],
        config: { temperature: 0 },
      }),
      'AGENT_NOT_FOUND',
    );
    expect(error.resources).toHaveLength(2);
    for (const name of names) expect(JSON.stringify(error.resources)).toContain(name);
    expect(await getConfig(service(), config.id)).toEqual(config);
    expect(await revision(service())).toBe(before);
  });

  it('stores nothing when the fields are invalid for one of the agents', async () => {
    const large = await newConfig(service(), { model_name: 'gpt-4o' });
    const small = await newConfig(service(), { model_name: 'gpt-4' });
    const agents = [{ id: large.agent_id }, { id: small.agent_id }];
    const error = await invalid(service().configs.bulkAssignConfig({ agents, config: { max_tokens: 8192 } }));
    expect(error.fields.join()).toContain('max_tokens');
    expect(await getConfig(service(), large.id)).toEqual(large);

    const { results } = await service().configs.bulkAssignConfig({
      agents,
      config: { max_tokens: 8192 },
      allow_partial: true,
    });
    expect(results[0]?.config).toMatchObject({ id: large.id, max_tokens: 8192 });
    expect(results[0]?.status).toBeUndefined();
    expect(results[1]?.config).toBeUndefined();
    expect(statusOf(results[1]?.status)).toMatchObject({ code: status.INVALID_ARGUMENT, reason: 'INVALID_FIELDS' });
    expect(results[1]).toMatchObject({ agent_id: small.agent_id, agent_name: small.agent_name, created: false });
    expect(await getConfig(service(), small.id)).toEqual(small);
  });

  it('returns a status for each failed agent with allow_partial, and stores the rest', async () => {
    const { id } = await newAgent(service());
    const name = unique('none');
    const { results } = await service().configs.bulkAssignConfig({
      agents: [{ name }, { id }, { id: 2_147_483_647 }],
      config: GPT4,
      allow_partial: true,
    });
    expect(statusOf(results[0]?.status)).toMatchObject({
      code: status.NOT_FOUND,
      reason: 'AGENT_NOT_FOUND',
      domain: 'agentllm',
    });
    expect(results[0]).toMatchObject({ agent_id: 0, agent_name: name });
    expect(results[1]?.config).toMatchObject({ agent_id: id, ...GPT4 });
    expect(results[2]).toMatchObject({ agent_id: 2_147_483_647, agent_name: '' });
    expect(statusOf(results[2]?.status).reason).toBe('AGENT_NOT_FOUND');
  });

  it('returns a status for each agent at the current revision when every agent fails', async () => {
    const before = await revision(service());
    const agents = [{ name: unique('none') }, { name: unique('none') }];
    const response = await service().configs.bulkAssignConfig({ agents, config: GPT4, allow_partial: true });
    expect(response.results.map((result) => statusOf(result.status).reason)).toEqual([
      'AGENT_NOT_FOUND',
      'AGENT_NOT_FOUND',
    ]);
    expect(response.revision).toBe(before);
    expect(await revision(service())).toBe(before);
  });

  it('rejects an empty list, a repeated agent and an empty reference', async () => {
    await invalid(service().configs.bulkAssignConfig({ config: GPT4 }), 'agents');
    const { id, name } = await newAgent(service());
    for (const agents of [
      [{ id }, { id }],
      [{ id }, { name }],
      [{ name }, { name }],
    ]) {
      const error = await invalid(service().configs.bulkAssignConfig({ agents, config: GPT4 }));
      expect(error.fields).toEqual(['agents[1]']);
    }
    expect(await configsOf(service(), id)).toEqual([]);
    const { results } = await service().configs.bulkAssignConfig({
      agents: [{ id }, { name }],
      config: GPT4,
      allow_partial: true,
    });
    expect(results[0]?.created).toBe(true);
    expect(statusOf(results[1]?.status)).toMatchObject({ code: status.INVALID_ARGUMENT, reason: 'INVALID_FIELDS' });
    expect(await configsOf(service(), id)).toHaveLength(1);
    const error = await invalid(service().configs.bulkAssignConfig({ agents: [{ id }, {}], config: GPT4 }));
    expect(error.fields[0]).toMatch(/^agents\[1\]/);
  });

  it('accepts at most 1000 agents', async () => {
    const refs: { id: number }[] = [];
    while (refs.length < 1000) {
      const created = await Promise.all(Array.from({ length: 20 }, () => newAgent(service())));
      refs.push(...created.map(({ id }) => ({ id })));
    }
    const { results } = await service().configs.bulkAssignConfig({ agents: refs, config: GPT4 });
    expect(results.map((result) => result.config?.agent_id)).toEqual(refs.map(({ id }) => id));
    const { name } = await newAgent(service());
    await invalid(service().configs.bulkAssignConfig({ agents: [...refs, { name }], config: GPT4 }), 'agents');
  });

  it('limits its error to 4 KiB when 1000 agents are missing', async () => {
    const agents = Array.from({ length: 1000 }, () => ({ name: unique('nobody-with-a-rather-long-name') }));
    const error = await notFound(service().configs.bulkAssignConfig({ agents, config: GPT4 }), 'AGENT_NOT_FOUND');
    expect(Buffer.byteLength(error.message)).toBeLessThan(4096);
    expect(error.resources.length).toBeLessThan(1000);
  });

  it('lists the first of 60 missing agents and counts the rest', async () => {
    const agents = Array.from({ length: 60 }, (_, n) => ({ name: `nobody-${n}` }));
    const error = await notFound(service().configs.bulkAssignConfig({ agents, config: GPT4 }), 'AGENT_NOT_FOUND');
    const listed = error.violations.slice(0, -1);
    expect(listed.length).toBeGreaterThanOrEqual(10);
    expect(listed.map(({ field }) => field)).toEqual(listed.map((_, n) => `agents[${n}]`));
    expect(error.violations.at(-1)).toMatchObject({
      field: '',
      description: `and ${60 - listed.length} more problems`,
    });
    expect(error.resources).toHaveLength(5);
  });

  it('reports an invalid config and missing agents together', async () => {
    const { id } = await newAgent(service());
    const agents = [{ id }, { name: 'nobody-1' }, { id }, {}];
    const config = { ...GPT4, temperature: 3 };
    const error = await invalid(service().configs.bulkAssignConfig({ agents, config, update_mask: ['nope', '*'] }));
    expect(error.fields).toEqual(['update_mask', 'config.temperature', 'agents[1]', 'agents[2]', 'agents[3]']);
    const partial = service().configs.bulkAssignConfig({ agents, config, allow_partial: true });
    expect((await invalid(partial)).fields).toEqual(['config.temperature']);
  });

  it('ignores id and etag, and refuses enabled = false', async () => {
    const config = await newConfig(service());
    const other = await newConfig(service());
    const agents = [{ id: config.agent_id }];
    const { results } = await service().configs.bulkAssignConfig({
      agents,
      config: { id: other.id, etag: 'garbage', temperature: 1 },
    });
    expect(results[0]?.config).toMatchObject({ id: config.id, temperature: 1 });
    expect(await getConfig(service(), other.id)).toEqual(other);
    await invalid(service().configs.bulkAssignConfig({ agents, config: { enabled: false } }), 'config.enabled');
  });

  it('clears the fields in the mask, and returns every invalid path', async () => {
    const config = await newConfig(service(), { max_tokens: 7 });
    const agents = [{ id: config.agent_id }];
    const { results } = await service().configs.bulkAssignConfig({
      agents,
      config: { temperature: 1 },
      update_mask: ['max_tokens'],
    });
    expect(results[0]?.config).toMatchObject({ id: config.id, temperature: 0.7 });
    expect(results[0]?.config?.max_tokens).toBeUndefined();
    const invalidPaths = ['nonsense', 'revision'];
    const error = await invalid(service().configs.bulkAssignConfig({ agents, config: {}, update_mask: invalidPaths }));
    for (const path of invalidPaths) expect(JSON.stringify(error.violations)).toContain(path);
  });

  it('is atomic for a concurrent reader', async () => {
    const configs = await Promise.all(Array.from({ length: 50 }, () => newConfig(service(), { max_tokens: 1 })));
    const agents = configs.map(({ agent_id }) => ({ id: agent_id }));
    const writes = [2, 3, 4].map((max_tokens) =>
      service().configs.bulkAssignConfig({ agents, config: { max_tokens } }),
    );
    let writing = true;
    const done = Promise.all(writes).then(() => {
      writing = false;
    });
    let reads = 0;
    while (writing) {
      const { results } = await service().configs.batchGetPrimaryConfigs({ agents });
      expect(new Set(results.map((result) => result.config?.max_tokens)).size).toBe(1);
      reads += 1;
    }
    await done;
    expect(reads).toBeGreaterThan(0);
  });
});
