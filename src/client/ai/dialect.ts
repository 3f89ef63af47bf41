import type { ResolutionHop } from '../resolution_types.js';
import type { Fetch } from '../runtime/transport.js';
import { loadPackage } from './package_loader.js';
import type { PackageModel, Specification } from './sdk_types.js';

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

/** How the models of a hop are created. */
export interface HopDialect {
  readonly optionsKey: string;
  /** Whether the package itself expresses a JSON schema for a model that has no structured output. */
  readonly expressesSchemas: boolean;
  create(settings: DialectSettings, specification: Specification): Promise<PackageModel>;
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

/** The registered dialect of a hop; undefined if there is none. */
export function registeredDialect({ provider }: ResolutionHop): HopDialect | undefined {
  const dialect = registered.get(provider);
  if (!dialect) return undefined;
  return {
    optionsKey: dialect.optionsKey ?? provider,
    expressesSchemas: true,
    create: async (settings, specification) => {
      const module = await loadPackage(dialect.package, specification);
      return checkModel(dialect.create(module as never, settings), provider);
    },
  };
}

function checkModel(model: unknown, provider: string): PackageModel {
  const { specificationVersion, doGenerate, doStream } = (model ?? {}) as Partial<PackageModel>;
  const isModel = typeof doGenerate === 'function' && typeof doStream === 'function';
  if (isModel && (specificationVersion === 'v3' || specificationVersion === 'v4')) return model as PackageModel;
  throw new TypeError(
    `The dialect of provider ${JSON.stringify(provider)} must create a LanguageModelV3 or LanguageModelV4`,
  );
}
