import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type ChainHop, chainOf, inChainOrder, type PlannedHop, primaryOf } from '../../src/domain/chain.js';
import { newCredential } from '../../src/domain/credential.js';
import type { Agent, Config } from '../../src/domain/rows.js';
import { State } from '../../src/domain/state.js';
import { agentRow, configRow, World } from './support.js';

/** The hops of the chain, grouped into used, duplicate and excluded by policy; the catalogue is empty by default. */
function groupedChain(agent: Agent, configs: readonly Config[], view = new State()) {
  const chain = chainOf(view, agent, configs);
  const withDropped = (dropped: ChainHop['dropped']) => chain.filter((hop) => hop.dropped === dropped);
  return {
    hops: withDropped(undefined),
    duplicates: withDropped('SKIP_REASON_DUPLICATE'),
    excluded: withDropped('SKIP_REASON_POLICY'),
  };
}

const namesOf = (hops: readonly PlannedHop[]) => hops.map((hop) => `${hop.provider}/${hop.model_name}`);
const configWith = (id: number, provider: string, model_name: string, more: Partial<Config> = {}) =>
  configRow({ id, provider, model_name, ...more });

describe('chainOf', () => {
  it('contains each enabled config in order, each followed by its fallback', () => {
    const configs = [
      configWith(3, 'a', '1', { fallback_provider: 'b', fallback_model: '1' }),
      configWith(1, 'c', '1', { enabled: false, fallback_provider: 'd', fallback_model: '1' }),
      configWith(2, 'e', '1'),
    ];
    const { hops, duplicates, excluded } = groupedChain(agentRow(), configs);
    expect(hops.map(({ source, config }) => [source, config?.id])).toEqual([
      ['HOP_SOURCE_CONFIG', 3],
      ['HOP_SOURCE_FALLBACK', 3],
      ['HOP_SOURCE_CONFIG', 2],
    ]);
    expect(namesOf(hops)).toEqual(['a/1', 'b/1', 'e/1']);
    expect([duplicates, excluded]).toEqual([[], []]);
  });

  it('contains the default model of the agent when no config is enabled', () => {
    const agent = agentRow({ llm_provider: 'deepseek', llm_model: 'deepseek-chat' });
    for (const configs of [[], [configWith(1, 'a', '1', { enabled: false })]]) {
      const { hops } = groupedChain(agent, configs);
      const defaultModel = { config: undefined, provider: 'deepseek', model_name: 'deepseek-chat' };
      expect(hops).toEqual([{ source: 'HOP_SOURCE_AGENT', ...defaultModel, index: 0, dropped: undefined }]);
    }
  });

  it('marks repeated hops as duplicates of the first', () => {
    const { hops, duplicates } = groupedChain(agentRow(), [
      configWith(1, 'a', '1', { fallback_provider: 'b', fallback_model: '1' }),
      configWith(2, 'b', '1', { fallback_provider: 'a', fallback_model: '1' }),
      configWith(3, 'a', '2'),
    ]);
    expect(namesOf(hops)).toEqual(['a/1', 'b/1', 'a/2']);
    expect(hops[1]?.config?.id).toBe(1);
    expect(duplicates.map(({ source, config }) => [source, config?.id])).toEqual([
      ['HOP_SOURCE_CONFIG', 2],
      ['HOP_SOURCE_FALLBACK', 2],
    ]);
  });

  it('distinguishes two models whose provider and model names concatenate to the same text', () => {
    const { hops, duplicates } = groupedChain(agentRow(), [configWith(1, 'a', 'b/c'), configWith(2, 'a/b', 'c')]);
    expect(hops).toHaveLength(2);
    expect(duplicates).toEqual([]);
  });

  it('numbers the hops as planned, including dropped hops', () => {
    const configs = [configWith(1, 'a', '1'), configWith(2, 'a', '1'), configWith(3, 'b', '1')];
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
    ['the same environment key', [configWith(1, 'a', '1'), configWith(2, 'a', '1')], 1],
    ['a stored key and the environment', [configWith(1, 'a', '1', keyed), configWith(2, 'a', '1')], 2],
    ['two stored keys', [configWith(1, 'a', '1', keyed), configWith(2, 'a', '1', keyed)], 2],
    ['a credential and the environment', [configWith(1, 'a', '1', { credential_id: 5 }), configWith(2, 'a', '1')], 2],
    [
      'one credential',
      [configWith(1, 'a', '1', { credential_id: 5 }), configWith(2, 'a', '1', { credential_id: 5 })],
      1,
    ],
    ['a credential and a key', [configWith(1, 'a', '1', { credential_id: 5 }), configWith(2, 'a', '1', keyed)], 2],
    ['a deleted credential', [configWith(1, 'a', '1', { credential_id: 9 }), configWith(2, 'a', '1')], 1],
    [
      'a key that is valid only for the provider of the config',
      [configWith(1, 'a', '1'), configWith(2, 'b', '1', { ...keyed, ...fallback })],
      2,
    ],
    [
      'a credential for another provider',
      [configWith(1, 'a', '1'), configWith(2, 'b', '1', { credential_id: 5, ...fallback })],
      3,
    ],
  ])('compares hops of one model by their keys: %s', (_, configs, count) => {
    const view = new State();
    view.load('credential', desk);
    expect(groupedChain(agentRow(), configs, view).hops).toHaveLength(count);
  });

  it('resolves provider aliases for duplicates and for the policy', () => {
    const world = new World();
    world.provider({ name: 'claude', aliases: ['anthropic'] });
    const configs = [
      configWith(1, 'Anthropic', '1'),
      configWith(2, 'claude', '1'),
      configWith(3, 'claude', '2'),
      configWith(4, 'b', '1'),
    ];
    const agent = agentRow({ substitution_policy: 'SUBSTITUTION_POLICY_SAME_PROVIDER' });
    const { hops, duplicates, excluded } = groupedChain(agent, configs, world.state);
    expect([namesOf(hops), namesOf(duplicates), namesOf(excluded)]).toEqual([
      ['claude/1', 'claude/2'],
      ['claude/1'],
      ['b/1'],
    ]);
  });

  const many = [
    configWith(1, 'a', '1', { fallback_provider: 'b', fallback_model: '1' }),
    configWith(2, 'a', '2'),
    configWith(3, 'c', '3'),
  ];
  it.each([
    ['SUBSTITUTION_POLICY_NEVER', ['a/1'], ['b/1', 'a/2', 'c/3']],
    ['SUBSTITUTION_POLICY_SAME_MODEL', ['a/1', 'b/1'], ['a/2', 'c/3']],
    ['SUBSTITUTION_POLICY_SAME_PROVIDER', ['a/1', 'a/2'], ['b/1', 'c/3']],
    ['SUBSTITUTION_POLICY_ANY', ['a/1', 'b/1', 'a/2', 'c/3'], []],
    ['SUBSTITUTION_POLICY_UNSPECIFIED', ['a/1', 'b/1', 'a/2', 'c/3'], []],
  ] as const)('with %s keeps %j and excludes %j', (substitution_policy, keptNames, excludedNames) => {
    const { hops, excluded } = groupedChain(agentRow({ substitution_policy }), many);
    expect([namesOf(hops), namesOf(excluded)]).toEqual([keptNames, excludedNames]);
  });
});

