import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { count, json, list, number, text } from '../../src/domain/fields.js';
import { applyPatch, type FieldSpecs, readPatch, touches } from '../../src/domain/patch.js';

const specs: FieldSpecs = {
  name: { schema: text(10), absent: (value) => value === '' },
  temperature: { schema: number({ min: 0, max: 2 }), cleared: 0.7 },
  max_tokens: { schema: count, cleared: null },
  tags: { schema: list(text(5), 3), cleared: [], absent: (v) => Array.isArray(v) && v.length === 0 },
  'extra.seed': { schema: count, cleared: null },
  'extra.stop': { schema: text(5), cleared: null },
};
const outputOnly = ['id', 'revision'];
const read = (body: object, mask: readonly string[] = []) => readPatch({ body, mask, specs, outputOnly, at: 'thing' });

describe('readPatch', () => {
  it.each([
    // body, mask, set, cleared
    [{}, [], {}, []],
    [{ temperature: 0 }, [], { temperature: 0 }, []],
    [{ temperature: 1 }, ['temperature'], { temperature: 1 }, []],
    [{ temperature: 1 }, ['max_tokens'], {}, ['max_tokens']],
    [{ temperature: undefined }, [], {}, []],
    [{ temperature: undefined }, ['temperature'], {}, ['temperature']],
    [{ name: '' }, [], {}, []],
    [{ tags: [] }, [], {}, []],
    [{ tags: [] }, ['tags'], {}, ['tags']],
    [{ tags: ['a'] }, ['tags', 'tags'], { tags: ['a'] }, []],
    [{ extra: { seed: 4 } }, [], { 'extra.seed': 4 }, []],
    [{ extra: { seed: 4 } }, ['extra'], { 'extra.seed': 4 }, ['extra.stop']],
    [{ extra: { seed: 4, stop: 'x' } }, ['extra.stop'], { 'extra.stop': 'x' }, []],
    [{}, ['extra.seed'], {}, ['extra.seed']],
    [
      { name: 'a', temperature: 0 },
      ['*'],
      { name: 'a', temperature: 0 },
      ['max_tokens', 'tags', 'extra.seed', 'extra.stop'],
    ],
    [{ id: 7, revision: 9, unheard_of: 1 }, [], {}, []],
  ])('%j with mask %j sets %j and clears %j', (body, mask, set, cleared) => {
    const patch = read(body, mask);
    expect({ ...patch, cleared: [...patch.cleared] }).toEqual({ set, cleared, invalid: new Set(), violations: [] });
  });

  it.each([
    [{}, ['name'], 'thing.name', 'is required and cannot be cleared'],
    [{ name: '' }, ['*'], 'thing.name', 'is required and cannot be cleared'],
    [{}, ['id'], 'update_mask', 'names "id", which cannot be changed'],
    [{}, ['temprature'], 'update_mask', 'names "temprature", which is not a field; did you mean "temperature"?'],
    [{}, ['zzzzzzzzzzzzzz'], 'update_mask', 'names "zzzzzzzzzzzzzz", which is not a field'],
    [{}, [''], 'update_mask', 'names "", which is not a field'],
    [{}, ['extra.'], 'update_mask', expect.stringContaining('names "extra."')],
    [{}, ['name.x'], 'update_mask', expect.stringContaining('names "name.x"')],
    [{}, ['a\nb\ud800'], 'update_mask', expect.stringContaining('names "a b\ufffd"')],
    [{ temperature: 2.5 }, [], 'thing.temperature', 'must be a number between 0 and 2, not 2.5'],
    [{ temperature: Number.NaN }, [], 'thing.temperature', 'must be a number between 0 and 2, not NaN'],
    [{ temperature: Infinity }, [], 'thing.temperature', 'must be a number between 0 and 2, not Infinity'],
    [{ max_tokens: 0 }, [], 'thing.max_tokens', 'must be a whole number between 1 and 2147483647, not 0'],
    [{ max_tokens: 1.5 }, [], 'thing.max_tokens', 'must be a whole number, not 1.5'],
    [{ tags: ['ok', 'longer'] }, [], 'thing.tags[1]', 'must have at most 5 characters, not 6'],
    [{ tags: ['a', 'a'] }, [], 'thing.tags', 'must not have "a" twice'],
    [{ tags: ['a', 'b', 'c', 'd'] }, [], 'thing.tags', 'must have at most 3 entries, not 4'],
    [{ extra: { stop: 'longer' } }, [], 'thing.extra.stop', 'must have at most 5 characters, not 6'],
  ])('%j with mask %j is rejected: %s %s', (body, mask, field, description) => {
    expect(read(body, mask).violations).toContainEqual({ field, description });
  });

  it('reports every violation at once and applies no rejected field', () => {
    const patch = read({ name: 'x'.repeat(11), temperature: -1, max_tokens: 5 }, ['*', 'nope', 'id']);
    expect(patch.violations.map(({ field }) => field)).toEqual([
      'update_mask',
      'update_mask',
      'thing.name',
      'thing.temperature',
    ]);
    expect(patch.set).toEqual({ max_tokens: 5 });
    expect([...patch.invalid]).toEqual(['name', 'temperature']);
    expect(touches(patch, 'temperature')).toBe(true);
    expect(touches(patch, 'max_tokens', 'name')).toBe(true);
    expect(touches(read({}, ['tags']), 'tags')).toBe(true);
    expect(touches(read({ temperature: 1 }), 'name', 'tags')).toBe(false);
  });

  it('truncates a value in a violation to the size that a status can carry', () => {
    const wide: FieldSpecs = { config: { schema: json('object') } };
    const body = { config: `{"${'k'.repeat(5000)}":1,"${'k'.repeat(5000)}":2}` };
    const [violation] = readPatch({ body, mask: [], specs: wide, outputOnly: [], at: 'thing' }).violations;
    expect(violation?.description).toMatch(/^must not contain a key twice/);
    expect(violation?.description.length).toBeLessThanOrEqual(300);
  });
});

