import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { newModel, newProvider } from '../../src/domain/catalogue.js';
import { CountedIds, Draft } from '../../src/domain/draft.js';
import type { Agent, Change, Config, Entity, Model, Price, Provider } from '../../src/domain/rows.js';
import { State } from '../../src/domain/state.js';
import { agentRow, configRow, NOW, Sequences } from './support.js';

/** One generated change; `pick` and `number` are resolved to rows and values when the change is applied. */
interface Step {
  readonly kind: 'create' | 'update' | 'delete';
  readonly entity: Entity;
  readonly pick: number;
  readonly number: number;
  readonly flag: boolean;
}
const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom('create', 'create', 'update', 'delete'),
  entity: fc.constantFrom<Entity[]>('agent', 'config', 'config', 'config', 'provider', 'model', 'price'),
  pick: fc.nat(50),
  number: fc.integer({ min: -2, max: 2 }),
  flag: fc.boolean(),
});
const history = fc.array(fc.array(step, { minLength: 1, maxLength: 5 }), { maxLength: 12 });

/** The complete configuration as plain lists: the model that the state must equal. */
interface Tables {
  agents: Agent[];
  configs: Config[];
  providers: Provider[];
  models: Model[];
  prices: Price[];
}
const empty = (): Tables => ({ agents: [], configs: [], providers: [], models: [], prices: [] });
const LISTS = { agent: 'agents', config: 'configs', provider: 'providers', model: 'models', price: 'prices' } as const;

const without = <T extends { id: number }>(rows: readonly T[], id: number) => rows.filter((row) => row.id !== id);
const picked = <T>(rows: readonly T[], pick: number): T | undefined => rows[pick % Math.max(rows.length, 1)];

/** Applies one step to a draft and to the model tables. As in the store, names stay unique and owners exist. */
function applyStep(
  tables: Tables,
  draft: Draft,
  { kind, entity, pick, number, flag }: Step,
  unique: () => string,
): void {
  if (entity === 'agent') {
    const found = picked(tables.agents, pick);
    if (kind === 'create') tables.agents.push(draft.create('agent', agentRow({ name: unique() })));
    else if (found && kind === 'update') {
      const row = { ...found, name: flag ? unique() : found.name, is_active: flag };
      tables.agents = [...without(tables.agents, found.id), draft.update('agent', found, row)];
    } else if (found) {
      for (const config of tables.configs.filter((config) => config.agent_id === found.id))
        draft.remove('config', config);
      draft.remove('agent', found);
      tables.configs = tables.configs.filter((config) => config.agent_id !== found.id);
      tables.agents = without(tables.agents, found.id);
    }
  } else if (entity === 'config') {
    const agent = picked(tables.agents, pick);
    const found = picked(tables.configs, pick);
    if (kind === 'create' && agent)
      tables.configs.push(draft.create('config', configRow({ agent_id: agent.id, priority: number, enabled: flag })));
    else if (kind === 'update' && found) {
      const change =
        pick % 3 === 0 ? { priority: number } : pick % 3 === 1 ? { enabled: flag } : { max_tokens: pick + 1 };
      tables.configs = [...without(tables.configs, found.id), draft.update('config', found, { ...found, ...change })];
    } else if (kind === 'delete' && found) {
      draft.remove('config', found);
      tables.configs = without(tables.configs, found.id);
    }
  } else if (entity === 'provider') {
    const found = picked(tables.providers, pick);
    if (kind === 'create')
      tables.providers.push(
        draft.create('provider', { ...newProvider(), name: unique(), aliases: flag ? [unique()] : [] }),
      );
    else if (found && kind === 'update') {
      const row = { ...found, aliases: flag ? [...found.aliases.slice(1), unique()] : found.aliases.slice(1) };
      tables.providers = [...without(tables.providers, found.id), draft.update('provider', found, row)];
    } else if (found && !tables.models.some((model) => model.provider === found.name)) {
      draft.remove('provider', found);
      tables.providers = without(tables.providers, found.id);
    }
  } else if (entity === 'model') {
    const provider = picked(tables.providers, pick);
    const found = picked(tables.models, pick);
    if (kind === 'create' && provider)
      tables.models.push(draft.create('model', { ...newModel(), provider: provider.name, name: unique() }));
    else if (kind === 'update' && found)
      tables.models = [
        ...without(tables.models, found.id),
        draft.update('model', found, { ...found, max_output_tokens: pick }),
      ];
    else if (kind === 'delete' && found) {
      for (const price of tables.prices.filter((price) => price.model_id === found.id)) draft.remove('price', price);
      draft.remove('model', found);
      tables.prices = tables.prices.filter((price) => price.model_id !== found.id);
      tables.models = without(tables.models, found.id);
    }
  } else {
    const model = picked(tables.models, pick);
    if (kind === 'create' && model) tables.prices.push(draft.create('price', priceRow(model.id, number)));
  }
}

