import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { resolvedMessage } from '../../src/api/messages/resolution.js';
import { AgentLLMError, type ResidentAgentLLM, type ResidentOptions } from '../../src/client/index.js';
import { agentRow } from '../../src/client/rows.js';
import { generateKey } from '../../src/domain/fernet.js';
import { freePort } from '../support/ports.js';
import { startProxy } from '../support/proxy.js';
import { startService, type TestService, unique, useService } from '../support/service.js';
import { until } from '../support/until.js';
import { connectResident } from './fake_watch.js';

/*
 * The resident client against the real service: it resolves what ResolveConfig returns, whatever happens to the
 * connection.
 */

const KEY = generateKey();
const MODEL = { provider: 'openai', model_name: 'gpt-4' };

/** The resolution of an agent, or the reason of the error; comparable between service and client. */
type Outcome = { readonly resolved: unknown } | { readonly reason: string | undefined };

async function outcomeOfService({ configs }: Pick<TestService, 'configs'>, name: string): Promise<Outcome> {
  try {
    const { resolved } = await configs.resolveConfig({ agent: { name } });
    return { resolved };
  } catch (error) {
    return { reason: (error as { reason?: string }).reason };
  }
}

function outcomeOfClient(client: ResidentAgentLLM, name: string): Outcome {
  try {
    const handle = client.agent(name);
    const resolution = handle.resolve();
    return { resolved: resolvedMessage(agentRow(handle.held?.agent as never), resolution) };
  } catch (error) {
    if (error instanceof AgentLLMError) return { reason: error.reason };
    throw error;
  }
}

async function expectEqual(service: TestService, client: ResidentAgentLLM, names: readonly string[]): Promise<void> {
  for (const name of names) expect(outcomeOfClient(client, name), name).toEqual(await outcomeOfService(service, name));
}

/** Waits until a client has reached a revision. */
const untilRevision = (client: ResidentAgentLLM, revision: bigint) =>
  until(() => client.state.status === 'READY' && client.state.revision >= revision);

const agentNamesOf = async ({ agents }: Pick<TestService, 'agents'>) =>
  (await agents.listAgents({ page_size: 1000 })).agents.map(({ name }) => name);

