import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CheckStatus } from '../../gen/ts/agentllm/v1/check.js';
import { addressList } from '../../src/domain/addresses.js';
import { limits } from '../../src/limits.js';
import { type CheckOutcome, checkOutcomes, statusOf } from '../../src/providers/check_outcomes.js';
import { checkProvider } from '../../src/providers/check_provider.js';
import { isModelMissing, jsonOf, problemOf } from '../../src/providers/classify.js';
import { isModel, namesIn } from '../../src/providers/dialect.js';
import { networkResult } from '../../src/providers/network_errors.js';
import { KEY, KINDS, startFakeProvider } from './fake_provider.js';

const outcomeOf = (status: number, body: unknown) => problemOf({ status, headers: {}, body: '' }, body)?.outcome;

describe('an error body', () => {
  it.each<[string, number, unknown, CheckOutcome]>([
    // The three error formats of xAI.
    ['xAI 1', 400, { error: { message: 'Incorrect API key provided: xa***', type: 'x', code: 'y' } }, 'KEY_REJECTED'],
    [
      'xAI 2',
      400,
      { code: 'Client specified an invalid argument', error: 'Incorrect API key provided: x' },
      'KEY_REJECTED',
    ],
    ['xAI 3', 400, { error: 'Incorrect API key provided: x' }, 'KEY_REJECTED'],
    ['xAI, percent-encoded', 400, { error: 'Incorrect%20API%20key%20provided:%20ba***na.' }, 'KEY_REJECTED'],
    ['xAI, another error', 400, { code: 'Client specified an invalid argument', error: 'Bad' }, 'REQUEST_REJECTED'],
    ['xAI, another error with a URL', 400, { error: 'Bad; see https://console.x.ai/api-keys' }, 'REQUEST_REJECTED'],
    [
      'xAI, no credit, 403',
      403,
      { error: "Your newly created team doesn't have any credits or licenses yet." },
      'NO_CREDIT',
    ],
    [
      'xAI, no credit, 429',
      429,
      { error: 'Your team has either used all available credits or reached its monthly spending limit.' },
      'NO_CREDIT',
    ],
    ['xAI, rate limit', 429, { code: 'Some resource has been exhausted', error: 'Too many requests' }, 'RATE_LIMITED'],
    [
      'OpenAI code',
      400,
      { error: { message: 'x', type: 'invalid_request_error', code: 'invalid_api_key' } },
      'KEY_REJECTED',
    ],
    [
      'OpenAI, restricted, 401',
      401,
      { error: { message: 'You have insufficient permissions for this operation. Missing scopes: api.model.read.' } },
      'FORBIDDEN',
    ],
    ['OpenAI, no credit', 429, { error: { code: 'insufficient_quota' } }, 'NO_CREDIT'],
    ['OpenAI, no credit by code', 429, { error: { code: 'credit_balance_exhausted' } }, 'NO_CREDIT'],
    [
      'OpenAI, rate limit',
      429,
      { error: { message: 'see https://platform.openai.com/account/billing/credits', code: 'rate_limit_exceeded' } },
      'RATE_LIMITED',
    ],
    [
      'OpenAI, rate limit by code',
      429,
      { error: { code: 'rate_limit_exceeded', message: 'Add credits' } },
      'RATE_LIMITED',
    ],
    [
      'OpenRouter, rate limit',
      429,
      { error: { message: 'Rate limit reached: free-models. Please add credits to increase your limits.', code: 429 } },
      'RATE_LIMITED',
    ],
    [
      'OpenRouter, rate limit, 200',
      200,
      { error: { message: 'Rate limit exceeded: free-models-per-day. Add 10 credits to unlock more', code: 429 } },
      'RATE_LIMITED',
    ],
    [
      'no credit with a rate limit message',
      429,
      { error: { code: 'insufficient_quota', message: 'Rate limit' } },
      'NO_CREDIT',
    ],
    ['a field called credit', 400, { error: { message: 'invalid credit score field' } }, 'REQUEST_REJECTED'],
    ['a field called credits', 400, { error: { message: 'unknown parameter: credits' } }, 'REQUEST_REJECTED'],
    ['no credit, 400', 400, { error: { message: 'Insufficient Balance' } }, 'NO_CREDIT'],
    ['spend limit reached, 400', 400, { error: { message: 'You have reached your spend limit.' } }, 'NO_CREDIT'],
    ['billing not enabled, 400', 400, { error: { message: 'Please enable billing on your project' } }, 'NO_CREDIT'],
    [
      'a wrong key with a billing message',
      400,
      { error: { code: 'invalid_api_key', message: 'Wrong key; see the billing page' } },
      'KEY_REJECTED',
    ],
    ['Anthropic code', 400, { type: 'error', error: { type: 'authentication_error', message: 'no' } }, 'KEY_REJECTED'],
    [
      'Anthropic, no credit, 400',
      400,
      {
        type: 'error',
        error: {
          type: 'invalid_request_error',
          message: 'Your credit balance is too low to access the Anthropic API.',
        },
      },
      'NO_CREDIT',
    ],
    ['Anthropic, no credit, 402', 402, { type: 'error', error: { type: 'billing_error', message: 'x' } }, 'NO_CREDIT'],
    [
      'Anthropic, no credit, 429',
      429,
      {
        type: 'error',
        error: { type: 'rate_limit_error', message: 'x', details: { error_code: 'enforced_spend_limit_reached' } },
      },
      'NO_CREDIT',
    ],
    [
      'Anthropic, rate limit',
      429,
      { type: 'error', error: { type: 'rate_limit_error', message: 'x', details: null } },
      'RATE_LIMITED',
    ],
    [
      'Google',
      400,
      [
        {
          error: { code: 400, message: 'API key not valid. Please pass a valid API key.', status: 'INVALID_ARGUMENT' },
        },
      ],
      'KEY_REJECTED',
    ],
    ['vLLM', 200, { object: 'error', message: 'x', type: 'InternalServerError', code: 500 }, 'SERVER_ERROR'],
    ['OpenRouter', 200, { error: { message: 'x', code: 402 } }, 'NO_CREDIT'],
    ['FastAPI', 400, { detail: 'Invalid API key' }, 'KEY_REJECTED'],
    ['Anthropic, flat', 200, { type: 'error', message: 'x' }, 'ERROR_INSIDE'],
    ['no body', 401, undefined, 'KEY_REJECTED'],
    ['an object instead of a text', 200, { error: { code: { toString: false } } }, 'ERROR_INSIDE'],
    ['a number', 400, 7, 'REQUEST_REJECTED'],
    ['null inside', 400, { error: null, message: null }, 'REQUEST_REJECTED'],
  ])('is classified: %s', (_, status, body, outcome) => expect(outcomeOf(status, body)).toBe(outcome));

  it.each([
    { data: [] },
    { error: null, data: [] },
    { error: '', data: [] },
    { error: false },
    [],
    [{ id: 'error' }],
    'error',
    null,
  ])('is not detected with status 200 in %j', (body) => expect(outcomeOf(200, body)).toBeUndefined());

  it.each([400, 404, 405, 410, 422, 501])('with HTTP %i means that the model is missing', (status) =>
    expect(isModelMissing({ status, headers: {}, body: '' }, undefined)).toBe(true),
  );
});

