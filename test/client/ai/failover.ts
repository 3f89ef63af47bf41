import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import type { LanguageModelV3 } from '@ai-sdk/provider';
import { generateText, streamText } from 'ai';
import type { Receipt } from '../../../gen/ts/agentllm/v1/receipt.js';
import type { ModelOptions } from '../../../src/client/runtime/call_settings.js';
import { type Clock, systemClock } from '../../../src/client/runtime/clock.js';
import { VirtualClock, systemClock as wallClock } from '../../../src/fake_provider/clock.js';
import { fingerprintOf } from '../../../src/fake_provider/credential.js';
import type { FakeProvider } from '../../../src/fake_provider/fake_provider.js';
import { DEFAULT_TEXT, tokensOf } from '../../../src/fake_provider/responses/completion.js';
import { fakeProvider } from '../../fake_provider/support.js';
import { chainAgent, type TestHop, TestRuntime } from '../runtime/support.js';
import { modelOf } from './support.js';

/*
 * Calls of an agent's model against fake providers over HTTP, on one clock: its timers are those of the client and those of
 * the providers. The time advances when nothing happens any more, so that minutes take milliseconds.
 */

export type Mode = 'generate' | 'live' | 'whole';
export const MODES: readonly Mode[] = ['generate', 'live', 'whole'];

const compress = promisify(gzip);

/** Set to run in real time. */
export const REAL_TIME = process.env['FAILOVER_REAL_TIME'] === '1';

/** How long nothing may happen, in rounds of about 3 ms, until the time advances. A fake provider waits 20 ms before a reset. */
const QUIET_ROUNDS = 12;

/** A hop of a chain at a fake provider of its own. */
export interface FakeHop extends Omit<TestHop, 'url'> {
  /** The fault of its model; absent: it is healthy. */
  readonly fault?: string | undefined;
  /** The kind of provider. Default: compatible. */
  readonly kind?: Parameters<FakeProvider['baseUrl']>[0];
}

/** What the caller of a call got. */
export interface Outcome {
  readonly text: string;
  /** The error that the caller got; undefined: none. */
  readonly error: unknown;
  readonly finishReason: string | undefined;
  /** The name of the model that the response states. */
  readonly modelId: string | undefined;
  readonly outputTokens: number | undefined;
  readonly receipt: Receipt;
  /** How long the call took by the clock, in ms. */
  readonly ms: number;
}

/** The chain of an agent whose hops are at fake providers, each on its own port with its own key. */
export class FailoverWorld {
  private constructor(
    readonly fakes: readonly FakeProvider[],
    readonly runtime: TestRuntime,
    readonly model: LanguageModelV3,
    private readonly clock: VirtualClock | undefined,
  ) {}

  /** @param random decides the waits before retries; with 0 there are none. */
  static async start(hops: readonly FakeHop[], options: ModelOptions = {}, random = 0.5): Promise<FailoverWorld> {
    const clock = REAL_TIME ? undefined : new VirtualClock();
    const fakes: FakeProvider[] = [];
    for (const [index, { fault, model = `m${index}` }] of hops.entries()) {
      const rules = fault === undefined ? [] : [{ match: { model }, fault }];
      fakes.push(await fakeProvider({ clock: clock ?? wallClock, script: { rules, keys: [`sk-secret-${index}`] } }));
    }
    const at = hops.map(({ kind = 'compatible', fault: _, ...hop }, index) => ({
      url: (fakes[index] as FakeProvider).baseUrl(kind),
      ...hop,
    }));
    const runtime = new TestRuntime({ clock: clock ? runtimeClock(clock) : systemClock, random: () => random });
    const { model } = modelOf(chainAgent(...at), options, runtime);
    return new FailoverWorld(fakes, runtime, model, clock);
  }

  now(): number {
    return this.clock?.now() ?? performance.now();
  }

