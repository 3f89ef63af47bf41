import type { IncomingMessage, ServerResponse } from 'node:http';
import { type BodyReader, BodyTooLarge } from './body.js';
import type { Clock } from './clock.js';
import { Credential, fingerprintOf, keyIn, maskedKey } from './credential.js';
import { applyFault, type Change, type FaultyRequest } from './faults/apply_fault.js';
import { FaultError, type ParsedFault, splitModel } from './faults/fault.js';
import { generate } from './generate.js';
import { isTooDeep, jsonOr } from './json_text.js';
import { type Step, sendAll, type Timing } from './plan.js';
import { providers, type Wording, wordingOf } from './providers.js';
import { loggedHeaders, type OpenEntry, type RequestLog, withoutKey } from './request_log.js';
import { type Fields, isFields } from './requests/parameters.js';
import type { StoredResponses } from './requests/stored_responses.js';
import { invalidJson } from './requests/wording.js';
import { type ErrorContext, errorResponse } from './responses/error_response.js';
import { keyResponse, modelListResponse, modelResponse } from './responses/models_response.js';
import { invalidRequest, type ProviderError, Rejection } from './responses/provider_error.js';
import type { FakeResponse } from './responses/response.js';
import { type Situation, situationError, withValues } from './responses/situations.js';
import { isRoute, type Route, routeOf } from './route.js';
import type { Rules, Selection } from './rules.js';

/** What all requests of a fake provider share. */
export interface Shared {
  readonly clock: Clock;
  readonly log: RequestLog;
  readonly bodies: BodyReader;
  readonly stored: StoredResponses;
  readonly rules: () => Rules;
  readonly latencyMs: number;
  readonly tokenDelayMs: number;
  /** Whether a request without any key is rejected, even if the script names no keys. */
  readonly requireKey: boolean;
}

/** A request, and where its response goes. */
export interface Incoming {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly number: number;
  readonly path: string;
  readonly entry: OpenEntry;
}

/** Begins the entry of a request in the log. */
export function openEntry(shared: Shared, request: IncomingMessage, path: string, number: number): OpenEntry {
  const key = keyIn(request.headers);
  return {
    id: number,
    at: new Date(shared.clock.now()).toISOString(),
    method: request.method ?? '',
    path: withoutKey(path, key),
    provider: null,
    api: null,
    model: null,
    stream: false,
    key: key === undefined ? null : fingerprintOf(key),
    headers: loggedHeaders(request.headers, key),
    body: null,
    body_bytes: 0,
    fault: null,
    status: null,
    response_bytes: 0,
    tokens: 0,
    duration_ms: null,
    ended: 'open',
  };
}

/** The steps of a response, with the headers that every response of the provider has. */
export interface PlannedResponse {
  readonly steps: readonly Step[];
  readonly headers: Readonly<Record<string, string>>;
}

/** One request from its arrival to the steps of its response. */
export class Exchange {
  private readonly key: string | undefined;
  private body: Fields = {};

  constructor(
    private readonly shared: Shared,
    private readonly incoming: Incoming,
  ) {
    this.key = keyIn(incoming.request.headers);
  }

  /** Reads the request and determines its response. Throws BodyAborted when the client closes the connection. */
  async respond(): Promise<PlannedResponse> {
    const { request, path, entry } = this.incoming;
    const header = request.headers['x-fake-provider'];
    const route = routeOf({
      method: request.method ?? '',
      path,
      header: typeof header === 'string' ? header : undefined,
      hasAnthropicVersion: request.headers['anthropic-version'] !== undefined,
    });
    const requestId = `req_fake${String(this.incoming.number).padStart(12, '0')}`;
    const context = { provider: route.provider, endpoint: isRoute(route) ? route.endpoint : undefined, requestId };
    const headers = { [providers[route.provider].requestIdHeader]: requestId };
    entry.provider = route.provider;
    if (!isRoute(route)) {
      const problem = { status: route.status, message: route.problem, type: 'invalid_request_error' };
      return { steps: sendAll(errorResponse(problem, context), NO_DELAY), headers };
    }
    entry.api = route.endpoint;
    return await this.respondAt(route, context, headers);
  }

  private async respondAt(
    route: Route,
    context: ErrorContext,
    headers: PlannedResponse['headers'],
  ): Promise<PlannedResponse> {
    try {
      if (this.incoming.request.method === 'POST') await this.readBody(wordingOf(route.provider, route.endpoint));
      return { steps: this.stepsFor(route, context), headers };
    } catch (error) {
      if (error instanceof BodyTooLarge) return { steps: tooLarge(context), headers };
      if (error instanceof Rejection) return { steps: sendAll(errorResponse(error.error, context), NO_DELAY), headers };
      if (error instanceof FaultError)
        return { steps: sendAll(errorResponse(faultProblem(error), context), NO_DELAY), headers };
      throw error;
    }
  }

