import { bindingOf } from '../../domain/credential.js';
import type { KeyChange } from '../../domain/draft.js';
import { ciphertextVersion, keyHolder } from '../../domain/encryption_state.js';
import type { Config, Credential } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import { onDatabase } from '../failure.js';
import type { Store } from '../store.js';
import { catchUp } from '../write/change_log.js';
import { readCiphertexts } from '../write/rows.js';
import { transact } from '../write/transact.js';
import { checkCiphertexts, rowOf } from './encryption.js';

/** The caller and the options of a rotation. */
export interface RotationOptions {
  readonly actor: string;
  readonly method: string;
  /** Skip API keys whose encryption key is missing. Otherwise the rotation fails before it begins. */
  readonly skipUnreadable: boolean;
}

/** Progress of a rotation. */
export interface RotationProgress {
  /** API keys that were not encrypted with the first encryption key when the rotation began. */
  readonly total: number;
  /** Of these, the keys that are finished: re-encrypted, replaced or deleted. */
  readonly done: number;
  /** Of these, the keys that cannot be decrypted and were skipped. */
  readonly unreadable: number;
  readonly finished: boolean;
}

type KeyEntity = KeyChange['entity'];

/** A row with a stored API key. */
interface Holder {
  readonly entity: KeyEntity;
  readonly id: number;
}

/** An API key in plaintext, between decryption and encryption. */
interface OpenedKey extends Holder {
  /** Identifies the ciphertext that the key was decrypted from. */
  readonly version: string;
  readonly key: string;
}

/**
 * Re-encrypts every stored API key with the first encryption key, in batches, while the service continues. Yields the
 * progress at the beginning, after every batch and at the end. The keys that are still encrypted with another
 * encryption key are the remaining work; no other progress is stored. So an interrupted rotation can be started again,
 * and concurrent ones are safe.
 */
export async function* rotateKeys(store: Store, options: RotationOptions): AsyncGenerator<RotationProgress> {
  const { ids, primaryId } = store.state.encryption.writable;
  await refresh(store);
  const outdated = keysNotUnder(store.state, primaryId);
  const withoutKey = outdated.filter(({ key_id }) => !ids.includes(key_id));
  if (withoutKey.length > 0 && !options.skipUnreadable) throw encryptionKeyMissing(withoutKey);
  const progress = new Progress(outdated.length, withoutKey);
  yield progress.report(store.state);
  const readable = outdated.filter(({ key_id }) => ids.includes(key_id));
  for (let at = 0; at < readable.length; at += limits.rotationBatch) {
    const batch = readable.slice(at, at + limits.rotationBatch);
    progress.add(batch, await rotateBatch(store, options, batch));
    yield progress.report(store.state);
  }
  // Records which keys are unreadable.
  if (progress.foundUnreadable) await onDatabase(store, () => checkCiphertexts(store));
  await refresh(store);
  yield progress.report(store.state, true);
}

/** Tracks the API keys that were outdated when the rotation began. */
class Progress {
  /** Processed keys that were still outdated at the last report. */
  private remaining: readonly Holder[];
  private readonly unreadable: Set<string>;
  private processed: number;

  /** @param withoutKey keys whose encryption key is missing, so that they are not tried. */
  constructor(
    private readonly total: number,
    private readonly withoutKey: readonly Holder[],
  ) {
    this.remaining = withoutKey;
    this.processed = withoutKey.length;
    this.unreadable = new Set(withoutKey.map(nameOf));
  }

  get foundUnreadable(): boolean {
    return this.unreadable.size > this.withoutKey.length;
  }

  add(batch: readonly Holder[], unreadable: readonly Holder[]): void {
    this.remaining = [...this.remaining, ...batch];
    this.processed += batch.length;
    for (const holder of unreadable) this.unreadable.add(nameOf(holder));
  }

  report(state: State, finished = false): RotationProgress {
    this.remaining = this.remaining.filter((holder) => isOutdated(state, holder));
    const unreadable = this.remaining.filter((holder) => this.unreadable.has(nameOf(holder))).length;
    return { total: this.total, done: this.processed - this.remaining.length, unreadable, finished };
  }
}

const nameOf = ({ entity, id }: Holder) => keyHolder(entity, id);
const rowsOf = (state: State, entity: KeyEntity): ReadonlyMap<number, Config | Credential> =>
  entity === 'config' ? state.configs : state.credentials;

function isOutdated(state: State, { entity, id }: Holder): boolean {
  const keyId = rowsOf(state, entity).get(id)?.key_id ?? null;
  return keyId !== null && keyId !== state.encryption.keyring?.primaryId;
}

function keysNotUnder(state: State, keyId: string): (Holder & { readonly key_id: string })[] {
  return (['config', 'credential'] as const).flatMap((entity) =>
    [...rowsOf(state, entity).values()].flatMap(({ id, key_id }) =>
      key_id === null || key_id === keyId ? [] : [{ entity, id, key_id }],
    ),
  );
}

function encryptionKeyMissing(holders: readonly { readonly key_id: string }[]): ServiceError {
  const keys = [...new Set(holders.map(({ key_id }) => key_id))].sort().join(', ');
  return ServiceError.of('ENCRYPTION_KEY_MISSING', { count: String(holders.length), keys });
}

/** Reads the writes of other replicas, so that no outdated key is missed. */
const refresh = (store: Store): Promise<void> => onDatabase(store, () => catchUp(store));

/** Re-encrypts the keys of some rows in one write. Returns the rows whose key cannot be decrypted. */
async function rotateBatch(
  store: Store,
  options: RotationOptions,
  batch: readonly Holder[],
): Promise<readonly Holder[]> {
  await refresh(store);
  const { opened, unreadable } = await decryptAll(store, batch);
  if (opened.length > 0) await storeReencrypted(store, options, opened);
  return unreadable;
}

async function decryptAll(store: Store, batch: readonly Holder[]) {
  const opened: OpenedKey[] = [];
  const unreadable: Holder[] = [];
  for (const entity of ['config', 'credential'] as const) {
    const ids = batch.filter((holder) => holder.entity === entity).map(({ id }) => id);
    if (ids.length === 0) continue;
    const ciphertexts = await onDatabase(store, (db) => readCiphertexts(db, entity, ids));
    const { state } = store;
    for (const stored of ciphertexts) {
      const row = rowOf(state, entity, stored);
      // The row has received another key meanwhile, in the state or in the database.
      if (!row || !isOutdated(state, { entity, id: stored.id })) continue;
      const decrypted = state.encryption.writable.open(stored.ciphertext, bindingOf(state, entity, row));
      if ('key' in decrypted)
        opened.push({ entity, id: stored.id, version: ciphertextVersion(row), key: decrypted.key });
      else unreadable.push({ entity, id: stored.id });
    }
  }
  return { opened, unreadable };
}

/** Stores the ciphertexts. Skips rows whose ciphertext has changed meanwhile. */
async function storeReencrypted(
  store: Store,
  { actor, method }: RotationOptions,
  keys: readonly OpenedKey[],
): Promise<void> {
  await transact(store, {
    actor,
    method,
    requestId: undefined,
    reason: undefined,
    plan(state, draft) {
      const { primaryId } = state.encryption.writable;
      for (const { entity, id, version, key } of keys) {
        const row = rowsOf(state, entity).get(id);
        if (row && ciphertextVersion(row) === version)
          draft.reencrypt(entity, row as Config & Credential, primaryId, key);
      }
    },
    encodeResponse: () => new Uint8Array(),
    body: () => new Uint8Array(),
  });
}
