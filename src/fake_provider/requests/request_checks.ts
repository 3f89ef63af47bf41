import { limits } from '../../limits.js';
import { invalidRequest } from '../responses/provider_error.js';
import type { Tool, ToolChoice } from './model_request.js';
import { type Fields, isFields } from './parameters.js';

const NAME = /^[a-zA-Z0-9_-]{1,64}$/;

/** Rejects a name that a function or a schema must not have. */
export function checkName(name: unknown, field: string): asserts name is string {
  if (typeof name !== 'string' || !NAME.test(name))
    throw invalidRequest(
      `Invalid '${field}': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.`,
      'invalid_value',
      field,
    );
}

/** Rejects a schema that is not one of an object; for strict mode, one with optional or additional properties. */
export function checkSchema(schema: unknown, what: string, param: string, strict: boolean): void {
  const problem = isFields(schema) ? rootProblem(schema) : 'schema must be a JSON Schema object';
  if (problem) throw invalidRequest(`Invalid schema for ${what}: ${problem}.`, 'invalid_json_schema', param);
  if (strict) checkStrict(schema, what, param, [], 0);
}

function rootProblem({ type, anyOf, $ref }: Fields): string | undefined {
  if (type === 'object' || type === undefined || anyOf || $ref) return undefined;
  return `schema must be a JSON Schema of 'type: "object"', got 'type: ${JSON.stringify(type)}'`;
}

function checkStrict(schema: unknown, what: string, param: string, path: readonly string[], depth: number): void {
  if (!isFields(schema) || depth > limits.fakeProvider.schemaDepth) return;
  const refuse = (problem: string) => {
    const context = `In context=(${path.map((step) => `'${step}'`).join(', ')})`;
    return invalidRequest(`Invalid schema for ${what}: ${context}, ${problem}.`, 'invalid_json_schema', param);
  };
  const { properties, required, additionalProperties } = schema;
  if (isFields(properties)) {
    if (additionalProperties !== false)
      throw refuse("'additionalProperties' is required to be supplied and to be false");
    const missing = Object.keys(properties).find((name) => !Array.isArray(required) || !required.includes(name));
    if (missing !== undefined)
      throw refuse(
        `'required' is required to be supplied and to be an array including every key in properties. Missing '${missing}'`,
      );
    for (const [name, inner] of Object.entries(properties))
      checkStrict(inner, what, param, [...path, 'properties', name], depth + 1);
  }
  const inner = [
    schema['items'],
    ...[schema['anyOf']].flat(),
    ...Object.values(isFields(schema['$defs']) ? schema['$defs'] : {}),
  ];
  for (const one of inner) checkStrict(one, what, param, [...path, 'items'], depth + 1);
}

/** Rejects an image that is neither a URL nor base64 data. */
export function checkImageUrl(url: unknown, param: string): void {
  if (typeof url === 'string' && (/^data:image\/[\w.+-]+;base64,[A-Za-z0-9+/=]/.test(url) || /^https?:\/\/./.test(url)))
    return;
  throw invalidRequest(
    `Invalid '${param}'. Expected a valid URL, but got a value with an invalid format.`,
    'invalid_image_url',
    param,
  );
}

/** The choice of one tool, which must be one of those of the request. */
export function namedChoice(name: string, tools: readonly Tool[]): ToolChoice {
  if (!tools.some((tool) => tool.name === name))
    throw invalidRequest(`Tool choice '${name}' not found in 'tools' parameter.`, null, 'tool_choice');
  return { name };
}

/** Rejects a request for JSON whose prompt does not mention JSON. */
export function checkJsonWord(prompt: string, messages: string, format: string): void {
  if (/json/i.test(prompt)) return;
  throw invalidRequest(
    `'${messages}' must contain the word 'json' in some form, to use '${format}' of type 'json_object'.`,
    null,
    messages,
  );
}
