import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  JsonError,
  JsonNumber,
  JsonObject,
  JsonReader,
  type JsonValue,
  TOO_DEEP,
} from '../../../src/domain/price_import/json.js';
import { readJson } from './support.js';

/** The value as JSON.parse returns it. */
function plain(value: JsonValue): unknown {
  if (value instanceof JsonNumber) return Number(value.text);
  if (value instanceof JsonObject)
    return Object.fromEntries([...value.members].map(([name, inner]) => [name, plain(inner)]));
  return Array.isArray(value) ? value.map(plain) : value;
}

describe('JsonReader', () => {
  it('reads every JSON value like JSON.parse', () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 3 }), (text) => {
        expect(plain(readJson(text))).toEqual(JSON.parse(text));
      }),
      { numRuns: 50 },
    );
  });

  it('accepts and refuses the same texts as JSON.parse', () => {
    const token = fc.constantFrom(
      '{',
      '}',
      '[',
      ']',
      ',',
      ':',
      '"a"',
      '"',
      '\\',
      '1',
      '-',
      '0',
      '.5',
      'e3',
      'true',
      'nul',
      ' ',
    );
    const accepts = (read: () => unknown) => {
      try {
        read();
        return true;
      } catch (error) {
        if (error instanceof JsonError || error instanceof SyntaxError) return false;
        throw error;
      }
    };
    fc.assert(
      fc.property(fc.array(token, { maxLength: 8 }), (tokens) => {
        const text = tokens.join('');
        expect(
          accepts(() => readJson(text)),
          text,
        ).toBe(accepts(() => JSON.parse(text)));
      }),
      { numRuns: 2000 },
    );
  });

  it('keeps numbers as they are written', () => {
    expect(readJson('[1.25e-06, -0, 10000000000000000000001]')).toEqual([
      new JsonNumber('1.25e-06'),
      new JsonNumber('-0'),
      new JsonNumber('10000000000000000000001'),
    ]);
  });

  it('names the members that occur twice, and does not mistake __proto__ for a prototype', () => {
    const object = readJson('{"a": 1, "b": 2, "a": 3, "__proto__": {"c": 1}}') as JsonObject;
    expect([...(object.repeated ?? [])]).toEqual(['a']);
    expect(object.members.get('__proto__')).toBeInstanceOf(JsonObject);
    expect(({} as Record<string, unknown>)['c']).toBeUndefined();
  });

  it('replaces only the values that are nested too deep', () => {
    const text = '{"a": [[{"b": 1}]], "c": 2}';
    expect(readJson(text, { depth: 2 })).toEqual(
      Object.assign(new JsonObject(), {
        members: new Map<string, unknown>([
          ['a', [TOO_DEEP]],
          ['c', new JsonNumber('2')],
        ]),
      }),
    );
  });

  it('reads a text of 100 000 levels without a recursion', () => {
    const levels = 100_000;
    const text = `[${'['.repeat(levels)}${']'.repeat(levels)}, 1]`;
    expect(readJson(text, { depth: 1, values: levels + 2 })).toEqual([TOO_DEEP, new JsonNumber('1')]);
  });

  it('refuses a text with too many values', () => {
    expect(() => readJson('[1, 2, 3]', { values: 3 })).toThrow('must have at most 3 values');
    expect(readJson('[1, 2]', { values: 3 })).toHaveLength(2);
  });

  it.each([
    ['', 'must be JSON; it ends too early'],
    ['[1', 'must be JSON; it ends too early'],
    ['[1] 2', 'must be JSON; character 4 is not expected'],
    ['{"a": }', 'must be JSON; character 6 is not expected'],
    ['["a', 'must be JSON; the string at character 1 has no end'],
    ['["\\x"]', 'must be JSON; the string at character 1 is not valid'],
    ['["\n"]', 'must be JSON; the string at character 1 is not valid'],
  ])('says where %j is not JSON', (text, message) => {
    expect(() => readJson(text)).toThrow(message);
  });

  it('stops after a number of tokens and continues', () => {
    const reader = new JsonReader('[1, 2, 3]', { depth: 2, values: 10 });
    let steps = 1;
    while (reader.step(1) === undefined) steps++;
    expect(steps).toBeGreaterThan(5);
  });
});
