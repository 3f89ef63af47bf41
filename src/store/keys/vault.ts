import type { Knex } from 'knex';
import { bindingOf, keyProblem } from '../../domain/credential.js';
import { Keyring } from '../../domain/keyring.js';
import type { Config, Credential } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { keyHolder, REBOUND, tokenMark, UNBOUND, Vault, type VaultProblem } from '../../domain/vault.js';
import { databaseFailure, onDatabase } from '../failure.js';
import type { Store } from '../store.js';
import { allTokens, readToken, type Token } from '../write/rows.js';
import { transact } from '../write/transact.js';

/** What was found when the vault was opened, for the log. */
export interface VaultReport {
  readonly problem: VaultProblem | undefined;
  /** Rows whose key cannot be read, as `config 7`. */
  readonly unreadable: readonly string[];
  /** Rows of an adopted database whose tokens were bound to them now. */
  readonly rebound: number;
}

/**
 * Takes the keys of ENCRYPTION_KEY into use. Whatever is wrong with them, the
 * service goes on: what needs no key is served, and what does says precisely
 * what is missing.
 */
export async function openVault(store: Store, setting: string): Promise<VaultReport> {
  const { keyring, problem } = await readVault(store, setting);
  store.state.vault = new Vault(keyring, problem);
  if (keyring && !problem) await enterKey(store.database.knex, keyring);
  const rebound = keyring && !problem ? await rebind(store, keyring) : 0;
  return { problem, unreadable: await checkTokens(store), rebound };
}

/** Looks at the keys of ENCRYPTION_KEY as `openVault` does, and changes nothing, not even in memory. */
export async function inspectVault(store: Store, setting: string): Promise<VaultReport> {
  const { keyring, problem } = await readVault(store, setting);
  return { problem, unreadable: [...(await unreadableTokens(store, keyring)).keys()], rebound: 0 };
}

/**
 * Goes on with the encryption keys that are here, where all that the stored keys are under are lost: those stay
 * unreadable until they are stored again, or their encryption key is found.
 */
export async function giveUpLost(store: Store): Promise<void> {
  const { keyring, problem } = store.state.vault;
  if (!keyring || problem?.reason !== 'ENCRYPTION_KEY_WRONG') return;
  await onDatabase(store, async (db) => {
    await db('encryption_keys').whereNotIn('key_id', keyring.ids).delete();
    await enterKey(db, keyring);
  });
  const unreadable = await onDatabase(store, () => unreadableTokens(store, keyring));
  store.state.vault = new Vault(keyring, undefined, unreadable);
}

async function readVault(
  store: Store,
  setting: string,
): Promise<{ keyring: Keyring | undefined; problem: VaultProblem | undefined }> {
  const { keyring, problem } = read(setting);
  const wrong = problem ?? (keyring && (await checkCanaries(store.database.knex, store.state, keyring)));
  return { keyring, problem: wrong };
}

function read(setting: string): { keyring?: Keyring; problem?: VaultProblem } {
  if (setting.trim() === '') return { problem: { reason: 'ENCRYPTION_NOT_CONFIGURED', problem: 'is not set' } };
  try {
    return { keyring: Keyring.parse(setting) };
  } catch (error) {
    const problem = `is malformed (${(error as Error).message})`;
    return { problem: { reason: 'ENCRYPTION_NOT_CONFIGURED', problem } };
  }
}

/** Why the keys are not those of this store: it was written with others that we do not have. */
async function checkCanaries(db: Knex, state: State, keyring: Keyring): Promise<VaultProblem | undefined> {
  const known: { key_id: string; canary: string }[] = await db('encryption_keys').select('key_id', 'canary');
  const theirs = known.filter(({ key_id }) => isInUse(state, key_id));
  const ours = theirs.filter(({ canary }) => keyring.readsCanary(canary));
  if (theirs.length > 0 && ours.length === 0)
    return {
      reason: 'ENCRYPTION_KEY_WRONG',
      ours: keyring.primaryId,
      theirs: theirs.map(({ key_id }) => key_id).join(', '),
    };
  return undefined;
}

/** Enters the key that encrypts, by which a wrong one is told at a later start. */
async function enterKey(db: Knex, keyring: Keyring): Promise<void> {
  const entry = { key_id: keyring.primaryId, canary: keyring.canary(new Date()) };
  await db('encryption_keys').insert(entry).onConflict('key_id').ignore();
}

function isInUse(state: State, keyId: string): boolean {
  for (const config of state.configs.values()) if (config.key_id === keyId) return true;
  for (const credential of state.credentials.values()) if (credential.key_id === keyId) return true;
  return false;
}

