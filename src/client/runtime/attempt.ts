import { randomUUID } from 'node:crypto';
import type { Attempt, AttemptAction } from '../../../gen/ts/agentllm/v1/receipt.js';
import type { ResolutionHop } from '../resolution_types.js';
import { AttemptFailure } from './attempt_failure.js';
import { cutText, wholeMs } from './call_record.js';
import { breakerKeys, type CircuitBreakers, type Permit } from './circuit_breaker.js';
import { ruleOfClass } from './error_class.js';
import { credentialOf } from './hop_identity.js';
import type { Selection } from './hop_selector.js';
import { type AttemptContext, UnsupportedCall } from './model_call.js';
import { KEY_PLACEHOLDER } from './request.js';
import { parameterName } from './request_body.js';
import type { AttemptSpan } from './telemetry.js';
import { Transport, type TransportSettings } from './transport.js';
import { normalizeUsage } from './usage.js';

interface AttemptSettings extends TransportSettings {
  readonly permit: Permit;
  readonly admission: Selection['admission'];
  readonly firstHop: ResolutionHop;
  readonly span: AttemptSpan;
  readonly adaptations: readonly string[];
}

/** One attempt at a hop: its transport, its permit of the circuit breakers, and its record. */
export class HopAttempt {
  readonly hop: ResolutionHop;
  readonly transport: Transport;
  readonly context: AttemptContext;
  private readonly adapterNotes: string[] = [];
  private readonly startedAt: number;
  private readonly date: Date;

  constructor(private readonly settings: AttemptSettings) {
    const { hop, clock, firstHop, adaptations } = settings;
    this.hop = hop;
    this.transport = new Transport(settings);
    this.startedAt = clock.now();
    this.date = clock.date();
    const credential = credentialOf(hop);
    this.context = {
      hop,
      apiKey: KEY_PLACEHOLDER,
      fetch: this.transport.fetch,
      signal: this.transport.signal,
      credential,
      isForeign: hop !== firstHop && credential !== credentialOf(firstHop),
      adaptations,
      note: (sentence) => void this.adapterNotes.push(sentence),
    };
  }

  get span(): AttemptSpan {
    return this.settings.span;
  }

  /** Whether the circuit breakers permit another attempt at this hop. After a failed trial they do not. */
  mayRetry(breakers: CircuitBreakers): boolean {
    const { hop, apiKey, permit } = this.settings;
    return !permit.isTrial && breakers.openScope(breakerKeys(hop, apiKey)) === undefined;
  }

  /**
   * Waits for work of the adapter. Rejects with an AttemptFailure when the work or the attempt has failed, and with an
   * UnsupportedCall when the adapter cannot make the call at this hop.
   */
  race<T>(work: PromiseLike<T>): Promise<T> {
    return this.transport.race(work).catch((error: unknown) => {
      if (error instanceof UnsupportedCall && !this.transport.facts.sent) throw error;
      throw this.adapterFailure(error);
    });
  }

  /** The failure for an error of the adapter or of a provider package. The transport has seen no fault. */
  adapterFailure(error: unknown): AttemptFailure {
    if (error instanceof AttemptFailure || this.transport.failure) return this.transport.fail(error as AttemptFailure);
    const { sent, status } = this.transport.facts;
    const reason = error instanceof Error ? error.message : String(error);
    const facts = { status, cause: error, permanent: true };
    // Without a request the package rejects the call itself: it cannot express the call in the API of its provider.
    if (!sent) return this.transport.fail(new AttemptFailure('ERROR_CLASS_INVALID_REQUEST', reason, facts));
    const message = `The provider package cannot read the response: ${reason}`;
    // Some packages have no place for a refusal.
    const isRefused = this.transport.facts.finishReason === 'content-filter';
    const errorClass = isRefused ? 'ERROR_CLASS_CONTENT_POLICY' : 'ERROR_CLASS_SERVER';
    return this.transport.fail(new AttemptFailure(errorClass, message, facts));
  }

  /** Fails the attempt because the caller no longer wants it. */
  cancel(): void {
    this.transport.fail(new AttemptFailure('ERROR_CLASS_CANCELLED', 'The caller aborted the call'));
  }

  /**
   * Throws if the package treats a response as complete although the transport has not received its terminal event. A
   * package that does not send its request through `fetch` is trusted.
   */
  ensureComplete(): void {
    const { sent, terminal } = this.transport.facts;
    if (sent && terminal === 'none') throw this.transport.torn('its terminal event is missing');
  }

