import type { ResolutionHop } from '../resolution_types.js';
import { type DialectSettings, dialectOfProvider } from './dialect.js';
import { loadPackage } from './package_loader.js';
import type { PackageModel, Specification } from './sdk_types.js';

/** How the models of a hop are created. */
export interface HopDialect {
  readonly optionsKey: string;
  /** Whether a model can serve many attempts at the same time: its requests have the headers of the call. */
  readonly isKept: boolean;
  /** Whether the package itself expresses a JSON schema for a model that has no structured output. */
  readonly expressesSchemas: boolean;
  create(settings: DialectSettings, specification: Specification): Promise<PackageModel>;
}

/** The registered dialect of a hop; undefined if there is none. */
export function registeredDialect({ provider }: ResolutionHop): HopDialect | undefined {
  const dialect = dialectOfProvider(provider);
  if (!dialect) return undefined;
  return {
    optionsKey: dialect.optionsKey ?? provider,
    isKept: false,
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
