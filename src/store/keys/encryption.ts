import type { Knex } from 'knex';
import { bindingOf, keyProblem } from '../../domain/credential.js';
import {
  ciphertextVersion,
  type EncryptionProblem,
  EncryptionState,
  keyHolder,
  REBOUND,
  UNBOUND,
} from '../../domain/encryption_state.js';
import { Keyring } from '../../domain/keyring.js';
import type { Config, Credential } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { databaseFailure, onDatabase } from '../failure.js';
import type { Store } from '../store.js';
import { allCiphertexts, readCiphertext, type StoredCiphertext } from '../write/rows.js';
import { transact } from '../write/transact.js';

/** The result of a check of the stored keys, for the log. */
export interface EncryptionReport {
  readonly problem: EncryptionProblem | undefined;
  /** Rows whose API key cannot be decrypted, as `config 7`. */
  readonly unreadable: readonly string[];
  /** Number of rows of an imported database whose ciphertext was bound to its row. */
  readonly rebound: number;
}

/**
 * Sets the encryption state from the keys of ENCRYPTION_KEY. If they are missing or wrong, the service continues:
 * requests that need no key are served, and the others fail with an error that states the problem. Repeated while the
 * service runs, because other replicas and a restore change the keys in use.
 */
export async function openEncryption(store: Store, setting: string): Promise<EncryptionReport> {
  const { keyring, problem, isRecorded } = await replaceKeys(store, setting);
  const usable = problem ? undefined : keyring;
  if (usable && !isRecorded) await recordPrimaryKey(store.database.knex, usable);
  const rebound = usable ? await rebind(store, usable) : 0;
  const unreadable = await checkCiphertexts(store);
  return { problem: store.state.encryption.problem, unreadable, rebound };
}

/** Replaces the keys of the encryption state. If it has changed meanwhile (`acceptLostKeys`), it is checked again. */
async function replaceKeys(store: Store, setting: string): Promise<OpenedKeyring> {
  for (;;) {
    const before = store.state.encryption;
    const opened = await readKeyring(store, setting);
    if (store.state.encryption !== before) continue;
    store.state.encryption = before.withKeys(opened.keyring, opened.problem);
    return opened;
  }
}

/** Checks the keys of ENCRYPTION_KEY as `openEncryption` does, without changing anything, not even in memory. */
export async function inspectEncryption(store: Store, setting: string): Promise<EncryptionReport> {
  const { keyring, problem } = await readKeyring(store, setting);
  return { problem, unreadable: [...(await unreadableCiphertexts(store, keyring)).keys()], rebound: 0 };
}

/**
 * Accepts the current encryption keys when all earlier ones are lost. The stored API keys stay unreadable until they
 * are stored again or their encryption key is added.
 */
export async function acceptLostKeys(store: Store): Promise<void> {
  const { keyring, problem } = store.state.encryption;
  if (!keyring || problem?.reason !== 'ENCRYPTION_KEY_WRONG') return;
  await onDatabase(store, async (db) => {
    await db('encryption_keys').whereNotIn('key_id', keyring.ids).delete();
    await recordPrimaryKey(db, keyring);
  });
  const unreadable = await onDatabase(store, () => unreadableCiphertexts(store, keyring));
  store.state.encryption = new EncryptionState(keyring, undefined, unreadable);
}

interface OpenedKeyring {
  readonly keyring: Keyring | undefined;
  readonly problem: EncryptionProblem | undefined;
  /** Whether the canary of the key that encrypts is stored. */
  readonly isRecorded: boolean;
}

async function readKeyring(store: Store, setting: string): Promise<OpenedKeyring> {
  const { keyring, problem } = parseSetting(setting);
  if (!keyring) return { keyring, problem, isRecorded: false };
  const recorded: Canary[] = await store.database.knex('encryption_keys').select('key_id', 'canary');
  const isRecorded = recorded.some(({ key_id }) => key_id === keyring.primaryId);
  return { keyring, problem: checkCanaries(recorded, store.state, keyring), isRecorded };
}

/** A row of `encryption_keys`. */
interface Canary {
  readonly key_id: string;
  readonly canary: string;
}

function parseSetting(setting: string): { keyring?: Keyring; problem?: EncryptionProblem } {
  if (setting.trim() === '') return { problem: { reason: 'ENCRYPTION_NOT_CONFIGURED', problem: 'is not set' } };
  try {
    return { keyring: Keyring.parse(setting) };
  } catch (error) {
    const problem = `is malformed (${(error as Error).message})`;
    return { problem: { reason: 'ENCRYPTION_NOT_CONFIGURED', problem } };
  }
}

/** The problem if the store's API keys were encrypted with other keys, and none of those is in the keyring. */
function checkCanaries(recorded: readonly Canary[], state: State, keyring: Keyring): EncryptionProblem | undefined {
  const inUse = recorded.filter(({ key_id }) => isInUse(state, key_id));
  const readable = inUse.filter(({ canary }) => keyring.readsCanary(canary));
  if (inUse.length > 0 && readable.length === 0)
    return {
      reason: 'ENCRYPTION_KEY_WRONG',
      ours: keyring.primaryId,
      theirs: inUse.map(({ key_id }) => key_id).join(', '),
    };
  return undefined;
}

/** Records the key that encrypts, so that a later start detects a wrong key. */
async function recordPrimaryKey(db: Knex, keyring: Keyring): Promise<void> {
  const entry = { key_id: keyring.primaryId, canary: keyring.canary(new Date()) };
  await db('encryption_keys').insert(entry).onConflict('key_id').ignore();
}

function isInUse(state: State, keyId: string): boolean {
  for (const config of state.configs.values()) if (config.key_id === keyId) return true;
  for (const credential of state.credentials.values()) if (credential.key_id === keyId) return true;
  return false;
}

