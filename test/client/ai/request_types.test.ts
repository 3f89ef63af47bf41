import { execFile, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { promisify } from 'node:util';
import { generateText, jsonSchema, type ModelMessage, Output, streamText, tool } from 'ai';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { startFakeProvider } from '../../../src/fake_provider/fake_provider.js';
import { packageFile } from '../../../src/package.js';
import { FORMS, modelFor } from './support.js';

/*
 * The bodies of requests against the types of OpenAI's own package for Python. OpenAI's description of its API, from which
 * the types are generated, is in no package registry.
 */

const run = promisify(execFile);
const FOLDER = packageFile('.cache/openai_python');
const PYTHON = `${FOLDER}/bin/python`;

/** Installs the package once; the reason if that is not possible. */
async function installTypes(): Promise<string | undefined> {
  if (existsSync(`${FOLDER}/installed`)) return undefined;
  try {
    await run('python3', ['-m', 'venv', FOLDER]);
    await run(`${FOLDER}/bin/pip`, ['install', '--quiet', 'openai==3.57.0', 'pydantic==2.14.4']);
    await run('touch', [`${FOLDER}/installed`]);
    return undefined;
  } catch {
    return "skipped: the request types of OpenAI's package, which need Python 3.10 or newer with pip";
  }
}

/** Why each body is not valid; null: it is. */
function problemsOf(bodies: readonly (readonly [api: string, body: unknown])[]): unknown[] {
  const script = packageFile('test/client/ai/validate_bodies.py');
  const { stdout, stderr, status } = spawnSync(PYTHON, [script], { input: JSON.stringify(bodies), encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
}

const inputSchema = jsonSchema<{ city: string }>({
  type: 'object',
  properties: { city: { type: 'string' } },
  required: ['city'],
  additionalProperties: false,
});
const weather = tool({ description: 'The weather of a city', inputSchema });
const png = Buffer.from('iVBORw0KGgo=', 'base64');

/** A conversation with an image, a call of a tool and its result. */
const conversation: ModelMessage[] = [
  { role: 'system', content: 'Be short.' },
  {
    role: 'user',
    content: [
      { type: 'text', text: 'hello' },
      { type: 'image', image: png, mediaType: 'image/png' },
    ],
  },
  {
    role: 'assistant',
    content: [{ type: 'tool-call', toolCallId: 'call_1', toolName: 'weather', input: { city: 'Paris' } }],
  },
  {
    role: 'tool',
    content: [
      { type: 'tool-result', toolCallId: 'call_1', toolName: 'weather', output: { type: 'text', value: 'sunny' } },
    ],
  },
  { role: 'user', content: 'hello' },
];

/** Calls of every kind; returns the bodies that were sent. */
async function bodiesOf(provider: (typeof FORMS)['openai chat' | 'openai responses']): Promise<unknown[]> {
  const fake = await startFakeProvider();
  onTestFinished(() => fake.close());
  const config = { temperature: 0, top_p: 0, max_tokens: 100 };
  const { model } = modelFor({ url: fake.baseUrl('openai'), provider, config });
  const hello = { model, prompt: 'hello' };
  await generateText({ ...hello, stopSequences: ['END'], seed: 7 });
  const ask = { model, prompt: 'hello', tools: { weather } };
  await generateText({ ...ask, toolChoice: 'required' });
  await generateText({ ...ask, toolChoice: { type: 'tool', toolName: 'weather' } });
  await generateText({ ...hello, output: Output.object({ schema: inputSchema }) });
  await generateText({ model, messages: conversation, tools: { weather } });
  await streamText({ ...hello, tools: { weather } }).text;
  return fake.requests.map(({ body }) => body);
}

describe("the request types of OpenAI's package", () => {
  let missing: string | undefined;
  beforeAll(async () => {
    missing = await installTypes();
    if (missing) console.log(missing);
  }, 300_000);

  it.each([
    ['chat_completions', 'openai chat'],
    ['responses', 'openai responses'],
  ] as const)('accept the bodies of %s', async (api, form) => {
    if (missing) return;
    const bodies = await bodiesOf(FORMS[form]);
    expect(bodies).toHaveLength(6);
    expect(problemsOf(bodies.map((body) => [api, body]))).toEqual(bodies.map(() => null));
  });

  it('reject a body with an unknown field, a wrong role and a wrong type', () => {
    if (missing) return;
    const messages = [{ role: 'user', content: 'hello' }];
    const wrong = [
      { model: 'm', messages, unknown: 1 },
      { model: 'm', messages: [{ role: 'unknown', content: 'hello' }] },
      { model: 'm', messages, temperature: 'warm' },
    ];
    for (const problem of problemsOf(wrong.map((body) => ['chat_completions', body]))) expect(problem).not.toBeNull();
  });
});
