import { gzipSync } from 'node:zlib';
import { head, type Step, sendAll, type Timing, wait, writes } from '../plan.js';
import { errorFormOf } from '../providers.js';
import { type Fields, isFields } from '../requests/parameters.js';
import type { Completion } from '../responses/completion.js';
import { argumentPartsOf, tokensOf } from '../responses/completion.js';
import { type ErrorContext, errorFrames, errorResponse, htmlResponse } from '../responses/error_response.js';
import { errorBody, type XaiBody } from '../responses/provider_error.js';
import { type FakeResponse, type Frame, frame, framesBefore, jsonResponse } from '../responses/response.js';
import { type Situation, situationError, withValues } from '../responses/situations.js';
import { numberOf, type ParsedFault, wordOf } from './fault.js';
import type { FaultEffect } from './fault_catalogue.js';

/** What a fault changes in a response that is complete otherwise. */
export interface Change {
  readonly completion?: (completion: Completion) => Completion;
  readonly omit?: 'usage' | 'content';
}

/** A request to which a fault applies. */
export interface FaultyRequest {
  readonly context: ErrorContext;
  readonly body: Fields;
  readonly stream: boolean;
  readonly timing: Timing;
  /** The current time in ms since 1970. */
  readonly now: number;
  /** Values of the placeholders in the texts of errors. */
  readonly values: Readonly<Record<string, string>>;
  /** The response without the fault. */
  readonly responseWith: (change?: Change) => FakeResponse;
}

/** How a response is sent to which a fault applies. */
export function applyFault(fault: ParsedFault, request: FaultyRequest): Step[] {
  const { effect } = fault.definition;
  switch (effect.kind) {
    case 'key state':
      return sendAll(
        errorResponse(situationError('permission', request.context.provider), request.context),
        request.timing,
      );
    case 'error':
      return applyError(effect, fault, request);
    case 'connection':
      return [{ kind: effect.how === 'silence' ? 'hold' : effect.how }];
    case 'slow':
      return sendAll(request.responseWith(), slowed(effect.what, fault, request.timing));
    case 'signs of life':
      return signsOfLife(effect.form, fault, request);
    case 'interruption':
      return interrupt(effect.how, fault, request);
    case 'body':
      return replaceBody(effect.body, fault, request);
    case 'frames':
      return changeFrames(effect.what, fault, request);
    case 'content':
      return sendAll(request.responseWith({ completion: contentChange(effect.what, fault) }), request.timing);
  }
}

type EffectOf<Kind> = Extract<FaultEffect, { readonly kind: Kind }>;

function applyError({ situation, only }: EffectOf<'error'>, fault: ParsedFault, request: FaultyRequest): Step[] {
  const { body, context, values, timing, now } = request;
  const param = wordOf(fault, 'param') ?? '';
  const isAffected =
    only === undefined ||
    (only === 'with parameter' ? has(body, param) : isPrefilled(body['messages'] ?? body['input']));
  if (!isAffected) return sendAll(request.responseWith(), timing);
  const error = withValues(situationError(situation, context.provider), { ...values, param, wait: waitText(fault) });
  const status = numberOf(fault, 'status') ?? error.status;
  const form = { ...context, xaiBody: wordOf(fault, 'body') as XaiBody };
  return sendAll(errorResponse({ ...error, status }, form, retryHeaders(fault, now)), timing);
}

const waitText = (fault: ParsedFault) => `${numberOf(fault, 'retry_after') ?? 20}s`;

function retryHeaders(fault: ParsedFault, now: number): Record<string, string> {
  const seconds = numberOf(fault, 'retry_after');
  const untilDate = numberOf(fault, 'retry_after_date');
  return {
    ...(seconds !== undefined && {
      'retry-after': String(Math.ceil(seconds)),
      ...(!Number.isInteger(seconds) && { 'retry-after-ms': String(Math.round(seconds * 1000)) }),
    }),
    ...(untilDate !== undefined && { 'retry-after': new Date(now + untilDate * 1000).toUTCString() }),
  };
}