const priceRow = (model_id: number, days: number): Price => ({
  id: 0,
  model_id,
  valid_from: new Date(NOW.getTime() + days * 86_400_000),
  source: 'somewhere',
  input_micro_usd_per_million: 1,
  cached_input_micro_usd_per_million: null,
  cache_write_micro_usd_per_million: null,
  output_micro_usd_per_million: 2,
  reasoning_micro_usd_per_million: null,
  cache_write_long_micro_usd_per_million: null,
  tiers: [],
  windows: [],
  created_at: NOW,
  revision: 0,
});

/** Updates chain_revision as the contract requires: a config was created, deleted, enabled, disabled or reordered. */
function updateChainRevisions(before: Tables, after: Tables, revision: number): void {
  const membership = (tables: Tables, agent: number) =>
    JSON.stringify(
      tables.configs
        .filter((config) => config.agent_id === agent)
        .map(({ id, enabled, priority }) => [id, enabled, priority])
        .sort((a, b) => Number(a[0]) - Number(b[0])),
    );
  after.agents = after.agents.map((agent) =>
    membership(before, agent.id) === membership(after, agent.id) ? agent : { ...agent, chain_revision: revision },
  );
}

interface Revision {
  readonly number: number;
  readonly changes: readonly Change[];
  readonly tables: Tables;
}

/** Every revision of a history with its changes and the model tables after it. */
function revisions(steps: readonly (readonly Step[])[]): Revision[] {
  const ids = new Sequences();
  let names = 0;
  const result: Revision[] = [];
  let tables = empty();
  for (const [at, stepsOfRevision] of steps.entries()) {
    const before = tables;
    tables = { ...before };
    for (const list of Object.values(LISTS)) Object.assign(tables, { [list]: [...tables[list]] });
    const draft = new Draft(at + 1, NOW, ids);
    // A revision changes a row at most once, as in every write of the service.
    const touched = new Set<string>();
    for (const step of stepsOfRevision) {
      const trialTables = structuredClone(tables);
      const trialDraft = new Draft(at + 1, NOW, new CountedIds());
      applyStep(trialTables, trialDraft, step, () => 'rehearsed');
      const keys = trialDraft.changes.filter((c) => c.before).map((c) => `${c.entity} ${c.id}`);
      if (keys.some((key) => touched.has(key))) continue;
      const from = draft.changes.length;
      applyStep(tables, draft, step, () => `name-${++names}`);
      for (const change of draft.changes.slice(from)) touched.add(`${change.entity} ${change.id}`);
    }
    updateChainRevisions(before, tables, at + 1);
    result.push({ number: at + 1, changes: draft.changes, tables });
  }
  return result;
}

const byId = (a: { id: number }, b: { id: number }) => a.id - b.id;
const byText = (key: (row: { name: string }) => string) => (a: { name: string }, b: { name: string }) =>
  key(a) < key(b) ? -1 : 1;

