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
const FOREVER = Number.POSITIVE_INFINITY;

describe.each(['embedded', 'postgres'] as const)('the log on %s', (engine) => {
  let opened: TestStore;
  let stopDatabase = async () => {};
  let url: string | undefined;
  /** The state as it was at each revision. */
  const recorded = new Map<number, ReturnType<typeof shown>>();

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
    await transact(store, { ...texts, plan, answer: () => new Uint8Array(), body: () => new Uint8Array() });
    if (store.state.revision > before) recorded.set(store.state.revision, shown(store.state));
    return store.state.revision;
  }

  /** Makes everything up to a revision look two hours old. */
  const age = (revision: number) =>
    db()('config_revisions')
      .where('revision', '<=', revision)
      .update({ created_at: db().raw(`now() - interval '2 hours'`) });
  const rowsUpTo = async (revision: number): Promise<number> =>
    (await db()('config_revisions').where('revision', '<=', revision)).length;

  it('tells every state since the horizon as it was, whatever has happened', { timeout: 120_000 }, async () => {
    const step = fc.record({ what: fc.integer({ min: 0, max: 9 }), which: fc.nat(1000), many: fc.boolean() });
    const history = fc.record({ steps: fc.array(step, { minLength: 5, maxLength: 40 }), keep: fc.nat(20) });
    await fc.assert(
      fc.asyncProperty(history, async ({ steps, keep }) => {
        for (const one of steps) await write((state, draft) => change(state, draft, one));
        const head = opened.store.state.revision;
        const horizon = Math.max(await oldestKept(db()), head - keep);
        await age(horizon - 1);
        await compactHistory(opened.store, HOUR, 4);
        expect(await oldestKept(db())).toBe(horizon);
        for (let revision = horizon; revision <= head; revision++) {
          const past = await stateAt(db(), revision, { agents: 'all', catalogue: true });
          expect(shown(past), `revision ${revision}, horizon ${horizon}`).toEqual(recorded.get(revision));
        }
        // Of what is older there is no more than what stood: one entry of each thing.
        const stood = recorded.get(horizon - 1);
        if (stood) expect(await rowsUpTo(horizon - 1)).toBe(count(stood));
      }),
      { numRuns: 12 },
    );
    expect(recorded.size).toBeGreaterThan(50);
  });

  it('is read anew where it does not go back that far, and the store stays what it was', async () => {
    const sleeper = new Store(opened.database);
    const { identity } = await readHead(db());
    await advance(sleeper, db(), await readHead(db()));
    const slept = sleeper.state.revision;
    for (let at = 0; at < 5; at++)
      await write((state, draft) => change(state, draft, { what: 0, which: at, many: true }));
    await age(slept + 3);
    await compactHistory(opened.store, HOUR);
    expect(await oldestKept(db())).toBe(slept + 4);
    await advance(sleeper, db(), await readHead(db()));
    expect(contents(sleeper.state)).toEqual(contents(opened.store.state));
    expect((await readHead(db())).identity).toBe(identity);
    // One that is not too late follows the log as before.
    const follower = new Store(opened.database);
    await advance(follower, db(), await readHead(db()));
    const { state } = follower;
    await write((state, draft) => change(state, draft, { what: 0, which: 0, many: true }));
    await advance(follower, db(), await readHead(db()));
    expect(follower.state).toBe(state);
    expect(contents(state)).toEqual(contents(opened.store.state));
  });

  it('gives no config from before the horizon, and keeps all while it is to be kept for ever', async () => {
    const { store } = opened;
    let id = 0;
    const made = await write((state, draft) => {
      id = create(state, draft).id;
    });
    await write((_, draft) => draft.create('agent', someAgent()));
    const rows = await rowsUpTo(made);
    await age(made);
    await compactHistory(store, FOREVER);
    expect(await rowsUpTo(made)).toBe(rows);
    expect((await configAt(store, id, made))?.config).toMatchObject({ id, provider: 'openai' });
    await runMaintenance(store, HOUR);
    expect(await configAt(store, id, made)).toBeUndefined();
    expect((await configAt(store, id, made + 1))?.config).toMatchObject({ id, provider: 'openai' });
  });

  it('goes with the events of the audit that are as old', async () => {
    const event = { kind: 'AUDIT_EVENT_KIND_TOKEN_USE', actor: 'tester', method: '', provider: '', outcome: 'used' };
    await db()('audit_events').insert([
      { ...event, created_at: db().raw(`now() - interval '2 hours'`) },
      { ...event, created_at: db().raw('now()') },
    ]);
    const kept = async () => (await db()('audit_events').where({ actor: 'tester' })).length;
    await runMaintenance(opened.store, FOREVER);
    expect(await kept()).toBe(2);
    await runMaintenance(opened.store, HOUR);
    expect(await kept()).toBe(1);
  });

  it('has a horizon for watches: the oldest revision within the time, the head when there is none', async () => {
    const first = await write((_, draft) => draft.create('agent', someAgent()));
    const second = await write((_, draft) => draft.create('agent', someAgent()));
    await age(first);
    expect(await horizonOf(db(), HOUR)).toBe(second);
    expect(await horizonOf(db(), 3 * HOUR)).toBeLessThanOrEqual(first);
    expect(await horizonOf(db(), FOREVER)).toBe(await oldestKept(db()));
    await age(second);
    expect(await horizonOf(db(), HOUR)).toBe(second);
    await compactHistory(opened.store, HOUR);
    expect([await oldestKept(db()), await horizonOf(db(), FOREVER)]).toEqual([second, second]);
    expect(await db()('config_revisions').where({ revision: second })).toHaveLength(1);
  });
});