describe('any chain', () => {
  const letter = fc.constantFrom('a', 'b', 'c');
  const config = fc
    .record({
      priority: fc.integer({ min: -2, max: 2 }),
      enabled: fc.boolean(),
      provider: letter,
      model_name: letter,
      fallback: fc.option(fc.tuple(letter, letter)),
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

  it('contains each planned hop once: used, a duplicate, or excluded', () => {
    fc.assert(
      fc.property(agent, configs, (owner, rows) => {
        const { hops, duplicates, excluded } = groupedChain(owner, rows);
        const all = [...hops, ...duplicates, ...excluded].map(text);
        const expected = planned(rows);
        expect(all.sort()).toEqual((expected.length > 0 ? expected : ['HOP_SOURCE_AGENT  a b']).sort());
      }),
    );
  });

  it('uses hops in the planned order and no model twice with one key', () => {
    fc.assert(
      fc.property(agent, configs, (owner, rows) => {
        const { hops } = groupedChain(owner, rows);
        const order = planned(rows);
        const positions = hops.map((hop) => order.indexOf(text(hop)));
        expect(positions).toEqual([...positions].sort((a, b) => a - b));
        const calls = hops.map(({ config, provider, model_name }) => {
          const keySource = config?.key_id && config.provider === provider ? config.id : 'environment';
          return `${provider}/${model_name} with ${keySource}`;
        });
        expect(new Set(calls).size).toBe(hops.length);
      }),
    );
  });

  it('begins with the primary config, the first enabled config by (priority, id)', () => {
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
        const [hop] = groupedChain(owner, rows).hops;
        expect(hop?.config).toBe(first);
        expect(hop?.source).toBe(first ? 'HOP_SOURCE_CONFIG' : 'HOP_SOURCE_AGENT');
      }),
    );
  });

  it('excludes exactly the hops that the policy forbids', () => {
    fc.assert(
      fc.property(agent, configs, (owner, rows) => {
        const { hops, excluded } = groupedChain(owner, rows);
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
        expect(excluded.filter(allowed)).toEqual([]);
      }),
    );
  });
});