describe.each(['embedded', 'postgres'] as const)('a resident client of a service on %s', (backend) => {
  const service = useService(backend, { ENCRYPTION_KEY: KEY });
  const address = () => `127.0.0.1:${service().port}`;
  const startClient = async (options: Partial<ResidentOptions> = {}) => {
    const client = connectResident(address(), { agents: 'all', ...options });
    await client.ready();
    await until(() => client.state.status === 'READY');
    return client;
  };
  const newAgent = async (name = unique('agent'), config = {}) => {
    const { agent } = await service().agents.createAgent({ agent: { name, agent_type: 'analyst' } });
    const created = await service().configs.createConfig({ agent: { name }, config: { ...MODEL, ...config } });
    return { name, id: agent?.id as number, config: created.config, revision: created.revision };
  };

  it('shows a price that was set before from the time at which it becomes valid', async () => {
    const model_name = unique('model');
    await service().providers.createModel({ model: { provider: 'openai', name: model_name } });
    const { name } = await newAgent(unique('agent'), { model_name });
    const set = (input: bigint, valid_from?: Date) =>
      service().providers.setPrice({
        provider: 'openai',
        model_name,
        price: { input_micro_usd_per_million: input },
        ...(valid_from && { valid_from }),
      });
    await set(1n);
    const early = await startClient();
    const start = new Date(Date.now() + 2_000);
    const { revision } = await set(2n, start);
    await set(3n, new Date(start.getTime() + 86_400_000));
    const late = await startClient();
    await untilRevision(early, revision);
    const rates = () =>
      [early, late].map((client) => client.agent(name).resolve().hops[0]?.price?.price.input_micro_usd_per_million);
    // A slow machine may be here after the start.
    if (Date.now() < start.getTime()) expect(rates()).toEqual([1, 1]);
    await until(() => Date.now() > start.getTime() + 10);
    await until(() => rates().every((rate) => rate === 2));
  });

  it('resolves every agent like the service', async () => {
    await newAgent(unique('agent'), {
      temperature: 0,
      top_p: 0.5,
      max_tokens: 4_000,
      fallback_provider: 'anthropic',
      fallback_model: 'claude-sonnet-4-5',
      extra_params: { seed: 7n, stop_sequences: ['END'], request_timeout_ms: 5_000 },
      cost_per_1k_input_tokens: 0.01,
    });
    const client = await startClient();
    const names = await agentNamesOf(service());
    expect(names.length).toBeGreaterThan(10);
    await expectEqual(service(), client, [...names, 'nobody']);
    expect(client.state.replica).not.toBe('');
  });

  it('applies a change soon after the commit, not with the next bookmark', async () => {
    const { name, config } = await newAgent();
    const client = await startClient({ agents: [name] });
    const delays: number[] = [];
    for (let at = 1; at <= 20; at++) {
      const next = client.agent(name).changes().next();
      await service().configs.updateConfig({ config: { id: config?.id, max_tokens: at } });
      const began = performance.now();
      await next;
      delays.push(performance.now() - began);
      expect(client.agent(name).held?.configs[0]?.max_tokens).toBe(at);
    }
    // A bookmark is sent every 15 s.
    expect(Math.max(...delays)).toBeLessThan(5_000);
    await expectEqual(service(), client, [name]);
  });

  it('tracks an agent from before its creation until its deletion', async () => {
    const name = unique('later');
    const client = await startClient({ agents: [name, 'trader'] });
    expect(outcomeOfClient(client, name)).toEqual({ reason: 'AGENT_NOT_FOUND' });
    const { id, revision } = await newAgent(name);
    await untilRevision(client, revision);
    await expectEqual(service(), client, [name]);
    const off = await service().agents.updateAgent({ agent: { id, is_active: false } });
    await untilRevision(client, off.revision);
    expect(outcomeOfClient(client, name)).toEqual({ reason: 'AGENT_INACTIVE' });
    const gone = await service().agents.deleteAgent({ agent: { id }, cascade: true });
    await untilRevision(client, gone.revision);
    expect(outcomeOfClient(client, name)).toEqual({ reason: 'AGENT_NOT_FOUND' });
    await expectEqual(service(), client, ['trader']);
  });

  it('applies catalogue changes, and urgent ones also to pinned runs', async () => {
    const { name, config } = await newAgent();
    const client = await startClient({ agents: [name] });
    const run = client.run();
    const before = run.agent(name).resolve();
    const key = await service().credentials.createCredential({
      credential: { name: unique('key'), provider: 'openai' },
      api_key: 'sk-first',
    });
    const named = await service().configs.updateConfig({
      config: { id: config?.id, credential_name: key.credential?.name },
    });
    await untilRevision(client, named.revision);
    await expectEqual(service(), client, [name]);
    expect(run.agent(name).resolve()).toBe(before);
    const moved = new Promise((resolve) => run.on('moved', resolve));
    await service().credentials.updateCredential({ credential: { name: key.credential?.name }, api_key: 'sk-second' });
    await moved;
    expect(run.agent(name).resolve().hops[0]?.key).toMatchObject({ source: 'KEY_SOURCE_CREDENTIAL' });
    const { provider } = await service().providers.getProvider({ name: 'openai' });
    const switched = async (enabled: boolean) => {
      const { revision } = await service().providers.updateProvider({ provider: { name: provider?.name, enabled } });
      await untilRevision(client, revision);
    };
    await switched(false);
    expect(run.agent(name).resolve().hops).toEqual([]);
    await expectEqual(service(), client, [name]);
    await switched(true);
    await expectEqual(service(), client, [name]);
  });

  it('is listed by ListWatchers with its applied revision', async () => {
    const { name, config } = await newAgent();
    const client = await startClient({ agents: [name], clientName: 'a desk', clientVersion: '1.2' });
    const { revision } = await service().configs.updateConfig({ config: { id: config?.id, max_tokens: 77 } });
    const seen = async () =>
      (await client.watchers.listWatchers({ agent: { name } })).watchers.find(
        ({ client_id }) => client_id === client.clientId,
      );
    await until(async () => (await seen())?.applied_revision === revision);
    expect(await seen()).toMatchObject({ client_name: 'a desk', client_version: '1.2', agents: [name], stale: false });
    await client[Symbol.asyncDispose]();
  });

  it('converges with the service when its connection is cut repeatedly', async () => {
    const agents = await Promise.all(Array.from({ length: 5 }, () => newAgent()));
    const proxy = await startProxy(service().port);
    const client = connectResident(`127.0.0.1:${proxy.port}`, { agents: agents.map(({ name }) => name) });
    await client.ready();
    const seen: bigint[] = [];
    client.on('change', ({ revision }) => seen.push(revision));
    let last = 0n;
    for (let write = 1; write <= 120; write++) {
      const { config } = agents[write % agents.length] as (typeof agents)[number];
      last = (await service().configs.updateConfig({ config: { id: config?.id, max_tokens: write } })).revision;
      if (write % 20 === 0) for (const link of proxy.links) link[write % 40 === 0 ? 'cut' : 'reset']();
      await sleep(10);
    }
    await untilRevision(client, last);
    await expectEqual(
      service(),
      client,
      agents.map(({ name }) => name),
    );
    // Every write changes a held agent: all revisions arrive in order, each once.
    expect(seen).toEqual([...new Set(seen)].sort((a, b) => Number(a - b)));
    expect(seen.length).toBeGreaterThanOrEqual(120);
  });
});

describe('a service that restarts', () => {
  it('is resumed by a running client and by a client that starts from its cache file during the outage', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'agentllm-live-'));
    const port = await freePort();
    const env = { DATA_DIR: join(directory, 'data'), GRPC_ADDRESS: `127.0.0.1:${port}` };
    const cache = { path: join(directory, 'held'), key: 'secret' };
    let service = await startService(env);
    onTestFinished(async () => {
      await service.stop();
      await rm(directory, { recursive: true, force: true });
    });
    const client = connectResident(`127.0.0.1:${port}`, { agents: ['trader'] });
    const other = connectResident(`127.0.0.1:${port}`, { agents: 'all', cache });
    await Promise.all([client.ready(), other.ready()]);
    await other[Symbol.asyncDispose]();
    const snapshots: boolean[] = [];
    client.on('change', ({ snapshot }) => snapshots.push(snapshot));
    await service.stop();
    await until(() => client.state.status === 'STALE');
    expect(client.agent('trader').resolve().hops.length).toBeGreaterThan(0);
    const fromFile = connectResident(`127.0.0.1:${port}`, { agents: 'all', cache });
    expect(fromFile.state.status).toBe('STALE');
    expect(outcomeOfClient(fromFile, 'trader')).toEqual(outcomeOfClient(client, 'trader'));
    service = await startService(env);
    const { revision } = await service.agents.updateAgent({ agent: { id: 1, description: 'back' } });
    await Promise.all([untilRevision(client, revision), untilRevision(fromFile, revision)]);
    await expectEqual(service, client, ['trader']);
    await expectEqual(service, fromFile, await agentNamesOf(service));
    // The stream was resumed without a snapshot.
    expect(snapshots.filter(Boolean)).toEqual([]);
  });
});
