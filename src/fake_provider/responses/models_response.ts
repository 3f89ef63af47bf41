import type { Credential } from '../credential.js';
import { maskedKey } from '../credential.js';
import type { ParsedFault } from '../faults/fault.js';
import { type ProviderName, providers } from '../providers.js';
import { Rejection } from './provider_error.js';
import { type FakeResponse, jsonResponse } from './response.js';
import { situationError, withValues } from './situations.js';

const CREATED_SECONDS = 1_767_225_600;
const CREATED_AT = '2026-01-01T00:00:00Z';

const openaiModel = (provider: ProviderName, id: string) => ({
  id,
  object: 'model',
  created: CREATED_SECONDS,
  owned_by: provider,
});
const anthropicModel = (id: string) => ({ type: 'model', id, display_name: id, created_at: CREATED_AT });

/** The model list of a provider. */
export function modelListResponse(provider: ProviderName, served: readonly string[] | undefined): FakeResponse {
  const names = served ?? providers[provider].models;
  if (provider !== 'anthropic')
    return jsonResponse(200, { object: 'list', data: names.map((name) => openaiModel(provider, name)) });
  const ends = { first_id: names[0] ?? null, last_id: names.at(-1) ?? null };
  return jsonResponse(200, { data: names.map(anthropicModel), ...ends, has_more: false });
}

/** One model. Throws a Rejection if the provider does not serve it. */
export function modelResponse(
  provider: ProviderName,
  name: string,
  served: readonly string[] | undefined,
): FakeResponse {
  checkServed(provider, name, served);
  return jsonResponse(200, provider === 'anthropic' ? anthropicModel(name) : openaiModel(provider, name));
}

/** Rejects a model that the provider does not serve. */
export function checkServed(provider: ProviderName, model: string, served: readonly string[] | undefined): void {
  if (served && !served.includes(model))
    throw new Rejection(withValues(situationError('model_not_found', provider), { model }));
}

/** The key endpoint: the state of a key at xAI, the balance of an account at DeepSeek. */
export function keyResponse(
  { provider, fingerprint }: Credential,
  key: string,
  fault: ParsedFault | undefined,
): FakeResponse {
  const effect = fault?.definition.effect;
  if (provider === 'deepseek') {
    const isAvailable = !(effect?.kind === 'error' && effect.situation === 'quota');
    const balance = { currency: 'USD', total_balance: isAvailable ? '9.90' : '0.00', granted_balance: '0.00' };
    return jsonResponse(200, {
      is_available: isAvailable,
      balance_infos: [{ ...balance, topped_up_balance: balance.total_balance }],
    });
  }
  const state = { team_blocked: false, api_key_blocked: false, api_key_disabled: false };
  return jsonResponse(200, {
    redacted_api_key: maskedKey(key),
    user_id: 'user-fake',
    name: fingerprint ?? 'none',
    team_id: 'team-fake',
    acls: ['api-key:model:*', 'api-key:endpoint:*'],
    ...state,
    ...(effect?.kind === 'key state' && { [effect.field]: true }),
  });
}
