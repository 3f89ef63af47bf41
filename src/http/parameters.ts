import type { ReflectMessage } from '@bufbuild/protobuf/reflect';
import { printable } from '../domain/text.js';
import type { Problems } from '../problems.js';
import { type FieldPath, fieldNamed, isText, noField, resolvePath, setText } from './fields.js';
import type { Route } from './routes.js';

/** Sets the fields that the path contains; adds their problems. */
export function setVariables(
  problems: Problems,
  request: ReflectMessage,
  { variables }: Route,
  values: readonly string[],
): void {
  for (const [index, path] of variables.entries())
    problems.add(path.text, set(request, path, [decode(values[index] as string)]));
}

function set(request: ReflectMessage, path: FieldPath, texts: readonly (string | undefined)[]): string | undefined {
  return texts.every((text) => text !== undefined)
    ? setText(request, path, texts)
    : 'must be UTF-8 in percent-encoding';
}

/**
 * Decodes a value. A slash may be unencoded in a variable that matches the rest of a path, and encoded in any variable.
 */
function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

/** Sets the fields that the query contains; adds their problems. */
export function setQuery(problems: Problems, request: ReflectMessage, route: Route, query: string): void {
  const parameters = new Map<string, (string | undefined)[]>();
  for (const pair of query.split('&').filter(Boolean)) {
    const [, name = '', value = ''] = /^([^=]*)=?(.*)$/s.exec(pair) ?? [];
    const key = decode(name.replaceAll('+', ' ')) ?? name;
    // A field under both of its names counts as one field that is given twice.
    const path = resolvePath(request.desc, key)?.text ?? key;
    const texts = parameters.get(path) ?? [];
    texts.push(decode(value.replaceAll('+', ' ')));
    parameters.set(path, texts);
  }
  for (const [name, texts] of parameters)
    problems.add(printable(name, 100), parameterProblem(request, route, name, texts));
}

/** Sets one parameter; returns its problem, or undefined. */
function parameterProblem(
  request: ReflectMessage,
  { body, variables }: Route,
  name: string,
  texts: readonly (string | undefined)[],
): string | (() => string) | undefined {
  const path = resolvePath(request.desc, name);
  if (!path) return () => noField(request.desc, name);
  if (!isText(path, { lists: true })) return 'must not be in the query';
  if (body === '*' || path.fields[0] === fieldNamed(request.desc, body)) return 'must be in the body';
  if (variables.some((variable) => variable.text === path.text)) return 'is already set by the path';
  return set(request, path, texts);
}
