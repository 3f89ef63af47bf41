import { jsonSchema, tool } from 'ai';
import { describe, expect, it } from 'vitest';
import { ChainError, TornStreamError } from '../../../src/client/runtime/chain_error.js';
import { ruleOfClass } from '../../../src/client/runtime/error_class.js';
import { faultCatalogue } from '../../../src/fake_provider/faults/fault_catalogue.js';
import { DEFAULT_TEXT } from '../../../src/fake_provider/responses/completion.js';
import { summary } from '../runtime/support.js';
import { FailoverWorld, type FakeHop, MODES, type Outcome } from './failover.js';

/*
 * Each error class at the first, the middle and the last hop, and each fault of the fake provider in each wire form, with the
 * retries that the AI SDK has by default. The providers count the requests.
 */

/** A fault of each class, its requests at a hop that is not the last one, and at the last one. */
const CLASSES: readonly (readonly [errorClass: string, fault: string, requests: number, last: number])[] = [
  ['RATE_LIMIT', 'rate-limit', 2, 3],
  ['QUOTA', 'quota', 1, 1],
  ['AUTH', 'invalid-key', 1, 1],
  ['PERMISSION', 'permission', 1, 1],
  ['MODEL_NOT_FOUND', 'model-not-found', 1, 1],
  ['OVERLOADED', 'overloaded', 2, 3],
  ['SERVER', 'server-error', 2, 3],
  ['NETWORK', 'close', 2, 3],
  ['TIMEOUT', 'silence', 1, 1],
  ['TORN', 'cut-stream', 1, 3],
  ['CONTEXT_OVERFLOW', 'context-length', 1, 1],
  ['INVALID_PARAM', 'unsupported-parameter', 2, 2],
  ['INVALID_REQUEST', 'invalid-request', 1, 1],
  ['CONTENT_POLICY', 'content-policy', 1, 1],
];
const POSITIONS = ['first', 'middle', 'last'] as const;

/** The hops of a chain: those before the position are rejected by their providers, those after it are healthy. */
function chainWith(fault: string, position: number): FakeHop[] {
  const config = { temperature: 0, top_p: 0 };
  return POSITIONS.map((_, index) => ({
    config,
    facts: { context_window_tokens: 8000 * (index + 1) },
    fault: index === position ? fault : index < position ? 'quota' : undefined,
  }));
}

const matrix = CLASSES.flatMap((row) =>
  POSITIONS.flatMap((position) => MODES.map((mode) => [row[0], position, mode, row] as const)),
);

describe('a failure of class', () => {
  it.each(matrix)('%s at the %s hop, in mode %s, has the requests and the receipt that it should', async (...one) => {
    const [errorClass, position, mode, [, fault, requests, last]] = one;
    const at = POSITIONS.indexOf(position);
    const world = await FailoverWorld.start(chainWith(fault, at), { attemptMs: 30_000 }, 0);
    const outcome = await world.call(mode);
    const isTorn = errorClass === 'TORN' && mode === 'live';
    const stops = ruleOfClass(`ERROR_CLASS_${errorClass}` as never).action === 'STOP' || isTorn;
    const isStripped = errorClass === 'INVALID_PARAM';
    const isServed = isStripped || (!stops && at < 2);
    const atFault = isTorn ? 1 : at === 2 ? last : requests;
    expect(world.requests.map(({ length }) => length)).toEqual(
      POSITIONS.map((_, index) => {
        if (index < at) return 1;
        if (index === at) return atFault;
        return index === at + 1 && isServed && !isStripped ? 1 : 0;
      }),
    );
    expect(world.strayKeys).toEqual([]);
    expect(outcome.text).toBe(isServed ? DEFAULT_TEXT : isTorn ? DEFAULT_TEXT.slice(0, 206) : '');
    if (!isServed) expect(outcome.error).toBeInstanceOf(isTorn ? TornStreamError : ChainError);
    expectReceipt(outcome, { errorClass, at, isServed, isTorn, isStripped });
    expectZeros(world, at, isStripped);
  });
});

interface Expected {
  readonly errorClass: string;
  readonly at: number;
  readonly isServed: boolean;
  readonly isTorn: boolean;
  readonly isStripped: boolean;
}

function expectReceipt({ receipt }: Outcome, { errorClass, at, isServed, isTorn, isStripped }: Expected): void {
  const classes = receipt.attempts.filter(({ hop_index }) => hop_index === at).map(({ error_class }) => error_class);
  expect(new Set(classes)).toEqual(
    new Set([`ERROR_CLASS_${errorClass}`, ...(isStripped ? ['ERROR_CLASS_UNSPECIFIED'] : [])]),
  );
  expect(receipt.outcome).toBe(`RECEIPT_OUTCOME_${isServed ? 'COMPLETED' : isTorn ? 'TORN' : 'FAILED'}`);
  expect(receipt.hop_index).toBe(isServed ? (isStripped ? at : at + 1) : isTorn ? at : undefined);
  expect(receipt.attempts.at(-1)?.action).toBe(`ATTEMPT_ACTION_${isServed ? 'NONE' : 'STOP'}`);
}

