import type { CheckStatus, ConfigHealth, KeyCheck } from '../../gen/ts/agentllm/v1/check.js';
import { generateKey } from '../../src/domain/fernet.js';
import { newConfig, present } from '../api/handlers/support.js';
import { type FakeProvider, KEY } from '../providers/fake_provider.js';
import { type Clients, unique } from './service.js';

/*
 * Helpers for tests of checks. They use only the public API. The keys contain a mark, so that tests can search for it.
 */

export const ENCRYPTION_KEY = generateKey();
export const OWN_KEY = 'sk-CANARY-own-0123456789abcdefghij';
/** The key in a variable that may be sent to custom providers. */
export const ENV_KEY = KEY;
export const environment = {
  ENCRYPTION_KEY,
  PROVIDER_ALLOW_CIDRS: '127.0.0.0/8',
  PROVIDER_ALLOW_KEY_VARS: 'MINE_API_KEY,YOURS_API_KEY',
  MINE_API_KEY: ENV_KEY,
};

/** Creates a custom provider whose base URL is that of a fake provider. Returns its name. */
export async function provide(
  { providers }: Clients,
  target: Pick<FakeProvider, 'provider'> | string,
  api_key_env_vars: string[] = ['MINE_API_KEY'],
): Promise<string> {
  const name = unique('mine');
  const base_url = typeof target === 'string' ? target : target.provider.base_url;
  const dialect = typeof target === 'string' ? 'DIALECT_OPENAI' : target.provider.dialect;
  await providers.createProvider({ provider: { name, dialect, base_url, api_key_env_vars } });
  return name;
}

/** Runs CheckConfigHealth. */
export async function checked(clients: Clients, id: number, deadlineMs = 20_000): Promise<ConfigHealth> {
  return present((await clients.configs.checkConfigHealth({ id }, { deadlineMs })).health);
}

/** Creates a config with a provider, a model and optionally an API key. */
export async function configAt(clients: Clients, provider: string, model_name = 'gpt-4o', api_key?: string) {
  const config = await newConfig(clients, { provider, model_name });
  if (api_key !== undefined) await clients.configs.updateConfig({ config: { id: config.id }, api_key });
  return present((await clients.configs.getConfig({ id: config.id })).config);
}

/** Runs ValidateApiKey. */
export async function validated(
  clients: Clients,
  provider: string,
  api_key: string,
  model_name = '',
): Promise<KeyCheck> {
  return present((await clients.providers.validateApiKey({ provider, api_key, model_name })).check);
}

/** The status without its prefix: `OK` for CHECK_STATUS_OK. */
export const short = (status: CheckStatus): string => status.replace('CHECK_STATUS_', '');

export const text = (value: unknown): string =>
  JSON.stringify(value, (_, inner) => (typeof inner === 'bigint' ? String(inner) : inner)) ?? '';

/** A promise with the function that resolves it. */
export function gate(): { readonly open: () => void; readonly opened: Promise<void> } {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open: () => open(), opened };
}

/** The outcome of a call: `OK`, or its code and reason. */
export async function ending(call: Promise<unknown>): Promise<string> {
  return call.then(
    () => 'OK',
    (error: { code?: number; reason?: string; message: string }) =>
      error.code === undefined ? `no CallError: ${error.message}` : `${error.code} ${error.reason}`,
  );
}
