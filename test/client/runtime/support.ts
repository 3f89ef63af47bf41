import type { Receipt } from '../../../gen/ts/agentllm/v1/receipt.js';
import {
  type CallSettings,
  callSettings,
  checkOptions,
  type ModelOptions,
} from '../../../src/client/runtime/call_settings.js';
import { type Clock, systemClock } from '../../../src/client/runtime/clock.js';
import { generate } from '../../../src/client/runtime/generate.js';
import type { AttemptContext, CallableAgent, ModelCall, PartSource } from '../../../src/client/runtime/model_call.js';
import { Runtime, type RuntimeParts } from '../../../src/client/runtime/runtime.js';
import { stream } from '../../../src/client/runtime/stream.js';
import { Telemetry } from '../../../src/client/runtime/telemetry.js';
import { resolve } from '../../../src/domain/resolve.js';
import type { Config, Model, Provider } from '../../../src/domain/rows.js';
import { agentRow, configRow, NOW, World } from '../../domain/support.js';

/** One hop of a test chain. */
export interface TestHop {
  readonly url: string;
  readonly model?: string;
  readonly provider?: Partial<Provider>;
  /** Facts and rules of the model; without them the model is not in the catalogue. */
  readonly facts?: Partial<Model>;
  readonly config?: Partial<Config>;
  /** undefined: no key is set. */
  readonly key?: string | undefined | Error;
}

/** An agent whose chain has one config per hop, each at its own provider. */
export function chainAgent(...hops: readonly TestHop[]): CallableAgent {
  const world = new World();
  const configs = hops.map((hop, index) => {
    const name = hop.provider?.name ?? `p${index}`;
    const dialect = 'DIALECT_OPENAI_COMPATIBLE';
    const provider = {
      dialect,
      base_url: hop.url,
      api_key_env_vars: [`P${index}_API_KEY`],
      ...hop.provider,
      name,
    } as const;
    if (!world.state.provider(name)) world.provider(provider);
    const model = hop.model ?? `m${index}`;
    if (hop.facts) world.model({ provider: name, name: model, ...hop.facts });
    const none = { temperature: null, max_tokens: null, top_p: null };
    return configRow({
      id: index + 1,
      agent_id: 1,
      provider: name,
      model_name: model,
      priority: index,
      ...none,
      ...hop.config,
    });
  });
  const agent = agentRow();
  return {
    name: agent.name,
    resolve: ({ overrides = {} } = {}) => ({
      agent: { id: 1, name: agent.name, agent_type: '', role: '', substitution_policy: 'SUBSTITUTION_POLICY_ANY' },
      ...resolve(world.state, agent, configs, NOW, { overrides }),
      revision: 7n,
    }),
    apiKey: async (hop) => {
      const index = configs.findIndex(({ id }) => id === hop?.config_id);
      const { key } = 'key' in (hops[index] ?? {}) ? (hops[index] as TestHop) : { key: `sk-secret-${index}` };
      if (key instanceof Error) throw key;
      return key;
    },
  };
}

/** A clock that a test can set forward; timers run in real time. */
export class ShiftedClock implements Clock {
  private shift = 0;

  advance(ms: number): void {
    this.shift += ms;
  }

  now(): number {
    return systemClock.now() + this.shift;
  }

  date(): Date {
    return new Date(Date.now() + this.shift);
  }

  after(ms: number, callback: () => void): () => void {
    return systemClock.after(ms, callback);
  }
}

/** A runtime that collects the receipts and never waits before a retry, unless the test sets `random`. */
export class TestRuntime extends Runtime {
  readonly receipts: Receipt[];

  constructor(parts: RuntimeParts = {}) {
    const receipts: Receipt[] = [];
    const telemetry = new Telemetry(() => Promise.reject(new Error('none')));
    super((receipt) => receipts.push(receipt), { random: () => 0, telemetry, ...parts });
    this.receipts = receipts;
  }