/** 0 is sent as 0, at every hop that still has the parameter. */
function expectZeros(world: FailoverWorld, at: number, isStripped: boolean): void {
  const bodies = world.fakes.flatMap(({ requests }) => requests.map(({ body }) => body as Record<string, unknown>));
  const stripped = bodies.filter((body) => !('temperature' in body));
  expect(stripped.length).toBe(isStripped ? 1 : 0);
  expect(bodies.every(({ top_p }) => top_p === 0)).toBe(true);
  if (isStripped)
    expect(world.runtime.receipts.at(-1)?.attempts.at(-1)).toMatchObject({
      hop_index: at,
      stripped_parameters: ['temperature'],
    });
}

/** The wire forms, each with the kind of the fake provider and the fields of its provider row. */
const FORMS = {
  'openai chat': { kind: 'openai', provider: { dialect: 'DIALECT_OPENAI' } },
  'openai responses': { kind: 'openai', provider: { dialect: 'DIALECT_OPENAI_RESPONSES' } },
  anthropic: { kind: 'anthropic', provider: { dialect: 'DIALECT_ANTHROPIC' } },
  deepseek: { kind: 'deepseek', provider: { name: 'deepseek', dialect: 'DIALECT_OPENAI_COMPATIBLE' } },
  xai: { kind: 'xai', provider: { name: 'grok', dialect: 'DIALECT_OPENAI_COMPATIBLE' } },
  'xai responses': {
    kind: 'xai',
    provider: { name: 'grok', dialect: 'DIALECT_OPENAI_COMPATIBLE', wire_api: 'WIRE_API_RESPONSES' },
  },
  'openai-compatible': { kind: 'compatible', provider: { dialect: 'DIALECT_OPENAI_COMPATIBLE' } },
} as const;

const FALLBACK = '1 OK NONE';
const PRIMARY = '0 OK NONE';

/** What follows a fault that has no class in the catalogue, or one that depends on the form. */
const SPECIAL: Readonly<Record<string, readonly string[]>> = {
  'prefill-rejected': [PRIMARY],
  'slow-headers': ['0 TIMEOUT NEXT_HOP', FALLBACK],
  'slow-first-token': ['0 TIMEOUT NEXT_HOP', FALLBACK],
  'error-event': ['0 RATE_LIMIT NEXT_HOP', FALLBACK],
  'error-in-200': ['0 RATE_LIMIT NEXT_HOP', FALLBACK],
  'invalid-event': ['0 SERVER NEXT_HOP', FALLBACK],
  'no-done': [PRIMARY],
  'no-usage': [PRIMARY],
  'content-filter-finish': [PRIMARY],
  'length-finish': [PRIMARY],
};

const SCHEMA = jsonSchema({ type: 'object', properties: { ticker: { type: 'string' } }, required: ['ticker'] });

/** The attempts that a fault at the first of two hops leads to in whole mode. */
function attemptsAfter(errorClass: string, isInResponse: boolean): string[] {
  const { action } = ruleOfClass(`ERROR_CLASS_${errorClass}` as never);
  if (action === 'STOP') return [`0 ${errorClass} STOP`];
  if (action === 'STRIP') return [`0 ${errorClass} STRIP`, PRIMARY];
  if (action === 'LARGER_CONTEXT') return [`0 ${errorClass} LARGER_CONTEXT`, FALLBACK];
  const retry = action === 'RETRY' && !isInResponse ? [`0 ${errorClass} RETRY`] : [];
  return [...retry, `0 ${errorClass} NEXT_HOP`, FALLBACK];
}

// The duration of slow tokens depends on the text; what a refusal is depends on the package.
const EXCLUDED = new Set(['slow-tokens', 'refusal']);

describe.each(Object.entries(FORMS))('over %s', (form, { kind, provider }) => {
  const isChat = !form.includes('responses') && form !== 'anthropic';
  const faults = faultCatalogue
    .filter(
      ({ group, name, providers }) => group !== 'key' && !EXCLUDED.has(name) && (providers?.includes(kind) ?? true),
    )
    // An empty list of choices exists in chat completions only; Responses end with the event that this fault leaves out.
    .filter(({ name }) => isChat || name !== 'no-choices')
    .filter(({ name }) => !form.includes('responses') || name !== 'no-done');

  it.each(faults)('the fault $name leads to the attempts that it should', async (definition) => {
    const { name, errorClass = '', group } = definition;
    const world = await FailoverWorld.start(
      [
        { kind, provider, fault: name, config: { temperature: 0.5 }, facts: { context_window_tokens: 8000 } },
        { facts: { context_window_tokens: 128_000 } },
      ],
      { attemptMs: 30_000 },
      0,
    );
    const tools = { price: tool({ inputSchema: SCHEMA }) };
    const isInResponse = group !== 'error response' && errorClass !== 'NETWORK';
    const outcome = await world.call('whole', name === 'truncated-arguments' ? { tools } : {});
    expect(summary(outcome.receipt)).toEqual(SPECIAL[name] ?? attemptsAfter(errorClass, isInResponse));
    expect(world.strayKeys).toEqual([]);
  });
});
