import type { Dialect } from '../../gen/ts/agentllm/v1/provider.js';

/** How the providers of a dialect are asked for their models, and how they answer. */
export interface DialectAdapter {
  /** The headers that carry a key. */
  readonly auth: (key: string) => Readonly<Record<string, string>>;
  /** Headers of every request. */
  readonly headers: Readonly<Record<string, string>>;
  /** Path of the model list below the base URL. */
  readonly list: string;
  /** Path of the list's next page, when an answer says that there is one. */
  readonly next?: (json: unknown) => string | undefined;
}

const openai: DialectAdapter = {
  auth: (key) => ({ authorization: `Bearer ${key}` }),
  headers: {},
  list: '/models',
};

const anthropic: DialectAdapter = {
  auth: (key) => ({ 'x-api-key': key }),
  headers: { 'anthropic-version': '2023-06-01' },
  list: '/models?limit=1000',
  next: (json) => {
    const { has_more, last_id } = json as { has_more?: unknown; last_id?: unknown };
    if (has_more !== true || typeof last_id !== 'string' || last_id.length > 200) return undefined;
    return `/models?limit=1000&after_id=${encodeURIComponent(last_id.toWellFormed())}`;
  },
};

export const dialectAdapters: ReadonlyMap<Dialect, DialectAdapter> = new Map<Dialect, DialectAdapter>([
  ['DIALECT_OPENAI', openai],
  ['DIALECT_OPENAI_COMPATIBLE', openai],
  ['DIALECT_OPENAI_RESPONSES', openai],
  ['DIALECT_ANTHROPIC', anthropic],
]);

/** Path of one model below the base URL; undefined for what no path can name. */
export function modelPath(model: string): string | undefined {
  // A server, or a proxy before it, would take these for the list or for what is above it.
  if (['', '.', '..'].includes(model)) return undefined;
  return `/models/${encodeURIComponent(model.toWellFormed())}`;
}

/** The names in a model list, or undefined when it is none. */
export function namesIn(json: unknown): string[] | undefined {
  const { object, data, models } = (json ?? {}) as Record<string, unknown>;
  // Ollama without models has null for data; Together answers with a bare array, others with `models`.
  if (object === 'list' && data === null) return [];
  const entries = [data, models, json].find(Array.isArray);
  const names = entries?.map(nameOf).filter((name) => name !== undefined);
  return entries?.length && names?.length === 0 ? undefined : names;
}

/**
 * Whether an answer is about a model: it has its id, or, for an alias, another's
 * and says that it is a model. There are servers that answer every path with 200.
 */
export function isModel(json: unknown, model: string): boolean {
  const { id, object, type } = (json ?? {}) as Record<string, unknown>;
  return typeof id === 'string' && (id === model || object === 'model' || type === 'model');
}

function nameOf(entry: unknown): string | undefined {
  const { id, name } = (entry ?? {}) as { id?: unknown; name?: unknown };
  return [id, name].find((value): value is string => typeof value === 'string');
}
