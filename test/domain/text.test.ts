import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { codePoints, jsonProblem, nameProblem, nearest, printable, textProblem } from '../../src/domain/text.js';
import { limits } from '../../src/limits.js';

/** Any UTF-16 code units, including lone surrogates and NUL. */
const anyUnits = fc
  .array(
    fc.oneof(
      fc.integer({ min: 0, max: 0xffff }),
      fc.constantFrom(0, 10, 0x22, 0x5c, 0x7b, 0xd83d, 0xde00, 0x2028, 0x85),
    ),
  )
  .map((units) => String.fromCharCode(...units));
const storable = fc.string({ unit: 'binary', maxLength: 20 }).filter((text) => !text.includes('\0'));

describe('codePoints', () => {
  it.each([
    ['', 0],
    ['abc', 3],
    ['ä', 1],
    ['😀', 1],
    ['👨‍👩‍👧', 5],
    ['\ud800', 1],
  ])('of %j is %i', (text, count) => expect(codePoints(text)).toBe(count));
});

describe('textProblem', () => {
  it.each([
    ['', 5, undefined],
    ['12345', 5, undefined],
    ['123456', 5, 'must have at most 5 characters, not 6'],
    ['😀😀😀😀😀', 5, undefined],
    ['😀😀😀😀😀😀', 5, 'must have at most 5 characters, not 6'],
    ['a\0b', 5, 'must not contain a NUL character'],
    ['a\ud800', 5, 'must be valid Unicode, without lone surrogates'],
    ['\udc00a', 5, 'must be valid Unicode, without lone surrogates'],
    ['a\nb', 5, undefined],
  ])('of %j with at most %i characters is %s', (text, max, problem) => expect(textProblem(text, max)).toBe(problem));

  it('accepts exactly the texts that a varchar of that length can store', () => {
    fc.assert(
      fc.property(anyUnits, fc.nat(20), (text, max) => {
        const fits = !text.includes('\0') && text.isWellFormed() && [...text].length <= max;
        expect(textProblem(text, max) === undefined).toBe(fits);
      }),
    );
  });
});

describe('nameProblem', () => {
  it.each([
    ['gpt-4', undefined],
    ['a b', undefined],
    ['分析師 😀', undefined],
    ['', 'must not be empty'],
    [' a', 'must not begin or end with white space'],
    ['a\u00a0', 'must not begin or end with white space'],
    ['a\nb', 'must not contain control characters'],
    ['a\u0085b', 'must not contain control characters'],
    ['a\u2028b', 'must not contain control characters'],
    ['a\u007fb', 'must not contain control characters'],
    ['a\ufffdb', undefined],
    ['a\0b', 'must not contain a NUL character'],
    ['a\ud800', 'must be valid Unicode, without lone surrogates'],
    ['x'.repeat(11), 'must have at most 10 characters, not 11'],
  ])('of %j is %s', (text, problem) => expect(nameProblem(text, 10)).toBe(problem));

  it('accepts U+FFFD, which is a valid character', () => {
    expect(nameProblem('a\ufffdb', 10)).toBeUndefined();
  });

  it('accepts only texts that textProblem accepts and that contain no control characters', () => {
    fc.assert(
      fc.property(anyUnits, (text) => {
        if (nameProblem(text, 10) !== undefined) return;
        expect(textProblem(text, 10)).toBeUndefined();
        expect(text).not.toMatch(/[\p{Cc}\p{Zl}\p{Zp}]/u);
        expect(text.trim()).toBe(text);
        expect(text).not.toBe('');
      }),
    );
  });
});

