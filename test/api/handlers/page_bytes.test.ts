import { beforeAll, describe, expect, it } from 'vitest';
import { ListAgentsResponse } from '../../../gen/ts/agentllm/v1/agent_service.js';
import { limits } from '../../../src/limits.js';
import { readBounded } from '../../../src/store/history/bounded_read.js';
import { failure, type TestService, useService } from '../../support/service.js';

const PROMPT = 'p'.repeat(60_000);
const METADATA = JSON.stringify({ a: 'm'.repeat(16_000) });
const AGENTS = 300;

interface Page {
  readonly next_page_token: string;
}

/** Reads all pages of a list. */
async function pagesOf<P extends Page>(list: (page: object) => Promise<P>): Promise<P[]> {
  const pages: P[] = [];
  let page_token = '';
  do {
    const page = await list({ page_size: 1000, page_token });
    pages.push(page);
    page_token = page.next_page_token;
  } while (page_token !== '');
  return pages;
}

describe.each(['embedded', 'postgres'] as const)('pages of large rows on %s', (backend) => {
  const service = useService(backend);
  const agents = Array.from({ length: AGENTS }, (_, n) => ({ name: `large_${n}` }));

  beforeAll(async () => {
    for (const [n, { name }] of agents.entries())
      await service().agents.createAgent({
        agent: { name, agent_type: 'large', ...(n < 60 && { prompt_template: PROMPT }) },
      });
    for (let n = 0; n < AGENTS; n += 100)
      await service().configs.bulkAssignConfig({
        agents: agents.slice(n, n + 100),
        config: { provider: 'openai', model_name: 'gpt-4', metadata_json: METADATA },
      });
  }, 120_000);

  const lists: Readonly<Record<string, (on: TestService, page: object) => Promise<Page & object>>> = {
    ListAgents: (on, page) => on.agents.listAgents(page),
    ListConfigs: (on, page) => on.configs.listConfigs(page),
    BatchGetPrimaryConfigs: (on, page) => on.configs.batchGetPrimaryConfigs(page),
    ListConfigRevisions: (on, page) => on.configs.listConfigRevisions(page),
    ListAuditEvents: (on, page) => on.audit.listAuditEvents(page),
  };

  it.each(Object.entries(lists))('of %s contain at most 1 MiB of rows, and no row twice', async (_, list) => {
    const pages = await pagesOf((page) => list(service(), page));
    expect(pages.length).toBeGreaterThan(2);
    const rows = pages.map((page) => Object.values(page).find(Array.isArray) as object[]);
    for (const found of rows) {
      expect(found.length).toBeGreaterThan(0);
      expect(JSON.stringify(found, bigintAsText).length).toBeLessThan(limits.pageBytes * 1.6);
    }
    const all = rows.flat().map((row) => JSON.stringify(row, bigintAsText));
    expect(new Set(all).size).toBe(all.length);
    expect(all.length).toBeGreaterThanOrEqual(AGENTS);
  });

  it('of a filtered list contain every matching row', async () => {
    const pages = await pagesOf((page) => service().agents.listAgents({ ...page, agent_type: 'large' }));
    expect(pages.flatMap((page) => page.agents.map(({ name }) => name))).toEqual(agents.map(({ name }) => name));
    for (const page of pages)
      expect(ListAgentsResponse.encode(page).finish().length).toBeLessThan(limits.pageBytes + 1000);
  });

  it('are not used for listed agents: a batch of more than 4 MiB is rejected with RESPONSE_TOO_LARGE', async () => {
    const error = await failure(service().configs.batchGetPrimaryConfigs({ agents }));
    expect(error.reason).toBe('RESPONSE_TOO_LARGE');
    const { results } = await service().configs.batchGetPrimaryConfigs({ agents: agents.slice(0, 200) });
    expect(results.length).toBe(200);
  });

  it('are not used for a bulk write, which is rejected and not stored', async () => {
    const { revision } = await service().agents.getAgent({ agent: agents[0] });
    const error = await failure(service().configs.bulkAssignConfig({ agents, config: { max_tokens: 77 } }));
    expect(error.reason).toBe('RESPONSE_TOO_LARGE');
    expect((await service().agents.getAgent({ agent: agents[0] })).revision).toBe(revision);
  });
});

const bigintAsText = (_: string, value: unknown) => (typeof value === 'bigint' ? String(value) : value);

describe('readBounded', () => {
  const rowsOf = (size: number) => {
    const batches: number[] = [];
    const next = async (last: { n: number } | undefined, limit: number) => {
      batches.push(limit);
      const from = (last?.n ?? -1) + 1;
      return Array.from({ length: Math.min(limit, 500 - from) }, (_, at) => ({ n: from + at, text: 'x'.repeat(size) }));
    };
    return { batches, next };
  };

  it('reads all rows in two batches when they are small', async () => {
    const { batches, next } = rowsOf(10);
    const { rows, complete } = await readBounded(1001, next);
    expect([rows.map(({ n }) => n), complete]).toEqual([Array.from({ length: 500 }, (_, n) => n), true]);
    expect(batches).toEqual([32, 969]);
  });

  it('stops after the byte limit of a list when rows are large', async () => {
    const { batches, next } = rowsOf(500_000);
    const { rows, complete } = await readBounded(1001, next);
    expect([rows.length, complete, batches]).toEqual([32, false, [32]]);
    const middle = rowsOf(50_000);
    expect((await readBounded(1001, middle.next)).rows.length).toBeLessThan(100);
    expect((await readBounded(10, rowsOf(50_000).next)).complete).toBe(true);
  });
});
