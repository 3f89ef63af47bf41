import { onAbort } from '../../abort.js';
import type { SentParameter } from '../../domain/adapt.js';
import type { ResolutionHop } from '../resolution_types.js';
import { AttemptFailure } from './attempt_failure.js';
import { AttemptTimers, type TimerLimits } from './attempt_timers.js';
import { classify } from './classify.js';
import type { Clock } from './clock.js';
import { errorOfBody, type ProviderError } from './error_body.js';
import { EventStream, type StreamObserver } from './event_stream.js';
import type { Fetch } from './fetch.js';
import { redact } from './redact.js';
import { type PackageRequest, readRequest, setKey, targetProblem } from './request.js';
import { applySettings, omittableName, parseBody } from './request_body.js';
import { parseJson, readBody } from './response_body.js';
import { retryAfter } from './retry_delay.js';
import { readerOf } from './wire.js';
import { newFacts, type Problem, type ResponseFacts, type WireReader } from './wire_reader.js';

/** Bytes of a response that is not a stream, of a stream, and of the body of an error. */
const MAX_BODY_BYTES = 64 * 1024 * 1024;
const MAX_STREAM_BYTES = 256 * 1024 * 1024;
const MAX_ERROR_BYTES = 64 * 1024;
/** How long to wait for the body of an error; its status is known. */
const ERROR_BODY_MS = 2_000;
/** Headers in which providers send the id of a request. */
const REQUEST_ID_HEADERS = ['x-request-id', 'request-id', 'x-ds-trace-id'];
/** Headers that describe the encoding of the body, which `fetch` has decoded. */
const ENCODING_HEADERS = ['content-encoding', 'content-length', 'transfer-encoding'];

/** What the transport of one attempt needs. */
export interface TransportSettings {
  readonly hop: ResolutionHop;
  readonly apiKey: string | undefined;
  readonly parameters: readonly SentParameter[];
  /** Fields of the body to omit, by their names in it. */
  readonly omitted: readonly string[];
  readonly mode: 'generate' | 'live' | 'whole';
  /** Whether a response that the model refuses is a failure. */
  readonly refusalFails: boolean;
  readonly limits: TimerLimits;
  readonly clock: Clock;
  readonly fetch: Fetch;
}

/** What is known about the request and the response of one attempt. */
export interface TransportFacts extends ResponseFacts {
  /** Whether a request was sent. */
  sent: boolean;
  status: number | undefined;
  requestId: string;
  contentType: string;
  /** Bytes of the body, after decompression. */
  bytes: number;
  /** When the first content arrived, by the clock. */
  firstContentAt: number | undefined;
  /** Events that were left out because they are not JSON. */
  droppedEvents: number;
}

/**
 * The HTTP request of one attempt, with the timers and the classification of everything that can go wrong. A provider
 * package sends the request through `fetch`. What the package makes of the response does not decide whether the attempt
 * succeeded: many faults look like a regular end to it, and its errors have other statuses.
 */
export class Transport {
  readonly facts: TransportFacts = {
    ...newFacts(),
    sent: false,
    status: undefined,
    requestId: '',
    contentType: '',
    bytes: 0,
    firstContentAt: undefined,
    droppedEvents: 0,
  };
  failure: AttemptFailure | undefined;
  readonly fetch: Fetch = (input, init) => this.send(input, init);

  private readonly abort = new AbortController();
  private readonly timers: AttemptTimers;
  private readonly wire: WireReader;
  /** Rejects the waits that a failure ends. */
  private readonly waiting = new Set<(failure: AttemptFailure) => void>();
  private body: Record<string, unknown> | undefined;
  private release = () => {};

  constructor(private readonly settings: TransportSettings) {
    const { clock, limits, hop } = settings;
    this.timers = new AttemptTimers(clock, limits, (reason) => this.expire(reason));
    this.wire = readerOf(hop.wire_api, this.facts);
  }

  /** Aborts when the attempt ends without success. */
  get signal(): AbortSignal {
    return this.abort.signal;
  }

  /** Starts the timers. */
  start(): void {
    this.timers.start(this.isStream);
  }

  /** Fails the attempt, unless it has failed already, and closes its connection. Returns the failure. */
  fail(failure: AttemptFailure): AttemptFailure {
    if (this.failure) return this.failure;
    this.failure = failure;
    this.end();
    this.abort.abort(failure);
    for (const reject of this.waiting) reject(failure);
    this.waiting.clear();
    return failure;
  }