/** Whether a body has a parameter; a dot separates the names of nested objects. */
function has(body: Fields, parameter: string): boolean {
  let at: unknown = body;
  for (const step of parameter.split('.')) at = isFields(at) && Object.hasOwn(at, step) ? at[step] : undefined;
  return at !== undefined && at !== null;
}

function isPrefilled(messages: unknown): boolean {
  const last = Array.isArray(messages) ? messages.at(-1) : undefined;
  return isFields(last) && last['role'] === 'assistant';
}

function slowed(what: EffectOf<'slow'>['what'], fault: ParsedFault, timing: Timing): Timing {
  const delayMs = numberOf(fault, 'delay_ms') ?? 0;
  if (what === 'headers') return { ...timing, latencyMs: timing.latencyMs + delayMs };
  if (what === 'first token') return { ...timing, firstTokenMs: timing.firstTokenMs + delayMs };
  return { ...timing, firstTokenMs: delayMs, tokenDelayMs: delayMs };
}

const COMMENT = ': keep-alive\n\n';

function signsOfLife(form: EffectOf<'signs of life'>['form'], fault: ParsedFault, request: FaultyRequest): Step[] {
  const response = request.responseWith();
  // A body in JSON may begin with white space.
  const text =
    !request.stream || form === 'blank lines' ? '\n' : form === 'comments' ? COMMENT : pingOf(response, request);
  return [
    ...wait(request.timing.latencyMs),
    head(response),
    { kind: 'hold', text, everyMs: numberOf(fault, 'delay_ms') },
  ];
}

/** An event without content: `ping` of Messages, `response.in_progress` of Responses, the first, empty chunk of chat completions. */
function pingOf({ frames }: FakeResponse, { context }: FaultyRequest): string {
  const index = context.endpoint === 'chat_completions' ? 0 : 1;
  return frames[index]?.text ?? '\n';
}

function interrupt(how: EffectOf<'interruption'>['how'], fault: ParsedFault, request: FaultyRequest): Step[] {
  const { stream, timing, context } = request;
  if (how === 'error' && !stream) return replaceBody('error', fault, request);
  const response = request.responseWith();
  const after = numberOf(fault, 'after') ?? 0;
  // After 0 tokens not even the events before the first token are sent, only the headers.
  const sent = after === 0 ? [] : stream ? framesBefore(response.frames, after) : cutBody(response.frames, after);
  const begin = [...wait(timing.latencyMs), head(response), ...writes(sent, timing)];
  if (how === 'stall') return [...begin, ...stall(fault, request, response, sent)];
  if (how !== 'error') return [...begin, { kind: how }];
  const frames = errorFrames(namedError(fault, request), context, sent.length);
  return [...begin, ...writes(frames, timing), { kind: 'end' }];
}

/** The beginning of a body in JSON, which is never complete. */
function cutBody([only]: readonly Frame[], after: number): Frame[] {
  if (!only) return [];
  const tokens = Math.min(after, only.tokens);
  const end = Math.floor((only.text.length * tokens) / Math.max(only.tokens, 1));
  return [frame('token', only.text.slice(0, Math.min(end, only.text.length - 1)), tokens)];
}

function stall(fault: ParsedFault, request: FaultyRequest, { frames }: FakeResponse, sent: readonly Frame[]): Step[] {
  const resumeMs = numberOf(fault, 'resume_ms');
  const everyMs = numberOf(fault, 'keep_alive_ms');
  const text = request.stream ? COMMENT : '\n';
  if (resumeMs === undefined)
    return [{ kind: 'hold', maxMs: numberOf(fault, 'close_ms'), ...(everyMs && { everyMs, text }) }];
  const all = frames.map((one) => one.text).join('');
  const rest = all.slice(sumOf(sent, ({ text: part }) => part.length));
  const tokens = sumOf(frames, (one) => one.tokens) - sumOf(sent, (one) => one.tokens);
  return [...wait(resumeMs), ...writes([frame('token', rest, tokens)], request.timing), { kind: 'end' }];
}

