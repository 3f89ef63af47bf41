import type { Wording } from '../providers.js';
import { invalidRequest, Rejection } from '../responses/provider_error.js';

/*
 * The errors about fields of a request, as each provider words them. Parts of an error are fixed in SDKs and clients, so
 * the text is that of the provider.
 */

const typeOf = (value: unknown): string => {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  return typeof value;
};
/** A value in an error: JSON, except for text. An object may have no usable `toString`. */
const textOf = (value: unknown): string => (typeof value === 'string' ? value : (JSON.stringify(value) ?? 'undefined'));
const article = (noun: string) => `${/^[aeiou]/.test(noun) ? 'an' : 'a'} ${noun}`;

const SERDE = 'Failed to deserialize the JSON body into the target type';

type SerdeWording = 'deepseek' | 'xai';
const isSerde = (wording: Wording): wording is SerdeWording => wording === 'deepseek' || wording === 'xai';

const serde = (wording: SerdeWording, problem: string) =>
  new Rejection({
    status: wording === 'xai' ? 422 : 400,
    message: `${SERDE}: ${problem}`,
    type: 'invalid_request_error',
    code: 'invalid_request_error',
  });

/** The body is not a JSON object. */
export function invalidJson(wording: Wording): Rejection {
  if (wording === 'anthropic') return invalidRequest('The request body is not valid JSON: expected an object');
  if (isSerde(wording)) return invalidRequest('Failed to parse the request body as JSON: expected an object');
  return invalidRequest('We could not parse the JSON body of your request. The API expects a JSON payload.');
}

/** A required field is absent. */
export function missingField(wording: Wording, name: string): Rejection {
  if (wording === 'anthropic') return invalidRequest(`${name}: Field required`);
  if (isSerde(wording)) return serde(wording, `missing field \`${name}\``);
  return invalidRequest(`Missing required parameter: '${name}'.`, 'missing_required_parameter', name);
}

/** @param expected a noun: `string`, `number`, `integer`, `boolean`, `array`, `object`. */
export function wrongType(wording: Wording, name: string, expected: string, value: unknown): Rejection {
  if (wording === 'anthropic') return invalidRequest(`${name}: Input should be a valid ${expected}`);
  if (isSerde(wording)) return serde(wording, `${name}: invalid type: ${typeOf(value)}, expected ${article(expected)}`);
  const message = `Invalid type for '${name}': expected ${article(expected)}, but got ${article(typeOf(value))} instead.`;
  return invalidRequest(message, 'invalid_type', name);
}

export interface Range {
  readonly min?: number;
  readonly max?: number;
  readonly integer?: boolean;
}

export function outOfRange(wording: Wording, name: string, value: number, range: Range): Rejection {
  const { min, max, integer } = range;
  const isBelow = min !== undefined && value < min;
  const [bound, compared] = isBelow ? [min, 'greater'] : [max, 'less'];
  if (wording === 'anthropic') return invalidRequest(`${name}: Input should be ${compared} than or equal to ${bound}`);
  if (isSerde(wording))
    return invalidRequest(
      `Invalid ${name} value, the valid range of ${name} is [${min ?? '-∞'}, ${max ?? '∞'}]`,
      'invalid_request_error',
    );
  const kind = integer ? 'integer' : 'decimal';
  const message = `Invalid '${name}': ${kind} ${isBelow ? 'below minimum' : 'above maximum'} value. Expected a value ${isBelow ? '>=' : '<='} ${bound}, but got ${value} instead.`;
  return invalidRequest(message, `${kind}_${isBelow ? 'below_min' : 'above_max'}_value`, name);
}

/** A word is not one of those that a field accepts. */
export function wrongValue(wording: Wording, name: string, value: unknown, allowed: readonly string[]): Rejection {
  const quoted = (quote: string, last: string) =>
    allowed
      .map((word) => quote + word + quote)
      .join(', ')
      .replace(/, ([^,]*)$/, `${last}$1`);
  if (wording === 'anthropic') return invalidRequest(`${name}: Input should be ${quoted("'", ' or ')}`);
  if (isSerde(wording))
    return serde(
      wording,
      `${name}: unknown variant \`${textOf(value)}\`, expected ${allowed.length > 1 ? 'one of ' : ''}${quoted('`', ', ')}`,
    );
  const message = `Invalid value: '${textOf(value)}'. Supported values are: ${quoted("'", ', and ')}.`;
  return invalidRequest(message, 'invalid_value', name);
}

/** The API does not have the parameter. */
export const unknownParameter = (wording: Wording, name: string): Rejection =>
  wording === 'anthropic'
    ? invalidRequest(`${name}: Extra inputs are not permitted`)
    : invalidRequest(`Unknown parameter: '${name}'.`, 'unknown_parameter', name);

/** The model does not accept the parameter. */
export function unsupportedParameter(wording: Wording, name: string, hint = ''): Rejection {
  if (wording === 'anthropic') return invalidRequest(`\`${name}\` is deprecated for this model.`);
  if (isSerde(wording)) return invalidRequest(`Argument not supported on this model: ${name}`);
  const message = `Unsupported parameter: '${name}' is not supported with this model.${hint && ` ${hint}`}`;
  return invalidRequest(message, 'unsupported_parameter', name);
}

/** The model does not accept the value. */
export function unsupportedValue(wording: Wording, name: string, value: unknown, hint = ''): Rejection {
  if (wording !== 'openai') return unsupportedParameter(wording, name);
  const shown = typeof value === 'string' ? `'${value}'` : textOf(value);
  const message = `Unsupported value: '${name}' does not support ${shown} with this model.${hint && ` ${hint}`}`;
  return invalidRequest(message, 'unsupported_value', name);
}