  get receipt(): Receipt {
    if (this.receipts.length !== 1) throw new Error(`${this.receipts.length} receipts`);
    return this.receipts[0] as Receipt;
  }
}

const settingsOf = (options: ModelOptions): CallSettings => {
  checkOptions(options);
  return callSettings(options);
};

type CallInput = ModelOptions & Partial<Pick<ModelCall, 'overrides' | 'needs' | 'signal'>>;

export function callOf(
  agent: CallableAgent,
  { overrides = {}, needs = {}, signal, ...options }: CallInput = {},
): ModelCall {
  return { agent, settings: settingsOf(options), overrides, needs, signal };
}

const PATHS = { WIRE_API_RESPONSES: '/responses', WIRE_API_MESSAGES: '/messages' } as Readonly<Record<string, string>>;

/** Sends a request as a provider package does: with the placeholder as key, and its own idea of the parameters. */
async function send({ hop, fetch, apiKey }: AttemptContext, body: object): Promise<Response> {
  const isMessages = hop.wire_api === 'WIRE_API_MESSAGES';
  const headers: Record<string, string> = isMessages ? { 'x-api-key': apiKey } : { authorization: `Bearer ${apiKey}` };
  return fetch(`${hop.base_url}${PATHS[hop.wire_api] ?? '/chat/completions'}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ model: hop.model_name, messages: [{ role: 'user', content: 'hi' }], ...body }),
  });
}

/** Makes a call without a stream; the result is the response. */
export async function callGenerate(runtime: Runtime, call: ModelCall, body: object = {}) {
  // biome-ignore lint/suspicious/noExplicitAny: tests read whatever the response has
  return generate(runtime, call, async (context): Promise<any> => (await send(context, body)).json());
}

interface TextPart {
  readonly text: string;
}

/** A package that reads a stream of chat completions and, like many, takes any end of it for a regular one. */
const chatParts: PartSource<TextPart> = {
  async open(context) {
    const response = await send(context, { stream: true });
    return parseParts(response.body as ReadableStream<Uint8Array>);
  },
  isContent: ({ text }) => text !== '',
  textOf: ({ text }) => text,
  errorOf: () => undefined,
};

async function* parseParts(body: ReadableStream<Uint8Array>): AsyncGenerator<TextPart> {
  yield { text: '' };
  const decoder = new TextDecoder();
  for await (const chunk of body)
    for (const [, data = ''] of decoder.decode(chunk).matchAll(/^data: ?(\{.*\})$/gm)) {
      const { choices = [], delta, type } = JSON.parse(data);
      const text = type ? (typeof delta === 'string' ? delta : delta?.text) : choices[0]?.delta?.content;
      if (text) yield { text };
    }
}

/** Makes a call that streams, and reads it to its end. The error of a broken stream has the text in `emitted`. */
export async function callStream(
  runtime: Runtime,
  call: ModelCall,
  onText: (text: string) => unknown = () => {},
): Promise<{ readonly text: string; readonly receipt: Receipt }> {
  const parts = await stream(runtime, call, chatParts);
  let text = '';
  for (;;) {
    const { value, done } = await parts.next();
    if (done) return { text, receipt: value };
    text += value.text;
    await onText(value.text);
  }
}

export const openStream = (runtime: Runtime, call: ModelCall) => stream(runtime, call, chatParts);

/** Awaits a call that must fail, and returns the error. */
export async function failedCall<E extends Error>(
  call: Promise<unknown>,
  type: abstract new (...args: never[]) => E,
): Promise<E> {
  const error = await call.then(
    () => {
      throw new Error('the call succeeded');
    },
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof type)) throw error;
  return error;
}

/** The classes and actions of the attempts, without their prefixes: `SERVER RETRY`. */
export const summary = ({ attempts }: Receipt): string[] =>
  attempts.map(({ error_class, action, hop_index }) => {
    const name = error_class.replace('ERROR_CLASS_', '').replace('UNSPECIFIED', 'OK');
    return `${hop_index} ${name} ${action.replace('ATTEMPT_ACTION_', '')}`;
  });
