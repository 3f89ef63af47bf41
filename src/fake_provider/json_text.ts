import { limits } from '../limits.js';

/** Strings, and the brackets that open or close a level. */
const TOKEN = /"(?:[^"\\]|\\.)*"|[[\]{}]/gs;

/** The nesting depth after each bracket of a JSON text, with the index after it. */
function* depthsIn(text: string): Generator<{ readonly depth: number; readonly end: number }> {
  let depth = 0;
  for (const { 0: token, index } of text.matchAll(TOKEN)) {
    if (token.startsWith('"')) continue;
    depth += token === '{' || token === '[' ? 1 : -1;
    yield { depth, end: index + 1 };
  }
}

/** Whether a JSON text is nested deeper than the limit, so that code which descends could exhaust the stack. */
export function isTooDeep(text: string): boolean {
  for (const { depth } of depthsIn(text)) if (depth > limits.fakeProvider.bodyDepth) return true;
  return false;
}

/** The JSON object at the beginning of a text; undefined: there is none. */
export function leadingObject(text: string): unknown {
  for (const { depth, end } of depthsIn(text)) if (depth === 0) return jsonOr(text.slice(0, end));
  return undefined;
}

/** A JSON text as a value; undefined: it is not JSON. */
export function jsonOr(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
