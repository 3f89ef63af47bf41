import { limits } from '../limits.js';
import { text } from './fields.js';
import type { Binding } from './keyring.js';
import { originOf } from './origin.js';
import type { FieldSpecs } from './patch.js';
import type { Config, Credential } from './rows.js';
import type { State } from './state.js';

/** The fields of a credential that a request can change, by their paths below `credential`. */
export const credentialFields: FieldSpecs = {
  description: { schema: text(limits.description), cleared: null },
};
export const credentialOutputOnly = [
  'name',
  'provider',
  'api_key_state',
  'config_count',
  'created_at',
  'updated_at',
  'revision',
  'etag',
] as const;

export const newCredential = (): Credential => ({
  id: 0,
  name: '',
  provider: '',
  description: null,
  key_id: null,
  key_revision: null,
  created_at: new Date(0),
  updated_at: new Date(0),
  revision: 0,
});

const VISIBLE = /^[\x21-\x7e]*$/;

/** Why a text cannot be an API key, or undefined. The result never contains the text. */
export function keyProblem(key: string): string | undefined {
  if (key === '') return 'must not be empty';
  if (!VISIBLE.test(key)) return 'must consist of visible ASCII characters';
  return key.length > limits.apiKey ? `must have at most ${limits.apiKey} characters, not ${key.length}` : undefined;
}

/** The row, provider and origin that the ciphertext of a row is bound to. */
export function bindingOf(state: State, entity: 'config' | 'credential', row: Config | Credential): Binding {
  const origin = originOf(state.provider(row.provider)?.base_url ?? '');
  const agentId = 'agent_id' in row ? row.agent_id : 0;
  return { kind: entity, agentId, id: row.id, provider: row.provider, origin };
}

/** The number of rows with a stored key for a provider. */
export function keysFor(state: State, provider: string): number {
  const isKeyHolder = (row: Config | Credential) => row.provider === provider && row.key_id !== null;
  return (
    [...state.configs.values()].filter(isKeyHolder).length + [...state.credentials.values()].filter(isKeyHolder).length
  );
}