function expectEqual(state: State, tables: Tables): void {
  const { agents, configs, providers, models, prices } = tables;
  expect([...state.agentsInOrder.after()]).toEqual([...agents].sort(byId));
  expect(state.agents).toEqual(new Map(agents.map((agent) => [agent.id, agent])));
  expect([...state.agentNames].sort()).toEqual(agents.map((agent) => agent.name).sort());
  for (const agent of agents) {
    expect(state.agentNamed(agent.name)).toEqual(agent);
    const ofAgent = configs.filter((config) => config.agent_id === agent.id);
    expect(state.configsOf(agent.id)).toEqual(ofAgent.sort((a, b) => a.priority - b.priority || a.id - b.id));
  }
  expect([...state.configsInOrder.after()]).toEqual([...configs].sort(byId));
  expect(state.configs).toEqual(new Map(configs.map((config) => [config.id, config])));
  expect([...state.providersInOrder.after()]).toEqual([...providers].sort(byText((row) => row.name)));
  expect([...state.providerNames].sort()).toEqual(providers.flatMap((p) => [p.name, ...p.aliases]).sort());
  for (const provider of providers) {
    for (const name of [provider.name, ...provider.aliases])
      expect(state.provider(name.toUpperCase())).toEqual(provider);
    const ofProvider = models.filter((model) => model.provider === provider.name);
    expect(state.modelsOf(provider.name)).toEqual(ofProvider.sort(byText((row) => row.name)));
  }
  expect(state.modelsInOrder.size).toBe(models.length);
  for (const model of models) {
    expect(state.model(model.provider, model.name)).toEqual(model);
    const ofModel = prices.filter((price) => price.model_id === model.id);
    expect(state.pricesOf(model.id)).toEqual(
      ofModel.sort((a, b) => a.valid_from.getTime() - b.valid_from.getTime() || a.id - b.id),
    );
  }
}

const replay = (history: readonly Revision[], state = new State()) => {
  for (const { number, changes } of history) state.apply(number, `nonce-${number}`, changes);
  return state;
};

describe('State', () => {
  it('equals a naive recomputation at every revision', () => {
    fc.assert(
      fc.property(history, (steps) => {
        const state = new State();
        for (const { number, changes, tables } of revisions(steps)) {
          state.apply(number, `nonce-${number}`, changes);
          expect([state.revision, state.nonce]).toEqual([number, `nonce-${number}`]);
          expectEqual(state, tables);
        }
      }),
    );
  });

  it('contains speculated changes during speculate and equals its previous content afterwards', () => {
    fc.assert(
      fc.property(history, fc.nat(12), fc.boolean(), (steps, from, throws) => {
        const all = revisions(steps);
        const [committed, speculated] = [all.slice(0, from), all.slice(from)];
        const before = committed.at(-1)?.tables ?? empty();
        const state = replay(committed);
        const rows = [...state.configs.values()];
        const speculate = () =>
          state.speculate(() => {
            replay(speculated, state);
            expectEqual(state, all.at(-1)?.tables ?? empty());
            if (throws) throw new RangeError('changed my mind');
          });
        if (throws) expect(speculate).toThrow(RangeError);
        else speculate();
        expectEqual(state, before);
        expect([state.revision, state.nonce]).toEqual([
          committed.length,
          committed.length > 0 ? `nonce-${committed.length}` : '',
        ]);
        // The row objects are identical: responses encoded from them stay valid.
        for (const row of rows) expect(state.configs.get(row.id)).toBe(row);
        replay(speculated, state);
        expectEqual(state, all.at(-1)?.tables ?? empty());
      }),
    );
  });

  it('equals the replayed state when it is loaded from rows', () => {
    fc.assert(
      fc.property(history, (steps) => {
        const tables = revisions(steps).at(-1)?.tables ?? empty();
        const state = new State();
        for (const entity of ['price', 'config', 'model', 'provider', 'agent'] as const)
          for (const row of tables[LISTS[entity]]) state.load(entity, row);
        expectEqual(state, tables);
      }),
    );
  });

  it('ignores revisions that it has already applied', () => {
    fc.assert(
      fc.property(history, fc.nat(11), (steps, repeated) => {
        const all = revisions(steps);
        const state = replay(all);
        replay(all.slice(0, repeated), state);
        expectEqual(state, all.at(-1)?.tables ?? empty());
        expect(state.nonce).toBe(all.length > 0 ? `nonce-${all.length}` : '');
      }),
    );
  });

  it('throws and stays unchanged when a revision is missing', () => {
    const all = revisions([[agentStep('create')], [agentStep('create')], [agentStep('create')]]);
    const state = replay(all.slice(0, 1));
    expect(() => state.apply(3, 'nonce-3', all[2]?.changes ?? [])).toThrow('revision 3 does not follow 1');
    expect(state.revision).toBe(1);
    expectEqual(state, all[0]?.tables as Tables);
  });

  it('is empty when it is created', () => {
    expectEqual(new State(), empty());
    expect(new State().configsOf(1)).toEqual([]);
    expect(new State().pricesOf(1)).toEqual([]);
    expect(new State().modelsOf('openai')).toEqual([]);
  });

  it('never mutates rows or lists that it has returned', () => {
    const state = new State();
    const ids = new Sequences();
    const write = (plan: (draft: Draft) => void) => {
      const draft = new Draft(state.revision + 1, NOW, ids);
      plan(draft);
      state.apply(draft.revision, 'n', draft.changes);
    };
    write((draft) => void draft.create('agent', agentRow()));
    write((draft) => void draft.create('config', configRow()));
    const [agent, configs] = [state.agents.get(1), state.configsOf(1)];
    const copy = structuredClone([agent, configs]);
    write((draft) => void draft.create('config', configRow({ priority: -1 })));
    write((draft) => draft.remove('config', configs[0] as Config));
    expect([agent, configs]).toEqual(copy);
    expect(state.configsOf(1)).toHaveLength(1);
  });
});

