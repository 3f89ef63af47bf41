import { ServiceError } from '../errors.js';
import type { Keyring } from './keyring.js';
import type { Config, Credential } from './rows.js';

/** Stands in the place of a key id while a ciphertext is still as another system wrote it. */
export const UNBOUND = 'unbound';

/** The mark, in `store_seeds`, of the one pass that binds the ciphertexts of an imported database to their rows. */
export const REBOUND = 'rebind_tokens';

/** Why no key can be stored. */
export type VaultProblem =
  | { readonly reason: 'ENCRYPTION_NOT_CONFIGURED'; readonly problem: string }
  | { readonly reason: 'ENCRYPTION_KEY_WRONG'; readonly ours: string; readonly theirs: string };

/** Names a row that may hold a key. */
export const keyHolder = (entity: 'config' | 'credential', id: number): string => `${entity} ${id}`;

/** Tells a row's token from those that it had before: at which revision it was stored, and under which key it is now. */
export const tokenMark = ({ key_id, key_revision }: Pick<Config, 'key_id' | 'key_revision'>): string =>
  `${key_id} ${key_revision}`;

/**
 * What the rules know of stored keys: whether one can be stored, and which of
 * those that are stored can be read. It holds no key of a provider.
 */
export class Vault {
  constructor(
    readonly keyring: Keyring | undefined,
    readonly problem: VaultProblem | undefined,
    /** Rows whose token was tried and did not open, with the mark of that token: a later one may be good. */
    private readonly unreadable: ReadonlyMap<string, string> = new Map(),
  ) {}

  static readonly none = new Vault(undefined, { reason: 'ENCRYPTION_NOT_CONFIGURED', problem: 'is not set' });

  /** The keyring that encrypts; throws when there is none that may. */
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
    const known = this.keyring?.ids.includes(row.key_id) ?? false;
    return known && this.unreadable.get(keyHolder(entity, row.id)) !== tokenMark(row)
      ? ('API_KEY_STATE_SET' as const)
      : ('API_KEY_STATE_UNREADABLE' as const);
  }
}