/** Tries to decrypt every ciphertext. Rows whose ciphertext cannot be decrypted are marked as unreadable. */
export async function checkCiphertexts(store: Store): Promise<string[]> {
  const unreadable = await unreadableCiphertexts(store, store.state.encryption.keyring);
  // The encryption state may have changed meanwhile.
  store.state.encryption = store.state.encryption.withUnreadable(unreadable);
  return [...unreadable.keys()];
}

/**
 * The rows whose ciphertext cannot be decrypted, each with the version of its ciphertext. Without a keyring: all rows
 * with a ciphertext.
 */
async function unreadableCiphertexts(store: Store, keyring: Keyring | undefined): Promise<Map<string, string>> {
  if (!keyring) return keyHolders(store.state);
  const unreadable = new Map<string, string>();
  for (const entity of ['config', 'credential'] as const)
    for await (const ciphertexts of allCiphertexts(store.database.knex, entity))
      for (const stored of ciphertexts) {
        const row = rowOf(store.state, entity, stored);
        if (row && 'unreadable' in keyring.open(stored.ciphertext, bindingOf(store.state, entity, row)))
          unreadable.set(keyHolder(entity, row.id), ciphertextVersion(row));
      }
  return unreadable;
}

/** The row of a ciphertext; undefined when the row has got another ciphertext since the read. */
export function rowOf(
  state: State,
  entity: 'config' | 'credential',
  stored: StoredCiphertext,
): Config | Credential | undefined {
  const row = (entity === 'config' ? state.configs : state.credentials).get(stored.id);
  return row && ciphertextVersion(row) === ciphertextVersion(stored) ? row : undefined;
}

/** The API key of a row for immediate use; undefined when there is none that can be decrypted. */
export async function openKey(
  store: Store,
  entity: 'config' | 'credential',
  row: Config | Credential,
  keyring = store.state.encryption.keyring,
): Promise<string | undefined> {
  if (!keyring) return undefined;
  try {
    const ciphertext = await readCiphertext(store.database.knex, entity, row.id);
    const opened = ciphertext === undefined ? undefined : keyring.open(ciphertext, bindingOf(store.state, entity, row));
    return opened && 'key' in opened ? opened.key : undefined;
  } catch (error) {
    throw databaseFailure(error);
  }
}

/** Every row with an API key. Without ENCRYPTION_KEY none of them can be decrypted. */
function keyHolders({ configs, credentials }: State): Map<string, string> {
  const holders = new Map<string, string>();
  for (const row of configs.values())
    if (row.key_id !== null) holders.set(keyHolder('config', row.id), ciphertextVersion(row));
  for (const row of credentials.values())
    if (row.key_id !== null) holders.set(keyHolder('credential', row.id), ciphertextVersion(row));
  return holders;
}

/**
 * Binds the ciphertexts of an imported database to their rows and providers. This happens once; later an unbound
 * ciphertext is unreadable. Otherwise anyone with write access to the database could insert one.
 */
async function rebind(store: Store, keyring: Keyring): Promise<number> {
  const { knex } = store.database;
  if ((await knex('store_seeds').where({ name: REBOUND })).length > 0) return 0;
  const unbound = [...store.state.configs.values()].filter((config) => config.key_id === UNBOUND);
  const keys = await readUnbound(store, keyring, unbound);
  if (keys.size > 0) await storeBound(store, keys);
  if (keys.size > 0 || unbound.length === 0)
    await knex('store_seeds').insert({ name: REBOUND }).onConflict('name').ignore();
  return keys.size;
}

/** The prefixes of the Python system's ciphertexts: Fernet, and Fernet in base64. */
const CIPHERTEXT = /^(gAAAAA|Z0FBQUFB)/;

async function readUnbound(store: Store, keyring: Keyring, unbound: readonly Config[]): Promise<Map<number, string>> {
  const texts = new Map<number, string>();
  if (unbound.length > 0)
    for await (const ciphertexts of allCiphertexts(store.database.knex, 'config'))
      for (const { id, ciphertext } of ciphertexts) texts.set(id, ciphertext);
  const keys = new Map<number, string>();
  const plaintext = new Map<number, string>();
  for (const config of unbound) {
    const text = texts.get(config.id) ?? '';
    // After the schema was rolled back and applied again, bound ciphertexts are marked as unbound.
    const bound = keyring.open(text, bindingOf(store.state, 'config', config));
    const opened = 'key' in bound ? bound : keyring.openUnbound(text);
    if ('key' in opened && !keyProblem(opened.key)) keys.set(config.id, opened.key);
    else if (!CIPHERTEXT.test(text) && !keyProblem(text)) plaintext.set(config.id, text);
  }
  // An early version of the Python system stored keys in plaintext. If no ciphertext can be decrypted, ENCRYPTION_KEY
  // may be wrong, so nothing is encrypted with it.
  return keys.size > 0 || plaintext.size === unbound.length ? new Map([...keys, ...plaintext]) : keys;
}

async function storeBound(store: Store, keys: ReadonlyMap<number, string>): Promise<void> {
  await transact(store, {
    actor: 'agentllm',
    method: 'keys/rebind',
    requestId: undefined,
    reason: 'API keys of the imported database are re-encrypted and bound to their rows',
    plan(state, draft) {
      const { primaryId } = state.encryption.writable;
      // The API key does not change, so the times, revision and etag of the row do not change either.
      for (const [id, key] of keys) {
        const before = state.configs.get(id);
        if (before?.key_id === UNBOUND) draft.reencrypt('config', before, primaryId, key);
      }
    },
    encodeResponse: () => new Uint8Array(),
    body: () => new Uint8Array(),
  });
}
