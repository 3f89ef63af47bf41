import { describe, expect, it } from 'vitest';
import { entryName, fieldChanges, type HistoryEntry, type Logged, type Names } from '../../src/domain/history.js';
import type { Entity } from '../../src/domain/rows.js';
import { agentRow, configRow } from './support.js';

const names: Names = { credential: new Map([[4, 'desk']]), model: new Map([[9, 'openai/gpt-4']]) };

/** An entry as the change log returns it, with rows that were stored as JSON. */
function entry(before: object | null, after: object | null, entity: Entity = 'config'): HistoryEntry {
  return {
    revision: 7,
    position: 0,
    entity,
    entity_id: 1,
    agent_id: 1,
    action: before ? (after ? 'update' : 'delete') : 'create',
    before: JSON.parse(JSON.stringify(before)) as Logged | null,
    after: JSON.parse(JSON.stringify(after)) as Logged | null,
    actor: 'anonymous',
    method: 'm',
    request_id: null,
    reason: null,
    created_at: new Date(0),
  };
}

const changed = (before: object | null, after: object | null, entity?: Entity) =>
  fieldChanges(entry(before, after, entity), names).map((c) => [c.field, c.before_json, c.after_json]);
const config = (fields: object = {}) => ({ ...configRow(), revision: 6, ...fields });

describe('fieldChanges', () => {
  it('returns the changed fields by name, without fields that every write changes', () => {
    const after = { temperature: 0, max_tokens: 100, revision: 7, updated_at: new Date(9) };
    expect(changed(config(), config(after))).toEqual([
      ['max_tokens', '', '100'],
      ['temperature', '0.7', '0'],
    ]);
    expect(changed(config(), config({ revision: 7, updated_at: new Date(9) }))).toEqual([]);
  });

  it('returns an empty value for a cleared field, and false and 0 as values', () => {
    expect(changed(config(), config({ temperature: null, enabled: false, priority: 3 }))).toEqual([
      ['enabled', 'true', 'false'],
      ['priority', '0', '3'],
      ['temperature', '0.7', ''],
    ]);
  });

  it('returns every field that is set when a row is created or deleted', () => {
    const row = config({ top_p: 0.5 });
    const created = changed(null, row);
    expect(created.map(([field]) => field)).toEqual([
      'cost_per_1k_input_tokens',
      'cost_per_1k_output_tokens',
      'enabled',
      'model_name',
      'price_given',
      'priority',
      'provider',
      'temperature',
      'top_p',
    ]);
    expect(created).toContainEqual(['provider', '', '"openai"']);
    expect(changed(row, null)).toEqual(created.map(([field, , value]) => [field, value, '']));
  });

  it('returns each extra parameter as a separate field', () => {
    const before = config({
      extra_params: { seed: -9007199254740991, stop_sequences: ['a'], reasoning_effort: 'low' },
    });
    const after = config({ extra_params: { seed: 5, stop_sequences: ['a'] } });
    expect(changed(before, after)).toEqual([
      ['extra_params.reasoning_effort', '"low"', ''],
      ['extra_params.seed', '-9007199254740991', '5'],
    ]);
    expect(changed(after, config())).toEqual([
      ['extra_params.seed', '5', ''],
      ['extra_params.stop_sequences', '["a"]', ''],
    ]);
  });

  it('returns a credential by its name, or by its id when it was deleted', () => {
    expect(changed(config(), config({ credential_id: 4 }))).toEqual([['credential_name', '', '"desk"']]);
    expect(changed(config({ credential_id: 4 }), config({ credential_id: 5 }))).toEqual([
      ['credential_name', '"desk"', '"(deleted credential 5)"'],
    ]);
  });

  it('returns only set, replaced or cleared for an API key', () => {
    const key = (key_revision: number, key_id = 'SECRETID') => ({ key_id, key_revision });
    expect(changed(config(), config(key(7)))).toEqual([['api_key', '', '"set"']]);
    expect(changed(config(key(5)), config(key(7)))).toEqual([['api_key', '"set"', '"replaced"']]);
    expect(changed(config(key(5)), config())).toEqual([['api_key', '"set"', '"cleared"']]);
    expect(changed(config(key(5)), config(key(5)))).toEqual([]);
    expect(changed(null, config(key(7)))).toContainEqual(['api_key', '', '"set"']);
    expect(changed(config(key(5)), null)).toContainEqual(['api_key', '"set"', '"cleared"']);
    const all = JSON.stringify([changed(null, config(key(7))), changed(config(key(5)), config(key(7, 'SECRETID2')))]);
    expect(all).not.toContain('SECRETID');
    expect(all).not.toContain('key_');
  });

  it('treats a field that an older release did not record as not set', () => {
    const { extra_params: _, key_id: __, key_revision: ___, credential_id: ____, ...old } = config();
    expect(changed(old, { ...old, temperature: 1 })).toEqual([['temperature', '0.7', '1']]);
    expect(changed(old, config())).toEqual([]);
    expect(changed(old, config({ credential_id: 4 }))).toEqual([['credential_name', '', '"desk"']]);
  });

  it('omits chain_revision of an agent and origin of a provider', () => {
    const agent = agentRow({ name: 'a' });
    expect(changed(agent, { ...agent, name: 'b', chain_revision: 99 }, 'agent')).toEqual([['name', '"a"', '"b"']]);
    expect(
      changed({ origin: 'seed', aliases: ['x'] }, { origin: 'operator', aliases: ['x', 'y'] }, 'provider'),
    ).toEqual([['aliases', '["x"]', '["x","y"]']]);
  });
});

describe('entryName', () => {
  it.each([
    ['agent', { name: 'trader' }, 'trader'],
    ['config', config(), 'openai/gpt-4'],
    ['credential', { name: 'desk' }, 'desk'],
    ['provider', { name: 'openai' }, 'openai'],
    ['model', { provider: 'openai', name: 'gpt-4' }, 'openai/gpt-4'],
    ['price', { model_id: 9 }, 'openai/gpt-4'],
    ['price', { model_id: 10 }, ''],
  ] as const)('of a %s %o is %s', (entity, row, name) => {
    expect(entryName(entry(null, row, entity), names)).toBe(name);
    expect(entryName(entry(row, null, entity), names)).toBe(name);
  });

  it('is the name after the change when the entry renames a row', () =>
    expect(entryName(entry({ name: 'a' }, { name: 'b' }, 'agent'), names)).toBe('b'));
});
