import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { send } from '../../http/support.js';
import { json, startFakeProvider, wire } from '../../providers/fake_provider.js';
import { checked, ending, environment, provide } from '../../support/checked_provider.js';
import { failure, unique, useService } from '../../support/service.js';
import { newAgent, newConfig, newModel, newProvider, present } from './support.js';

const DAY = 86_400_000;

describe.each(['embedded', 'postgres'] as const)('ListConfigHealth on %s', (backend) => {
  const service = useService(backend, environment);
  const list = async (more: object) => {
    const { health, next_page_token, revision } = await service().configs.listConfigHealth(more);
    return { ids: health.map((one) => one.config_id), health, next_page_token, revision };
  };

  it('pages through 30 results without loss or repetition while configs are checked and deleted', async () => {
    const provider = await provide(service(), await startFakeProvider('openai'));
    const agent = await newAgent(service());
    const createConfig = async () => (await newConfig(service(), { provider, model_name: 'gpt-4o' }, agent)).id;
    const ids: number[] = [];
    for (let i = 0; i < 30; i++) ids.push(await createConfig());
    for (const id of ids) await checked(service(), id);
    const unchecked = await createConfig();
    const seen: number[] = [];
    let page_token = '';
    const deleted: number[] = [];
    do {
      const page = await list({ agent: { id: agent.id }, page_size: 7, page_token });
      expect(page.ids.length).toBeLessThanOrEqual(7);
      seen.push(...page.ids);
      page_token = page.next_page_token;
      const next = ids.find((id) => !seen.includes(id) && !deleted.includes(id));
      // Deletes the config after the page token and one that was returned; checks another returned one again.
      for (const id of [next, seen[0]])
        if (id !== undefined && !deleted.includes(id)) {
          await service().configs.deleteConfig({ id });
          deleted.push(id);
        }
      const again = seen.find((id) => !deleted.includes(id));
      if (again) await checked(service(), again);
    } while (page_token);
    expect(new Set(seen).size).toBe(seen.length);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    for (const id of ids.filter((one) => !deleted.includes(one))) expect(seen).toContain(id);
    expect(seen).not.toContain(unchecked);
  });

  it('returns each config once when the status of any hop matches, and rejects forged page tokens', async () => {
    const [working, limited] = [await startFakeProvider('openai'), await startFakeProvider('openai')];
    limited.on('*', wire.openai.rateLimit);
    const [one, two] = [await provide(service(), working), await provide(service(), limited)];
    const agent = await newAgent(service());
    const both = await newConfig(
      service(),
      { provider: one, model_name: 'gpt-4o', fallback_provider: two, fallback_model: 'gpt-4o' },
      agent,
    );
    const same = await newConfig(
      service(),
      { provider: one, model_name: 'gpt-4o', fallback_provider: one, fallback_model: 'gpt-4o-mini' },
      agent,
    );
    for (const { id } of [both, same]) await checked(service(), id);
    const by = async (...statuses: string[]) =>
      (await list({ agent: { name: agent.name }, statuses: statuses.map((status) => `CHECK_STATUS_${status}`) })).ids;
    expect(await by('OK')).toEqual([both.id, same.id]);
    expect(await by('RATE_LIMITED')).toEqual([both.id]);
    expect(await by('RATE_LIMITED', 'OK', 'OK')).toEqual([both.id, same.id]);
    expect(await by('INVALID', 'NO_KEY', 'UNSUPPORTED')).toEqual([]);
    expect(await by()).toEqual([both.id, same.id]);
    const page = await list({ agent: { id: agent.id }, statuses: ['CHECK_STATUS_OK'], page_size: 1 });
    expect(page.ids).toEqual([both.id]);
    for (const other of [
      { statuses: ['CHECK_STATUS_RATE_LIMITED'] },
      { config_id: both.id, statuses: ['CHECK_STATUS_OK'] },
      { statuses: [] },
      { agent: undefined },
    ]) {
      const reused = list({
        agent: { id: agent.id },
        statuses: ['CHECK_STATUS_OK'],
        page_size: 1,
        page_token: page.next_page_token,
        ...other,
      });
      expect((await failure(reused)).reason).toBe('INVALID_PAGE_TOKEN');
    }
    for (const page_token of ['x', 'AAAA', `${page.next_page_token}x`, '\u0000', '𝕏'.repeat(1_000), "'; --"])
      expect(await ending(list({ page_token }))).toMatch(/^3 /);
    expect(await ending(list({ page_size: 2_147_483_647 }))).toBe('OK');
    expect(await ending(list({ agent: {} }))).toBe('3 INVALID_FIELDS');
    expect(await ending(list({ config_id: 2_147_483_647 }))).toBe('OK');
    expect(await ending(list({ statuses: Array(1_000).fill('CHECK_STATUS_OK') }))).toMatch(/^OK$|^3 /);
  });

  it('returns outdated = true after a change of the config until the next check', async () => {
    const provider = await provide(service(), await startFakeProvider('openai'));
    const config = await newConfig(service(), { provider, model_name: 'gpt-4o' });
    const { id } = config;
    const outdated = async () => (await list({ config_id: id })).health.map((one) => one.outdated);
    await checked(service(), id);
    await newConfig(service(), { provider, model_name: 'gpt-4o' }, { id: config.agent_id });
    await newAgent(service());
    expect(await outdated()).toEqual([false]);
    for (const change of [
      () => service().configs.updateConfig({ config: { id, enabled: false } }),
      () => service().configs.updateConfig({ config: { id }, api_key: 'sk-other' }),
      () => service().configs.updateConfig({ config: { id }, clear_api_key: true }),
    ]) {
      await change();
      expect(await outdated()).toEqual([true]);
      await checked(service(), id);
      expect(await outdated()).toEqual([false]);
    }
    await service().configs.updateConfig({ config: { id, temperature: 0.9 }, validate_only: true });
    expect(await outdated()).toEqual([false]);
  });

  it('accepts filters in the HTTP query and returns the same results', async () => {
    const provider = await provide(service(), await startFakeProvider('openai'));
    const { id } = await newConfig(service(), { provider, model_name: 'gpt-none' });
    const port = present(service().running.httpPort);
    const check = await send(port, 'POST', `/v1/configs/${id}:checkHealth`, { body: {} });
    expect([check.status, check.json]).toMatchObject([
      200,
      { health: { configId: id, status: 'CHECK_STATUS_MODEL_MISSING' } },
    ]);
    const query = `configId=${id}&statuses=CHECK_STATUS_OK&statuses=CHECK_STATUS_MODEL_MISSING`;
    const health = await send(port, 'GET', `/v1/configs:health?${query}`);
    expect((health.json['health'] as object[])[0]).toEqual(check.json['health']);
    expect((await send(port, 'GET', '/v1/configs:health?statuses=NO_SUCH')).status).toBe(400);
    expect((await send(port, 'POST', '/v1/configs/0:checkHealth', { body: {} })).status).toBe(400);
    expect((await send(port, 'POST', '/v1/configs/x:checkHealth', { body: {} })).status).toBe(400);
    expect((await send(port, 'POST', '/v1/configs/999999:checkHealth', { body: {} })).status).toBe(404);
    expect((await send(port, 'GET', `/v1/configs/${id}:checkHealth`)).status).toBeGreaterThanOrEqual(400);
    expect((await send(port, 'GET', '/v1/configs:retiringModels?withinDays=0')).status).toBe(400);
    expect((await send(port, 'GET', '/v1/configs:retiringModels?withinDays=30')).status).toBe(200);
  });
});

