import type { ValidateApiKeyRequest, ValidateApiKeyResponse } from '../../gen/ts/agentllm/v1/provider_service.js';
import { keyProblem } from '../domain/credential.js';
import type { State } from '../domain/state.js';
import { nameProblem } from '../domain/text.js';
import { limits } from '../limits.js';
import { type Answer, askProvider } from '../providers/ask.js';
import { patienceOf, type Waiting } from './check_config.js';
import { passRate, type Rate } from './rate.js';
import { Problems, providerOf } from './requests.js';
import type { Backend } from './service.js';

/** Asks a provider whether a key that somebody holds is good; nothing of it is kept. */
export async function validateKey(
  { allowedAddresses: allowed }: Backend,
  state: State,
  { provider: name, api_key, model_name }: ValidateApiKeyRequest,
  { rate, ...waiting }: Waiting & { readonly rate: Rate },
): Promise<ValidateApiKeyResponse> {
  const problems = new Problems();
  if (name === '') problems.add('provider', 'is required');
  problems.add('api_key', keyProblem(api_key));
  if (model_name !== '') problems.add('model_name', nameProblem(model_name, limits.modelName));
  problems.throwIfAny();
  const provider = providerOf(state, name);
  const models = model_name === '' ? [] : [model_name];
  passRate(rate);
  const revision = BigInt(state.revision);
  const [answer] = await askProvider(provider, api_key, models, { allowed, ...patienceOf(waiting) });
  const { status, message, latencyMs } = answer as Answer;
  const check = { status, message, latency_ms: latencyMs, checked_at: new Date() };
  return { check, revision };
}
