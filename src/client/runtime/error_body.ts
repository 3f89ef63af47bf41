/** The fields of a provider's error. An absent field is undefined. */
export interface ProviderError {
  readonly type?: string | undefined;
  readonly code?: string | undefined;
  readonly message?: string | undefined;
  /** The parameter that the error names. */
  readonly param?: string | undefined;
  /** A status of 400 or more that the error itself states, for example within a stream. */
  readonly status?: number | undefined;
}

type Fields = Readonly<Record<string, unknown>>;

/** Characters of a provider's text that rules are applied to and that errors contain. */
export const MAX_ERROR_TEXT = 500;

export const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * The error in a JSON value: the body of a response or the data of an event. Returns undefined if the value is no error.
 *
 * The forms of the providers: `{error: {message, type, code, param}}`, also inside `response`; `{error: "…"}` and
 * `{error: "…", code}` (xAI); `{object: "error", message, …}` (vLLM); `{type: "error", code, message}` (an event of the
 * Responses API); `{detail: …}` (FastAPI); a list with one error (Google).
 */
export function providerError(value: unknown): ProviderError | undefined {
  if (Array.isArray(value)) return providerError(value[0]);
  if (!isFields(value)) return undefined;
  const { error, response } = value;
  if (isFields(error)) return fromFields(error);
  if (isFields(response) && isFields(response['error'])) return fromFields(response['error']);
  if (typeof error === 'string' && error !== '') return { ...fromFields(value), message: cut(error) };
  if (value['object'] === 'error' || value['type'] === 'error') return fromFields(value);
  return value['detail'] === undefined ? undefined : fromDetail(value['detail']);
}

/** The error in the body of a response whose status is an error: any JSON object is one. */
export const errorOfBody = (body: unknown): ProviderError =>
  providerError(body) ?? (isFields(body) ? fromFields(body) : {});

function fromFields(fields: Fields): ProviderError {
  const { details, type } = fields;
  const code = fields['code'] ?? (isFields(details) ? details['error_code'] : undefined);
  return {
    type: type === 'error' ? undefined : text(type),
    code: text(code),
    message: text(fields['message']),
    param: text(fields['param']),
    status: statusIn(fields),
  };
}

/** Validation errors of FastAPI: a text, or a list of `{type, loc, msg}`. */
function fromDetail(detail: unknown): ProviderError {
  const first: unknown = Array.isArray(detail) ? detail[0] : detail;
  if (!isFields(first)) return { message: text(first) };
  const location = Array.isArray(first['loc']) ? first['loc'].filter((part) => part !== 'body') : [];
  return { type: text(first['type']), message: text(first['msg']), param: text(location.join('.')) };
}

function statusIn({ status, code }: Fields): number | undefined {
  const isStatus = (value: unknown): value is number =>
    Number.isInteger(value) && Number(value) >= 400 && Number(value) < 600;
  return [status, code].find(isStatus);
}

function text(value: unknown): string | undefined {
  if (typeof value === 'number') return String(value);
  return typeof value === 'string' && value !== '' ? cut(value) : undefined;
}

const cut = (value: string): string => value.slice(0, MAX_ERROR_TEXT);
