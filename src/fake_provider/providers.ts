/*
 * The providers whose wire format is emulated. This file is data from the API references of the providers, as of
 * November 2026.
 */

/** The APIs that generate text. */
export const WIRE_APIS = ['chat_completions', 'responses', 'messages'] as const;
export type WireApi = (typeof WIRE_APIS)[number];

/** Everything that a request can be for. */
export type Endpoint = WireApi | 'models' | 'key';

export const PROVIDERS = ['openai', 'anthropic', 'deepseek', 'xai', 'compatible'] as const;
export type ProviderName = (typeof PROVIDERS)[number];

/** How a provider words an error about a field; DeepSeek and xAI have the words of the Rust library serde. */
export type Wording = 'openai' | 'anthropic' | 'deepseek' | 'xai';

/** The forms of an error body: `{error: {…}}`, `{type: "error", error: {…}}`, and the three forms of xAI. */
export type ErrorForm = 'openai' | 'anthropic' | 'xai';

export interface EmulatedProvider {
  readonly name: ProviderName;
  /** Its name in the title of a table. */
  readonly title: string;
  readonly endpoints: readonly Endpoint[];
  /** The path of its base URL below the first segment, which is its name. */
  readonly basePath: '/v1' | '';
  readonly errorForm: ErrorForm;
  readonly wording: Wording;
  /** The header with the id of a request. */
  readonly requestIdHeader: string;
  /** Whether a parameter that the API does not have is an error. */
  readonly rejectsUnknownParameters: boolean;
  /** Whether chat completions accepts a JSON schema as response format. */
  readonly acceptsJsonSchema: boolean;
  /** Whether chat completions require the word "json" in the messages for a response in JSON. */
  readonly requiresJsonWord: boolean;
  /** The models that its list has, unless a script names others. */
  readonly models: readonly string[];
}

export const providers: Readonly<Record<ProviderName, EmulatedProvider>> = {
  openai: {
    name: 'openai',
    title: 'OpenAI',
    endpoints: ['chat_completions', 'responses', 'models'],
    basePath: '/v1',
    errorForm: 'openai',
    wording: 'openai',
    requestIdHeader: 'x-request-id',
    rejectsUnknownParameters: true,
    acceptsJsonSchema: true,
    requiresJsonWord: true,
    models: ['gpt-4o', 'gpt-4o-mini', 'gpt-4.1', 'gpt-5.2', 'gpt-6.1-sol', 'o3'],
  },
  anthropic: {
    name: 'anthropic',
    title: 'Anthropic',
    endpoints: ['messages', 'models'],
    basePath: '/v1',
    errorForm: 'anthropic',
    wording: 'anthropic',
    requestIdHeader: 'request-id',
    rejectsUnknownParameters: true,
    acceptsJsonSchema: false,
    requiresJsonWord: false,
    models: ['claude-opus-5-5', 'claude-sonnet-5-5', 'claude-haiku-5-5', 'claude-sonnet-4-5', 'claude-haiku-4-5'],
  },
  deepseek: {
    name: 'deepseek',
    title: 'DeepSeek',
    endpoints: ['chat_completions', 'models', 'key'],
    basePath: '',
    errorForm: 'openai',
    wording: 'deepseek',
    requestIdHeader: 'x-ds-trace-id',
    rejectsUnknownParameters: false,
    acceptsJsonSchema: false,
    requiresJsonWord: true,
    models: ['deepseek-chat', 'deepseek-reasoner', 'deepseek-v4-flash', 'deepseek-v4-pro'],
  },
  xai: {
    name: 'xai',
    title: 'xAI',
    endpoints: ['chat_completions', 'responses', 'models', 'key'],
    basePath: '/v1',
    errorForm: 'xai',
    wording: 'xai',
    requestIdHeader: 'x-request-id',
    rejectsUnknownParameters: false,
    acceptsJsonSchema: true,
    requiresJsonWord: false,
    models: ['grok-4.7', 'grok-4.3', 'grok-4.20-reasoning', 'grok-4.20-non-reasoning'],
  },
  compatible: {
    name: 'compatible',
    title: 'another provider',
    endpoints: ['chat_completions', 'responses', 'messages', 'models'],
    basePath: '/v1',
    errorForm: 'openai',
    wording: 'openai',
    requestIdHeader: 'x-request-id',
    rejectsUnknownParameters: false,
    acceptsJsonSchema: true,
    requiresJsonWord: false,
    models: ['large', 'small'],
  },
};

/** Other names of providers in a path: the names that agentllm uses for them. */
export const PROVIDER_ALIASES: Readonly<Record<string, ProviderName>> = { claude: 'anthropic', grok: 'xai' };

export const isProvider = (name: string): name is ProviderName => (PROVIDERS as readonly string[]).includes(name);

/** The base URL of a provider at a fake provider. The name distinguishes several providers of one kind. */
export const baseUrlOf = (origin: string, provider: ProviderName, name?: string): string =>
  `${origin}/${provider}${name === undefined ? '' : `/${name}`}${providers[provider].basePath}`;

/** The form of the errors of an endpoint. The Messages API has the errors of Anthropic at every provider. */
export const errorFormOf = (provider: ProviderName, endpoint: Endpoint | undefined): ErrorForm =>
  endpoint === 'messages' ? 'anthropic' : providers[provider].errorForm;

export const wordingOf = (provider: ProviderName, endpoint: Endpoint): Wording =>
  endpoint === 'messages' ? 'anthropic' : providers[provider].wording;