describe('chain_revision', () => {
  const chainRevisionAfter = (changes: (config: Config) => Partial<Config> | undefined) => {
    const state = new State();
    state.load('agent', agentRow({ chain_revision: 0 }));
    state.load('agent', agentRow({ id: 2, name: 'other' }));
    const before = configRow({ priority: 1 });
    state.load('config', before);
    const draft = new Draft(1, NOW, new Sequences());
    const change = changes(before);
    if (change) draft.update('config', before, { ...before, ...change });
    else draft.remove('config', before);
    state.apply(1, 'n', draft.changes);
    expect(state.agents.get(2)?.chain_revision).toBe(0);
    expect(state.agentNamed('trader')).toBe(state.agents.get(1));
    return state.agents.get(1)?.chain_revision;
  };

  it.each<[string, Partial<Config> | undefined, number]>([
    ['priority', { priority: 2 }, 1],
    ['disabling', { enabled: false }, 1],
    ['deletion', undefined, 1],
    ['another model', { model_name: 'gpt-4o' }, 0],
    ['a fallback', { fallback_provider: 'grok', fallback_model: 'grok-beta' }, 0],
    ['nothing', {}, 0],
  ])('changes only with the chain: %s (%o) gives %i', (_, change, revision) =>
    expect(chainRevisionAfter(() => change)).toBe(revision),
  );

  it('changes without a change of the etag of the agent', () => {
    const state = new State();
    const ids = new Sequences();
    const first = new Draft(1, NOW, ids);
    const agent = first.create('agent', agentRow());
    state.apply(1, 'n', first.changes);
    const second = new Draft(2, NOW, ids);
    second.create('config', configRow({ agent_id: agent.id }));
    state.apply(2, 'n', second.changes);
    expect(state.agents.get(agent.id)).toEqual({ ...agent, chain_revision: 2, revision: 1 });
  });
});

describe('Draft', () => {
  it('sets the id, revision and times of a row as they are stored and returned', () => {
    const draft = new Draft(7, NOW, new Sequences());
    const agent = draft.create('agent', agentRow({ id: 99, revision: 3 }));
    expect(agent).toMatchObject({ id: 1, revision: 7, created_at: NOW, updated_at: NOW });
    const price = draft.create('price', priceRow(1, 0));
    expect(price).toMatchObject({ id: 1, revision: 7, created_at: NOW });
    expect(price).not.toHaveProperty('updated_at');
    const later = new Date(NOW.getTime() + 1000);
    const second = new Draft(8, later, new Sequences());
    const updated = second.update('agent', agent, { ...agent, role: 'lead' });
    expect(updated).toMatchObject({ id: 1, revision: 8, created_at: NOW, updated_at: later, role: 'lead' });
    second.remove('agent', updated);
    expect(second.changes).toEqual([
      { entity: 'agent', id: 1, before: agent, after: updated },
      { entity: 'agent', id: 1, before: updated, after: undefined },
    ]);
  });

  it('counts the ids of a dry run without allocating any', () => {
    const ids = new CountedIds();
    const draft = new Draft(1, NOW, ids);
    for (const name of ['a', 'b']) expect(draft.create('agent', agentRow({ name })).id).toBe(0);
    draft.create('config', configRow());
    expect(ids.counts).toEqual(
      new Map([
        ['agent', 2],
        ['config', 1],
      ]),
    );
  });
});

function agentStep(kind: Step['kind']): Step {
  return { kind, entity: 'agent', pick: 0, number: 0, flag: false };
}
