import type { Attempt, Receipt } from '../../../gen/ts/agentllm/v1/receipt.js';
import { importPeer } from '../import_peer.js';
import type { ResolutionHop } from '../resolution_types.js';
import {
  type Attributes,
  attemptAttributes,
  callAttributes,
  DURATION_BUCKETS,
  errorType,
  GEN_AI_SCHEMA,
  OPERATION_DURATION,
  requestAttributes,
  TOKEN_BUCKETS,
  TOKEN_USAGE,
} from './gen_ai.js';

/*
 * Spans and metrics through @opentelemetry/api, if the process has it. The types describe the part of the API that is
 * used, so that the package needs neither the API nor its types.
 */
interface Span {
  spanContext(): unknown;
  isRecording(): boolean;
  setAttributes(attributes: Attributes): unknown;
  setStatus(status: { readonly code: number }): unknown;
  end(): void;
}
interface Tracer {
  startSpan(name: string, options: object, context?: unknown): Span;
}
interface Histogram {
  record(value: number, attributes: Attributes): void;
}
interface Api {
  readonly context: { active(): unknown; with<T>(context: unknown, work: () => T): T };
  readonly trace: {
    getTracer(name: string, version?: string, options?: object): Tracer;
    setSpan(context: unknown, span: Span): unknown;
    isSpanContextValid(context: unknown): boolean;
  };
  readonly metrics: {
    getMeter(
      name: string,
      version?: string,
      options?: object,
    ): {
      createHistogram(name: string, options: object): Histogram;
    };
  };
}

/** Values of SpanKind and SpanStatusCode. */
const KIND_CLIENT = 2;
const STATUS_ERROR = 2;
const SCOPE = '@agentllm/client';

/** The span of one attempt. */
export interface AttemptSpan {
  /** Runs work whose own spans become children of this one. */
  run<T>(work: () => T): T;
  /** @param attempt undefined: no request was made. */
  end(attempt: Attempt | undefined): void;
}

/** The span of one call. */
export interface CallSpan {
  attempt(hop: ResolutionHop): AttemptSpan;
  /** Ends the span and records the metrics of the call. */
  end(receipt: Receipt): void;
}

const NO_ATTEMPT_SPAN: AttemptSpan = { run: (work) => work(), end: () => {} };
const NO_SPAN: CallSpan = { attempt: () => NO_ATTEMPT_SPAN, end: () => {} };

/** Emits spans and metrics of model calls; does nothing in a process without @opentelemetry/api. */
export class Telemetry {
  /** undefined: not yet loaded; null: the process has none. */
  private api: Api | null | undefined;
  private loading: Promise<void> | undefined;
  private instruments: { readonly duration: Histogram; readonly tokens: Histogram } | undefined;
  private tracer: Tracer | undefined;

  constructor(private readonly load: () => Promise<unknown> = () => importPeer('@opentelemetry/api')) {}

  /** Loads the API on first use. Returns undefined once it is loaded, so that later calls do not wait. */
  ready(): Promise<void> | undefined {
    if (this.api !== undefined) return undefined;
    this.loading ??= this.load().then(
      (api) => {
        this.api = api as Api;
      },
      () => {
        this.api = null;
      },
    );
    return this.loading;
  }

  /** Starts the span of a call, as a child of the active one. */
  start(hop: ResolutionHop | undefined): CallSpan {
    const { api } = this;
    if (!api || !hop) return NO_SPAN;
    const attributes = requestAttributes(hop.provider, hop.model_name);
    const parent = api.context.active();
    this.tracer ??= api.trace.getTracer(SCOPE, undefined, { schemaUrl: GEN_AI_SCHEMA });
    const { tracer } = this;
    const span = tracer.startSpan(`chat ${hop.model_name}`, { kind: KIND_CLIENT, attributes }, parent);
    // Without an OpenTelemetry SDK no span has a valid context.
    const isTraced = api.trace.isSpanContextValid(span.spanContext());
    const context = isTraced && api.trace.setSpan(parent, span);
    return {
      attempt: (hop) => (isTraced ? startAttempt(api, tracer, context, hop) : NO_ATTEMPT_SPAN),
      end: (receipt) => {
        finish(span, () => callAttributes(receipt), receipt.error_class);
        this.measure(api, receipt);
      },
    };
  }

  private measure(api: Api, receipt: Receipt): void {
    this.instruments ??= createInstruments(api);
    const { duration, tokens } = this.instruments;
    const last = receipt.attempts.at(-1);
    if (last) duration.record(receipt.duration_ms / 1000, metricAttributes(last, errorType(receipt.error_class)));
    for (const attempt of receipt.attempts) {
      const { input_tokens, output_tokens } = attempt.usage ?? {};
      for (const [type, count] of Object.entries({ input: input_tokens, output: output_tokens }))
        if (count !== undefined)
          tokens.record(count, { ...metricAttributes(attempt, undefined), 'gen_ai.token.type': type });
    }
  }
}

function startAttempt(api: Api, tracer: Tracer, parent: unknown, hop: ResolutionHop): AttemptSpan {
  const { provider, model_name } = hop;
  const attributes = requestAttributes(provider, model_name);
  const span = tracer.startSpan(`attempt ${provider}/${model_name}`, { attributes }, parent);
  const context = api.trace.setSpan(parent, span);
  return {
    run: (work) => api.context.with(context, work),
    end: (attempt) => (attempt ? finish(span, () => attemptAttributes(attempt), attempt.error_class) : span.end()),
  };
}

function finish(span: Span, attributes: () => Attributes, errorClass: Receipt['error_class']): void {
  // Without an OpenTelemetry SDK, the attributes are not computed.
  if (span.isRecording()) span.setAttributes(attributes());
  if (errorClass !== 'ERROR_CLASS_UNSPECIFIED') span.setStatus({ code: STATUS_ERROR });
  span.end();
}

function createInstruments(api: Api) {
  const meter = api.metrics.getMeter(SCOPE, undefined, { schemaUrl: GEN_AI_SCHEMA });
  const histogram = (name: string, unit: string, explicitBucketBoundaries: readonly number[]) =>
    meter.createHistogram(name, { unit, advice: { explicitBucketBoundaries } });
  return {
    duration: histogram(OPERATION_DURATION, 's', DURATION_BUCKETS),
    tokens: histogram(TOKEN_USAGE, '{token}', TOKEN_BUCKETS),
  };
}

function metricAttributes(attempt: Attempt, error: string | undefined): Attributes {
  const attributes = requestAttributes(attempt.provider, attempt.model_name);
  if (attempt.response_model !== '') attributes['gen_ai.response.model'] = attempt.response_model;
  if (error !== undefined) attributes['error.type'] = error;
  return attributes;
}