describe('an arbitrary response', () => {
  const anything = fc.oneof(
    fc.jsonValue(),
    fc.record(
      {
        error: fc.oneof(
          fc.jsonValue(),
          fc.record({ message: fc.jsonValue(), code: fc.jsonValue(), details: fc.jsonValue() }),
        ),
        data: fc.oneof(fc.jsonValue(), fc.array(fc.record({ id: fc.jsonValue() }))),
        models: fc.jsonValue(),
        object: fc.constantFrom('list', 'error', null),
        has_more: fc.constantFrom(true, 'yes'),
        last_id: fc.jsonValue(),
      },
      { requiredKeys: [] },
    ),
  );

  it('is classified without an exception', () => {
    const headers = fc.record({ 'retry-after': fc.string(), 'retry-after-ms': fc.string() }, { requiredKeys: [] });
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1000 }), headers, anything, (status, headers, json) => {
        const response = { status, headers, body: '' };
        const problem = problemOf(response, json);
        if (problem) expect(statusOf(problem)).not.toBe('CHECK_STATUS_OK');
        else expect(Math.floor(status / 100)).toBe(2);
        isModelMissing(response, json);
        isModel(json, 'x');
        for (const name of namesIn(json) ?? []) expect(name).toBeTypeOf('string');
      }),
      { numRuns: 2000 },
    );
    for (const text of ['', '{', 'null', '\0']) expect(jsonOf(text) ?? null).toBeNull();
  });

  it('gives a valid result for each model', async () => {
    const local = addressList(['127.0.0.0/8']);
    const fakes = await Promise.all(KINDS.map((kind) => startFakeProvider(kind)));
    const known = new Set<string>(Object.values(CheckStatus));
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...fakes),
        fc.constantFrom(200, 200, 200, 204, 301, 400, 401, 402, 403, 404, 429, 500, 529, 599),
        fc.oneof(
          anything.map((value) => JSON.stringify(value)),
          fc.string(),
        ),
        fc.array(fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom(KEY, 'a')), { maxLength: 3 }),
        async (fake, status, body, models) => {
          fake.on('*', (_, response) => void response.writeHead(status).end(status === 204 ? '' : body));
          const results = await checkProvider(fake.provider, KEY, models, { allowed: local, timeoutMs: 5000 });
          expect(results).toHaveLength(Math.max(1, models.length));
          for (const result of results) {
            expect(known).toContain(result.status);
            expect(result.message).not.toContain(KEY);
            expect([...result.message].length).toBeLessThanOrEqual(limits.providerMessage);
            expect(result.message.isWellFormed()).toBe(true);
            expect(result.latencyMs).toBeTypeOf('number');
          }
        },
      ),
      { numRuns: 150 },
    );
    for (const { path } of fakes.flatMap(({ seen }) => seen)) expect(path).not.toContain(KEY);
  });
});

