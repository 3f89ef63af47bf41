import { ServiceError } from '../errors.js';
import type { Keyring } from './keyring.js';
import type { Config, Credential } from './rows.js';

/** The key id of an imported ciphertext that is not yet bound to its row. */
export const UNBOUND = 'unbound';

/** The name in `store_seeds` of the one-time pass that binds the ciphertexts of an imported database to their rows. */
export const REBOUND = 'rebind_tokens';

/** Why no key can be stored. */
export type EncryptionProblem =
  | { readonly reason: 'ENCRYPTION_NOT_CONFIGURED'; readonly problem: string }
  | { readonly reason: 'ENCRYPTION_KEY_WRONG'; readonly ours: string; readonly theirs: string };

/** Identifies a row that may have a stored key. */
export const keyHolder = (entity: 'config' | 'credential', id: number): string => `${entity} ${id}`;

/** Identifies one ciphertext of a row: its encryption key, and the revision at which the API key was stored. */
export const ciphertextVersion = ({ key_id, key_revision }: Pick<Config, 'key_id' | 'key_revision'>): string =>
  `${key_id} ${key_revision}`;

/**
 * Whether API keys can be stored, and which stored keys can be decrypted. It contains
 * no API keys.
 */
export class EncryptionState {
  constructor(
    readonly keyring: Keyring | undefined,
    readonly problem: EncryptionProblem | undefined,
    /** Rows whose ciphertext could not be decrypted, with its version, because a later ciphertext may be readable. */
    private readonly unreadable: ReadonlyMap<string, string> = new Map(),
  ) {}

  static readonly none = new EncryptionState(undefined, { reason: 'ENCRYPTION_NOT_CONFIGURED', problem: 'is not set' });

  /** An encryption state with other encryption keys. */
  withKeys(keyring: Keyring | undefined, problem: EncryptionProblem | undefined): EncryptionState {
    return new EncryptionState(keyring, problem, this.unreadable);
  }

  /** An encryption state after another check of the stored ciphertexts. */
  withUnreadable(unreadable: ReadonlyMap<string, string>): EncryptionState {
    return new EncryptionState(this.keyring, this.problem, unreadable);
  }

  /** The keyring for encryption; throws a ServiceError if keys cannot be stored. */
  get writable(): Keyring {
    if (this.problem?.reason === 'ENCRYPTION_KEY_WRONG') {
      const { ours, theirs } = this.problem;
      throw ServiceError.of('ENCRYPTION_KEY_WRONG', { ours, theirs });
    }
    if (this.problem || !this.keyring)
      throw ServiceError.of('ENCRYPTION_NOT_CONFIGURED', { problem: this.problem?.problem ?? 'is not set' });
    return this.keyring;
  }

  stateOf(entity: 'config' | 'credential', row: Config | Credential) {
    if (row.key_id === null) return 'API_KEY_STATE_NONE' as const;
    const isKeyAvailable = this.keyring?.ids.includes(row.key_id) ?? false;
    return isKeyAvailable && this.unreadable.get(keyHolder(entity, row.id)) !== ciphertextVersion(row)
      ? ('API_KEY_STATE_SET' as const)
      : ('API_KEY_STATE_UNREADABLE' as const);
  }
}
