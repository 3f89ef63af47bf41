import { AuditEventKind } from '../../../gen/ts/agentllm/v1/audit_service.js';
import type { ValidateApiKeyRequest, ValidateApiKeyResponse } from '../../../gen/ts/agentllm/v1/provider_service.js';
import { keyProblem } from '../../domain/credential.js';
import type { State } from '../../domain/state.js';
import { nameProblem } from '../../domain/text.js';
import { limits } from '../../limits.js';
import { Problems } from '../../problems.js';
import { checkProvider, type ModelCheck } from '../../providers/check_provider.js';
import type { Call } from '../dispatch/method.js';
import { type TokenBucket, takeCheck } from '../dispatch/token_bucket.js';
import { audit } from './audit.js';
import type { Backend } from './backend.js';
import { timeLimitOf } from './check_config.js';
import { providerOf } from './requests.js';

/** Checks an API key at its provider; the key is not stored. */
export async function validateKey(
  backend: Backend,
  state: State,
  call: Call<ValidateApiKeyRequest, ValidateApiKeyResponse>,
  bucket: TokenBucket,
): Promise<ValidateApiKeyResponse> {
  const { provider: name, api_key, model_name } = call.request;
  const problems = new Problems();
  if (name === '') problems.add('provider', 'is required');
  problems.add('api_key', keyProblem(api_key));
  if (model_name !== '') problems.add('model_name', nameProblem(model_name, limits.modelName));
  problems.throwIfAny();
  const provider = providerOf(state, name);
  const allowed = backend.allowedAddresses;
  const models = model_name === '' ? [] : [model_name];
  takeCheck(bucket);
  const revision = BigInt(state.revision);
  const [result] = await checkProvider(provider, api_key, models, { allowed, ...timeLimitOf(call) });
  const { status, message, latencyMs } = result as ModelCheck;
  await audit(backend, {
    kind: AuditEventKind.KEY_VALIDATION,
    actor: call.caller,
    method: call.method,
    agent_id: null,
    config_id: null,
    provider: provider.name,
    outcome: status,
  });
  const check = { status, message, latency_ms: latencyMs, checked_at: new Date() };
  return { check, revision };
}
