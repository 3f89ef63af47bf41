import { type AttemptContext, UnsupportedCall } from '../runtime/model_call.js';
import { dialectOf } from './built_in_dialects.js';
import { samplingOptionsOf } from './call_parameters.js';
import { type AttemptModel, modelOf } from './package_models.js';
import { OWN_KEY, promptFor, taggedData, untaggedData, withOrigin } from './prompt.js';
import { type SchemaTool, schemaTool } from './schema_tool.js';
import type {
  CallOptions,
  Content,
  GenerateResult,
  PackageModel,
  ProviderOptions,
  Specification,
  StreamPart,
  Warning,
} from './sdk_types.js';

/** Headers with which a caller could send a key to every provider of the chain. */
const KEY_HEADERS = new Set(['authorization', 'x-api-key', 'api-key', 'cookie', 'proxy-authorization']);
/** Parts of version 4 that version 3 does not have. */
const ONLY_V4 = new Set(['custom', 'reasoning-file', 'ping']);

/** The facts about the caller and its call that apply to all hops. */
export interface Caller {
  /** The version of the interface that the caller uses. */
  readonly specification: Specification;
  /** The indexes of the hops whose models accept sampling options. */
  readonly samplingHops: ReadonlySet<number>;
}

/** A call at one hop: the model of the provider package, with the call in the form that the hop supports. */
export class HopCall {
  private constructor(
    private readonly attempt: AttemptModel,
    private readonly options: CallOptions,
    private readonly schema: SchemaTool | undefined,
    private readonly context: AttemptContext,
    private readonly specification: Specification,
    /** The changes that the adapter makes to the call, one sentence each. */
    private readonly notes: readonly string[],
  ) {}

  static async create(context: AttemptContext, call: CallOptions, caller: Caller): Promise<HopCall> {
    const { specification } = caller;
    const dialect = dialectOf(context.hop);
    const attempt = await modelOf(context, dialect, specification);
    const { options: accepted, notes } = withoutSampling(call, context, caller);
    const schema = schemaTool(accepted, context, dialect);
    if (schema) notes.push(`The schema is sent as a tool to ${targetOf(context)}: the model has no structured output`);
    for (const note of notes) context.note(note);
    const options: CallOptions = {
      ...(schema?.options ?? accepted),
      ...parametersFor(context),
      prompt: promptFor(call.prompt, context, specification, attempt.model.specificationVersion),
      providerOptions: optionsFor(call.providerOptions, context),
      headers: { ...withoutKeys(call.headers), ...attempt.headers },
      abortSignal: context.signal,
    };
    return new HopCall(attempt, options, schema, context, specification, notes);
  }

  async generate(): Promise<GenerateResult> {
    const sent = await this.send((model) => model.doGenerate(this.options));
    const result = this.schema?.result(sent) ?? sent;
    const { content, warnings } = result;
    return {
      ...result,
      content: content.flatMap((part) => this.convert(part) ?? []),
      warnings: [...warnings, ...this.warnings],
    };
  }

  /** The parts of the stream, and metadata of the request and the response. */
  async stream() {
    const { stream, ...facts } = await this.send((model) => model.doStream(this.options));
    return { stream: this.schema ? stream.pipeThrough(mapParts(this.schema)) : stream, facts };
  }

  private async send<T>(call: (model: PackageModel) => PromiseLike<T>): Promise<T> {
    const { model, release } = this.attempt;
    try {
      return await supported(() => call(model));
    } finally {
      release();
    }
  }

  /** Converts a part for the caller; undefined if the interface version of the caller has no such part. */
  convert<P extends StreamPart | Content>(part: P): P | undefined {
    if (part.type === 'stream-start') return { ...part, warnings: [...part.warnings, ...this.warnings] };
    if (this.specification === 'v3' && ONLY_V4.has(part.type)) return undefined;
    const { specificationVersion } = this.attempt.model;
    const noted = withOrigin(part as { providerMetadata?: never }, this.context.credential) as P;
    if (
      specificationVersion === this.specification ||
      (part.type !== 'file' && (part.type as string) !== 'reasoning-file')
    )
      return noted;
    const { data } = noted as { data?: unknown };
    return { ...noted, data: this.specification === 'v4' ? taggedData(data) : untaggedData(data) };
  }

  /** The changes that the chain made because of the capabilities of the model. */
  private get warnings(): Warning[] {
    return [...this.context.adaptations, ...this.notes].map((message) => ({ type: 'other', message }));
  }
}

/**
 * The transport sets the parameters of the hop; a package would adapt them by the names of the models that it knows. Only
 * the output limit is given to the package too, because some warn without one.
 */
function parametersFor({ hop }: AttemptContext): Partial<CallOptions> {
  const limit = hop.parameters.find(({ name }) => name === 'max_tokens')?.value;
  return {
    temperature: undefined,
    topP: undefined,
    maxOutputTokens: typeof limit === 'number' ? limit : undefined,
    stopSequences: undefined,
    seed: undefined,
    reasoning: undefined,
  };
}

const targetOf = ({ hop }: AttemptContext): string => `${hop.provider}/${hop.model_name}`;

/** Leaves out the sampling options that the model of a hop rejects. */
function withoutSampling(call: CallOptions, context: AttemptContext, { samplingHops }: Caller) {
  const names = samplingHops.has(context.hop.index) ? [] : samplingOptionsOf(call);
  return {
    options: names.length === 0 ? call : { ...call, ...Object.fromEntries(names.map((name) => [name, undefined])) },
    notes: names.map((name) => `${name} is left out for ${targetOf(context)}: the model rejects it`),
  };
}

/** Turns the error of a package for something that its API cannot express into a reason to skip the hop. */
async function supported<T>(call: () => PromiseLike<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    const { name, message, functionality } = error as { name?: unknown; message?: unknown; functionality?: unknown };
    if (name === 'AI_UnsupportedFunctionalityError' || name === 'AI_NoSuchProviderReferenceError')
      throw new UnsupportedCall(String(functionality ?? message), String(message), error);
    throw error;
  }
}

/**
 * The provider options for a hop. The Responses API stores nothing unless the caller asks for it; the package must know,
 * because it would refer to stored items otherwise.
 */
function optionsFor(options: ProviderOptions | undefined, { hop }: AttemptContext): ProviderOptions | undefined {
  const { [OWN_KEY]: _, ...rest } = options ?? {};
  if (hop.wire_api !== 'WIRE_API_RESPONSES') return rest;
  const { optionsKey } = dialectOf(hop);
  return { ...rest, [optionsKey]: { store: false, ...rest[optionsKey] } };
}

function withoutKeys(headers: CallOptions['headers']): CallOptions['headers'] {
  return (
    headers && Object.fromEntries(Object.entries(headers).filter(([name]) => !KEY_HEADERS.has(name.toLowerCase())))
  );
}

const mapParts = (schema: SchemaTool) =>
  new TransformStream<StreamPart, StreamPart>({
    transform(part, controller) {
      for (const mapped of schema.part(part)) controller.enqueue(mapped);
    },
  });