describe('isModel', () => {
  it.each<[unknown, boolean]>([
    [{ id: 'm' }, true],
    [{ id: 'm-2026', object: 'model' }, true],
    [{ id: 'm-2026', type: 'model' }, true],
    [{ name: 'my gateway' }, false],
    [{ name: 'm' }, false],
    [{ id: 'my gateway' }, false],
    [{ id: 'my gateway', object: 'gateway', type: 'status' }, false],
    [{ object: 'model' }, false],
    [{ object: 'list', data: [{ id: 'm' }] }, false],
    [[{ id: 'm' }], false],
    ['m', false],
    [null, false],
  ])('with %j and the model m returns %s', (json, expected) => expect(isModel(json, 'm')).toBe(expected));
});

describe('a failed request', () => {
  it.each<[unknown, CheckOutcome]>([
    [Object.assign(new AggregateError([]), { code: 'ECONNREFUSED' }), 'REFUSES_CONNECTIONS'],
    [{ code: 'EHOSTUNREACH' }, 'NO_WAY'],
    [{ code: 'ETIMEDOUT' }, 'NO_WAY'],
    [{ code: 'EACCES' }, 'NO_WAY'],
    [{ code: 'CERT_REVOKED' }, 'NO_TLS'],
    [{ code: 'CERT_NOT_YET_VALID' }, 'CERTIFICATE_EXPIRED'],
    [{ code: 'ERR_SSL_WRONG_VERSION_NUMBER' }, 'NO_TLS'],
    [{ code: 'ERR_TLS_CERT_ALTNAME_INVALID' }, 'CERTIFICATE_OF_ANOTHER'],
    [{ code: 'HPE_INVALID_CONSTANT' }, 'NOT_HTTP'],
    [{ code: 'NO_SLOT' }, 'BUSY'],
    [new Error(`mentions ${KEY}`), 'UNREACHABLE'],
    [{ code: 7 }, 'UNREACHABLE'],
    ['a text', 'UNREACHABLE'],
    [undefined, 'UNREACHABLE'],
    [null, 'UNREACHABLE'],
  ])('with the error %j has its outcome', (error, outcome) => expect(networkResult(error).outcome).toBe(outcome));
});

describe('the message of an outcome', () => {
  const values = {
    provider: 'claude',
    keyed: true,
    variables: 'X_API_KEY',
    builtIn: false,
    timeoutMs: 10_000,
    model: '"m"',
    nearest: '',
  };

  it.each(Object.entries(checkOutcomes))('%s names the provider and the remedy', (_, { status, sentence }) => {
    const message = sentence({ ...values, http: 418 });
    expect(message).toContain('claude');
    expect(message).not.toMatch(/undefined|\.$/);
    expect(message.length).toBeLessThan(200);
    if (status !== 'CHECK_STATUS_OK') expect(message).toMatch(/; | such need /);
  });
});
