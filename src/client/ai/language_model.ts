import { type CallSettings, callSettings, checkCallOptions, type ModelOptions } from '../runtime/call_settings.js';
import { CallAbortedError } from '../runtime/chain_error.js';
import { generate } from '../runtime/generate.js';
import type { AttemptContext, CallableAgent, ModelCall, PartSource } from '../runtime/model_call.js';
import { receiptJson } from '../runtime/receipt_json.js';
import type { Runtime } from '../runtime/runtime.js';
import { type PartStream, stream } from '../runtime/stream.js';
import { hopOverridesOf, needsOf, overridesOf, samplingHops, samplingOptionsOf } from './call_parameters.js';
import { type Caller, HopCall } from './hop_call.js';
import { OWN_KEY } from './prompt.js';
import type {
  CallOptions,
  GenerateResult,
  Metadata,
  Specification,
  StreamPart,
  StreamResult,
  Urls,
} from './sdk_types.js';
import { supportedUrls } from './supported_urls.js';

/** Parts of a stream that a caller can show or use. */
const CONTENT = new Set([
  'text-delta',
  'reasoning-delta',
  'tool-input-start',
  'tool-input-delta',
  'tool-approval-request',
  'tool-call',
  'tool-result',
  'file',
  'source',
  'custom',
  'reasoning-file',
]);

/** The model of an agent for the AI SDK. Each call resolves the agent anew and goes through its chain. */
export class AgentLanguageModel {
  readonly provider = 'agentllm';

  constructor(
    readonly specificationVersion: Specification,
    private readonly agent: CallableAgent,
    private readonly runtime: Runtime,
    /** Checked options; later ones have precedence. */
    private readonly options: readonly ModelOptions[],
  ) {}

  /** The name of the agent. */
  get modelId(): string {
    return this.agent.name;
  }

  /** URLs that every hop can pass to its provider. The AI SDK downloads all others. */
  get supportedUrls(): PromiseLike<Urls> {
    return supportedUrls(this.agent, this.specificationVersion, this.subject);
  }

  async doGenerate(options: CallOptions): Promise<GenerateResult> {
    const caller = this.callerOf(options);
    const attempt = async (context: AttemptContext) => (await HopCall.create(context, options, caller)).generate();
    const { value, receipt } = await generate(this.runtime, this.callOf(options), attempt);
    return {
      ...value,
      providerMetadata: { ...value.providerMetadata, [OWN_KEY]: receiptJson(receipt) as Metadata[string] },
    };
  }

  async doStream(options: CallOptions): Promise<StreamResult> {
    const source = new ModelParts(options, this.callerOf(options));
    const parts = await stream(this.runtime, this.callOf(options), source);
    return { ...source.facts, stream: streamOf(parts, source) };
  }

  private get subject(): string | undefined {
    return callSettings(...this.options).subject;
  }

  private callerOf(options: CallOptions): Caller {
    const usesSampling = samplingOptionsOf(options).length > 0;
    const hops = usesSampling ? samplingHops(this.agent, overridesOf(options), this.subject) : new Set<number>();
    return { specification: this.specificationVersion, samplingHops: hops };
  }

  private callOf(options: CallOptions): ModelCall {
    const { providerOptions, abortSignal: signal } = options;
    return {
      agent: this.agent,
      settings: this.settingsOf(providerOptions?.[OWN_KEY]),
      overrides: overridesOf(options),
      hopOverrides: (hop) => hopOverridesOf(providerOptions, hop),
      needs: needsOf(options),
      signal,
    };
  }

  /** @param own the options of the call in `providerOptions`. */
  private settingsOf(own: Readonly<Record<string, unknown>> = {}): CallSettings {
    checkCallOptions(own as ModelOptions);
    return callSettings(...this.options, own as ModelOptions);
  }
}

/** The attempts of a call that streams. */
class ModelParts implements PartSource<StreamPart> {
  /** What is known about the request and the response of the last attempt. */
  facts: Omit<StreamResult, 'stream'> = {};
  private call: HopCall | undefined;

  constructor(
    private readonly options: CallOptions,
    private readonly caller: Caller,
  ) {}

  async open(context: AttemptContext): Promise<ReadableStream<StreamPart>> {
    this.call = await HopCall.create(context, this.options, this.caller);
    const { stream: parts, facts } = await this.call.stream();
    this.facts = facts;
    return parts;
  }

  isContent(part: StreamPart): boolean {
    return CONTENT.has(part.type) && !('delta' in part && part.delta === '');
  }

  textOf(part: StreamPart): string {
    return part.type === 'text-delta' ? part.delta : '';
  }

  errorOf(part: StreamPart): unknown {
    return part.type === 'error' ? (part.error ?? new Error('The provider package reports an error')) : undefined;
  }

  convert(part: StreamPart): StreamPart[] {
    return this.call?.convert(part) ?? [part];
  }
}

/** The parts as a stream whose last part has the receipt. A fault is an error part, as the AI SDK expects it. */
function streamOf(parts: PartStream<StreamPart>, source: ModelParts): ReadableStream<StreamPart> {
  let finish: StreamPart | undefined;
  return new ReadableStream<StreamPart>(
    {
      async pull(controller) {
        try {
          for (;;) {
            const { value, done } = await parts.next();
            if (done) {
              if (finish?.type === 'finish')
                controller.enqueue(withReceipt(finish, receiptJson(value) as Metadata[string]));
              controller.close();
              return;
            }
            if (value.type === 'finish') finish = value;
            const converted = value.type === 'finish' ? [] : source.convert(value);
            for (const part of converted) controller.enqueue(part);
            if (converted.length > 0) return;
          }
        } catch (error) {
          if (error instanceof CallAbortedError) throw error;
          controller.enqueue({ type: 'error', error });
          controller.close();
        }
      },
      cancel: () => parts.close(),
    },
    { highWaterMark: 0 },
  );
}

const withReceipt = (finish: StreamPart & { type: 'finish' }, receipt: Metadata[string]): StreamPart => ({
  ...finish,
  providerMetadata: { ...finish.providerMetadata, [OWN_KEY]: receipt },
});
