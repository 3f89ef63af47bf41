import { type Endpoint, isProvider, PROVIDER_ALIASES, PROVIDERS, type ProviderName, providers } from './providers.js';

/** What a request is for. */
export interface Route {
  readonly provider: ProviderName;
  readonly endpoint: Endpoint;
  /** The model of `GET /models/<name>`. */
  readonly model?: string;
}

/** A path that leads nowhere, with the provider whose form the error has. */
export interface NoRoute {
  readonly provider: ProviderName;
  readonly problem: string;
  readonly status: 404 | 405;
}

interface Target {
  readonly pattern: RegExp;
  readonly method: 'GET' | 'POST';
  readonly endpoint: Endpoint;
  /** The provider of the path when nothing else names one. */
  readonly provider: ProviderName;
}

/** The paths below the base URL of a provider; `/v1` is optional everywhere. */
const TARGETS: readonly Target[] = [
  { pattern: /\/chat\/completions$/, method: 'POST', endpoint: 'chat_completions', provider: 'openai' },
  { pattern: /\/responses$/, method: 'POST', endpoint: 'responses', provider: 'openai' },
  { pattern: /\/messages$/, method: 'POST', endpoint: 'messages', provider: 'anthropic' },
  { pattern: /\/models(?:\/(?<model>[^/]+))?$/, method: 'GET', endpoint: 'models', provider: 'openai' },
  { pattern: /\/api-key$/, method: 'GET', endpoint: 'key', provider: 'xai' },
  { pattern: /\/user\/balance$/, method: 'GET', endpoint: 'key', provider: 'deepseek' },
];

export interface RoutedRequest {
  readonly method: string;
  /** The path without its query. */
  readonly path: string;
  /** The provider that the header `x-fake-provider` names. */
  readonly header: string | undefined;
  /** Whether the request has the header `anthropic-version`. */
  readonly hasAnthropicVersion: boolean;
}

/**
 * Finds the provider and the endpoint of a request. The first segment of the path names the provider; further segments
 * before the endpoint, other than `v1`, are free and distinguish several providers of one kind:
 * `/xai/first-hop/v1/chat/completions`.
 */
export function routeOf(request: RoutedRequest): Route | NoRoute {
  const { method, path, header, hasAnthropicVersion } = request;
  const target = TARGETS.find(({ pattern }) => pattern.test(path));
  const named = path.split('/')[1] ?? '';
  const fromPath = providerNamed(named);
  const byTarget = target?.endpoint === 'models' && hasAnthropicVersion ? 'anthropic' : target?.provider;
  const provider = (header && providerNamed(header)) || fromPath || byTarget || 'openai';
  const notFound = (problem: string): NoRoute => ({ provider, problem, status: 404 });
  if (header && !providerNamed(header))
    return notFound(`The header x-fake-provider names no provider; they are ${PROVIDERS.join(', ')}`);
  if (!target) return notFound(`Invalid URL (${method} ${path})`);
  const isNamed = fromPath !== undefined || isBelowOrigin(path, target.pattern);
  if (!isNamed)
    return notFound(`Invalid URL (${method} ${path}); the first segment is v1 or one of ${PROVIDERS.join(', ')}`);
  // Each of the two key endpoints belongs to one provider.
  const isOfAnother = target.endpoint === 'key' && target.provider !== provider;
  if (isOfAnother || !providers[provider].endpoints.includes(target.endpoint))
    return notFound(`Invalid URL (${method} ${path}); ${providers[provider].title} has no such endpoint`);
  if (method !== target.method)
    return { provider, problem: `Not allowed to ${method} on ${path}; use ${target.method}`, status: 405 };
  const model = target.pattern.exec(path)?.groups?.['model'];
  return { provider, endpoint: target.endpoint, ...(model !== undefined && { model: decoded(model) }) };
}

export const isRoute = (route: Route | NoRoute): route is Route => 'endpoint' in route;

function providerNamed(name: string): ProviderName | undefined {
  if (isProvider(name)) return name;
  return Object.hasOwn(PROVIDER_ALIASES, name) ? PROVIDER_ALIASES[name] : undefined;
}

/** Whether a path has nothing but `/v1` before its endpoint. */
const isBelowOrigin = (path: string, pattern: RegExp) => ['', '/v1'].includes(path.replace(pattern, ''));

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}
