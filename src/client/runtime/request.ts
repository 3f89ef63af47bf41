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
  readonly headers: Headers;
  readonly body: RequestInit['body'];
  readonly signal: AbortSignal | undefined;
}

/** Reads the arguments of `fetch`. */
export async function readRequest(input: string | URL | Request, init: RequestInit = {}): Promise<PackageRequest> {
  if (!(input instanceof Request)) {
    const { method = 'GET', headers, body, signal } = init;
    return { url: String(input), method, headers: new Headers(headers), body, signal: signal ?? undefined };
  }
  return {
    url: input.url,
    method: init.method ?? input.method,
    headers: new Headers(init.headers ?? input.headers),
    body: init.body ?? (input.body === null ? undefined : await input.text()),
    signal: init.signal ?? input.signal,
  };
}

/** Why a request must not be sent at a hop, or undefined: a key is bound to the origin of its provider. */
export function targetProblem(url: string, hop: Pick<ResolutionHop, 'base_url' | 'provider'>): string | undefined {
  // Most requests go to a path below the base URL, which is normalized.
  if (url.startsWith(hop.base_url) && url[hop.base_url.length] === '/') return undefined;
  const origin = originOf(hop.base_url);
  if (URL.canParse(url) && new URL(url).origin === origin) return undefined;
  return `The package of provider ${JSON.stringify(hop.provider)} sends a request to another origin than ${origin}`;
}

/** Replaces the placeholder by the key; without a key, headers with the placeholder are removed. */
export function setKey(headers: Headers, apiKey: string | undefined): void {
  for (const [name, value] of [...headers])
    if (value.includes(KEY_PLACEHOLDER)) {
      if (apiKey === undefined) headers.delete(name);
      else headers.set(name, value.replaceAll(KEY_PLACEHOLDER, apiKey));
    }
}