  /** Reports to the breakers that the hop responds. The attempt can still fail. */
  responds(): void {
    this.settings.permit.succeeded();
  }

  /** Discards the attempt before its request, without a record. */
  discard(): void {
    this.settings.permit.released();
    this.settings.admission.unused();
    this.transport.end();
    this.span.end(undefined);
  }

  /** Reports the failure to the breakers. The permit of an attempt that the caller aborted is returned. */
  report({ errorClass }: AttemptFailure): void {
    const { permit } = this.settings;
    if (errorClass === 'ERROR_CLASS_CANCELLED') permit.released();
    else permit.failed(ruleOfClass(errorClass).breaker);
  }

  /** Ends the attempt and returns its record. @param backoffMs the wait before the next attempt. */
  end(failure: AttemptFailure | undefined, action: AttemptAction, backoffMs: number | undefined): Attempt {
    this.transport.end();
    const record = this.record(failure, action, backoffMs);
    this.span.end(record);
    return record;
  }

  private record(failure: AttemptFailure | undefined, action: AttemptAction, backoffMs: number | undefined): Attempt {
    const { hop, settings } = this;
    const { facts } = this.transport;
    const now = settings.clock.now();
    return {
      attempt_id: randomUUID(),
      hop_index: hop.index,
      provider: hop.provider,
      model_name: hop.model_name,
      dialect: hop.dialect,
      wire_api: hop.wire_api,
      config_id: hop.config_id,
      key_source: settings.apiKey === undefined ? 'KEY_SOURCE_NONE' : hop.key.source,
      error_class: failure?.errorClass ?? 'ERROR_CLASS_UNSPECIFIED',
      action,
      status: facts.status,
      provider_request_id: cutText(facts.requestId),
      provider_code: cutText(failure?.facts.code ?? ''),
      response_model: cutText(facts.model),
      started_at: this.date,
      latency_ms: wholeMs(now - this.startedAt),
      time_to_first_token_ms:
        facts.firstContentAt === undefined ? undefined : wholeMs(facts.firstContentAt - this.startedAt),
      retry_after_ms: failure?.facts.retryAfterMs === undefined ? undefined : wholeMs(failure.facts.retryAfterMs),
      backoff_ms: backoffMs === undefined ? undefined : wholeMs(backoffMs),
      content_type: cutText(facts.contentType),
      response_bytes: BigInt(facts.bytes),
      stripped_parameters: settings.omitted.map((name) => parameterName(name, hop.parameters)),
      usage: facts.usage && normalizeUsage(hop.wire_api, hop.provider, facts.usage),
      reservation_id: settings.admission.reservationId,
    };
  }

  /** The fields and events that this attempt left out, in addition to the adaptations of its hop. */
  get notes(): string[] {
    const { hop, settings } = this;
    const { droppedEvents } = this.transport.facts;
    const target = `${hop.provider}/${hop.model_name}`;
    const stripped = settings.omitted.map(
      (name) => `${parameterName(name, hop.parameters)} is left out for ${target}: the provider rejected it`,
    );
    const dropped = `${droppedEvents} events of the stream of ${target} are left out: they are not JSON`;
    return [...this.adapterNotes, ...stripped, ...(droppedEvents > 0 ? [dropped] : [])];
  }
}

/** The record of a hop whose key could not be obtained: an attempt without a request. */
export const keyFailureRecord = (hop: ResolutionHop, { errorClass }: AttemptFailure, date: Date): Attempt => ({
  attempt_id: randomUUID(),
  hop_index: hop.index,
  provider: hop.provider,
  model_name: hop.model_name,
  dialect: hop.dialect,
  wire_api: hop.wire_api,
  config_id: hop.config_id,
  key_source: hop.key.source,
  error_class: errorClass,
  action: 'ATTEMPT_ACTION_NEXT_HOP',
  status: undefined,
  provider_request_id: '',
  provider_code: '',
  response_model: '',
  started_at: date,
  latency_ms: 0,
  time_to_first_token_ms: undefined,
  retry_after_ms: undefined,
  backoff_ms: undefined,
  content_type: '',
  response_bytes: 0n,
  stripped_parameters: [],
  usage: undefined,
  reservation_id: '',
});
