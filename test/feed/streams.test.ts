import { randomUUID } from 'node:crypto';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { WatchConfigsResponse } from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { limits } from '../../src/limits.js';
import { GPT4, HAIKU, newAgent, newConfig, newModel, newProvider, present, status } from '../api/handlers/support.js';
import { unique } from '../support/service.js';
import { until } from '../support/until.js';
import { engines, useWatchBackend } from './backend.js';

describe.each(engines)('WatchConfigs on %s', (engine) => {
  const backend = useWatchBackend(engine);
  const watch = (...args: Parameters<ReturnType<typeof backend>['watch']>) => backend().watch(...args);
  const byName = (name: string) => watch({ agents: [{ name }] });

  it('starts with started, followed by the complete state of the watched agents and of the catalogue', async () => {
    const agent = await newAgent(backend());
    await newConfig(backend(), { max_tokens: 77 }, agent);
    const one = await watch({ agents: [{ name: agent.name }, { id: 1 }, { id: 999_999 }, { name: 'nobody' }] }).ready();
    const all = await watch({ all_agents: true }).ready();
    expect(one.events[0]).toMatchObject({ revision: one.events.at(-1)?.revision, resume_token: '' });
    expect(one.started).toEqual({
      client_id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      bookmark_interval_ms: limits.bookmarkPromiseMs,
      resumed: false,
      replica: backend().store.replicaId,
    });
    expect(one.events[1]?.snapshot_begin).toEqual({ agent_count: 2 });
    expect(one.events.slice(0, -1).every(({ resume_token }) => resume_token === '')).toBe(true);
    expect(one.agents.map(({ id, name, agent: found }) => [id, name, found !== undefined])).toEqual([
      [agent.id, agent.name, true],
      [1, expect.any(String), true],
      [undefined, 'nobody', false],
      [999_999, '', false],
    ]);
    expect(all.events[1]?.snapshot_begin).toEqual({ agent_count: all.agents.length });
    await backend().check([one.history(), all.history()]);
  });

  it('returns the same fields as GetAgent, ListConfigs and the catalogue methods', async () => {
    const { agents, configs, providers } = backend();
    const agent = await newAgent(backend(), { description: 'whole', temperature: 0.3, metadata_json: '{"a":[1]}' });
    const extra_params = { seed: 7n, stop_sequences: ['x'], reasoning_effort: undefined };
    for (const fields of [{ ...GPT4, extra_params }, HAIKU, { ...GPT4, enabled: false, priority: 5 }])
      await configs.createConfig({ agent: { id: agent.id }, config: fields });
    const { items } = (await watch({ all_agents: true }).ready()).snapshot;
    const one = await watch({ agents: [{ id: agent.id }] }).ready();
    const response = present((await agents.getAgent({ agent: { id: agent.id } })).agent);
    const chain = (await configs.listConfigs({ agent: { id: agent.id } })).configs;
    expect(chain).toHaveLength(3);
    expect(one.agents).toEqual([
      {
        name: agent.name,
        id: agent.id,
        agent: { ...response, chain_etag: '' },
        configs: chain,
        budgets: [],
        experiments: [],
        urgent: false,
      },
    ]);
    const catalogue = one.events.flatMap(({ snapshot }) => snapshot?.catalogue ?? []);
    expect(catalogue.flatMap(({ provider }) => provider ?? [])).toEqual((await providers.listProviders({})).providers);
    const models = [];
    for (let page_token = ''; ; ) {
      const page = await providers.listModels({ page_size: 1000, page_token });
      models.push(...page.models);
      page_token = page.next_page_token;
      if (page_token === '') break;
    }
    expect(catalogue.flatMap(({ model }) => model ?? [])).toEqual(models);
    expect(new Set(items.map(({ key }) => key)).size).toBe(items.length);
  });

  it('delivers a change with its revision and cause to the watches that it concerns', async () => {
    const agent = await newAgent(backend());
    const other = await newAgent(backend());
    const watches = [
      watch({ all_agents: true }),
      byName(agent.name),
      watch({ agents: [{ id: agent.id }] }),
      byName(other.name),
    ];
    const [all, named, numbered, unaffected] = await Promise.all(watches.map((one) => one.ready()));
    const reason = 'a reason, 理由';
    const { revision } = await backend().configs.createConfig({ agent: { id: agent.id }, config: GPT4, reason });
    for (const one of [all, named, numbered]) await one?.has(revision);
    for (const one of [all, named, numbered]) {
      const { messages, agents, catalogue } = present(one).itemsOf(revision);
      expect(messages).toHaveLength(1);
      expect(messages[0]?.cause).toMatchObject({
        actor: 'anonymous',
        method: 'agentllm.v1.AgentLLMConfigService/CreateConfig',
        reason,
      });
      expect(Math.abs(Date.now() - Number(messages[0]?.cause?.created_at))).toBeLessThan(60_000);
      expect(agents.map(({ id, configs }) => [id, configs.length])).toEqual([[agent.id, 1]]);
      expect(catalogue).toEqual([]);
    }
    const last = await backend().agents.updateAgent({ agent: { id: other.id, description: 'end' } });
    await unaffected?.has(last.revision);
    expect(unaffected?.revisions).toEqual([Number(last.revision)]);
    await backend().check(watches.map((one) => one.history()));
  });

  it('delivers an agent that is created after the watch started, by name and by id', async () => {
    const name = unique('later');
    const named = await byName(name).ready();
    const { id } = await newAgent(backend());
    const numbered = await watch({ agents: [{ id: id + 1 }] }).ready();
    expect(numbered.agents).toEqual([
      { name: '', agent: undefined, configs: [], budgets: [], experiments: [], urgent: false, id: id + 1 },
    ]);
    const { agent, revision } = await backend().agents.createAgent({ agent: { name, agent_type: 'analyst' } });
    await named.has(revision);
    expect(named.itemsOf(revision).agents).toMatchObject([{ name, id: agent?.id, urgent: false, agent: { name } }]);
    if (agent?.id === id + 1) await numbered.has(revision);
    await backend().check([named.history(), numbered.history()]);
  });

  it('delivers a rename as a tombstone by the old name, an agent by the new name, and both by the id', async () => {
    const agent = await newAgent(backend());
    await newConfig(backend(), {}, agent);
    const name = unique('renamed');
    const [old, fresh, numbered] = await Promise.all([
      byName(agent.name).ready(),
      byName(name).ready(),
      watch({ agents: [{ id: agent.id }] }).ready(),
    ]);
    const { revision } = await backend().agents.updateAgent({ agent: { id: agent.id, name } });
    for (const one of [old, fresh, numbered]) await one.has(revision);
    const gone = {
      name: agent.name,
      id: agent.id,
      agent: undefined,
      configs: [],
      budgets: [],
      experiments: [],
      urgent: true,
    };
    const there = { name, id: agent.id, agent: { name }, configs: [{ agent_name: name }] };
    expect(old.itemsOf(revision).agents).toEqual([gone]);
    expect(fresh.itemsOf(revision).agents).toMatchObject([there]);
    expect(numbered.itemsOf(revision).agents).toMatchObject([gone, there]);
    // The old name is still watched, because another agent may get it.
    const next = await newAgent(backend(), { name: agent.name });
    await old.has(next.revision);
    expect(old.itemsOf(next.revision).agents).toMatchObject([{ name: agent.name, id: next.id }]);
    expect(numbered.revisions).toEqual([Number(revision)]);
    await backend().check([old.history(), fresh.history(), numbered.history()]);
  });

  it('delivers the deletion of an agent with its configs, and a new agent with the same name', async () => {
    const agent = await newAgent(backend());
    await newConfig(backend(), {}, agent);
    const named = await byName(agent.name).ready();
    const numbered = await watch({ agents: [{ id: agent.id }] }).ready();
    const { revision } = await backend().agents.deleteAgent({ agent: { id: agent.id }, cascade: true });
    for (const one of [named, numbered]) {
      await one.has(revision);
      expect(one.itemsOf(revision).agents).toEqual([
        { name: agent.name, id: agent.id, agent: undefined, configs: [], budgets: [], experiments: [], urgent: true },
      ]);
    }
    const again = await newAgent(backend(), { name: agent.name });
    await named.has(again.revision);
    expect(named.itemsOf(again.revision).agents).toMatchObject([{ id: again.id, urgent: false }]);
    await backend().check([named.history(), numbered.history()]);
  });

  it('delivers catalogue changes on every stream', async () => {
    const streams = await Promise.all([byName('nobody').ready(), watch({ all_agents: true }).ready()]);
    const { name } = await newProvider(backend());
    const model = await newModel(backend(), { provider: name, name: 'm1' });
    const { providers, credentials } = backend();
    await providers.updateModel({ model: { provider: name, name: model.name, context_window_tokens: 9 } });
    const credential = unique('cred');
    await credentials.createCredential({ credential: { name: credential, provider: name }, api_key: 'sk-CANARY-x' });
    await credentials.deleteCredential({ name: credential });
    await providers.deleteModel({ provider: name, name: model.name });
    const { revision } = await providers.deleteProvider({ name });
    for (const one of streams) {
      await one.has(revision);
      expect(one.revisions).toHaveLength(7);
      const seen = one.changes.flatMap(({ changes }) => changes?.catalogue ?? []);
      expect(seen.map((item) => Object.keys(item).find((key) => item[key as keyof typeof item] !== undefined))).toEqual(
        ['provider', 'model', 'model', 'credential', 'deleted_credential', 'deleted_model', 'deleted_provider'],
      );
      expect(seen.at(-1)?.deleted_provider).toBe(name);
      expect(seen.at(-2)?.deleted_model).toBe(`${name}/m1`);
      expect(seen.at(-3)?.deleted_credential).toBe(credential);
    }
    await backend().check(streams.map((one) => one.history()));
  });

  it('delivers a config with the credential that it uses', async () => {
    const agent = await newAgent(backend());
    const credential = unique('cred');
    const { configs, credentials } = backend();
    await credentials.createCredential({ credential: { name: credential, provider: 'openai' }, api_key: 'sk-x' });
    const { id } = await newConfig(backend(), { credential_name: credential }, agent);
    const one = await byName(agent.name).ready();
    expect(one.agents[0]?.configs[0]?.credential_name).toBe(credential);
    const { revision } = await configs.updateConfig({ config: { id, max_tokens: 4 } });
    await one.has(revision);
    expect(one.itemsOf(revision).agents[0]?.configs[0]?.credential_name).toBe(credential);
    await backend().check([one.history()]);
  });

  describe('the urgent flag', () => {
    const KEY = { api_key: 'sk-CANARY-urgent' };

    it('is set when an agent is deactivated or deleted, or its key is replaced, cleared or deleted', async () => {
      const { agents, configs } = backend();
      const agent = await newAgent(backend());
      const { id } = await newConfig(backend(), {}, agent);
      const one = await byName(agent.name).ready();
      const urgent = async (write: Promise<{ revision: bigint }>) => {
        const { revision } = await write;
        await one.has(revision);
        return one.itemsOf(revision).agents.map((each) => each.urgent);
      };
      const update = (config: object, update_mask?: string[]) =>
        urgent(configs.updateConfig({ config: { id, ...config }, ...(update_mask && { update_mask }) }));
      expect(await update({ max_tokens: 5 })).toEqual([false]);
      expect(await urgent(configs.updateConfig({ config: { id }, ...KEY }))).toEqual([false]);
      expect(await update({ max_tokens: 6 })).toEqual([false]);
      expect(await urgent(configs.updateConfig({ config: { id }, api_key: 'sk-CANARY-2' }))).toEqual([true]);
      expect(await urgent(configs.updateConfig({ config: { id }, clear_api_key: true }))).toEqual([true]);
      expect(await urgent(configs.updateConfig({ config: { id }, ...KEY }))).toEqual([false]);
      expect(await urgent(agents.updateAgent({ agent: { id: agent.id, description: 'x' } }))).toEqual([false]);
      expect(await urgent(agents.updateAgent({ agent: { id: agent.id, is_active: false } }))).toEqual([true]);
      expect(await urgent(agents.updateAgent({ agent: { id: agent.id, is_active: true } }))).toEqual([false]);
      expect(await urgent(configs.deleteConfig({ id }))).toEqual([true]);
      expect(await urgent(agents.deleteAgent({ agent: { id: agent.id } }))).toEqual([true]);
    });

    it('is set when a config is detached from its credential or attached to another one', async () => {
      const { configs, credentials } = backend();
      const [a, b] = [unique('cred'), unique('cred')];
      for (const name of [a, b])
        await credentials.createCredential({ credential: { name, provider: 'openai' }, api_key: 'sk-CANARY-c' });
      const agent = await newAgent(backend());
      const { id } = await newConfig(backend(), { credential_name: a }, agent);
      const one = await byName(agent.name).ready();
      const update = async (config: object, update_mask: string[]) => {
        const { revision } = await configs.updateConfig({ config: { id, ...config }, update_mask });
        await one.has(revision);
        return one.itemsOf(revision).agents.map(({ urgent }) => urgent);
      };
      expect(await update({ max_tokens: 6 }, ['max_tokens'])).toEqual([false]);
      expect(await update({ credential_name: b }, ['credential_name'])).toEqual([true]);
      expect(await update({}, ['credential_name'])).toEqual([true]);
      expect(await update({ credential_name: b }, ['credential_name'])).toEqual([false]);
    });

    it('is set when a provider is disabled or deleted, or a credential is replaced or deleted', async () => {
      const { providers, credentials } = backend();
      const { name } = await newProvider(backend());
      const credential = unique('cred');
      await credentials.createCredential({ credential: { name: credential, provider: name }, ...KEY });
      const one = await byName('nobody').ready();
      const urgent = async (write: Promise<{ revision: bigint }>) => {
        const { revision } = await write;
        await one.has(revision);
        return one.itemsOf(revision).catalogue.map((each) => each.urgent);
      };
      const update = (fields: object) => urgent(providers.updateProvider({ provider: { name, ...fields } }));
      expect(await update({ display_name: 'D' })).toEqual([false]);
      expect(await update({ enabled: false })).toEqual([true]);
      expect(await update({ enabled: true })).toEqual([false]);
      const described = { credential: { name: credential, description: 'd' } };
      expect(await urgent(credentials.updateCredential(described))).toEqual([false]);
      expect(
        await urgent(credentials.updateCredential({ credential: { name: credential }, api_key: 'sk-CANARY-3' })),
      ).toEqual([true]);
      expect(await urgent(credentials.deleteCredential({ name: credential }))).toEqual([true]);
      expect(await urgent(providers.deleteProvider({ name }))).toEqual([true]);
    });
  });

  it('never sends a key, in plaintext or encrypted', async () => {
    const key = 'sk-CANARY-0123456789';
    const { configs, credentials } = backend();
    const all = await watch({ all_agents: true }).ready();
    const credential = unique('cred');
    await credentials.createCredential({ credential: { name: credential, provider: 'openai' }, api_key: key });
    const { id } = await newConfig(backend());
    const { revision } = await configs.updateConfig({ config: { id }, api_key: `${key}-2` });
    await all.has(revision);
    const again = await watch({ all_agents: true }).ready();
    const resumed = await watch({ all_agents: true, resume_token: all.events.at(-2)?.resume_token ?? '' }).ready();
    for (const one of [all, again, resumed]) {
      const bytes = Buffer.concat(one.events.map((event) => WatchConfigsResponse.encode(event).finish()));
      expect(bytes.length).toBeGreaterThan(100);
      expect(bytes.includes('CANARY')).toBe(false);
      // The prefix of every ciphertext.
      expect(bytes.includes('gAAAA')).toBe(false);
    }
    expect(again.agents.flatMap((one) => one.configs).find((config) => config.id === id)).toMatchObject({
      has_api_key_override: true,
    });
  });

  it('generates a client_id, or returns the one of the request in canonical form', async () => {
    const client_id = randomUUID();
    const withClientId = await watch({ agents: [{ id: 1 }], client_id: client_id.toUpperCase() }).ready();
    expect(withClientId.started?.client_id).toBe(client_id);
    const [a, b] = await Promise.all([watch({ all_agents: true }).ready(), watch({ all_agents: true }).ready()]);
    expect(a.started?.client_id).not.toBe(b.started?.client_id);
  });

  it('waits for min_revision, and fails when it is not reached in time', async () => {
    const next = BigInt(backend().store.state.revision + 1);
    const waits = vi.spyOn(backend().feed, 'reached');
    onTestFinished(() => waits.mockRestore());
    const waiting = watch({ agents: [{ id: 1 }], min_revision: next });
    await until(() => waits.mock.calls.length === 1, 'the stream waits');
    expect(waiting.events).toEqual([]);
    await newAgent(backend());
    await waiting.ready();
    expect(waiting.reached).toBeGreaterThanOrEqual(Number(next));
    const never = watch({ agents: [{ id: 1 }], min_revision: next + 1000n }, { deadlineMs: 400 });
    const error = await never.end();
    expect([status.DEADLINE_EXCEEDED, status.UNAVAILABLE]).toContain(error.code);
    expect(never.events).toEqual([]);
  });

  it('ends with DEADLINE_EXCEEDED at the deadline of the call', async () => {
    const one = watch({ agents: [{ id: 1 }] }, { deadlineMs: 5_000 });
    expect((await one.end()).code).toBe(status.DEADLINE_EXCEEDED);
    expect(one.reached).toBeGreaterThan(0);
  });

  const invalidRequests: readonly [string, Parameters<typeof watch>[0], string[]][] = [
    ['a request without agents', {}, ['agents']],
    ['agents together with all_agents', { all_agents: true, agents: [{ id: 1 }] }, ['agents']],
    ['1001 agents', { agents: Array.from({ length: 1001 }, (_, at) => ({ id: at + 1 })) }, ['agents']],
    ['agents without and with two names', { agents: [{}, { id: 1, name: 'x' }] }, ['agents[0]', 'agents[1]']],
    ['invalid ids', { agents: [{ id: 0 }, { id: -1 }] }, ['agents[0].id', 'agents[1].id']],
    [
      'invalid names',
      { agents: [{ name: '' }, { name: 'a\u0000b' }, { name: 'x'.repeat(256) }] },
      ['agents[0].name', 'agents[1].name', 'agents[2].name'],
    ],
    ['a client_id that is not a UUID', { all_agents: true, client_id: 'me' }, ['client_id']],
    ['a client_name of 101 characters', { all_agents: true, client_name: '🎈'.repeat(101) }, ['client_name']],
    ['a client_version of 51 characters', { all_agents: true, client_version: 'v'.repeat(51) }, ['client_version']],
    ['a client_name with a line feed', { all_agents: true, client_name: 'a\nb\u0000' }, ['client_name']],
    [
      'several invalid fields',
      { client_id: '1', client_name: 'x'.repeat(101), client_version: 'y'.repeat(51) },
      ['agents', 'client_id', 'client_name', 'client_version'],
    ],
  ];
  it.each(invalidRequests)('rejects %s and names the fields', async (_, request, fields) => {
    const error = await watch(request).end();
    expect([error.code, error.reason]).toEqual([status.INVALID_ARGUMENT, 'INVALID_FIELDS']);
    expect([...new Set(error.fields)].sort()).toEqual([...fields].sort());
  });

  it('accepts 1000 agents, a client_name of 100 and a client_version of 50 characters', async () => {
    const agents = Array.from({ length: 1000 }, (_, at) => (at % 2 ? { id: at + 1 } : { name: `n${at}` }));
    const request = { agents, client_name: '🎈'.repeat(100), client_version: 'v'.repeat(50) };
    const one = await watch(request).ready();
    expect(one.agents).toHaveLength(1000);
  });

  it('sends a large revision in parts, of which only the last completes the revision', async () => {
    const created = [];
    for (let at = 0; at < 1000; at += 200)
      created.push(...(await Promise.all(Array.from({ length: 200 }, () => newAgent(backend())))));
    const agents = created.map(({ id }) => ({ id }));
    const some = agents.slice(0, 500);
    const all = await watch({ all_agents: true }).ready();
    const half = await watch({ agents: some }).ready();
    const { revision } = await backend().configs.bulkAssignConfig({ agents, config: { ...GPT4, max_tokens: 321 } });
    const later = await backend().agents.updateAgent({ agent: { id: created[0]?.id as number, description: 'after' } });
    for (const one of [all, half]) {
      await one.has(later.revision);
      const { messages, agents: delivered } = one.itemsOf(revision);
      expect(messages.length).toBeGreaterThan(1);
      expect(messages.map(({ resume_token }) => resume_token !== '')).toEqual(
        messages.map((_, at) => at === messages.length - 1),
      );
      expect(delivered.map(({ id }) => id).sort()).toEqual((one === all ? agents : some).map(({ id }) => id).sort());
      for (const message of messages)
        expect(WatchConfigsResponse.encode(message).finish().length).toBeLessThan(2 * limits.watchMessageBytes);
    }
    const fresh = await watch({ all_agents: true }).ready();
    expect(fresh.snapshot.messages.length).toBeGreaterThan(5);
    expect(fresh.agents.length).toBeGreaterThan(1000);
    await backend().check([all.history(), half.history(), fresh.history()]);
  });

  it('delivers every kind of write completely and exactly once', async () => {
    const agent = await newAgent(backend());
    const other = await newAgent(backend());
    const streams = await Promise.all([
      watch({ all_agents: true }).ready(),
      byName(agent.name).ready(),
      watch({ agents: [{ id: agent.id }, { name: 'nobody' }, { name: other.name }] }).ready(),
    ]);
    const { agents, configs } = backend();
    const writes: { revision: number; key: string }[] = [];
    const recordWrite = ({ revision }: { revision: bigint }, key = `agent ${agent.id}`) =>
      writes.push({ revision: Number(revision), key });
    const first = await newConfig(backend(), {}, agent);
    const second = await newConfig(backend(), HAIKU, agent);
    recordWrite(await configs.upsertPrimaryConfig({ agent: { id: agent.id }, config: { temperature: 0.5 } }));
    recordWrite(await configs.reorderConfigs({ agent: { id: agent.id }, config_ids: [second.id, first.id] }));
    recordWrite(await agents.updateAgent({ agent: { id: agent.id, name: unique('moved') } }));
    recordWrite(await configs.deleteConfig({ id: second.id }));
    recordWrite(await agents.updateAgent({ agent: { id: agent.id, name: agent.name } }));
    const burst = await Promise.all(
      Array.from({ length: 100 }, (_, at) => configs.updateConfig({ config: { id: first.id, max_tokens: at + 1 } })),
    );
    for (const one of burst) recordWrite(one);
    const { revision } = await agents.deleteAgent({ agent: { id: other.id } });
    recordWrite({ revision }, `gone ${other.id} ${other.name}`);
    for (const one of [streams[0], streams[2]]) await one?.has(revision);
    await streams[1].has(burst.reduce((most, one) => (one.revision > most ? one.revision : most), 0n));
    // A watch by this name does not receive the changes under the other name.
    expect(streams[1].revisions).toHaveLength(106);
    await backend().check(
      streams.map((one) => one.history()),
      writes,
    );
  });
});
