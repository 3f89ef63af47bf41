import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { valueFor } from '../../../src/fake_provider/responses/schema_value.js';

describe('valueFor', () => {
  it('makes a value that satisfies the schemas that zod writes', () => {
    const schema = z.object({
      text: z.string(),
      short: z.string().max(3),
      long: z.string().min(20),
      day: z.iso.date(),
      id: z.uuid(),
      mail: z.email(),
      count: z.number().int().min(2).max(5),
      ratio: z.number().min(0).max(0.5),
      above: z.number().gt(3).lt(4),
      step: z.number().multipleOf(5).min(7),
      flag: z.boolean(),
      word: z.enum(['buy', 'sell']),
      one: z.literal('fixed'),
      nothing: z.null(),
      maybe: z.string().nullable(),
      either: z.union([z.number(), z.string()]),
      list: z.array(z.object({ name: z.string() })).min(2),
      pair: z.tuple([z.string(), z.number()]),
      optional: z.string().optional(),
    });
    const { mail, ...rest } = valueFor(z.toJSONSchema(schema)) as Record<string, unknown>;
    expect(schema.omit({ mail: true }).parse(rest)).toEqual(rest);
    expect(z.email().parse(mail)).toBe('name@example.com');
  });

  it('uses the examples of a schema before its type', () => {
    expect(valueFor({ type: 'string', default: 'a', examples: ['b'] })).toBe('b');
    expect(valueFor({ type: 'string', default: 'a' })).toBe('a');
    expect(valueFor({ type: 'string' }, 'ticker')).toBe('ticker');
  });

  it('merges allOf, and follows references', () => {
    const schema = {
      $defs: { base: { type: 'object', properties: { id: { type: 'integer' } }, required: ['id'] } },
      type: 'object',
      properties: {
        both: { allOf: [{ type: 'object', properties: { a: { const: 1 } } }, { properties: { b: { const: 2 } } }] },
        base: { $ref: '#/$defs/base' },
      },
    };
    expect(valueFor(schema)).toEqual({ both: { a: 1, b: 2 }, base: { id: 1 } });
  });

  it('ends for a schema that refers to itself', () => {
    const tree = z.object({
      name: z.string(),
      get children() {
        return z.array(tree);
      },
    });
    expect(tree.parse(valueFor(z.toJSONSchema(tree)))).toMatchObject({ name: 'name' });
    const endless = { $ref: '#' };
    expect(valueFor(endless)).toBeNull();
    const required = { type: 'object', properties: { next: { $ref: '#' } }, required: ['next'] };
    expect(JSON.stringify(valueFor(required)).length).toBeLessThan(1000);
  });

  it('ends for a schema that asks for a large value', () => {
    const nested = Array.from({ length: 6 }).reduce<object>((items) => ({ type: 'array', minItems: 1e9, items }), {
      type: 'string',
      minLength: 1e9,
    });
    const started = performance.now();
    expect(JSON.stringify(valueFor(nested)).length).toBeLessThan(20_000_000);
    expect(performance.now() - started).toBeLessThan(2000);
  });

  it.each([undefined, null, true, 'text', [], {}, { type: 'unknown' }, { $ref: '#/missing' }, { $ref: 'https://x' }])(
    'makes some value for %j, which is no usual schema',
    (schema) => {
      expect(JSON.stringify(valueFor(schema) ?? null)).toEqual(expect.any(String));
    },
  );
});