/** Tries every stored token; what does not open is shown as unreadable, and by its row alone. */
export async function checkTokens(store: Store): Promise<string[]> {
  const { keyring, problem } = store.state.vault;
  const unreadable = await unreadableTokens(store, keyring);
  store.state.vault = new Vault(keyring, problem, unreadable);
  return [...unreadable.keys()];
}

/** The rows whose token a keyring does not open, with the mark of that token; without a keyring all that have one. */
async function unreadableTokens(store: Store, keyring: Keyring | undefined): Promise<Map<string, string>> {
  if (!keyring) return keyHolders(store.state);
  const unreadable = new Map<string, string>();
  for (const entity of ['config', 'credential'] as const)
    for await (const tokens of allTokens(store.database.knex, entity))
      for (const token of tokens) {
        const row = rowOf(store.state, entity, token);
        if (row && 'unreadable' in keyring.open(token.token, bindingOf(store.state, entity, row)))
          unreadable.set(keyHolder(entity, row.id), tokenMark(row));
      }
  return unreadable;
}

/** The row of a token, unless it has been given another one since the token was read. */
export function rowOf(state: State, entity: 'config' | 'credential', token: Token): Config | Credential | undefined {
  const row = (entity === 'config' ? state.configs : state.credentials).get(token.id);
  return row && tokenMark(row) === tokenMark(token) ? row : undefined;
}

/** The stored key of a row; undefined when there is none that can be read. For the moment of its use alone. */
export async function openKey(
  store: Store,
  entity: 'config' | 'credential',
  row: Config | Credential,
  keyring = store.state.vault.keyring,
): Promise<string | undefined> {
  if (!keyring) return undefined;
  try {
    const token = await readToken(store.database.knex, entity, row.id);
    const opened = token === undefined ? undefined : keyring.open(token, bindingOf(store.state, entity, row));
    return opened && 'key' in opened ? opened.key : undefined;
  } catch (error) {
    throw databaseFailure(error);
  }
}

/** Every row that has a key: without ENCRYPTION_KEY none of them can be read. */
function keyHolders({ configs, credentials }: State): Map<string, string> {
  const holders = new Map<string, string>();
  for (const row of configs.values()) if (row.key_id !== null) holders.set(keyHolder('config', row.id), tokenMark(row));
  for (const row of credentials.values())
    if (row.key_id !== null) holders.set(keyHolder('credential', row.id), tokenMark(row));
  return holders;
}

/**
 * Binds ciphertexts that another system wrote to their rows and providers. It
 * happens once: later an unbound ciphertext is unreadable. Otherwise anyone who
 * can write to the database could plant one.
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

/** How both generations of the Python system's tokens begin. */
const SEALED = /^(gAAAAA|Z0FBQUFB)/;

async function readUnbound(store: Store, keyring: Keyring, unbound: readonly Config[]): Promise<Map<number, string>> {
  const texts = new Map<number, string>();
  if (unbound.length > 0)
    for await (const tokens of allTokens(store.database.knex, 'config'))
      for (const { id, token } of tokens) texts.set(id, token);
  const keys = new Map<number, string>();
  const clear = new Map<number, string>();
  for (const config of unbound) {
    const text = texts.get(config.id) ?? '';
    // A schema that was rolled back and applied again has forgotten which tokens were ours.
    const bound = keyring.open(text, bindingOf(store.state, 'config', config));
    const opened = 'key' in bound ? bound : keyring.openUnbound(text);
    if ('key' in opened && !keyProblem(opened.key)) keys.set(config.id, opened.key);
    else if (!SEALED.test(text) && !keyProblem(text)) clear.set(config.id, text);
  }
  // Another generation kept keys in clear. While none of the tokens opens, ENCRYPTION_KEY may be the wrong one, and
  // nothing is encrypted under it.
  return keys.size > 0 || clear.size === unbound.length ? new Map([...keys, ...clear]) : keys;
}

async function storeBound(store: Store, keys: ReadonlyMap<number, string>): Promise<void> {
  await transact(store, {
    actor: 'agentllm',
    method: 'keys/rebind',
    requestId: undefined,
    reason: 'API keys of the imported database are encrypted anew, bound to their rows',
    plan(state, draft) {
      const { primaryId } = state.vault.writable;
      // The key stays the same and so does everything that callers see of the row: times, revision and etag.
      for (const [id, key] of keys) {
        const before = state.configs.get(id);
        if (before?.key_id === UNBOUND) draft.reseal('config', before, primaryId, key);
      }
    },
    answer: () => new Uint8Array(),
    body: () => new Uint8Array(),
  });
}
