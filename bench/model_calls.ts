import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { createRetryableModel, httpStatus } from 'ai-retry/language-model';
import { chainAgent } from '../test/client/runtime/support.js';
import { built } from './built.js';
import { serveJobs } from './script.js';
import { quantile } from './statistics.js';

/* A process that calls models: through the chain of an agent, and through the model of the provider package alone. */

export interface ModelJob {
  readonly rounds: number;
  readonly calls: number;
  /** Parts of each stream. */
  readonly parts: number;
}

/** The durations of one round in ms. */
export interface Durations {
  readonly p50: number;
  readonly p99: number;
}
export interface ModelResult {
  readonly generate: readonly Sides[];
  readonly stream: readonly Sides[];
  /** A chain whose first hop fails at once, against ai-retry with the same two models. */
  readonly failing: readonly Sides[];
}
export interface Sides {
  readonly ours: Durations;
  readonly reference: Durations;
  /** The median of the paired differences of single calls. */
  readonly added: number;
}

const WARM_UP = 300;

const { AgentLanguageModel } =
  await built<typeof import('../src/client/ai/language_model.js')>('client/ai/language_model.js');
const { Runtime } = await built<typeof import('../src/client/runtime/runtime.js')>('client/runtime/runtime.js');

/** A provider in a thread of its own: `m0` responds, `broken` fails at once. */
const serverSource = (parts: number) => `
const { createServer } = require('node:http');
const { parentPort } = require('node:worker_threads');
const usage = { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 };
const chunk = (delta, finish_reason = null) => 'data: ' + JSON.stringify({ id: '1', model: 'm0', created: 1, choices: [{ index: 0, delta, finish_reason }] }) + '\\n\\n';
const stream = chunk({ role: 'assistant', content: '' }) + chunk({ content: 'word ' }).repeat(${parts}) + chunk({}, 'stop') + 'data: [DONE]\\n\\n';
const message = { role: 'assistant', content: 'hello' };
const body = JSON.stringify({ id: '1', model: 'm0', created: 1, choices: [{ index: 0, message, finish_reason: 'stop' }], usage });
createServer(async (request, response) => {
  let text = '';
  for await (const part of request) text += part;
  const { model, stream: isStream } = JSON.parse(text);
  const [status, type, reply] = model === 'broken' ? [401, 'application/json', '{"error":{"message":"no"}}'] : isStream ? [200, 'text/event-stream', stream] : [200, 'application/json', body];
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(reply) }).end(reply);
}).listen(0, '127.0.0.1', function () { parentPort.postMessage(this.address().port); });`;

type Call = () => PromiseLike<unknown>;
const OPTIONS = { prompt: [{ role: 'user' as const, content: [{ type: 'text' as const, text: 'hi' }] }] };

serveJobs(async ({ rounds, calls, parts }: ModelJob): Promise<ModelResult> => {
  const worker = new Worker(serverSource(parts), { eval: true });
  const [port] = await once(worker, 'message');
  const url = `http://127.0.0.1:${port}/v1`;
  const provider = createOpenAICompatible({ name: 'p', baseURL: url, apiKey: 'k', includeUsage: true });
  const reference = provider.chatModel('m0');
  const retrying = createRetryableModel({
    model: provider.chatModel('broken'),
    retries: [httpStatus(401).switch({ model: reference })],
  });
  const [own, failing] = [
    ownModel([{ url, model: 'm0' }]),
    ownModel(
      [
        { url, model: 'broken' },
        { url, model: 'm0' },
      ],
      true,
    ),
  ];
  const result = {
    generate: await pairs(
      rounds,
      calls,
      () => own().doGenerate(OPTIONS),
      () => reference.doGenerate(OPTIONS),
    ),
    stream: await pairs(
      rounds,
      calls / 10,
      async () => drain(await own().doStream(OPTIONS)),
      async () => drain(await reference.doStream(OPTIONS)),
    ),
    failing: await pairs(
      rounds,
      calls,
      () => failing().doGenerate(OPTIONS),
      () => retrying.doGenerate(OPTIONS),
    ),
  };
  await worker.terminate();
  return result;
});

/** The model of an agent, whose resolution is kept, as the resident client does. @param isFresh without open breakers. */
function ownModel(hops: readonly { url: string; model: string }[], isFresh = false) {
  const agent = chainAgent(...hops);
  const resolved = agent.resolve();
  const create = () => new AgentLanguageModel('v3', { ...agent, resolve: () => resolved }, new Runtime(() => {}), []);
  const kept = create();
  return () => (isFresh ? create() : kept);
}

async function drain({ stream }: { readonly stream: ReadableStream }): Promise<void> {
  for await (const _ of stream);
}

/** Measures two calls in turns. */
async function pairs(rounds: number, calls: number, ours: Call, reference: Call): Promise<Sides[]> {
  for (let call = 0; call < WARM_UP; call++) await Promise.all([ours(), reference()]);
  const sides: Sides[] = [];
  for (let round = 0; round < rounds; round++) {
    const [own, other]: [number[], number[]] = [[], []];
    for (let call = 0; call < calls; call++) {
      const isFirst = call % 2 === 0;
      if (isFirst) own.push(await duration(ours));
      other.push(await duration(reference));
      if (!isFirst) own.push(await duration(ours));
    }
    const added = quantile(
      own.map((ms, at) => ms - (other[at] as number)),
      0.5,
    );
    sides.push({ ours: durationsOf(own), reference: durationsOf(other), added });
  }
  return sides;
}

async function duration(call: Call): Promise<number> {
  const started = performance.now();
  await call();
  return performance.now() - started;
}

const durationsOf = (values: readonly number[]): Durations => ({
  p50: quantile(values, 0.5),
  p99: quantile(values, 0.99),
});
