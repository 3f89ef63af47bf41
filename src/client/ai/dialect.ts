import type { ResolutionHop } from '../resolution_types.js';
import type { Fetch } from '../runtime/fetch.js';

/** What a dialect gets to create the model of a hop. */
export interface DialectSettings {
  readonly modelName: string;
  /** The base URL of the provider, without a trailing slash. */
  readonly baseURL: string;
  /** A placeholder that `fetch` replaces by the API key. */
  readonly apiKey: string;
  /** Must send the one request of each attempt. */
  readonly fetch: Fetch;
  readonly hop: ResolutionHop;
}

/** Creates AI SDK models for the hops of a provider. */
export interface Dialect {
  /** The canonical name of the provider in the catalogue. */
  readonly provider: string;
  /** The package that has the models; it is imported on first use. */
  readonly package: string;
  /** Creates a model from the imported package. Its requests must use one of the three wire APIs, that of the hop. */
  readonly create: (module: never, settings: DialectSettings) => unknown;
  /** The key of the provider's options in `providerOptions`. Default: the name of the provider. */
  readonly optionsKey?: string | undefined;
}

const registered = new Map<string, Dialect>();

/**
 * Registers a dialect: from now on it creates the models of all hops of its provider, in every client of this process. A
 * later dialect replaces an earlier one of the same provider, and the built-in one. Returns a function that removes it.
 */
export function registerDialect(dialect: Dialect): () => void {
  const { provider, package: name, create } = dialect;
  if (typeof provider !== 'string' || typeof name !== 'string' || typeof create !== 'function')
    throw new TypeError('A dialect needs a provider, a package and a function create');
  registered.set(provider, dialect);
  return () => {
    if (registered.get(provider) === dialect) registered.delete(provider);
  };
}

/** The registered dialect of a provider; undefined if there is none. */
export const dialectOfProvider = (provider: string): Dialect | undefined => registered.get(provider);