  private async readBody(wording: Wording): Promise<void> {
    const { entry, request } = this.incoming;
    const text = await this.shared.bodies.read(request);
    entry.body_bytes = Buffer.byteLength(text);
    if (isTooDeep(text)) throw invalidJson(wording);
    this.shared.log.setBody(entry, text, this.key);
    this.body = parsed(text, wording);
    entry.stream = this.body['stream'] === true;
    const { model } = this.body;
    if (typeof model === 'string') entry.model = withoutKey(model, this.key).slice(0, MODEL_CHARACTERS);
  }

  private stepsFor(route: Route, context: ErrorContext): Step[] {
    const { request, entry, path } = this.incoming;
    const header = request.headers['x-fake-fault'];
    const sentModel = typeof this.body['model'] === 'string' ? this.body['model'] : '';
    // A check finds a model whose name has a fault: only its calls fail.
    const { model } = splitModel(route.model ?? sentModel);
    const credential = new Credential(route.provider, entry.key ?? undefined);
    const selection = this.shared.rules().select(
      {
        provider: route.provider,
        endpoint: route.endpoint,
        path,
        model,
        stream: entry.stream,
        body: this.body,
        fingerprint: credential.fingerprint,
      },
      { header: typeof header === 'string' ? header : undefined, model: sentModel },
    );
    const responseWith = (change: Change = {}) => this.responseFor(route, model, credential, selection, change);
    const { fault } = selection;
    const timing = this.timingOf(selection);
    if (!fault || isReported(fault, route)) return sendAll(responseWith(), timing);
    entry.fault = fault.text;
    return applyFault(fault, this.faulty(context, timing, model, responseWith));
  }

  private timingOf({ response }: Selection): Timing {
    const { latencyMs, tokenDelayMs } = this.shared;
    return {
      latencyMs: response.latency_ms ?? latencyMs,
      firstTokenMs: 0,
      tokenDelayMs: response.token_delay_ms ?? tokenDelayMs,
    };
  }

  private faulty(
    context: ErrorContext,
    timing: Timing,
    model: string,
    responseWith: FaultyRequest['responseWith'],
  ): FaultyRequest {
    const values = { model: model || 'unknown', key: maskedKey(this.key ?? ''), window: '8192', tokens: '12000' };
    const { entry } = this.incoming;
    return {
      context,
      body: this.body,
      stream: entry.stream,
      timing,
      now: this.shared.clock.now(),
      values,
      responseWith,
    };
  }

  /** The response without a fault of delivery. Throws a Rejection for a request that the provider rejects. */
  private responseFor(
    route: Route,
    model: string,
    credential: Credential,
    selection: Selection,
    change: Change,
  ): FakeResponse {
    const { rules, stored, clock } = this.shared;
    const { script } = rules();
    this.checkKey(route);
    const { endpoint, provider } = route;
    if (endpoint === 'key') return keyResponse(credential, this.key ?? '', selection.fault);
    if (endpoint === 'models')
      return route.model === undefined
        ? modelListResponse(provider, script.served_models)
        : modelResponse(provider, model, script.served_models);
    if (endpoint === 'messages' && this.incoming.request.headers['anthropic-version'] === undefined)
      throw invalidRequest('anthropic-version: header is required');
    const context = { credential, number: this.incoming.number, now: clock.now(), omit: change.omit };
    return generate({ api: endpoint, provider, model, body: this.body, script, stored, context }, selection, change);
  }

  private checkKey({ provider }: Route): void {
    const { keys } = this.shared.rules().script;
    const reject = (situation: Situation) =>
      new Rejection(withValues(situationError(situation, provider), { key: maskedKey(this.key ?? '') }));
    if (this.key === undefined && (keys || this.shared.requireKey)) throw reject('missing_key');
    if (this.key !== undefined && keys && !keys.includes(this.key)) throw reject('invalid_key');
  }
}

const MODEL_CHARACTERS = 1000;
const NO_DELAY: Timing = { latencyMs: 0, firstTokenMs: 0, tokenDelayMs: 0 };

/** Whether the key endpoint reports a fault of the key, instead of failing. */
const isReported = ({ definition: { effect } }: ParsedFault, { endpoint, provider }: Route): boolean =>
  (effect.kind === 'key state' && (endpoint === 'key' || endpoint === 'models')) ||
  (endpoint === 'key' && provider === 'deepseek' && effect.kind === 'error' && effect.situation === 'quota');

const tooLarge = (context: ErrorContext): Step[] =>
  sendAll(errorResponse(situationError('request_too_large', context.provider), context), NO_DELAY);

/** The error for a fault that does not exist. It says so in the form of the provider, so that every client shows it. */
const faultProblem = ({ message }: FaultError): ProviderError => ({
  status: 400,
  message: `fake provider: ${message}`,
  type: 'invalid_request_error',
  code: 'fake_provider_fault',
});

function parsed(text: string, wording: Wording): Fields {
  const value = jsonOr(text);
  if (!isFields(value)) throw invalidJson(wording);
  return value;
}
