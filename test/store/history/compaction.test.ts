import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { newAgent } from '../../../src/domain/agent.js';
import { newModel, newProvider } from '../../../src/domain/catalogue.js';
import { newConfig } from '../../../src/domain/config.js';
import type { Draft } from '../../../src/domain/draft.js';
import type { State } from '../../../src/domain/state.js';
import { compactHistory, horizonOf, oldestKept } from '../../../src/store/history/compaction.js';
import { configAt } from '../../../src/store/history/history.js';
import { stateAt } from '../../../src/store/history/time_travel.js';
import { runMaintenance } from '../../../src/store/maintenance/maintenance.js';
import { Store } from '../../../src/store/store.js';
import { advance } from '../../../src/store/write/change_log.js';
import { readHead } from '../../../src/store/write/head.js';
import { transact } from '../../../src/store/write/transact.js';
import { startPostgres } from '../../support/postgres.js';
import { unique } from '../../support/service.js';
import { contents, openStore, type TestStore } from '../../support/store.js';

const HOUR = 3_600_000;
const UNLIMITED = Number.POSITIVE_INFINITY;

describe.each(['embedded', 'postgres'] as const)('the change log on %s', (engine) => {
  let opened: TestStore;
  let stopDatabase = async () => {};
  let url: string | undefined;
  /** The state at each revision, recorded after the write. */
  const recorded = new Map<number, ReturnType<typeof loggedContents>>();

  beforeAll(async () => {
    if (engine === 'postgres') {
      const postgres = await startPostgres();
      stopDatabase = () => postgres.stop();
      url = await postgres.createDatabase('migrated');
    }
    opened = await openStore({ url });
  });
  afterAll(async () => {
    await opened.close();
    await stopDatabase();
  });
  const db = () => opened.database.knex;

  async function write(plan: (state: State, draft: Draft) => unknown): Promise<number> {
    const { store } = opened;
    const before = store.state.revision;
    const texts = { actor: 'tester', method: 'test/Write', requestId: undefined, reason: undefined };
    await transact(store, { ...texts, plan, encodeResponse: () => new Uint8Array(), body: () => new Uint8Array() });
    if (store.state.revision > before) recorded.set(store.state.revision, loggedContents(store.state));
    return store.state.revision;
  }

  /** Sets the creation time of every entry up to a revision to two hours ago. */
  const age = (revision: number) =>
    db()('config_revisions')
      .where('revision', '<=', revision)
      .update({ created_at: db().raw(`now() - interval '2 hours'`) });
  const rowsUpTo = async (revision: number): Promise<number> =>
    (await db()('config_revisions').where('revision', '<=', revision)).length;

  it('reproduces every state since the horizon after any writes', { timeout: 120_000 }, async () => {
    const step = fc.record({ kind: fc.integer({ min: 0, max: 9 }), pick: fc.nat(1000), several: fc.boolean() });
    const history = fc.record({ steps: fc.array(step, { minLength: 5, maxLength: 40 }), keep: fc.nat(20) });
    await fc.assert(
      fc.asyncProperty(history, async ({ steps, keep }) => {
        for (const step of steps) await write((state, draft) => applyChange(state, draft, step));
        const head = opened.store.state.revision;
        const horizon = Math.max(await oldestKept(db()), head - keep);
        await age(horizon - 1);
        await compactHistory(opened.store, HOUR, { rowsAtOnce: 4 });
        expect(await oldestKept(db())).toBe(horizon);
        for (let revision = horizon; revision <= head; revision++) {
          const past = await stateAt(db(), revision, { agents: 'all', catalogue: true });
          expect(loggedContents(past), `revision ${revision}, horizon ${horizon}`).toEqual(recorded.get(revision));
        }
        // Before the horizon, one entry remains for each resource that existed then.
        const existing = recorded.get(horizon - 1);
        if (existing) expect(await rowsUpTo(horizon - 1)).toBe(count(existing));
      }),
      { numRuns: 12 },
    );
    expect(recorded.size).toBeGreaterThan(50);
  });

  it('causes a reload without a new identity when a replica is older than the horizon', async () => {
    const staleStore = new Store(opened.database);
    const { identity } = await readHead(db());
    await advance(staleStore, db(), await readHead(db()));
    const staleRevision = staleStore.state.revision;
    for (let at = 0; at < 5; at++)
      await write((state, draft) => applyChange(state, draft, { kind: 0, pick: at, several: true }));
    await age(staleRevision + 3);
    await compactHistory(opened.store, HOUR);
    expect(await oldestKept(db())).toBe(staleRevision + 4);
    await advance(staleStore, db(), await readHead(db()));
    expect(contents(staleStore.state)).toEqual(contents(opened.store.state));
    expect((await readHead(db())).identity).toBe(identity);
    // A replica that is not older than the horizon reads the log.
    const follower = new Store(opened.database);
    await advance(follower, db(), await readHead(db()));
    const { state } = follower;
    await write((state, draft) => applyChange(state, draft, { kind: 0, pick: 0, several: true }));
    await advance(follower, db(), await readHead(db()));
    expect(follower.state).toBe(state);
    expect(contents(state)).toEqual(contents(opened.store.state));
  });

  it('returns no config from before the horizon, and keeps every entry when the retention is unlimited', async () => {
    const { store } = opened;
    let id = 0;
    const created = await write((state, draft) => {
      id = create(state, draft).id;
    });
    await write((_, draft) => draft.create('agent', someAgent()));
    const rows = await rowsUpTo(created);
    await age(created);
    await compactHistory(store, UNLIMITED);
    expect(await rowsUpTo(created)).toBe(rows);
    expect((await configAt(store, id, created))?.config).toMatchObject({ id, provider: 'openai' });
    await runMaintenance(store, { historyMs: HOUR, usageMs: Number.POSITIVE_INFINITY });
    expect(await configAt(store, id, created)).toBeUndefined();
    expect((await configAt(store, id, created + 1))?.config).toMatchObject({ id, provider: 'openai' });
  });

  it('is compacted together with audit events of the same age', async () => {
    const event = { kind: 'AUDIT_EVENT_KIND_TOKEN_USE', actor: 'tester', method: '', provider: '', outcome: 'used' };
    await db()('audit_events').insert([
      { ...event, created_at: db().raw(`now() - interval '2 hours'`) },
      { ...event, created_at: db().raw('now()') },
    ]);
    const countEvents = async () => (await db()('audit_events').where({ actor: 'tester' })).length;
    await runMaintenance(opened.store, { historyMs: UNLIMITED, usageMs: Number.POSITIVE_INFINITY });
    expect(await countEvents()).toBe(2);
    await runMaintenance(opened.store, { historyMs: HOUR, usageMs: Number.POSITIVE_INFINITY });
    expect(await countEvents()).toBe(1);
  });

  it('has as horizon the oldest revision within the retention, or the head when there is none', async () => {
    const first = await write((_, draft) => draft.create('agent', someAgent()));
    const second = await write((_, draft) => draft.create('agent', someAgent()));
    await age(first);
    expect(await horizonOf(db(), HOUR)).toBe(second);
    expect(await horizonOf(db(), 3 * HOUR)).toBeLessThanOrEqual(first);
    expect(await horizonOf(db(), UNLIMITED)).toBe(await oldestKept(db()));
    await age(second);
    expect(await horizonOf(db(), HOUR)).toBe(second);
    await compactHistory(opened.store, HOUR);
    expect([await oldestKept(db()), await horizonOf(db(), UNLIMITED)]).toEqual([second, second]);
    expect(await db()('config_revisions').where({ revision: second })).toHaveLength(1);
  });
});