describe.each(['embedded', 'postgres'] as const)('ListRetiringModels on %s', (backend) => {
  const service = useService(backend);
  let provider = '';
  let alias = '';
  const day = (days: number) => new Date(Date.now() + days * DAY);
  beforeAll(async () => {
    alias = unique('alias');
    provider = (await newProvider(service(), { aliases: [alias] })).name;
  });
  const usesOf = async (agent_id: number, more: object = {}) => {
    const uses = [];
    let page_token = '';
    do {
      const page = await service().configs.listRetiringModels({ page_size: 1000, ...more, page_token });
      uses.push(...page.uses.filter((use) => use.agent_id === agent_id));
      page_token = page.next_page_token;
    } while (page_token);
    return uses;
  };

  it('counts within_days from the current time, and accepts 1 to 3650', async () => {
    const agent = await newAgent(service(), { llm_provider: '', llm_model: '' });
    const models: [string, number, number][] = [
      // name, days from now, least within_days that includes it
      ['edge-now', 0, 1],
      ['edge-1-in', 0.99, 1],
      ['edge-1-out', 1.01, 2],
      ['edge-90-in', 89.99, 90],
      ['edge-90-out', 90.01, 91],
      ['edge-3650-in', 3649.9, 3650],
      ['edge-3650-out', 3650.1, Number.POSITIVE_INFINITY],
    ];
    for (const [name, days] of models) {
      await newModel(service(), { provider, name, retires_at: day(days) });
      await newConfig(service(), { provider, model_name: name }, agent);
    }
    await sleep(5);
    const names = async (more: object) => (await usesOf(agent.id, more)).map((use) => use.model_name);
    for (const within of [1, 2, 89, 90, 91, 3649, 3650]) {
      const expected = models.filter(([, , least]) => least <= within).map(([name]) => name);
      expect([within, await names({ within_days: within })]).toEqual([within, expected]);
    }
    expect(await names({})).toEqual(await names({ within_days: 90 }));
    const states = Object.fromEntries(
      (await usesOf(agent.id, { within_days: 1 })).map((use) => [use.model_name, use.state]),
    );
    expect(states).toEqual({ 'edge-now': 'RETIREMENT_STATE_RETIRED', 'edge-1-in': 'RETIREMENT_STATE_RETIRING' });
    for (const within_days of [0, -1, 3651, 2_147_483_647, -2_147_483_648])
      expect(await ending(service().configs.listRetiringModels({ within_days }))).toBe('3 INVALID_FIELDS');
    expect(await ending(service().configs.listRetiringModels({ page_size: -1 }))).toBe('3 INVALID_FIELDS');
  });

  it('returns agents, configs and fallbacks by canonical provider, with disabled and inactive ones marked', async () => {
    await newModel(service(), { provider, name: 'gone', retires_at: day(-1), replaced_by: 'next' });
    await newModel(service(), { provider, name: 'old', replaced_by: 'next' });
    await newModel(service(), { provider, name: 'old-and-far', replaced_by: 'next', retires_at: day(3_000) });
    const agent = await newAgent(service(), { llm_provider: alias, llm_model: 'gone', is_active: false });
    const first = await newConfig(
      service(),
      {
        provider: alias.toUpperCase(),
        model_name: 'gone',
        fallback_provider: alias,
        fallback_model: 'old',
        enabled: false,
        priority: 5,
      },
      agent,
    );
    const second = await newConfig(service(), { provider, model_name: 'old-and-far', priority: -5 }, agent);
    const clean = await newConfig(
      service(),
      { provider: 'openai', model_name: 'gpt-5.4', fallback_provider: provider, fallback_model: 'gone' },
      agent,
    );
    const uses = await usesOf(agent.id);
    for (const use of uses) expect(use).toMatchObject({ provider, agent_name: agent.name, replaced_by: 'next' });
    const shown = uses.map((use) => [
      use.config_id,
      use.source.replace('HOP_SOURCE_', ''),
      use.model_name,
      use.state.replace('RETIREMENT_STATE_', ''),
      use.enabled,
    ]);
    expect(new Set(shown.map((one) => JSON.stringify(one)))).toEqual(
      new Set(
        [
          [undefined, 'AGENT', 'gone', 'RETIRED', false],
          [first.id, 'CONFIG', 'gone', 'RETIRED', false],
          [first.id, 'FALLBACK', 'old', 'DEPRECATED', false],
          [second.id, 'CONFIG', 'old-and-far', 'DEPRECATED', true],
          [clean.id, 'FALLBACK', 'gone', 'RETIRED', true],
        ].map((one) => JSON.stringify(one)),
      ),
    );
    expect(shown).toHaveLength(5);
    const far = uses.find((use) => use.config_id === second.id);
    expect(Number(present(far).retires_at)).toBeGreaterThan(Date.now() + 2_000 * DAY);
    expect((await usesOf(agent.id, { within_days: 3_650 })).find((use) => use.config_id === second.id)?.state).toBe(
      'RETIREMENT_STATE_RETIRING',
    );
    // A cleared retirement removes the uses from the list at once.
    await service().providers.updateModel({
      model: { provider, name: 'gone' },
      update_mask: ['retires_at', 'replaced_by'],
    });
    const left = (await usesOf(agent.id)).map((use) => use.model_name);
    expect(new Set(left)).toEqual(new Set(['old', 'old-and-far']));
    await service().configs.deleteConfig({ id: first.id });
    expect((await usesOf(agent.id)).map((use) => use.model_name)).toEqual(['old-and-far']);
  });

  it('pages through 2 000 agents in order without loss or repetition while agents change', async () => {
    await newModel(service(), { provider, name: 'everywhere', retires_at: day(5) });
    const agents: number[] = [];
    for (let batch = 0; batch < 20; batch++)
      agents.push(
        ...(await Promise.all(
          Array.from(
            { length: 100 },
            async () => (await newAgent(service(), { llm_provider: provider, llm_model: 'everywhere' })).id,
          ),
        )),
      );
    const assigned = agents.filter((_, i) => i % 2 === 0);
    await service().configs.bulkAssignConfig({
      agents: assigned.map((id) => ({ id })),
      config: { provider, model_name: 'everywhere' },
    });
    const changed = new Set<number>();
    const seen: string[] = [];
    const order: number[] = [];
    let page_token = '';
    let pages = 0;
    do {
      const page = await service().configs.listRetiringModels({ page_size: 173, page_token });
      expect(page.uses.length).toBeLessThanOrEqual(173);
      for (const use of page.uses) {
        seen.push(`${use.agent_id} ${use.config_id ?? '-'} ${use.source}`);
        order.push(use.agent_id);
      }
      page_token = page.next_page_token;
      pages += 1;
      // Deletes the last agent of the page and the next agent.
      const last = order.at(-1);
      for (const id of [last, agents.find((one) => last !== undefined && one > last)])
        if (id !== undefined && agents.includes(id) && !changed.has(id)) {
          changed.add(id);
          await service().agents.deleteAgent({ agent: { id }, cascade: true });
        }
      await newAgent(service());
    } while (page_token);
    expect(pages).toBeGreaterThan(10);
    expect(new Set(seen).size).toBe(seen.length);
    expect(order).toEqual([...order].sort((a, b) => a - b));
    const found = new Set(seen);
    for (const id of agents) if (!changed.has(id)) expect(found.has(`${id} - HOP_SOURCE_AGENT`)).toBe(true);
    const counted = (id: number) => seen.filter((one) => one.startsWith(`${id} `)).length;
    for (const id of assigned.slice(0, 100)) if (!changed.has(id)) expect(counted(id)).toBe(2);
  });

  it('splits the uses of a config between pages, and rejects a page token of another filter', async () => {
    await newModel(service(), { provider, name: 'split', retires_at: day(3) });
    await newModel(service(), { provider, name: 'split-too', retires_at: day(3) });
    const agent = await newAgent(service(), { llm_provider: provider, llm_model: 'split' });
    const fallback = { fallback_provider: provider, fallback_model: 'split-too' };
    const one = await newConfig(service(), { provider, model_name: 'split', ...fallback }, agent);
    const uses = await usesOf(agent.id, { within_days: 7 });
    expect(uses.map((use) => [use.config_id, use.source])).toEqual([
      [undefined, 'HOP_SOURCE_AGENT'],
      [one.id, 'HOP_SOURCE_CONFIG'],
      [one.id, 'HOP_SOURCE_FALLBACK'],
    ]);
    const first = await service().configs.listRetiringModels({ page_size: 1, within_days: 7 });
    const reused = service().configs.listRetiringModels({
      page_size: 1,
      within_days: 8,
      page_token: first.next_page_token,
    });
    expect((await failure(reused)).reason).toBe('INVALID_PAGE_TOKEN');
    const health = service().configs.listConfigHealth({ page_token: first.next_page_token });
    expect((await failure(health)).reason).toBe('INVALID_PAGE_TOKEN');
    // All pages with one use each.
    const all: unknown[] = [];
    let page_token = '';
    const total = (await service().configs.listRetiringModels({ within_days: 7, page_size: 1000 })).uses;
    for (let page = 0; page < 1_000; page++) {
      const response = await service().configs.listRetiringModels({ within_days: 7, page_size: 1, page_token });
      all.push(...response.uses);
      page_token = response.next_page_token;
      if (page_token === '' || all.length >= 60) break;
    }
    expect(all).toEqual(total.slice(0, all.length));
    expect(json).toBeTypeOf('function');
  });
});