const sumOf = (frames: readonly Frame[], value: (one: Frame) => number) =>
  frames.reduce((sum, one) => sum + value(one), 0);

/** The error that the option `error` names. */
function namedError(fault: ParsedFault, { context, values }: FaultyRequest) {
  const situation = (wordOf(fault, 'error') ?? 'rate-limit').replaceAll('-', '_') as Situation;
  return withValues(situationError(situation, context.provider), { ...values, wait: waitText(fault) });
}

function replaceBody(body: EffectOf<'body'>['body'], fault: ParsedFault, request: FaultyRequest): Step[] {
  const { timing, context } = request;
  if (body === 'html') return sendAll(htmlResponse(200, 'Welcome'), timing);
  if (body === 'error') {
    const error = namedError(fault, request);
    return sendAll(
      jsonResponse(200, errorBody(errorFormOf(context.provider, context.endpoint), error, context)),
      timing,
    );
  }
  const response = request.responseWith();
  if (body === 'empty') return sendAll({ ...response, frames: [frame('token', '')] }, timing);
  const packed = gzipSync(response.frames.map(({ text }) => text).join(''));
  const headers = { ...response.headers, 'content-encoding': 'gzip' };
  return [
    ...wait(timing.latencyMs),
    head({ ...response, headers }),
    { kind: 'write', data: packed.subarray(0, Math.floor(packed.length / 2)), tokens: 0 },
    { kind: 'end' },
  ];
}

function changeFrames(what: EffectOf<'frames'>['what'], fault: ParsedFault, request: FaultyRequest): Step[] {
  const { timing } = request;
  if (what === 'no usage') return sendAll(request.responseWith({ omit: 'usage' }), timing);
  if (what === 'no choices') return sendAll(request.responseWith({ omit: 'content' }), timing);
  const response = request.responseWith();
  if (what === 'no done')
    return sendAll({ ...response, frames: response.frames.filter(({ kind }) => kind !== 'done') }, timing);
  let tokens = 0;
  const wanted = Math.max(numberOf(fault, 'after') ?? 1, 1);
  const last = request.stream ? wanted : 1;
  const frames = response.frames.map((one) => (one.kind === 'token' && ++tokens === last ? broken(one) : one));
  return sendAll({ ...response, frames }, timing);
}

/** A frame whose JSON ends in the middle. */
const broken = ({ text, ...rest }: Frame): Frame => {
  const end = text.endsWith('\n\n') ? '\n\n' : '';
  return { ...rest, text: text.slice(0, Math.floor((text.length * 2) / 3)) + end };
};

const REFUSAL = "I can't help with that request.";

function contentChange(what: EffectOf<'content'>['what'], fault: ParsedFault): (completion: Completion) => Completion {
  const after = numberOf(fault, 'after') ?? 0;
  return (completion) => {
    if (what === 'refusal') return { ...completion, text: REFUSAL, toolCalls: [], finish: 'refusal' };
    if (what !== 'truncated arguments') {
      const text = tokensOf(completion.text).slice(0, after).join('');
      return { ...completion, text, toolCalls: [], finish: what === 'length' ? 'length' : 'content_filter' };
    }
    if (completion.toolCalls.length === 0) return completion;
    const finish = wordOf(fault, 'finish') === 'tool_calls' ? 'tool_calls' : 'length';
    const toolCalls = completion.toolCalls.map((call) => ({ ...call, arguments: halfOf(call.arguments) }));
    return { ...completion, toolCalls, finish };
  };
}

/** The first half of arguments, which is never complete JSON. */
const halfOf = (json: string) => {
  const parts = argumentPartsOf(json);
  const kept = parts.slice(0, Math.floor(parts.length / 2)).join('');
  return kept || json.slice(0, -1);
};