describe('applyPatch', () => {
  interface Row {
    readonly name: string;
    readonly temperature: number | null;
    readonly max_tokens: number | null;
    readonly tags: readonly string[];
  }
  const fields = ['name', 'temperature', 'max_tokens', 'tags'] as const;
  const row: fc.Arbitrary<Row> = fc.record({
    name: fc.string({ minLength: 1, maxLength: 5, unit: 'grapheme-ascii' }),
    temperature: fc.option(fc.double({ min: 0, max: 2, noNaN: true })),
    max_tokens: fc.option(fc.integer({ min: 1, max: 1000 })),
    tags: fc.uniqueArray(fc.constantFrom('a', 'b', 'c'), { maxLength: 3 }),
  });
  const body = fc.record(
    {
      name: fc.string({ minLength: 1, maxLength: 5, unit: 'grapheme-ascii' }),
      temperature: fc.double({ min: 0, max: 2, noNaN: true }).map((value) => value + 0),
      max_tokens: fc.integer({ min: 1, max: 1000 }),
      tags: fc.uniqueArray(fc.constantFrom('a', 'b', 'c'), { minLength: 1, maxLength: 3 }),
    },
    { requiredKeys: [] },
  );
  const defaults: Readonly<Record<string, unknown>> = { temperature: 0.7, max_tokens: null, tags: [] };
  type Field = (typeof fields)[number];

  it('sets present fields and keeps absent fields without a mask', () => {
    fc.assert(
      fc.property(row, body, (before, sent) => {
        const after = applyPatch(before, read(sent), specs);
        for (const field of fields) expect(after[field]).toEqual(sent[field] ?? before[field]);
      }),
    );
  });

  it('keeps fields outside the mask, and sets or clears fields inside it, with a mask', () => {
    fc.assert(
      fc.property(row, body, fc.subarray([...fields], { minLength: 1 }), (before, sent, mask) => {
        const patch = read(sent, mask);
        const after = applyPatch(before, patch, specs);
        const expected = (field: Field) => {
          if (!mask.includes(field)) return before[field];
          return sent[field] ?? (field === 'name' ? before.name : defaults[field]);
        };
        for (const field of fields) expect(after[field]).toEqual(expected(field));
        const required = mask.includes('name') && sent.name === undefined;
        expect(patch.violations.map(({ field }) => field)).toEqual(required ? ['thing.name'] : []);
      }),
    );
  });

  it('treats the mask `*` as a mask of all fields', () => {
    fc.assert(
      fc.property(body, (sent) => {
        const all = read(sent, ['*']);
        const perField = read(sent, Object.keys(specs));
        expect(all).toEqual(perField);
      }),
    );
  });

  it('does not mutate the row', () => {
    fc.assert(
      fc.property(row, body, (before, sent) => {
        const frozen = Object.freeze(structuredClone(before));
        applyPatch(frozen, read(sent, ['*']), specs);
        expect(frozen).toEqual(before);
      }),
    );
  });

  it('reports every path of the mask that is not a field', () => {
    const unknown = fc.string({ maxLength: 20 }).filter((path) => path !== '*' && path !== 'extra' && !(path in specs));
    fc.assert(
      fc.property(fc.array(unknown, { minLength: 1, maxLength: 5 }), (mask) => {
        const { violations, set, cleared } = read({ temperature: 1 }, mask);
        expect(violations).toHaveLength(mask.length);
        for (const violation of violations) expect(violation.field).toBe('update_mask');
        expect([set, cleared.size]).toEqual([{}, 0]);
      }),
    );
  });
});
