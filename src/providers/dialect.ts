import type { Dialect } from '../../gen/ts/agentllm/v1/provider.js';

/** How the model list of a provider is requested in one dialect. */
export interface DialectAdapter {
  /** The headers that carry a key. */
  readonly auth: (key: string) => Readonly<Record<string, string>>;
  /** Headers of every request. */
  readonly headers: Readonly<Record<string, string>>;
  /** Path of the model list below the base URL. */
  readonly list: string;
  /** Path of the next page of the list, if a response reports one. */
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

/** Path of one model below the base URL; undefined for a name that cannot be in a path. */
export function modelPath(model: string): string | undefined {
  // A server or proxy would resolve these to the list or to its parent.
  if (['', '.', '..'].includes(model)) return undefined;
  return `/models/${encodeURIComponent(model.toWellFormed())}`;
}

/** The names in a model list; undefined if the response is not a model list. */
export function namesIn(json: unknown): string[] | undefined {
  const { object, data, models } = (json ?? {}) as Record<string, unknown>;
  // Ollama without models sends null as data; Together sends a plain array, others send `models`.
  if (object === 'list' && data === null) return [];
  const entries = [data, models, json].find(Array.isArray);
  const names = entries?.map(nameOf).filter((name) => name !== undefined);
  return entries?.length && names?.length === 0 ? undefined : names;
}

/**
 * Whether a response describes a model: it has its id or, for an alias, another id
 * and the type of a model. Some servers respond to every path with 200.
 */
export function isModel(json: unknown, model: string): boolean {
  const { id, object, type } = (json ?? {}) as Record<string, unknown>;
  return typeof id === 'string' && (id === model || object === 'model' || type === 'model');
}

function nameOf(entry: unknown): string | undefined {
  const { id, name } = (entry ?? {}) as { id?: unknown; name?: unknown };
  return [id, name].find((value): value is string => typeof value === 'string');
}
