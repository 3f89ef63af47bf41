import { describe, expect, it } from 'vitest';
import { errorOfBody, MAX_ERROR_TEXT, providerError } from '../../../src/client/runtime/error_body.js';

describe('providerError', () => {
  it.each([
    [
      'OpenAI',
      { error: { message: 'm', type: 't', param: 'p', code: 'c' } },
      { message: 'm', type: 't', param: 'p', code: 'c' },
    ],
    [
      'Anthropic',
      { type: 'error', error: { type: 't', message: 'm', details: { error_code: 'c' } } },
      { type: 't', message: 'm', code: 'c' },
    ],
    ['xAI', { code: 'c', error: 'm' }, { code: 'c', message: 'm' }],
    ['xAI without a code', { error: 'm' }, { message: 'm' }],
    [
      'vLLM',
      { object: 'error', message: 'm', type: 't', param: null, code: 400 },
      { message: 'm', type: 't', code: '400', status: 400 },
    ],
    ['an event of Responses', { type: 'error', code: 'c', message: 'm', param: null }, { code: 'c', message: 'm' }],
    [
      'a failed response',
      { type: 'response.failed', response: { error: { code: 'c', message: 'm' } } },
      { code: 'c', message: 'm' },
    ],
    [
      'FastAPI',
      { detail: [{ type: 't', loc: ['body', 'a', 'b'], msg: 'm' }] },
      { type: 't', message: 'm', param: 'a.b' },
    ],
    ['FastAPI with a text', { detail: 'm' }, { message: 'm' }],
    ['a list', [{ error: { message: 'm', code: 429 } }], { message: 'm', code: '429', status: 429 }],
  ])('reads the error of %s', (_, body, expected) => {
    const found = Object.entries(providerError(body) ?? {}).filter(([, value]) => value !== undefined);
    expect(Object.fromEntries(found)).toEqual(expected);
  });

  it.each([[{ choices: [] }], [{ error: null, output: [] }], [{ error: '' }], ['text'], [null], [[]], [7]])(
    'finds none in %j',
    (body) => {
      expect(providerError(body)).toBeUndefined();
    },
  );

  it('cuts a long message', () => {
    expect(providerError({ error: { message: 'x'.repeat(10_000) } })?.message).toHaveLength(MAX_ERROR_TEXT);
  });
});

describe('errorOfBody', () => {
  it('takes any object with a message for the error of a failed response', () => {
    expect(errorOfBody({ message: 'm', code: 'c' })).toMatchObject({ message: 'm', code: 'c' });
    expect(errorOfBody('<html>')).toEqual({});
    expect(errorOfBody(undefined)).toEqual({});
  });
});
