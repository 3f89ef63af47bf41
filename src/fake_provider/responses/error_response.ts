import { type Endpoint, errorFormOf, type ProviderName } from '../providers.js';
import { type ErrorBodyOptions, errorBody, type ProviderError } from './provider_error.js';
import { eventFrame, type FakeResponse, type Frame, frame, jsonResponse } from './response.js';
import type { SituationError } from './situations.js';

/** Where an error is sent. */
export interface ErrorContext extends ErrorBodyOptions {
  readonly provider: ProviderName;
  /** undefined: the path leads nowhere. */
  readonly endpoint: Endpoint | undefined;
}

const HTML = { 'content-type': 'text/html' };

export const htmlPage = (title: string): string =>
  `<html>\r\n<head><title>${title}</title></head>\r\n<body>\r\n<center><h1>${title}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n`;

export const htmlResponse = (status: number, title: string): FakeResponse => ({
  status,
  headers: HTML,
  frames: [frame('token', htmlPage(title), 0)],
});

/** An error as a response. */
export function errorResponse(
  error: SituationError,
  context: ErrorContext,
  headers: Readonly<Record<string, string>> = {},
): FakeResponse {
  const response = error.html
    ? htmlResponse(error.status, error.message)
    : jsonResponse(error.status, errorBody(errorFormOf(context.provider, context.endpoint), error, context));
  return { ...response, headers: { ...response.headers, ...rateLimitHeaders(error, context.provider), ...headers } };
}

/** The headers that providers add to a 429. */
function rateLimitHeaders({ status, code }: ProviderError, provider: ProviderName): Readonly<Record<string, string>> {
  if (status !== 429) return {};
  if (provider === 'anthropic')
    return { 'anthropic-ratelimit-requests-limit': '50', 'anthropic-ratelimit-requests-remaining': '0' };
  if (provider !== 'openai' || code !== 'rate_limit_exceeded') return {};
  return {
    'x-ratelimit-limit-requests': '3',
    'x-ratelimit-remaining-requests': '0',
    'x-ratelimit-reset-requests': '20s',
  };
}

/** An error as events of a stream. `sequence` is the number of the events before it. */
export function errorFrames(error: ProviderError, context: ErrorContext, sequence: number): Frame[] {
  const body = errorBody(errorFormOf(context.provider, context.endpoint), error, context);
  if (context.endpoint === 'messages') return [eventFrame('finish', body as { type: string })];
  if (context.endpoint !== 'responses') return [frame('finish', `data: ${JSON.stringify(body)}\n\n`)];
  const { message, param = null, type = 'server_error' } = error;
  const code = error.code ?? type ?? 'server_error';
  const response = { id: `resp_${context.requestId}`, object: 'response', status: 'failed', error: { code, message } };
  const failure = { type: 'error', sequence_number: sequence, error: { type: type ?? 'error', code, message, param } };
  const end = { type: 'response.failed', sequence_number: sequence + 1, response };
  return [eventFrame('finish', failure), eventFrame('done', end)];
}
