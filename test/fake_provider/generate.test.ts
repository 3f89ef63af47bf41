import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Credential } from '../../src/fake_provider/credential.js';
import { type Generation, generate } from '../../src/fake_provider/generate.js';
import { PROVIDERS, providers, WIRE_APIS } from '../../src/fake_provider/providers.js';
import {
  CHAT_PARAMETERS,
  MESSAGES_PARAMETERS,
  RESPONSES_PARAMETERS,
} from '../../src/fake_provider/requests/parameters.js';
import { StoredResponses } from '../../src/fake_provider/requests/stored_responses.js';
import { Rejection } from '../../src/fake_provider/responses/provider_error.js';
import { readScript } from '../../src/fake_provider/script.js';
import { BODIES } from './support.js';

const NAMES = { chat_completions: CHAT_PARAMETERS, responses: RESPONSES_PARAMETERS, messages: MESSAGES_PARAMETERS };
/** Names and words of the APIs, so that random values get beyond the first check. */
const WORDS = [
  ...[
    'type',
    'role',
    'content',
    'text',
    'user',
    'assistant',
    'tool',
    'function',
    'name',
    'parameters',
    'id',
    'call_id',
  ],
  ...[
    'tool_calls',
    'tool_call_id',
    'image_url',
    'url',
    'input_text',
    'tool_use',
    'tool_result',
    'tool_use_id',
    'input',
  ],
  ...[
    'thinking',
    'signature',
    'reasoning',
    'function_call',
    'function_call_output',
    'output',
    'arguments',
    'json_schema',
  ],
  ...[
    'schema',
    'format',
    'object',
    'properties',
    'items',
    'required',
    'anyOf',
    'toString',
    'constructor',
    '$ref',
    '#',
    'enabled',
    'budget_tokens',
  ],
];

const word = fc.constantFrom(...WORDS);
const { tree: json } = fc.letrec((tie) => ({
  leaf: fc.oneof(word, fc.integer(), fc.double({ noNaN: true }), fc.boolean(), fc.constant(null), fc.string()),
  tree: fc.oneof(
    { maxDepth: 5, withCrossShrink: true },
    tie('leaf'),
    fc.array(tie('tree'), { maxLength: 4 }),
    fc.dictionary(fc.oneof({ weight: 4, arbitrary: word }, { weight: 1, arbitrary: fc.string() }), tie('tree'), {
      maxKeys: 5,
    }),
  ),
}));

describe('generate', () => {
  it.each(WIRE_APIS)('responds to every body of %s, or rejects it', (api) => {
    const names = Object.keys(NAMES[api]);
    const changes = fc.dictionary(fc.constantFrom(...names), json, { maxKeys: 4 });
    const provider = fc.constantFrom(...PROVIDERS.filter((name) => providers[name].endpoints.includes(api)));
    let accepted = 0;
    fc.assert(
      fc.property(provider, changes, fc.boolean(), (name, changed, stream) => {
        const body = JSON.parse(JSON.stringify({ ...BODIES[api], stream, ...changed }));
        const generation: Generation = {
          api,
          provider: name,
          model: typeof body.model === 'string' ? body.model : '',
          body,
          script: readScript({}),
          stored: new StoredResponses(),
          context: { credential: new Credential(name, undefined), number: 1, now: 0 },
        };
        try {
          const response = generate(generation, { fault: undefined, response: {} }, {});
          expect(response.status).toBe(200);
          expect(response.frames.every(({ text }) => typeof text === 'string')).toBe(true);
          accepted++;
        } catch (error) {
          if (!(error instanceof Rejection)) throw error;
          expect(error.error.status).toBeGreaterThanOrEqual(400);
          expect(error.error.status).toBeLessThan(500);
        }
      }),
      { numRuns: 2000 },
    );
    expect(accepted).toBeGreaterThan(50);
  });
});