const someAgent = () => ({ ...newAgent(), name: unique('agent'), agent_type: 'analyst' });

const create = (state: State, draft: Draft) => {
  const agent = [...state.agents.values()][0] ?? draft.create('agent', someAgent());
  return draft.create('config', { ...newConfig(agent.id, 0), provider: 'openai', model_name: 'gpt-4' });
};

/** One of the things that happen to a configuration, alone or several in one write. */
function change(state: State, draft: Draft, { what, which, many }: { what: number; which: number; many: boolean }) {
  const pick = <T>(all: Iterable<T>): T | undefined => {
    const values = [...all];
    return values[which % values.length];
  };
  const agent = pick(state.agents.values());
  const config = pick(state.configs.values());
  const provider = pick(state.providersInOrder.after());
  if (what <= 1 || !agent) draft.create('agent', someAgent());
  if (what === 2)
    draft.create('provider', {
      ...newProvider(),
      name: unique('p').toLowerCase(),
      dialect: 'DIALECT_OPENAI',
      base_url: 'https://llm.example.com',
    });
  if (what === 3 && provider) draft.create('model', { ...newModel(), provider: provider.name, name: unique('m') });
  if (what === 4 && agent)
    for (const it of many ? [0, 1, 2] : [0])
      draft.create('config', { ...newConfig(agent.id, it), provider: 'openai', model_name: 'm' });
  if (what === 5 && config) draft.update('config', config, { ...config, temperature: which / 1000 });
  if (what === 6 && config) draft.remove('config', config);
  if (what === 7 && agent) draft.update('agent', agent, { ...agent, description: `d${which}` });
  if (what === 8 && provider) {
    for (const model of state.modelsOf(provider.name)) draft.remove('model', model);
    draft.remove('provider', provider);
  }
  if (what === 9 && agent) {
    for (const one of state.configsOf(agent.id)) draft.remove('config', one);
    draft.remove('agent', agent);
  }
}

/** What the log tells of a state: not the marks of chains, which are not entered, nor nonces. */
function shown(state: State) {
  const { agents, configs, providers, models, prices } = contents(state);
  return { agents: agents.map(({ chain_revision: _, ...agent }) => agent), configs, providers, models, prices };
}

const count = ({ agents, configs, providers, models }: ReturnType<typeof shown>) =>
  [agents, configs, providers, models].flat().length;
