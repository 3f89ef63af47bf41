import type { CheckStatus, ConfigHealth, KeyCheck } from '../../gen/ts/agentllm/v1/check.js';
import { generateKey } from '../../src/domain/fernet.js';
import { newConfig, present } from '../api/handlers/support.js';
import { type FakeProvider, KEY } from '../providers/fake_provider.js';
import { type Clients, unique } from './service.js';

/*
 * The adversary knows the contract alone. What it plants has this mark in it, so
 * that it can be looked for.
 */

export const ENCRYPTION_KEY = generateKey();
export const OWN_KEY = 'sk-CANARY-own-0123456789abcdefghij';
/** Of a variable that is allowed to go to providers of one's own. */
export const ENV_KEY = KEY;
export const environment = {
  ENCRYPTION_KEY,
  PROVIDER_ALLOW_CIDRS: '127.0.0.0/8',
  PROVIDER_ALLOW_KEY_VARS: 'MINE_API_KEY,YOURS_API_KEY',
  MINE_API_KEY: ENV_KEY,
};

/** A provider of one's own that stands at a fake one. */
export async function provide(
  { providers }: Clients,
  at: Pick<FakeProvider, 'provider'> | string,
  api_key_env_vars: string[] = ['MINE_API_KEY'],
): Promise<string> {
  const name = unique('mine');
  const base_url = typeof at === 'string' ? at : at.provider.base_url;
  const dialect = typeof at === 'string' ? 'DIALECT_OPENAI' : at.provider.dialect;
  await providers.createProvider({ provider: { name, dialect, base_url, api_key_env_vars } });
  return name;
}

export async function checked(clients: Clients, id: number, deadlineMs = 20_000): Promise<ConfigHealth> {
  return present((await clients.configs.checkConfigHealth({ id }, { deadlineMs })).health);
}

/** A config of a provider with a model, and the key given as its own. */
export async function configAt(clients: Clients, provider: string, model_name = 'gpt-4o', api_key?: string) {
  const config = await newConfig(clients, { provider, model_name });
  if (api_key !== undefined) await clients.configs.updateConfig({ config: { id: config.id }, api_key });
  return present((await clients.configs.getConfig({ id: config.id })).config);
}

export async function validated(
  clients: Clients,
  provider: string,
  api_key: string,
  model_name = '',
): Promise<KeyCheck> {
  return present((await clients.providers.validateApiKey({ provider, api_key, model_name })).check);
}

/** CHECK_STATUS_OK as OK. */
export const short = (status: CheckStatus): string => status.replace('CHECK_STATUS_', '');

export const text = (value: unknown): string =>
  JSON.stringify(value, (_, inner) => (typeof inner === 'bigint' ? String(inner) : inner)) ?? '';

/** A promise with its handle. */
export function gate(): { readonly open: () => void; readonly opened: Promise<void> } {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open: () => open(), opened };
}

/** How a call ended: the answer, or its code and reason. */
export async function ending(call: Promise<unknown>): Promise<string> {
  return call.then(
    () => 'OK',
    (error: { code?: number; reason?: string; message: string }) =>
      error.code === undefined ? `no CallError: ${error.message}` : `${error.code} ${error.reason}`,
  );
}
