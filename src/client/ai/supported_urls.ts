import type { ResolutionHop } from '../resolution_types.js';
import type { CallableAgent } from '../runtime/model_call.js';
import { KEY_PLACEHOLDER } from '../runtime/request.js';
import { dialectOf } from './built_in_dialects.js';
import type { Specification, Urls } from './sdk_types.js';

/** The URLs of the hops of a resolution, which does not change. */
const cache = new WeakMap<readonly ResolutionHop[], Promise<Urls>>();

/** The URLs that every hop of an agent can pass to its provider. All other URLs must be downloaded. */
export async function supportedUrls(
  agent: CallableAgent,
  specification: Specification,
  subject?: string,
): Promise<Urls> {
  const { hops } = agent.resolve({ subject });
  const cached = cache.get(hops);
  if (cached) return cached;
  const urls = Promise.all(hops.map((hop) => urlsOf(hop, specification))).then(intersection);
  cache.set(hops, urls);
  return urls;
}

/** A hop whose package cannot be used supports no URLs; a call that reaches this hop reports the reason. */
async function urlsOf(hop: ResolutionHop, specification: Specification): Promise<Urls> {
  const settings = { modelName: hop.model_name, baseURL: hop.base_url, apiKey: KEY_PLACEHOLDER, fetch: noRequest, hop };
  try {
    return await (await dialectOf(hop).create(settings, specification)).supportedUrls;
  } catch {
    return {};
  }
}

const noRequest = () => Promise.reject(new Error('No request is expected'));

/** The patterns that all of them have, by media type. */
export function intersection([first = {}, ...others]: readonly Urls[]): Urls {
  const isShared = (type: string, { source, flags }: RegExp) =>
    others.every((urls) => urls[type]?.some((pattern) => pattern.source === source && pattern.flags === flags));
  const entries = Object.entries(first).map(
    ([type, patterns]) => [type, patterns.filter((pattern) => isShared(type, pattern))] as const,
  );
  return Object.fromEntries(entries.filter(([, patterns]) => patterns.length > 0));
}
