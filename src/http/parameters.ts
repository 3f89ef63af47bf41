import type { ReflectMessage } from '@bufbuild/protobuf/reflect';
import { printable } from '../domain/text.js';
import type { Violation } from '../errors.js';
import { type FieldPath, fieldNamed, isText, noField, resolvePath, setText } from './fields.js';
import type { Route } from './routes.js';

/** Sets the fields that the path names; returns what is wrong with them. */
export function setVariables(request: ReflectMessage, { variables }: Route, values: readonly string[]): Violation[] {
  return variables.flatMap((path, index) => set(request, path, [decode(values[index] as string)]));
}

function set(request: ReflectMessage, path: FieldPath, texts: readonly (string | undefined)[]): Violation[] {
  const description = texts.every((text) => text !== undefined)
    ? setText(request, path, texts)
    : 'must be UTF-8 in percent-encoding';
  return description ? [{ field: path.text, description }] : [];
}

/** A slash may stand as it is where a variable takes the rest of a path, or encoded in any variable. */
function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

/** Sets the fields that the query names; returns what is wrong with them. */
export function setQuery(request: ReflectMessage, route: Route, query: string): Violation[] {
  const given = new Map<string, (string | undefined)[]>();
  for (const pair of query.split('&').filter(Boolean)) {
    const [, name = '', value = ''] = /^([^=]*)=?(.*)$/s.exec(pair) ?? [];
    const key = decode(name.replaceAll('+', ' ')) ?? name;
    // One field under both of its names is one field given twice.
    const path = resolvePath(request.desc, key)?.text ?? key;
    given.set(path, [...(given.get(path) ?? []), decode(value.replaceAll('+', ' '))]);
  }
  return [...given].flatMap(([name, texts]) => setParameter(request, route, name, texts));
}

function setParameter(
  request: ReflectMessage,
  { body, variables }: Route,
  name: string,
  texts: readonly (string | undefined)[],
): Violation[] {
  const path = resolvePath(request.desc, name);
  const problem = (description: string) => [{ field: printable(name, 100), description }];
  if (!path) return problem(noField(request.desc, name));
  if (!isText(path, { lists: true })) return problem('cannot be given in the query');
  if (body === '*' || path.fields[0] === fieldNamed(request.desc, body)) return problem('must be given in the body');
  if (variables.some((variable) => variable.text === path.text)) return problem('is given in the path');
  return set(request, path, texts);
}
