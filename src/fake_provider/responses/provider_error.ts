import type { ErrorForm } from '../providers.js';

/** An error of a provider, before it has the form of one. */
export interface ProviderError {
  readonly status: number;
  readonly message: string;
  /** The type in the form of OpenAI; in that of Anthropic the status determines it. */
  readonly type?: string | null;
  /** The code in the form of OpenAI. */
  readonly code?: string | null;
  readonly param?: string | null;
  /** Additional fields in the form of Anthropic. */
  readonly details?: Readonly<Record<string, string>>;
}

/** A request that the provider rejects. */
export class Rejection extends Error {
  constructor(readonly error: ProviderError) {
    super(error.message);
  }
}

/** Rejects a request with 400 `invalid_request_error`. */
export const invalidRequest = (message: string, code: string | null = null, param: string | null = null): Rejection =>
  new Rejection({ status: 400, message, type: 'invalid_request_error', code, param });

/** The types of Anthropic by status. */
const ANTHROPIC_TYPES: Readonly<Record<number, string>> = {
  400: 'invalid_request_error',
  401: 'authentication_error',
  402: 'billing_error',
  403: 'permission_error',
  404: 'not_found_error',
  413: 'request_too_large',
  429: 'rate_limit_error',
  500: 'api_error',
  504: 'timeout_error',
  529: 'overloaded_error',
};

/** The codes of xAI by status: the descriptions of gRPC codes. */
const XAI_CODES: Readonly<Record<number, string>> = {
  400: 'Client specified an invalid argument',
  401: 'The request does not have valid authentication credentials',
  403: 'The caller does not have permission to execute the specified operation',
  404: 'Some requested entity was not found',
  409: 'The operation was aborted',
  422: 'Client specified an invalid argument',
  429: 'Some resource has been exhausted',
  500: 'Internal error',
  503: 'The service is currently unavailable',
  504: 'Deadline expired before operation could complete',
};

/** The three forms of an error of xAI: `{code, error: "…"}`, `{error: "…"}` and `{error: {message, type, code}}`. */
export const XAI_BODIES = ['code', 'text', 'object'] as const;
export type XaiBody = (typeof XAI_BODIES)[number];

export interface ErrorBodyOptions {
  readonly requestId: string;
  readonly xaiBody?: XaiBody;
}

/** Characters of a message: it may repeat a part of the request. */
const MESSAGE_CHARACTERS = 2000;

/** The body of an error in the form of a provider. */
export function errorBody(form: ErrorForm, full: ProviderError, { requestId, xaiBody }: ErrorBodyOptions): object {
  const error = { ...full, message: full.message.slice(0, MESSAGE_CHARACTERS).toWellFormed() };
  if (form === 'anthropic') return anthropicBody(error, requestId);
  if (form === 'xai' && xaiBody !== 'object') return xaiErrorBody(error, xaiBody);
  const { message, type = null, code = null, param = null } = error;
  return { error: { message, type, param, code } };
}

function anthropicBody({ status, message, details }: ProviderError, requestId: string): object {
  const type = ANTHROPIC_TYPES[status] ?? (status < 500 ? 'invalid_request_error' : 'api_error');
  return { type: 'error', error: { type, message, ...(details && { details }) }, request_id: requestId };
}

function xaiErrorBody({ status, message }: ProviderError, body: XaiBody = 'code'): object {
  return body === 'text' ? { error: message } : { code: XAI_CODES[status] ?? 'Unknown error', error: message };
}