  /** Makes a call and lets the time pass that it takes. */
  async call(mode: Mode, more: object = {}): Promise<Outcome> {
    const began = this.now();
    const seen = await this.run(callModel(this.model, mode, more));
    return { ...seen, receipt: this.runtime.receipts.at(-1) as Receipt, ms: Math.round(this.now() - began) };
  }

  /** Lets time pass until work is done. */
  async run<T>(work: Promise<T>): Promise<T> {
    const { clock } = this;
    if (!clock) return work;
    let isDone = false;
    const end = () => {
      isDone = true;
    };
    work.then(end, end);
    for (let quiet = 0, seen = ''; !isDone; ) {
      await sleep(3);
      // Behind the decompression of responses, which runs in other threads.
      await compress('');
      const activity = this.activity;
      quiet = activity === seen ? quiet + 1 : 0;
      seen = activity;
      if (quiet < QUIET_ROUNDS || clock.untilNext === undefined) continue;
      clock.advance(clock.untilNext);
      quiet = 0;
    }
    return work;
  }

  /** Lets time pass. */
  async pass(ms: number): Promise<void> {
    if (this.clock) this.clock.advance(ms);
    else await sleep(ms);
  }

  /** The times of the requests that each provider received, in ms. */
  get requests(): number[][] {
    return this.fakes.map(({ requests }) => requests.map(({ at }) => Date.parse(at)));
  }

  /** Requests with another key than that of their provider, and requests that contain one. */
  get strayKeys(): string[] {
    return this.fakes.flatMap(({ requests }, index) =>
      requests
        .filter(
          (request) => request.key !== fingerprintOf(`sk-secret-${index}`) || /sk-secret/.test(JSON.stringify(request)),
        )
        .map(({ id, key }) => `${index} ${id} ${key}`),
    );
  }

  /** Changes whenever something happens at a provider. */
  private get activity(): string {
    const of = ({ requests, connections }: FakeProvider) =>
      [
        connections,
        ...requests.map(({ status, response_bytes, ended }) => `${status} ${response_bytes} ${ended}`),
      ].join();
    return [this.clock?.now(), this.clock?.untilNext, ...this.fakes.map(of)].join();
  }
}

/** A wait of 0 ms needs no time to pass. */
function runtimeClock(clock: VirtualClock): Clock {
  const after = (ms: number, callback: () => void) => {
    if (ms > 0) return clock.schedule(ms, callback);
    const immediate = setImmediate(callback);
    return () => clearImmediate(immediate);
  };
  return { now: () => clock.now(), date: () => new Date(clock.now()), after };
}

type Seen = Omit<Outcome, 'receipt' | 'ms'>;

const failed = (error: unknown, text = ''): Seen => ({
  text,
  error,
  finishReason: undefined,
  modelId: undefined,
  outputTokens: undefined,
});

async function callModel(model: LanguageModelV3, mode: Mode, more: object): Promise<Seen> {
  const call = { model, prompt: 'Hello', ...more };
  if (mode !== 'generate') return readStream(call, mode);
  return generateText(call).then(
    ({ text, finishReason, response: { modelId }, usage: { outputTokens } }) => ({
      text,
      error: undefined,
      finishReason,
      modelId,
      outputTokens,
    }),
    (error: unknown) => failed(error),
  );
}

async function readStream(call: Parameters<typeof streamText>[0], mode: Mode): Promise<Seen> {
  let error: unknown;
  const onError = (event: { error: unknown }) => {
    error = event.error;
  };
  const result = streamText({ ...call, providerOptions: { agentllm: { mode } }, onError });
  let text = '';
  for await (const part of result.textStream) text += part;
  if (error !== undefined) return failed(error, text);
  const [finishReason, { modelId }, { outputTokens }] = await Promise.all([
    result.finishReason,
    result.response,
    result.usage,
  ]);
  return { text, error, finishReason, modelId, outputTokens };
}

/** The text without one token. */
export const withoutToken = (index: number): string =>
  tokensOf(DEFAULT_TEXT)
    .filter((_, at) => at !== index)
    .join('');