describe('jsonProblem', () => {
  const nested = (depth: number) => `${'{"a":'.repeat(depth - 1)}{}${'}'.repeat(depth - 1)}`;
  const mixed = (depth: number) => {
    const levels = Array.from({ length: depth - 1 }, (_, at) => (at % 2 === 0 ? ['{"a":', '}'] : ['[', ']']));
    return `${levels.map(([open]) => open).join('')}{}${levels
      .reverse()
      .map(([, close]) => close)
      .join('')}`;
  };
  const sized = (bytes: number) => `{"a":"${'x'.repeat(bytes - 8)}"}`;

  it.each([
    ['{}', 'object', undefined],
    ['[]', 'array', undefined],
    [' { "a" : [ 1 , { "b" : null } ] } ', 'object', undefined],
    ['{"a":{"x":1},"b":{"x":1}}', 'object', undefined],
    ['{"a":["a","a"],"b":"a"}', 'object', undefined],
    ['{"a":"\\"b\\":1,","b":"{[:]}"}', 'object', undefined],
    ['{"a\\\\":1,"a":2}', 'object', undefined],
    ['{"__proto__":1,"constructor":{"__proto__":2}}', 'object', undefined],
    ['{"a":"\\ud83d\\ude00"}', 'object', undefined],
    ['', 'object', 'must be a JSON object'],
    ['null', 'object', 'must be a JSON object'],
    ['[]', 'object', 'must be a JSON object'],
    ['"a"', 'object', 'must be a JSON object'],
    ['{"a":1', 'object', 'must be a JSON object'],
    ["{'a':1}", 'object', 'must be a JSON object'],
    ['{"a":NaN}', 'object', 'must be a JSON object'],
    ['{}', 'array', 'must be a JSON array'],
    ['null', 'array', 'must be a JSON array'],
    ['{"a":1,"a":2}', 'object', 'must not contain a key twice: "a"'],
    ['{"a":1,"\\u0061":2}', 'object', 'must not contain a key twice: "a"'],
    ['[{"b":{"c":[],"c":[]}}]', 'array', 'must not contain a key twice: "c"'],
    ['{"a":{"b":1},"a":2}', 'object', 'must not contain a key twice: "a"'],
    ['{"__proto__":1,"__proto__":2}', 'object', 'must not contain a key twice: "__proto__"'],
    ['{"a":"\\u0000"}', 'object', 'must not contain \\u0000 or lone surrogates'],
    ['{"\\u0000":1}', 'object', 'must not contain \\u0000 or lone surrogates'],
    ['{"a":"\\ud83d"}', 'object', 'must not contain \\u0000 or lone surrogates'],
    ['["\\ude00"]', 'array', 'must not contain \\u0000 or lone surrogates'],
    ['{"a":"\0"}', 'object', 'must be valid Unicode without NUL characters'],
    ['{"a":"\ud83d"}', 'object', 'must be valid Unicode without NUL characters'],
  ] as const)('of %j as %s is %s', (text, kind, problem) => expect(jsonProblem(text, kind)).toBe(problem));

  it('accepts exactly the maximum number of bytes', () => {
    expect(jsonProblem(sized(limits.jsonBytes), 'object')).toBeUndefined();
    expect(jsonProblem(sized(limits.jsonBytes + 1), 'object')).toBe('must have at most 16384 bytes, not 16385');
    expect(jsonProblem(`{"a":"${'ä'.repeat(limits.jsonBytes / 2)}"}`, 'object')).toMatch(/^must have at most 16384/);
  });

  it('accepts exactly the maximum depth', () => {
    for (const shape of [nested, mixed]) {
      expect(jsonProblem(shape(limits.jsonDepth), 'object')).toBeUndefined();
      expect(jsonProblem(shape(limits.jsonDepth + 1), 'object')).toBe('must not nest deeper than 32 levels');
    }
    expect(jsonProblem(`[${'[],'.repeat(100)}[]]`, 'array')).toBeUndefined();
    expect(jsonProblem('['.repeat(8000) + ']'.repeat(8000), 'array')).toBe('must not nest deeper than 32 levels');
  });

  const { value } = fc.letrec<{ value: unknown }>((tie) => ({
    value: fc.oneof(
      { depthSize: 'small', maxDepth: limits.jsonDepth - 2 },
      fc.oneof(storable, fc.double({ noNaN: true, noDefaultInfinity: true }), fc.boolean(), fc.constant(null)),
      fc.array(tie('value'), { maxLength: 4 }),
      fc.dictionary(storable, tie('value'), { maxKeys: 4 }),
    ),
  }));
  const plain = fc.dictionary(storable, value, { maxKeys: 5 });

  it('accepts every object that JSON.stringify writes, with any spacing', () => {
    fc.assert(
      fc.property(plain, fc.constantFrom(undefined, 1, '\t'), (object, space) => {
        const text = JSON.stringify(object, null, space);
        fc.pre(Buffer.byteLength(text) <= limits.jsonBytes);
        expect(jsonProblem(text, 'object')).toBeUndefined();
        expect(jsonProblem(`[${text}]`, 'array')).toBeUndefined();
      }),
    );
  });

  it('rejects every object with a duplicate key, with any escaping of the key', () => {
    const escaped = (key: string) =>
      `"${[...Array(key.length).keys()].map((at) => `\\u${key.charCodeAt(at).toString(16).padStart(4, '0')}`).join('')}"`;
    fc.assert(
      fc.property(plain, storable, fc.boolean(), (object, key, useEscapes) => {
        const text = JSON.stringify({ ...object, [key]: 1 });
        fc.pre(Object.keys(JSON.parse(text)).length > 0 && Buffer.byteLength(text) < limits.jsonBytes - 1000);
        const twice = `${text.slice(0, -1)},${useEscapes ? escaped(key) : JSON.stringify(key)}:1}`;
        expect(jsonProblem(`{"outer":${twice}}`, 'object')).toBe(
          `must not contain a key twice: ${JSON.stringify(key)}`,
        );
      }),
    );
  });

  it('never throws and accepts only JSON of the requested kind', () => {
    const jsonLike = fc
      .array(fc.constantFrom('{', '}', '[', ']', ':', ',', '"a"', '"', '\\', '\\u0000', '1', ' ', 'null', '\ud800'))
      .map((parts) => parts.join(''));
    fc.assert(
      fc.property(fc.oneof(anyUnits, jsonLike), fc.constantFrom('object', 'array'), (text, kind) => {
        if (jsonProblem(text, kind) !== undefined) return;
        expect(Array.isArray(JSON.parse(text))).toBe(kind === 'array');
      }),
      { numRuns: 1000 },
    );
  });
});