const someAgent = () => ({ ...newAgent(), name: unique('agent'), agent_type: 'analyst' });

const create = (state: State, draft: Draft) => {
  const agent = [...state.agents.values()][0] ?? draft.create('agent', someAgent());
  return draft.create('config', { ...newConfig(agent.id, 0), provider: 'openai', model_name: 'gpt-4' });
};

/** Applies one kind of change; `several` creates several configs in one write. */
function applyChange(
  state: State,
  draft: Draft,
  { kind, pick, several }: { kind: number; pick: number; several: boolean },
) {
  const select = <T>(all: Iterable<T>): T | undefined => {
    const values = [...all];
    return values[pick % values.length];
  };
  const agent = select(state.agents.values());
  const config = select(state.configs.values());
  const provider = select(state.providersInOrder.after());
  if (kind <= 1 || !agent) draft.create('agent', someAgent());
  if (kind === 2)
    draft.create('provider', {
      ...newProvider(),
      name: unique('p').toLowerCase(),
      dialect: 'DIALECT_OPENAI',
      wire_api: 'WIRE_API_CHAT_COMPLETIONS',
      base_url: 'https://llm.example.com',
    });
  if (kind === 3 && provider) draft.create('model', { ...newModel(), provider: provider.name, name: unique('m') });
  if (kind === 4 && agent)
    for (const priority of several ? [0, 1, 2] : [0])
      draft.create('config', { ...newConfig(agent.id, priority), provider: 'openai', model_name: 'm' });
  if (kind === 5 && config) draft.update('config', config, { ...config, temperature: pick / 1000 });
  if (kind === 6 && config) draft.remove('config', config);
  if (kind === 7 && agent) draft.update('agent', agent, { ...agent, description: `d${pick}` });
  if (kind === 8 && provider) {
    for (const model of state.modelsOf(provider.name)) draft.remove('model', model);
    draft.remove('provider', provider);
  }
  if (kind === 9 && agent) {
    for (const owned of state.configsOf(agent.id)) draft.remove('config', owned);
    draft.remove('agent', agent);
  }
}

/** The part of a state that the change log contains: without chain revisions and nonces, which are not logged. */
function loggedContents(state: State) {
  const { agents, configs, providers, models, prices } = contents(state);
  return { agents: agents.map(({ chain_revision: _, ...agent }) => agent), configs, providers, models, prices };
}

const count = ({ agents, configs, providers, models }: ReturnType<typeof loggedContents>) =>
  [agents, configs, providers, models].flat().length;
