import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { LLMock } from '@copilotkit/aimock';
import { generateText, streamText } from 'ai';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { packageFile } from '../../../src/package.js';
import { freePort } from '../../support/ports.js';
import { chainAgent, TestRuntime } from '../runtime/support.js';
import { FORMS, type Form, modelFor, modelOf } from './support.js';

/*
 * Judges that others have written: aimock accepts the requests of every wire form, and llmock grades what a client does when
 * a provider fails.
 */

const run = promisify(execFile);

describe('@copilotkit/aimock', () => {
  it.each(Object.keys(FORMS) as Form[])('completes calls over %s', async (form) => {
    const mock = new LLMock({ port: 0 });
    mock.onMessage('hello', { content: 'Hi there!' });
    await mock.start();
    onTestFinished(() => mock.stop());
    const { model } = modelFor({ url: `${mock.url}/v1`, provider: FORMS[form], config: { temperature: 0 } });
    expect((await generateText({ model, prompt: 'hello' })).text).toBe('Hi there!');
    const result = streamText({ model, prompt: 'hello' });
    expect(await result.text).toBe('Hi there!');
    expect(await result.finishReason).toBe('stop');
    const bodies = mock.getRequests().map(({ body }) => body as { temperature?: number; stream?: boolean });
    expect(bodies.map(({ temperature, stream }) => [temperature, stream ?? false])).toEqual([
      [0, false],
      [0, true],
    ]);
  });
});

const PROGRAM = packageFile('.cache/llmock/bin/llmock');

/** Installs llmock once; the reason if that is not possible. */
async function installLlmock(): Promise<string | undefined> {
  if (existsSync(PROGRAM)) return undefined;
  const folder = packageFile('.cache/llmock');
  try {
    await run('python3', ['-m', 'venv', folder]);
    await run(`${folder}/bin/pip`, ['install', '--quiet', 'llmock==0.2.2']);
    return undefined;
  } catch {
    return 'skipped: llmock, which grades the conduct of clients, needs Python 3.10 or newer with pip';
  }
}

/** Faults of the provider, the first of which the next request gets; each call must end with the complete text. */
const FAULTS: readonly (readonly [string, object, boolean])[] = [
  ['a rate limit', { type: 'fail', status: 429, retry_after: 1, times: 1 }, false],
  ['an unavailable server', { type: 'fail', status: 503, times: 1 }, false],
  ['a stream that ends early', { type: 'stream_fault', kind: 'truncate', after_chunks: 3 }, true],
  ['a broken connection', { type: 'stream_fault', kind: 'disconnect', after_chunks: 3 }, true],
  ['an invalid event', { type: 'stream_fault', kind: 'malformed', after_chunks: 3 }, true],
];
/** The providers of llmock with the path of their base URL. */
const PATHS: Partial<Record<Form, string>> = {
  'openai chat': '/v1',
  'openai responses': '/v1',
  anthropic: '/anthropic/v1',
  xai: '/xai/v1',
};

describe('llmock', () => {
  let missing: string | undefined;
  let url: string;
  let server: ChildProcess | undefined;

  beforeAll(async () => {
    missing = await installLlmock();
    if (missing) return console.log(missing);
    const port = await freePort();
    url = `http://127.0.0.1:${port}`;
    // Without a delay, llmock has sent a whole stream before a client can close the connection.
    server = spawn(PROGRAM, ['serve', '--port', String(port), '--stream-chunk-delay-ms', '8'], { stdio: 'ignore' });
    const isUp = () =>
      fetch(`${url}/health`).then(
        ({ ok }) => ok,
        () => false,
      );
    while (!(await isUp())) await sleep(100);
  }, 300_000);

  afterAll(async () => {
    server?.kill();
  });

  const control = (path: string, body: object = {}) =>
    fetch(`${url}/_llmock/${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });

  it.each(Object.keys(PATHS) as Form[])('finds nothing in the conduct over %s', { timeout: 120_000 }, async (form) => {
    if (missing) return;
    await control('reset');
    const hop = { url: `${url}${PATHS[form]}`, provider: FORMS[form] };
    for (const [description, behavior, onlyStreams] of FAULTS)
      for (const isStream of onlyStreams ? [true] : [false, true]) {
        expect((await control('scenario', { behaviors: [behavior] })).ok).toBe(true);
        const runtime = new TestRuntime({ random: () => 0.5 });
        const { model } = modelOf(chainAgent(hop), { mode: 'whole' }, runtime);
        const call = { model, prompt: `hello, after ${description} ${isStream}` };
        const text = isStream ? await streamText(call).text : (await generateText(call)).text;
        expect(text).not.toBe('');
        expect(runtime.receipt.attempts.length).toBe(2);
      }
    const { stdout } = await run(PROGRAM, ['report', '--strict', '--json', '--url', url]).catch((error) => error);
    expect(JSON.parse(stdout).findings).toEqual([]);
    await expectRejection(form, hop);
  });

  /** A bad request is sent once. */
  async function expectRejection(form: Form, hop: { url: string }): Promise<void> {
    await control('reset');
    await control('scenario', { behaviors: [{ type: 'fail', status: 400, times: 5 }] });
    const { model, runtime } = modelOf(chainAgent({ ...hop, provider: FORMS[form] }));
    await expect(generateText({ model, prompt: 'hello' })).rejects.toThrow('INVALID_REQUEST');
    expect(runtime.receipt.attempts.length).toBe(1);
    await expect(run(PROGRAM, ['report', '--strict', '--url', url])).resolves.toBeDefined();
    await control('reset');
  }
});
