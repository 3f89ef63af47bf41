import { originOf } from '../../domain/origin.js';
import type { ResolutionHop } from '../resolution_types.js';

/**
 * Stands for the API key in the settings of a provider package, so that the package never has the key: errors and logs of
 * a package can contain its settings. A package without a key would read one from the environment, which may belong to
 * another provider.
 */
export const KEY_PLACEHOLDER = 'agentllm-api-key';

/** A request of a provider package. */
export interface PackageRequest {
  readonly url: string;
  readonly method: string;
  readonly headers: Record<string, string>;
  readonly body: RequestInit['body'];
  readonly signal: AbortSignal | undefined;
}

/** Reads the arguments of `fetch`. */
export async function readRequest(input: string | URL | Request, init: RequestInit = {}): Promise<PackageRequest> {
  if (!(input instanceof Request)) {
    const { method = 'GET', headers, body, signal } = init;
    return { url: String(input), method, headers: headersOf(headers), body, signal: signal ?? undefined };
  }
  return {
    url: input.url,
    method: init.method ?? input.method,
    headers: headersOf(init.headers ?? input.headers),
    body: init.body ?? (input.body === null ? undefined : await input.text()),
    signal: init.signal ?? input.signal,
  };
}

/**
 * The headers of a request. Most packages pass an object; converting it to `Headers` is slow, and `fetch` does it
 * anyway.
 */
export const headersOf = (headers: RequestInit['headers'] = {}): Record<string, string> =>
  Symbol.iterator in headers ? Object.fromEntries(new Headers(headers)) : { ...(headers as Record<string, string>) };

/**
 * The reason why a request must not be sent at a hop, because a key is bound to the origin of its provider; undefined
 * if it may be sent.
 */
export function targetProblem(url: string, hop: Pick<ResolutionHop, 'base_url' | 'provider'>): string | undefined {
  // Most requests go to a path below the base URL, which is normalized.
  if (url.startsWith(hop.base_url) && url[hop.base_url.length] === '/') return undefined;
  const origin = originOf(hop.base_url);
  if (URL.canParse(url) && new URL(url).origin === origin) return undefined;
  return `The package of provider ${JSON.stringify(hop.provider)} sends a request to another origin than ${origin}`;
}

/** Replaces the placeholder by the key; without a key, headers with the placeholder are removed. */
export function setKey(headers: Record<string, string>, apiKey: string | undefined): void {
  for (const [name, value] of Object.entries(headers))
    if (String(value).includes(KEY_PLACEHOLDER)) {
      if (apiKey === undefined) delete headers[name];
      else headers[name] = value.replaceAll(KEY_PLACEHOLDER, apiKey);
    }
}