describe('printable', () => {
  it.each([
    ['plain ä 😀', 20, 'plain ä 😀'],
    ['a\r\nb\0c\u2028d', 20, 'a b c d'],
    ['\u001b[31mred', 20, ' [31mred'],
    ['a\ud800b', 20, 'a\ufffdb'],
    ['12345', 5, '12345'],
    ['123456', 5, '1234…'],
    ['😀😀😀😀😀😀', 5, '😀😀😀😀…'],
  ])('of %j with at most %i characters is %j', (text, max, result) => expect(printable(text, max)).toBe(result));

  it('is well-formed, without control characters and bounded for any input', () => {
    fc.assert(
      fc.property(anyUnits, fc.integer({ min: 1, max: 30 }), (text, max) => {
        const output = printable(text, max);
        expect(output.isWellFormed()).toBe(true);
        expect(output).not.toMatch(/[\p{Cc}\p{Zl}\p{Zp}]/u);
        expect(codePoints(output)).toBeLessThanOrEqual(max);
      }),
    );
  });

  it('does not change a text that is already printable', () => {
    const textOrPairs = fc.oneof(anyUnits, fc.string({ unit: fc.constantFrom('😀', 'a') }));
    fc.assert(
      fc.property(textOrPairs, fc.integer({ min: 1, max: 30 }), (text, max) => {
        const output = printable(text, max);
        expect(printable(output, max)).toBe(output);
      }),
      { examples: [['😀'.repeat(4), 6]] },
    );
  });

  it('appends an ellipsis only when the text was truncated', () => {
    expect(printable('😀'.repeat(15), 20)).toBe('😀'.repeat(15));
  });
});

describe('nearest', () => {
  const providers = ['openai', 'deepseek', 'grok', 'claude', 'anthropic', 'xai'];

  it.each([
    ['opnai', 'openai'],
    ['OpenAI', 'openai'],
    ['claud', 'claude'],
    ['deepsek', 'deepseek'],
    ['antropic', 'anthropic'],
    ['mistral-large', undefined],
    ['x'.repeat(5000), undefined],
  ])('to %s is %s', (written, name) => expect(nearest(written, providers)).toBe(name));

  it('is undefined when there are no names', () => expect(nearest('openai', [])).toBeUndefined());

  it('is a name at the least distance, or undefined when that distance is too large', () => {
    const word = fc.string({ unit: fc.constantFrom('a', 'b', 'c', '-'), minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(word, fc.array(word, { maxLength: 6 }), (written, known) => {
        const least = Math.min(...known.map((name) => levenshtein(written, name)));
        const found = nearest(written, known);
        if (least > Math.max(2, Math.floor(written.length / 3))) expect(found).toBeUndefined();
        else expect(levenshtein(written, found as string)).toBe(least);
      }),
      { numRuns: 500 },
    );
  });
});

/** The Levenshtein distance by its recursive definition; only for short words. */
function levenshtein(a: string, b: string): number {
  const known = new Map<string, number>();
  const distance = (i: number, j: number): number => {
    if (i === 0 || j === 0) return i + j;
    const key = `${i},${j}`;
    const cached = known.get(key);
    if (cached !== undefined) return cached;
    const changed = distance(i - 1, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1);
    const result = Math.min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, changed);
    known.set(key, result);
    return result;
  };
  return distance(a.length, b.length);
}