  /** Waits for work, or until the attempt fails, which the package may notice late or never. */
  race<T>(work: PromiseLike<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.waiting.add(reject);
      const settle = (act: () => void) => {
        this.waiting.delete(reject);
        act();
      };
      work.then(
        (result) => settle(() => (this.failure ? reject(this.failure) : resolve(result))),
        (error) => settle(() => reject(this.failure ?? error)),
      );
      if (this.failure) reject(this.failure);
    });
  }

  /** Ends the attempt with success. */
  end(): void {
    this.timers.stop();
    this.release();
  }

  /** The name in the body of a parameter that the provider rejected; undefined if it cannot be omitted. */
  omittable(parameter: string | undefined): string | undefined {
    return omittableName(this.body, parameter);
  }

  private get isStream(): boolean {
    return this.settings.mode !== 'generate';
  }

  private async send(input: string | URL | Request, init?: RequestInit): Promise<Response> {
    const request = await readRequest(input, init);
    const { fetch } = this.settings;
    this.check(request);
    this.facts.sent = true;
    if (request.signal !== this.signal)
      this.release = onAbort(request.signal, () => this.fail(cancelled('The provider package aborted the request')));
    const { url, method, headers } = request;
    const body = this.prepare(request);
    const { signal } = this;
    let response: Response;
    try {
      response = await fetch(url, { method, headers, body, signal, redirect: 'manual' });
    } catch (error) {
      throw this.fail(networkFailure(error));
    }
    return this.read(response);
  }

  private check({ url }: PackageRequest): void {
    if (this.failure) throw this.failure;
    const problem = this.facts.sent
      ? 'The provider package sent a second request in one attempt; only the chain repeats requests'
      : targetProblem(url, this.settings.hop);
    if (problem) throw this.fail(new AttemptFailure('ERROR_CLASS_INVALID_REQUEST', problem, { permanent: true }));
  }

  private prepare({ headers, body }: PackageRequest): RequestInit['body'] {
    const { hop, apiKey, parameters, omitted } = this.settings;
    setKey(headers, apiKey);
    this.body = parseBody(body);
    if (!this.body) return body;
    applySettings(this.body, { wireApi: hop.wire_api, parameters, omitted });
    return JSON.stringify(this.body);
  }

  private async read(response: Response): Promise<Response> {
    const { facts } = this;
    const { status, headers, body } = response;
    facts.status = status;
    facts.requestId = REQUEST_ID_HEADERS.map((name) => headers.get(name)).find((id) => id) ?? '';
    facts.contentType = (headers.get('content-type') ?? '').split(';')[0]?.trim().toLowerCase() ?? '';
    if (status < 200 || status > 299) throw await this.readError(response);
    const isStream = this.body?.['stream'] === true && !/\bjson$|\bhtml$/.test(facts.contentType);
    const forwarded = isStream && body ? this.observe(body) : await this.readWhole(body);
    return new Response(forwarded, { status, headers: decodedHeaders(headers) });
  }

  private async readError({ status, headers, body }: Response): Promise<AttemptFailure> {
    const { clock } = this.settings;
    const limits = { maxBytes: MAX_ERROR_BYTES, maxMs: ERROR_BODY_MS };
    const { text, bytes } = await readBody(body, limits, clock).catch(() => ({ text: '', bytes: 0 }));
    this.facts.bytes = bytes;
    return this.fail(this.classified(status, errorOfBody(parseJson(text)), retryAfter(headers, clock.date())));
  }

  private async readWhole(body: ReadableStream<Uint8Array> | null): Promise<string> {
    const read = await readBody(body, { maxBytes: MAX_BODY_BYTES }, this.settings.clock).catch((error) => {
      throw this.torn('the connection broke', error);
    });
    this.facts.bytes = read.bytes;
    if (read.isComplete && isCutJson(read.text)) throw this.torn('its JSON is incomplete');
    const problem = read.isComplete
      ? this.problemOf(read.text)
      : ({ kind: 'invalid', message: 'The response is too large' } as const);
    if (problem) throw this.failWith(problem);
    return read.text;
  }

  /** Reads a response that is not a stream. */
  private problemOf(text: string): Problem | undefined {
    if (text.trim() === '') return { kind: 'invalid', message: 'The response is empty' };
    const json = parseJson(text);
    if (json === undefined) return { kind: 'invalid', message: 'The response is not JSON' };
    const problem = this.wire.body(json);
    if (problem) return problem;
    if (this.body?.['stream'] === true) return { kind: 'invalid', message: 'The response is not a stream' };
    return this.settings.refusalFails && this.facts.finishReason === 'content-filter' ? { kind: 'refused' } : undefined;
  }

  private observe(body: ReadableStream<Uint8Array>): ReadableStream<Uint8Array> {
    const { clock, mode, refusalFails } = this.settings;
    const observer: StreamObserver = {
      reader: this.wire,
      facts: this.facts,
      timers: this.timers,
      clock,
      isLive: mode === 'live',
      refusalFails,
      bytes: (count) => {
        this.facts.bytes += count;
        if (this.facts.bytes > MAX_STREAM_BYTES) this.failWith({ kind: 'invalid', message: 'The stream is too large' });
      },
      content: () => {
        this.facts.firstContentAt ??= clock.now();
      },
      dropped: () => {
        this.facts.droppedEvents++;
      },
      fail: (problem) => this.failWith(problem),
      torn: (message, cause) => this.torn(message, cause),
    };
    return new EventStream(body, observer).stream;
  }

  private failWith(problem: Problem): AttemptFailure {
    const { status = 200 } = this.facts;
    switch (problem.kind) {
      case 'error':
        return this.fail(this.classified(status, problem.error, undefined));
      case 'invalid':
        return this.fail(new AttemptFailure('ERROR_CLASS_SERVER', problem.message, { status }));
      case 'truncated':
        return this.fail(new AttemptFailure('ERROR_CLASS_TORN', problem.message, { status, permanent: true }));
      case 'refused':
        return this.fail(new AttemptFailure('ERROR_CLASS_CONTENT_POLICY', 'The model refuses the content', { status }));
    }
  }

  private classified(status: number, error: ProviderError, retryAfterMs: number | undefined): AttemptFailure {
    const { hop, apiKey } = this.settings;
    const { errorClass, parameter } = classify({ wireApi: hop.wire_api, status, error });
    const code = error.code ?? error.type;
    const message = redact(error.message ?? 'The provider gives no reason', apiKey);
    return new AttemptFailure(errorClass, message, {
      status,
      code: code === undefined ? undefined : redact(code, apiKey),
      retryAfterMs,
      parameter,
    });
  }

  /** Fails the attempt because its response is not complete. */
  torn(message: string, cause?: unknown): AttemptFailure {
    const { status } = this.facts;
    const text = `The response ended too early: ${message}`;
    return this.fail(new AttemptFailure('ERROR_CLASS_TORN', text, { status, cause }));
  }

  private expire(reason: string): void {
    const { status } = this.facts;
    this.fail(new AttemptFailure('ERROR_CLASS_TIMEOUT', `The provider sent ${reason}`, { status }));
  }
}

