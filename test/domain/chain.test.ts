import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type ChainHop, chainOf, inChainOrder, type PlannedHop, primaryOf } from '../../src/domain/chain.js';
import { newCredential } from '../../src/domain/credential.js';
import type { Agent, Config } from '../../src/domain/rows.js';
import { State } from '../../src/domain/state.js';
import { agentRow, configRow, World } from './support.js';

/** The chain without a catalogue, by what becomes of its hops. */
function parted(agent: Agent, configs: readonly Config[], view = new State()) {
  const chain = chainOf(view, agent, configs);
  const of = (dropped: ChainHop['dropped']) => chain.filter((hop) => hop.dropped === dropped);
  return { hops: of(undefined), duplicates: of('SKIP_REASON_DUPLICATE'), cut: of('SKIP_REASON_POLICY') };
}

const shown = (hops: readonly PlannedHop[]) => hops.map((hop) => `${hop.provider}/${hop.model_name}`);
const own = (id: number, provider: string, model_name: string, more: Partial<Config> = {}) =>
  configRow({ id, provider, model_name, ...more });

describe('chainOf', () => {
  it('is each enabled config in order, each followed by its fallback', () => {
    const configs = [
      own(3, 'a', '1', { fallback_provider: 'b', fallback_model: '1' }),
      own(1, 'c', '1', { enabled: false, fallback_provider: 'd', fallback_model: '1' }),
      own(2, 'e', '1'),
    ];
    const { hops, duplicates, cut } = parted(agentRow(), configs);
    expect(hops.map(({ source, config }) => [source, config?.id])).toEqual([
      ['HOP_SOURCE_CONFIG', 3],
      ['HOP_SOURCE_FALLBACK', 3],
      ['HOP_SOURCE_CONFIG', 2],
    ]);
    expect(shown(hops)).toEqual(['a/1', 'b/1', 'e/1']);
    expect([duplicates, cut]).toEqual([[], []]);
  });

  it("is the agent's own model when no config is enabled", () => {
    const agent = agentRow({ llm_provider: 'deepseek', llm_model: 'deepseek-chat' });
    for (const configs of [[], [own(1, 'a', '1', { enabled: false })]]) {
      const { hops } = parted(agent, configs);
      const own = { config: undefined, provider: 'deepseek', model_name: 'deepseek-chat' };
      expect(hops).toEqual([{ source: 'HOP_SOURCE_AGENT', ...own, index: 0, dropped: undefined }]);
    }
  });

  it('collapses what repeats into the first', () => {
    const { hops, duplicates } = parted(agentRow(), [
      own(1, 'a', '1', { fallback_provider: 'b', fallback_model: '1' }),
      own(2, 'b', '1', { fallback_provider: 'a', fallback_model: '1' }),
      own(3, 'a', '2'),
    ]);
    expect(shown(hops)).toEqual(['a/1', 'b/1', 'a/2']);
    expect(hops[1]?.config?.id).toBe(1);
    expect(duplicates.map(({ source, config }) => [source, config?.id])).toEqual([
      ['HOP_SOURCE_CONFIG', 2],
      ['HOP_SOURCE_FALLBACK', 2],
    ]);
  });

  it('does not take two models for one because their names run together', () => {
    const { hops, duplicates } = parted(agentRow(), [own(1, 'a', 'b/c'), own(2, 'a/b', 'c')]);
    expect(hops).toHaveLength(2);
    expect(duplicates).toEqual([]);
  });

  it('counts the places as planned, whatever becomes of the hops', () => {
    const configs = [own(1, 'a', '1'), own(2, 'a', '1'), own(3, 'b', '1')];
    const chain = chainOf(new State(), agentRow({ substitution_policy: 'SUBSTITUTION_POLICY_SAME_PROVIDER' }), configs);
    expect(chain.map(({ index, dropped }) => [index, dropped])).toEqual([
      [0, undefined],
      [1, 'SKIP_REASON_DUPLICATE'],
      [2, 'SKIP_REASON_POLICY'],
    ]);
  });

  const keyed = { key_id: 'k', key_revision: 1 };
  const fallback = { fallback_provider: 'a', fallback_model: '1' };
  const desk = { ...newCredential(), id: 5, name: 'desk', provider: 'a' };
  it.each<[string, Config[], number]>([
    ['the same environment', [own(1, 'a', '1'), own(2, 'a', '1')], 1],
    ['a key of its own and the environment', [own(1, 'a', '1', keyed), own(2, 'a', '1')], 2],
    ['two keys of their own', [own(1, 'a', '1', keyed), own(2, 'a', '1', keyed)], 2],
    ['a credential and the environment', [own(1, 'a', '1', { credential_id: 5 }), own(2, 'a', '1')], 2],
    ['one credential', [own(1, 'a', '1', { credential_id: 5 }), own(2, 'a', '1', { credential_id: 5 })], 1],
    ['a credential and a key', [own(1, 'a', '1', { credential_id: 5 }), own(2, 'a', '1', keyed)], 2],
    ['a credential that is gone', [own(1, 'a', '1', { credential_id: 9 }), own(2, 'a', '1')], 1],
    [
      'a key that is for the provider of the config alone',
      [own(1, 'a', '1'), own(2, 'b', '1', { ...keyed, ...fallback })],
      2,
    ],
    ['a credential for another provider', [own(1, 'a', '1'), own(2, 'b', '1', { credential_id: 5, ...fallback })], 3],
  ])('one model twice with %s', (_, configs, left) => {
    const view = new State();
    view.load('credential', desk);
    expect(parted(agentRow(), configs, view).hops).toHaveLength(left);
  });

  it('knows a provider by its aliases, for duplicates and for the policy', () => {
    const world = new World();
    world.provider({ name: 'claude', aliases: ['anthropic'] });
    const configs = [own(1, 'Anthropic', '1'), own(2, 'claude', '1'), own(3, 'claude', '2'), own(4, 'b', '1')];
    const agent = agentRow({ substitution_policy: 'SUBSTITUTION_POLICY_SAME_PROVIDER' });
    const { hops, duplicates, cut } = parted(agent, configs, world.state);
    expect([shown(hops), shown(duplicates), shown(cut)]).toEqual([['claude/1', 'claude/2'], ['claude/1'], ['b/1']]);
  });

  const many = [own(1, 'a', '1', { fallback_provider: 'b', fallback_model: '1' }), own(2, 'a', '2'), own(3, 'c', '3')];
  it.each([
    ['SUBSTITUTION_POLICY_NEVER', ['a/1'], ['b/1', 'a/2', 'c/3']],
    ['SUBSTITUTION_POLICY_SAME_MODEL', ['a/1', 'b/1'], ['a/2', 'c/3']],
    ['SUBSTITUTION_POLICY_SAME_PROVIDER', ['a/1', 'a/2'], ['b/1', 'c/3']],
    ['SUBSTITUTION_POLICY_ANY', ['a/1', 'b/1', 'a/2', 'c/3'], []],
    ['SUBSTITUTION_POLICY_UNSPECIFIED', ['a/1', 'b/1', 'a/2', 'c/3'], []],
  ] as const)('%s leaves %j and cuts %j', (substitution_policy, left, gone) => {
    const { hops, cut } = parted(agentRow({ substitution_policy }), many);
    expect([shown(hops), shown(cut)]).toEqual([left, gone]);
  });
});

