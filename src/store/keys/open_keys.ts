import { bindingOf } from '../../domain/credential.js';
import { keyHolder } from '../../domain/encryption_state.js';
import type { StoredKey } from '../../domain/key_choice.js';
import type { State } from '../../domain/state.js';
import { onDatabase } from '../failure.js';
import type { Store } from '../store.js';
import { readHead } from '../write/head.js';
import { tables } from '../write/rows.js';

type Holder = 'config' | 'credential';

/** Decrypted API keys by their rows. A key that cannot be decrypted is missing. */
export type OpenedKeys = ReadonlyMap<StoredKey['row'], string>;

const holderOf = ({ source }: StoredKey): Holder => (source === 'KEY_SOURCE_CONFIG' ? 'config' : 'credential');

/**
 * Decrypts stored API keys for immediate use; they must not be kept. The rows come from the state in memory.
 * @returns the keys, or the revision of the database when that has newer rows.
 */
export async function openKeys(
  store: Store,
  stored: readonly StoredKey[],
): Promise<{ readonly keys: OpenedKeys } | { readonly newer: number }> {
  const { state } = store;
  const { keyring } = state.encryption;
  const ciphertexts = await onDatabase(store, async (db) => {
    const found = new Map<string, { readonly ciphertext: string | null; readonly key_revision: number | null }>();
    for (const holder of ['config', 'credential'] as const) {
      const ids = stored.filter((storedKey) => holderOf(storedKey) === holder).map(({ row }) => row.id);
      if (ids.length === 0) continue;
      const columns = ['id', 'api_key_encrypted as ciphertext', 'key_revision'];
      const rows = await db(tables[holder].name).select(columns).whereIn('id', ids);
      for (const { id, ...row } of rows) found.set(keyHolder(holder, id), row);
    }
    return found;
  });
  const keys = new Map<StoredKey['row'], string>();
  for (const storedKey of stored) {
    const { row } = storedKey;
    const current = ciphertexts.get(keyHolder(holderOf(storedKey), row.id));
    if (current?.ciphertext == null || current.key_revision !== row.key_revision) {
      const newer = await newerThan(store, state);
      if (newer !== undefined) return { newer };
      // The ciphertext was changed with SQL outside of the service, so it is not a key of this row.
      continue;
    }
    const opened = keyring?.open(current.ciphertext, bindingOf(state, holderOf(storedKey), row));
    if (opened && 'key' in opened) keys.set(row, opened.key);
  }
  return { keys };
}

async function newerThan(store: Store, { identity, revision }: State): Promise<number | undefined> {
  const head = await onDatabase(store, (db) => readHead(db));
  return head.identity === identity && head.revision > revision ? head.revision : undefined;
}