/** The headers of a response whose body has been decoded. */
function decodedHeaders(headers: Headers): Headers {
  if (!headers.has('content-encoding')) return headers;
  const decoded = new Headers(headers);
  for (const name of ENCODING_HEADERS) decoded.delete(name);
  return decoded;
}

/** Whether a text is the beginning of a JSON object. A compressed body that breaks off is not reported as a fault. */
function isCutJson(text: string): boolean {
  const trimmed = text.trim();
  return trimmed.startsWith('{') && !trimmed.endsWith('}');
}

const cancelled = (message: string) => new AttemptFailure('ERROR_CLASS_CANCELLED', message);

/** A request without a response: name not found, refused, reset, or an invalid certificate. */
function networkFailure(error: unknown): AttemptFailure {
  const { cause } = error as { cause?: { code?: unknown; message?: unknown } };
  const code = typeof cause?.code === 'string' ? cause.code : undefined;
  const isTimeout = code === 'UND_ERR_HEADERS_TIMEOUT' || code === 'UND_ERR_CONNECT_TIMEOUT';
  const detail = typeof cause?.message === 'string' && cause.message !== '' ? cause.message : String(error);
  const errorClass = isTimeout ? 'ERROR_CLASS_TIMEOUT' : 'ERROR_CLASS_NETWORK';
  return new AttemptFailure(errorClass, `There is no response: ${detail}`, { code, cause: error });
}
