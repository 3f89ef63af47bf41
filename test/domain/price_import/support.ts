import { readFileSync } from 'node:fs';
import type { ImportedModel } from '../../../src/domain/price_import/entry.js';
import { type JsonLimits, JsonReader, type JsonValue } from '../../../src/domain/price_import/json.js';
import { limits } from '../../../src/limits.js';

/** An excerpt of a public catalogue. */
export const fixture = (name: 'litellm' | 'models_dev'): string =>
  readFileSync(new URL(`fixtures/${name}.json`, import.meta.url), 'utf8');

/** Reads a JSON text in one step. */
export function readJson(text: string, of: Partial<JsonLimits> = {}): JsonValue {
  const { depth = limits.jsonDepth, values = limits.importValues } = of;
  const value = new JsonReader(text, { depth, values }).step(Number.POSITIVE_INFINITY);
  if (value === undefined) throw new Error('the reader did not finish');
  return value;
}

/** The models that a parser reads from a text, by their entries. */
export function modelsIn(
  parse: (file: JsonValue) => Iterable<ImportedModel | undefined>,
  text: string,
): Map<string, ImportedModel> {
  const models = [...parse(readJson(text))].filter((model) => model !== undefined);
  return new Map(models.map((model) => [model.entry, model]));
}
