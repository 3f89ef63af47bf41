import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { seed } from '../../../src/store/maintenance/seed.js';
import { loadState } from '../../../src/store/write/change_log.js';
import { startPostgres } from '../../support/postgres.js';
import { type CallError, type Clients, connect, unique } from '../../support/service.js';
import { contents, gapsInLog, openStore, replay, startBackend, type TestBackend } from '../../support/store.js';

const MODEL = { provider: 'openai', model_name: 'gpt-4' } as const;
const times = <T>(n: number, create: (at: number) => T): T[] => Array.from({ length: n }, (_, at) => create(at));

describe.each(['embedded', 'postgres'] as const)('concurrent writes on %s', (engine) => {
  let backend: TestBackend;
  let newUrl: () => Promise<string | undefined>;
  let stopDatabase = async () => {};
  const openClients: Clients[] = [];

  beforeAll(async () => {
    newUrl = async () => undefined;
    if (engine === 'postgres') {
      const postgres = await startPostgres();
      stopDatabase = () => postgres.stop();
      newUrl = () => postgres.createDatabase('migrated');
    }
    backend = await startBackend({ url: await newUrl() });
  });

  afterAll(async () => {
    for (const client of openClients) client.close();
    await backend?.close();
    await stopDatabase();
  });

  /** Returns clients that have separate connections. */
  function clients(count: number): Clients[] {
    while (openClients.length < count) openClients.push(connect(backend.port));
    return openClients.slice(0, count);
  }

  async function newAgent(): Promise<string> {
    const name = unique('agent');
    await backend.agents.createAgent({ agent: { name, agent_type: 'analyst' } });
    return name;
  }

  async function newConfig(): Promise<{ id: number; etag: string; agent: string }> {
    const agent = await newAgent();
    const { config } = await backend.configs.createConfig({ agent: { name: agent }, config: MODEL });
    return { id: config?.id as number, etag: config?.etag as string, agent };
  }

  const revisionsOf = (entity: string, id: number) =>
    backend.database
      .knex('config_revisions')
      .where({ entity, entity_id: id })
      .orderBy('revision')
      .select('revision', 'before', 'after') as unknown as Promise<
      { revision: number; before: Record<string, unknown> | null; after: Record<string, unknown> | null }[]
    >;

  const rowsOf = async (agent: string) => {
    const rows = await backend.database
      .knex('agent_llm_configs')
      .join('agent_configs', 'agent_configs.id', 'agent_llm_configs.agent_id')
      .where('agent_configs.name', agent)
      .select('agent_llm_configs.*');
    return rows as Record<string, unknown>[];
  };

  it('succeed for exactly one of 50 clients per etag and create one revision per success', async () => {
    const { id, etag } = await newConfig();
    const wins = new Map<string, number>();
    const errors: CallError[] = [];
    let successes = 0;
    await Promise.all(
      clients(50).map(async ({ configs }, at) => {
        let current = etag;
        for (let round = 0; round < 3; round++) {
          try {
            const update = { id, etag: current, max_tokens: 100 + at * 10 + round };
            const { config } = await configs.updateConfig({ config: update });
            wins.set(current, (wins.get(current) ?? 0) + 1);
            successes += 1;
            current = config?.etag as string;
          } catch (error) {
            errors.push(error as CallError);
            current = (await configs.getConfig({ id })).config?.etag as string;
          }
        }
      }),
    );
    expect(new Set(errors.map(({ code, reason }) => `${code} ${reason}`))).toEqual(new Set(['10 STALE_ETAG']));
    expect(successes + errors.length).toBe(150);
    expect(successes).toBeGreaterThanOrEqual(3);
    expect([...wins.values()]).toEqual(times(successes, () => 1));
    expect(await revisionsOf('config', id)).toHaveLength(1 + successes);
  });

  it('apply the last write when they have no etag, and the change log contains every value in order', async () => {
    const { id } = await newConfig();
    const responses = await Promise.all(
      clients(20).map(async ({ configs }, at) => {
        const { config, revision } = await configs.updateConfig({ config: { id, max_tokens: 1000 + at } });
        return { revision: Number(revision), max_tokens: config?.max_tokens };
      }),
    );
    const log = (await revisionsOf('config', id)).slice(1);
    responses.sort((a, b) => a.revision - b.revision);
    expect(log.map(({ revision, after }) => ({ revision, max_tokens: after?.['max_tokens'] }))).toEqual(responses);
    // Each write is based on the previous one: no value was overwritten without being read.
    expect(log.slice(1).map(({ before }) => before)).toEqual(log.slice(0, -1).map(({ after }) => after));
    expect((await backend.configs.getConfig({ id })).config?.max_tokens).toBe(responses.at(-1)?.max_tokens);
  });

  it('lose no update when clients change different fields of one row', async () => {
    const { id } = await newConfig();
    await Promise.all(
      clients(20).map(({ configs }, at) =>
        configs.updateConfig({ config: at % 2 ? { id, temperature: at / 100 } : { id, max_tokens: 500 + at } }),
      ),
    );
    const log = (await revisionsOf('config', id)).slice(1);
    const last = (field: string) =>
      log.findLast(({ before, after }) => before?.[field] !== after?.[field])?.after?.[field];
    const { config } = await backend.configs.getConfig({ id });
    expect(config?.temperature).toBe(last('temperature'));
    expect(config?.max_tokens).toBe(last('max_tokens'));
    expect(config?.temperature).not.toBe(0.7);
    expect(config?.max_tokens).toBeGreaterThanOrEqual(500);
  });

  it('prevent write skew: one of two writes fails when each is valid only without the other', async () => {
    // provider+model must differ from the fallback pair; together the two writes would make them equal.
    for (const _ of times(10, () => 0)) {
      const { id } = await newConfig();
      await backend.configs.updateConfig({
        config: { id, fallback_provider: 'openai', fallback_model: 'gpt-4o-mini' },
      });
      const [a, b] = clients(2) as [Clients, Clients];
      const outcomes = await Promise.allSettled([
        a.configs.updateConfig({ config: { id, model_name: 'gpt-4o' } }),
        b.configs.updateConfig({ config: { id, fallback_model: 'gpt-4o' } }),
      ]);
      expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
      const { config } = await backend.configs.getConfig({ id });
      expect(config?.model_name).not.toBe(config?.fallback_model);
    }
  });

  it('are applied once when 20 clients use one request_id, and all clients get the same response', async () => {
    const agent = await newAgent();
    const before = backend.store.state.revision;
    const request = { agent: { name: agent }, config: { ...MODEL, temperature: 0.3 }, request_id: randomUUID() };
    const responses = await Promise.all(clients(20).map(({ configs }) => configs.createConfig(request)));
    expect(responses.slice(1)).toEqual(times(19, () => responses[0]));
    expect(responses[0]?.config?.id).toBeGreaterThan(0);
    expect(await rowsOf(agent)).toHaveLength(1);
    expect(backend.store.state.revision).toBe(before + 1);
  });

  it('succeed for only one body when 20 clients use one request_id for different requests', async () => {
    const agent = await newAgent();
    const request_id = randomUUID();
    const outcomes = await Promise.allSettled(
      clients(20).map(({ configs }, at) =>
        configs.createConfig({ agent: { name: agent }, config: { ...MODEL, max_tokens: at + 1 }, request_id }),
      ),
    );
    const errors = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as CallError] : []));
    expect(errors.map(({ reason }) => reason)).toEqual(times(19, () => 'REQUEST_ID_REUSED'));
    expect(await rowsOf(agent)).toHaveLength(1);
  });

  it('leave one row when 20 clients upsert the primary config of an agent without configs', async () => {
    const agent = await newAgent();
    const responses = await Promise.all(
      clients(20).map(({ configs }, at) =>
        configs.upsertPrimaryConfig({ agent: { name: agent }, config: { ...MODEL, max_tokens: at + 1 } }),
      ),
    );
    expect(responses.filter(({ created }) => created)).toHaveLength(1);
    expect(new Set(responses.map(({ config }) => config?.id)).size).toBe(1);
    const rows = await rowsOf(agent);
    expect(rows).toHaveLength(1);
    const last = responses.reduce((a, b) => (a.revision > b.revision ? a : b));
    expect(rows[0]).toMatchObject({ max_tokens: last.config?.max_tokens, revision: Number(last.revision) });
  });

  it('leave one row per agent when bulk assignments and upserts run concurrently', async () => {
    const agents = await Promise.all(times(10, newAgent));
    const refs = agents.map((name) => ({ name }));
    const writers = clients(20);
    await Promise.all(
      writers.map(({ configs }, at) =>
        at % 4 === 0
          ? configs.bulkAssignConfig({ agents: refs, config: { ...MODEL, max_tokens: at + 1 } })
          : configs.upsertPrimaryConfig({ agent: refs[at % 10], config: { ...MODEL, max_tokens: at + 1 } }),
      ),
    );
    for (const agent of agents) expect(await rowsOf(agent)).toHaveLength(1);
    // A bulk assignment is one revision for all of its agents.
    const sizes = await backend.database
      .knex('config_revisions')
      .where('method', 'like', '%BulkAssignConfig')
      .groupBy('revision')
      .count({ rows: '*' });
    expect(sizes.map(({ rows }) => Number(rows))).toEqual(times(5, () => 10));
  });

  it('create one agent when 20 clients use the same name', async () => {
    const name = unique('twin');
    const outcomes = await Promise.allSettled(
      clients(20).map(({ agents }) => agents.createAgent({ agent: { name, agent_type: 'analyst' } })),
    );
    const errors = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as CallError] : []));
    expect(errors.map(({ code, reason }) => `${code} ${reason}`)).toEqual(times(19, () => '6 AGENT_NAME_TAKEN'));
    expect(await backend.database.knex('agent_configs').where({ name })).toHaveLength(1);
  });

  it('create one default config per agent when the seeds run ten times in parallel', async () => {
    const fresh = await openStore({ url: await newUrl() });
    try {
      const seeded = await Promise.all(times(10, () => seed(fresh.store, 'all')));
      const total = (name: string) => seeded.reduce((sum, counts) => sum + (counts[name] ?? 0), 0);
      expect(total('agents')).toBe(12);
      expect(total('default_configs')).toBe(12);
      const { knex } = fresh.database;
      expect(await knex('agent_configs')).toHaveLength(12);
      const counts = await knex('agent_llm_configs').groupBy('agent_id').count({ rows: '*' });
      expect(counts.map(({ rows }) => Number(rows))).toEqual(times(12, () => 1));
      const providers: { name: string }[] = await knex('llm_providers').select('name');
      expect(new Set(providers.map(({ name }) => name)).size).toBe(providers.length);
      expect(await gapsInLog(fresh.database)).toEqual([]);
    } finally {
      await fresh.close();
    }
  });

  it('keep change log, tables and memory equal during a random mix of writes', async () => {
    const names = await Promise.all(times(4, newAgent));
    const random = mulberry32(20_260_101);
    const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T;
    const provider = unique('local');
    await backend.providers.createProvider({
      provider: { name: provider, dialect: 'DIALECT_OPENAI_COMPATIBLE', base_url: 'https://models.example.com/v1' },
    });
    const anyConfig = (): number =>
      pick([...backend.store.state.configs.values()].filter((c) => names.includes(agentName(c.agent_id))))?.id ?? 1;
    const agentName = (id: number) => backend.store.state.agents.get(id)?.name ?? '';
    const write = ({ agents, configs, providers }: Clients): Promise<unknown> => {
      const agent = { name: pick(names) };
      const id = anyConfig();
      const kinds: (() => Promise<unknown>)[] = [
        () => configs.createConfig({ agent, config: { ...MODEL, priority: Math.floor(random() * 5) } }),
        () => configs.updateConfig({ config: { id, temperature: Math.round(random() * 200) / 100 } }),
        () => configs.updateConfig({ config: { id, enabled: random() < 0.5 } }),
        () => configs.updateConfig({ config: { id, top_p: 0.1 + random() / 3, metadata_json: '{"b":1,"a":[0.1]}' } }),
        () => configs.updateConfig({ config: { id, extra_params: { seed: 9_007_199_254_740_991n } } }),
        () => configs.updateConfig({ config: { id }, update_mask: ['temperature', 'metadata_json', 'extra_params'] }),
        () => configs.deleteConfig({ id }),
        () => configs.upsertPrimaryConfig({ agent, config: { ...MODEL, cost_per_1k_input_tokens: random() } }),
        () => configs.bulkAssignConfig({ agents: names.map((name) => ({ name })), config: { ...MODEL, top_p: 0.5 } }),
        () => agents.updateAgent({ agent: { id: agentId(agent.name), description: `d${random()}` } }),
        () => agents.createAgent({ agent: { name: unique('mix'), agent_type: 'trader', temperature: random() } }),
        () => agents.deleteAgent({ agent: { name: pick(spare()) }, cascade: true }),
        () =>
          configs.reorderConfigs({
            agent,
            config_ids: [...backend.store.state.configsOf(agentId(agent.name))].map((c) => c.id).reverse(),
          }),
        () => providers.createModel({ model: { provider, name: unique('model'), context_window_tokens: 1000 } }),
        () =>
          providers.updateProvider({
            provider: { name: provider, display_name: `n${random()}`, aliases: [unique('alias')] },
          }),
      ];
      return pick(kinds)();
    };
    const agentId = (name: string) => backend.store.state.agentNamed(name)?.id ?? 0;
    const spare = () => [...backend.store.state.agentNames].filter((name) => name.startsWith('mix_')).concat('none');
    let succeeded = 0;
    const errors = new Set<string>();
    await Promise.all(
      clients(8).map(async (client) => {
        for (let n = 0; n < 40; n++)
          await write(client).then(
            () => {
              succeeded += 1;
            },
            (error: CallError) => errors.add(`${error.code} ${error.reason}`),
          );
      }),
    );
    expect(succeeded).toBeGreaterThan(150);
    // Only writes whose row was deleted or changed before may fail.
    for (const reason of errors) expect(reason).toMatch(/NOT_FOUND|INVALID_FIELDS$/);
    await backend.feed.poll();
    expect(await gapsInLog(backend.database)).toEqual([]);
    const memory = contents(backend.store.state);
    expect(memory).toEqual(contents(await loadState(backend.database.knex)));
    expect(contents(await replay(backend.database))).toEqual(memory);
  });

  it('are visible to the client that wrote them in its next read', async () => {
    const { id } = await newConfig();
    const staleReads: string[] = [];
    await Promise.all(
      clients(20).map(async ({ configs }, at) => {
        for (let n = 0; n < 10; n++) {
          const { revision } = await configs.updateConfig({ config: { id, max_tokens: at * 100 + n + 1 } });
          const read = await configs.getConfig({ id });
          if (read.revision < revision) staleReads.push(`wrote ${revision}, read at ${read.revision}`);
        }
      }),
    );
    expect(staleReads).toEqual([]);
  });
});

/** A small seeded random generator, so that a failing mix can be reproduced. */
function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
