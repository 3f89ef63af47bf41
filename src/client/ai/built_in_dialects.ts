import type { ResolutionHop } from '../resolution_types.js';
import type { DialectSettings } from './dialect.js';
import { type HopDialect, registeredDialect } from './hop_dialect.js';
import { loadPackage } from './package_loader.js';
import type { PackageModel, Specification } from './sdk_types.js';

/*
 * The dialects of the provider packages of the AI SDK. Only the settings and functions that are used are described.
 */
type ModelFactory = (modelName: string) => PackageModel;
interface Provider {
  readonly chat?: ModelFactory;
  readonly chatModel?: ModelFactory;
  readonly responses?: ModelFactory;
  readonly messages?: ModelFactory;
}
type CreateProvider = (settings: object) => Provider & ModelFactory;

/** Loads a package and creates its provider for a hop. */
async function providerOf(
  packageName: string,
  createName: string,
  { baseURL, apiKey, fetch }: DialectSettings,
  specification: Specification,
  more: object = {},
): Promise<Provider & ModelFactory> {
  const module = await loadPackage(packageName, specification);
  return (module[createName] as CreateProvider)({ baseURL, apiKey, fetch, ...more });
}

const openai: HopDialect = {
  optionsKey: 'openai',
  isKept: true,
  expressesSchemas: false,
  async create(settings, specification) {
    const provider = await providerOf('@ai-sdk/openai', 'createOpenAI', settings, specification);
    const create = settings.hop.wire_api === 'WIRE_API_RESPONSES' ? provider.responses : provider.chat;
    return (create as ModelFactory)(settings.modelName);
  },
};

const anthropic: HopDialect = {
  optionsKey: 'anthropic',
  isKept: true,
  expressesSchemas: true,
  async create(settings, specification) {
    const provider = await providerOf('@ai-sdk/anthropic', 'createAnthropic', settings, specification);
    return provider(settings.modelName);
  },
};

const deepseek: HopDialect = {
  optionsKey: 'deepseek',
  isKept: true,
  expressesSchemas: true,
  async create(settings, specification) {
    const provider = await providerOf('@ai-sdk/deepseek', 'createDeepSeek', settings, specification);
    return provider(settings.modelName);
  },
};

const xai: HopDialect = {
  optionsKey: 'xai',
  isKept: true,
  expressesSchemas: false,
  async create(settings, specification) {
    const provider = await providerOf('@ai-sdk/xai', 'createXai', settings, specification);
    const isResponses = settings.hop.wire_api === 'WIRE_API_RESPONSES';
    const create = isResponses ? provider.responses : provider.chat;
    // From version 5 on the package has only the Responses API.
    return create ? create(settings.modelName) : compatible('xai').create(settings, specification);
  },
};

/** A provider whose API is compatible with OpenAI's chat completions. */
function compatible(name: string): HopDialect {
  return {
    optionsKey: name,
    isKept: true,
    expressesSchemas: false,
    async create(settings, specification) {
      const more = { name, includeUsage: true, supportsStructuredOutputs: true };
      const create = 'createOpenAICompatible';
      const provider = await providerOf('@ai-sdk/openai-compatible', create, settings, specification, more);
      return (provider.chatModel as ModelFactory)(settings.modelName);
    },
  };
}

/** The dialect of a hop: a registered one, that of a built-in provider, or one for its wire API. */
export function dialectOf(hop: ResolutionHop): HopDialect {
  return registeredDialect(hop) ?? builtIn(hop);
}

function builtIn({ provider, dialect, wire_api }: ResolutionHop): HopDialect {
  if (wire_api === 'WIRE_API_MESSAGES') return anthropic;
  if (provider === 'grok') return xai;
  if (wire_api === 'WIRE_API_RESPONSES' || dialect === 'DIALECT_OPENAI') return openai;
  return provider === 'deepseek' ? deepseek : compatible(provider);
}
