import type { ResolutionHop } from '../resolution_types.js';
import type { Fetch } from '../runtime/fetch.js';
import type { AttemptContext } from '../runtime/model_call.js';
import { headersOf } from '../runtime/request.js';
import type { HopDialect } from './hop_dialect.js';
import type { PackageModel, Specification } from './sdk_types.js';

/** The header that identifies the attempt of a request of a cached model. It is removed before the request is sent. */
const ATTEMPT_HEADER = 'x-agentllm-attempt';

/**
 * The cached models of hops. The creation of a model takes longer than a call, because the package builds the schemas
 * of its responses.
 */
const cache = new WeakMap<ResolutionHop, Promise<PackageModel>>();
const attempts = new Map<string, Fetch>();
let last = 0;

/** The model of a provider package for one attempt. */
export interface AttemptModel {
  readonly model: PackageModel;
  /** Headers that the call must have. */
  readonly headers: Readonly<Record<string, string>>;
  /** Ends the use of the model, when its request has been sent. */
  release(): void;
}

/** Returns the cached model of a hop for an attempt, or creates it. */
export async function modelOf(
  { hop, apiKey, fetch }: AttemptContext,
  dialect: HopDialect,
  specification: Specification,
): Promise<AttemptModel> {
  const settings = { modelName: hop.model_name, baseURL: hop.base_url, apiKey, hop };
  if (!dialect.isKept)
    return { model: await dialect.create({ ...settings, fetch }, specification), headers: {}, release: () => {} };
  let model = cache.get(hop);
  if (!model) {
    model = dialect.create({ ...settings, fetch: route }, specification);
    cache.set(hop, model);
    // A missing package may be installed before the next call.
    model.catch(() => cache.delete(hop));
  }
  const created = await model;
  const attempt = String(++last);
  attempts.set(attempt, fetch);
  return { model: created, headers: { [ATTEMPT_HEADER]: attempt }, release: () => attempts.delete(attempt) };
}

/** Sends the request of a cached model through the `fetch` of its attempt. */
async function route(input: Parameters<Fetch>[0], init?: RequestInit): Promise<Response> {
  const headers = headersOf(init?.headers ?? (input instanceof Request ? input.headers : undefined));
  const send = attempts.get(headers[ATTEMPT_HEADER] ?? '');
  if (!send) throw new Error('The provider package sent a request outside an attempt');
  delete headers[ATTEMPT_HEADER];
  return send(input, { ...init, headers });
}