describe('every chain', () => {
  const few = fc.constantFrom('a', 'b', 'c');
  const config = fc
    .record({
      priority: fc.integer({ min: -2, max: 2 }),
      enabled: fc.boolean(),
      provider: few,
      model_name: few,
      fallback: fc.option(fc.tuple(few, few)),
      key_id: fc.constantFrom('k', null),
    })
    .map(
      ({ fallback, ...fields }): Partial<Config> => ({
        ...fields,
        fallback_provider: fallback?.[0] ?? null,
        fallback_model: fallback?.[1] ?? null,
      }),
    );
  const configs = fc
    .array(config, { maxLength: 6 })
    .map((rows) => rows.map((fields, at) => configRow({ id: at + 1, ...fields })).sort(inChainOrder));
  const agent = fc
    .constantFrom<Agent['substitution_policy'][]>(
      'SUBSTITUTION_POLICY_NEVER',
      'SUBSTITUTION_POLICY_SAME_MODEL',
      'SUBSTITUTION_POLICY_SAME_PROVIDER',
      'SUBSTITUTION_POLICY_ANY',
    )
    .map((substitution_policy) => agentRow({ substitution_policy, llm_provider: 'a', llm_model: 'b' }));

  const text = (hop: PlannedHop) => [hop.source, hop.config?.id, hop.provider, hop.model_name].join(' ');
  const planned = (rows: readonly Config[]) =>
    rows
      .filter((row) => row.enabled)
      .flatMap((row) => [
        `HOP_SOURCE_CONFIG ${row.id} ${row.provider} ${row.model_name}`,
        ...(row.fallback_model ? [`HOP_SOURCE_FALLBACK ${row.id} ${row.fallback_provider} ${row.fallback_model}`] : []),
      ]);

  it('has each planned hop once: tried, a duplicate, or cut', () => {
    fc.assert(
      fc.property(agent, configs, (owner, rows) => {
        const { hops, duplicates, cut } = parted(owner, rows);
        const all = [...hops, ...duplicates, ...cut].map(text);
        const wanted = planned(rows);
        expect(all.sort()).toEqual((wanted.length > 0 ? wanted : ['HOP_SOURCE_AGENT  a b']).sort());
      }),
    );
  });

  it('tries hops in the order planned, no model twice with one key', () => {
    fc.assert(
      fc.property(agent, configs, (owner, rows) => {
        const { hops } = parted(owner, rows);
        const order = planned(rows);
        const places = hops.map((hop) => order.indexOf(text(hop)));
        expect(places).toEqual([...places].sort((a, b) => a - b));
        const calls = hops.map(({ config, provider, model_name }) => {
          const own = config?.key_id && config.provider === provider ? config.id : 'environment';
          return `${provider}/${model_name} with ${own}`;
        });
        expect(new Set(calls).size).toBe(hops.length);
      }),
    );
  });

  it('begins with the first enabled config by (priority, id), which is the primary', () => {
    fc.assert(
      fc.property(agent, configs, (owner, rows) => {
        let first: Config | undefined;
        for (const row of rows) {
          if (!row.enabled) continue;
          const before =
            !first || row.priority < first.priority || (row.priority === first.priority && row.id < first.id);
          if (before) first = row;
        }
        expect(primaryOf(rows)).toBe(first);
        const [hop] = parted(owner, rows).hops;
        expect(hop?.config).toBe(first);
        expect(hop?.source).toBe(first ? 'HOP_SOURCE_CONFIG' : 'HOP_SOURCE_AGENT');
      }),
    );
  });

  it('cuts nothing that its policy allows, and leaves nothing that it forbids', () => {
    fc.assert(
      fc.property(agent, configs, (owner, rows) => {
        const { hops, cut } = parted(owner, rows);
        const [first] = hops;
        const allowed = (hop: PlannedHop) => {
          if (hop === first || owner.substitution_policy === 'SUBSTITUTION_POLICY_ANY') return true;
          if (owner.substitution_policy === 'SUBSTITUTION_POLICY_SAME_MODEL')
            return hop.model_name === first?.model_name;
          if (owner.substitution_policy === 'SUBSTITUTION_POLICY_SAME_PROVIDER')
            return hop.provider === first?.provider;
          return false;
        };
        expect(hops.filter((hop) => !allowed(hop))).toEqual([]);
        expect(cut.filter(allowed)).toEqual([]);
      }),
    );
  });
});
