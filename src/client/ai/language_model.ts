import type { Receipt } from '../../../gen/ts/agentllm/v1/receipt.js';
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

/** The model of an agent for the AI SDK. Each call resolves the agent again and tries the hops of its chain. */
export class AgentLanguageModel {
  readonly provider = 'agentllm';
  /** The settings of a call that has no options. */
  private readonly settings: CallSettings;

  constructor(
    readonly specificationVersion: Specification,
    private readonly agent: CallableAgent,
    private readonly runtime: Runtime,
    /** Checked options; later ones have precedence. */
    private readonly options: readonly ModelOptions[],
  ) {
    this.settings = callSettings(...options);
  }

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
    return { ...value, providerMetadata: withReceipt(value.providerMetadata, receipt) };
  }

  async doStream(options: CallOptions): Promise<StreamResult> {
    const source = new ModelParts(options, this.callerOf(options));
    const parts = await stream(this.runtime, this.callOf(options), source);
    return { ...source.facts, stream: new ReadableStream(new PartOutput(parts, source), { highWaterMark: 0 }) };
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
      hopOverrides: providerOptions && ((hop) => hopOverridesOf(providerOptions, hop)),
      needs: needsOf(options),
      signal,
    };
  }

  /** @param own the options of this call, from `providerOptions`. */
  private settingsOf(own: Readonly<Record<string, unknown>> | undefined): CallSettings {
    if (!own) return this.settings;
    checkCallOptions(own as ModelOptions);
    return callSettings(...this.options, own as ModelOptions);
  }
}

/** The attempts of a call that streams. */
class ModelParts implements PartSource<StreamPart> {
  /** Metadata of the request and the response of the last attempt. */
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

  convert(part: StreamPart): StreamPart | undefined {
    return this.call ? this.call.convert(part) : part;
  }
}

/**
 * The parts as a stream whose last part has the receipt. A fault is an error part, as the AI SDK expects it. There is no
 * async function, which would nearly double the garbage of a part.
 */
class PartOutput {
  private finish: (StreamPart & { type: 'finish' }) | undefined;

  constructor(
    private readonly parts: PartStream<StreamPart>,
    private readonly source: ModelParts,
  ) {}

  pull(controller: ReadableStreamDefaultController<StreamPart>): Promise<void> {
    return this.parts.next().then(
      (next) => this.emit(next, controller),
      (error) => {
        if (error instanceof CallAbortedError) throw error;
        controller.enqueue({ type: 'error', error });
        controller.close();
      },
    );
  }

  cancel(): void {
    this.parts.close();
  }

  private emit(
    { value, done }: IteratorResult<StreamPart, Receipt>,
    controller: ReadableStreamDefaultController<StreamPart>,
  ): Promise<void> | void {
    const { finish } = this;
    if (done) {
      if (finish) controller.enqueue({ ...finish, providerMetadata: withReceipt(finish.providerMetadata, value) });
      return controller.close();
    }
    if (value.type === 'finish') this.finish = value;
    const part = value.type === 'finish' ? undefined : this.source.convert(value);
    return part ? controller.enqueue(part) : this.pull(controller);
  }
}

/** Metadata with the receipt, which is converted when it is read: many callers do not read it. */
function withReceipt(metadata: Metadata | undefined, receipt: Receipt): Metadata {
  let json: Metadata[string] | undefined;
  const get = () => {
    json ??= receiptJson(receipt) as Metadata[string];
    return json;
  };
  return Object.defineProperty({ ...metadata }, OWN_KEY, { get, enumerable: true, configurable: true });
}
