import { bindingOf } from '../../domain/credential.js';
import type { KeyChange } from '../../domain/draft.js';
import type { Config, Credential } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { keyHolder, tokenMark } from '../../domain/vault.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import { onDatabase } from '../failure.js';
import type { Store } from '../store.js';
import { catchUp } from '../write/change_log.js';
import { readTokens } from '../write/rows.js';
import { transact } from '../write/transact.js';
import { checkTokens, rowOf } from './vault.js';

/** How a rotation is done, and for whom. */
export interface RotationOrder {
  readonly actor: string;
  readonly method: string;
  /** Whether keys that are under encryption keys which are not here are left, instead of refusing to begin. */
  readonly skipUnreadable: boolean;
}

/** How far a rotation is. */
export interface RotationProgress {
  /** The stored keys that were not under the first encryption key when it began. */
  readonly total: number;
  /** Those of them that need nothing more: encrypted anew, replaced, or gone. */
  readonly done: number;
  /** Those of them that do not open and were left. */
  readonly unreadable: number;
  readonly finished: boolean;
}

type KeyEntity = KeyChange['entity'];

/** A row that has a key. */
interface Holder {
  readonly entity: KeyEntity;
  readonly id: number;
}

/** A key in clear, for the moment between two ciphertexts. */
interface OpenedKey extends Holder {
  /** Of the token that it was in. */
  readonly mark: string;
  readonly key: string;
}

/**
 * Encrypts every stored key anew under the first encryption key, a batch at a time, while everything else goes on;
 * tells how far it is at its beginning, after every batch and at its end. What is left to do is what is under another
 * key, and nothing else remembers how far it came: ended by whatever, it is begun again, and two at once do no harm.
 */
export async function* rotateKeys(store: Store, order: RotationOrder): AsyncGenerator<RotationProgress> {
  const { ids, primaryId } = store.state.vault.writable;
  await refresh(store);
  const outdated = keysNotUnder(store.state, primaryId);
  const lacking = outdated.filter(({ key_id }) => !ids.includes(key_id));
  if (lacking.length > 0 && !order.skipUnreadable) throw missing(lacking);
  const tally = new Tally(outdated.length, lacking);
  yield tally.progress(store.state);
  const rest = outdated.filter(({ key_id }) => ids.includes(key_id));
  for (let at = 0; at < rest.length; at += limits.rotatedAtOnce) {
    const batch = rest.slice(at, at + limits.rotatedAtOnce);
    tally.add(batch, await rotateBatch(store, order, batch));
    yield tally.progress(store.state);
  }
  // Where they are is known from then on.
  if (tally.foundUnreadable) await onDatabase(store, () => checkTokens(store));
  await refresh(store);
  yield tally.progress(store.state, true);
}

/** What has become of the keys that a rotation began with. */
class Tally {
  /** Those that are still as they were when they were looked at last. */
  private waiting: readonly Holder[];
  private readonly unreadable: Set<string>;
  private taken: number;

  /** @param lacking those whose encryption keys are not here: nobody needs to try them. */
  constructor(
    private readonly total: number,
    private readonly lacking: readonly Holder[],
  ) {
    this.waiting = lacking;
    this.taken = lacking.length;
    this.unreadable = new Set(lacking.map(nameOf));
  }

  get foundUnreadable(): boolean {
    return this.unreadable.size > this.lacking.length;
  }

  add(batch: readonly Holder[], unreadable: readonly Holder[]): void {
    this.waiting = [...this.waiting, ...batch];
    this.taken += batch.length;
    for (const holder of unreadable) this.unreadable.add(nameOf(holder));
  }

  progress(state: State, finished = false): RotationProgress {
    this.waiting = this.waiting.filter((holder) => isOutdated(state, holder));
    const unreadable = this.waiting.filter((holder) => this.unreadable.has(nameOf(holder))).length;
    return { total: this.total, done: this.taken - this.waiting.length, unreadable, finished };
  }
}

const nameOf = ({ entity, id }: Holder) => keyHolder(entity, id);
const rowsOf = (state: State, entity: KeyEntity): ReadonlyMap<number, Config | Credential> =>
  entity === 'config' ? state.configs : state.credentials;

function isOutdated(state: State, { entity, id }: Holder): boolean {
  const keyId = rowsOf(state, entity).get(id)?.key_id ?? null;
  return keyId !== null && keyId !== state.vault.keyring?.primaryId;
}

function keysNotUnder(state: State, keyId: string): (Holder & { readonly key_id: string })[] {
  return (['config', 'credential'] as const).flatMap((entity) =>
    [...rowsOf(state, entity).values()].flatMap(({ id, key_id }) =>
      key_id === null || key_id === keyId ? [] : [{ entity, id, key_id }],
    ),
  );
}

function missing(lacking: readonly { readonly key_id: string }[]): ServiceError {
  const keys = [...new Set(lacking.map(({ key_id }) => key_id))].sort().join(', ');
  return ServiceError.of('ENCRYPTION_KEY_MISSING', { count: String(lacking.length), keys });
}

/** Brings the state up to what other replicas have written: what is not known to be outdated would be left. */
const refresh = (store: Store): Promise<void> => onDatabase(store, () => catchUp(store));

/** Encrypts the keys of some rows anew in one write; returns those that do not open. */
async function rotateBatch(store: Store, order: RotationOrder, batch: readonly Holder[]): Promise<readonly Holder[]> {
  await refresh(store);
  const { opened, unreadable } = await openAll(store, batch);
  if (opened.length > 0) await storeAnew(store, order, opened);
  return unreadable;
}

async function openAll(store: Store, batch: readonly Holder[]) {
  const opened: OpenedKey[] = [];
  const unreadable: Holder[] = [];
  for (const entity of ['config', 'credential'] as const) {
    const ids = batch.filter((holder) => holder.entity === entity).map(({ id }) => id);
    if (ids.length === 0) continue;
    const tokens = await onDatabase(store, (db) => readTokens(db, entity, ids));
    const { state } = store;
    for (const token of tokens) {
      const row = rowOf(state, entity, token);
      // It has another key by now, or will have one as soon as the state knows.
      if (!row || !isOutdated(state, { entity, id: token.id })) continue;
      const found = state.vault.writable.open(token.token, bindingOf(state, entity, row));
      if ('key' in found) opened.push({ entity, id: token.id, mark: tokenMark(row), key: found.key });
      else unreadable.push({ entity, id: token.id });
    }
  }
  return { opened, unreadable };
}

/** Rows that have been given another key meanwhile, or have been encrypted anew by somebody else, are left. */
async function storeAnew(store: Store, { actor, method }: RotationOrder, keys: readonly OpenedKey[]): Promise<void> {
  await transact(store, {
    actor,
    method,
    requestId: undefined,
    reason: undefined,
    plan(state, draft) {
      const { primaryId } = state.vault.writable;
      for (const { entity, id, mark, key } of keys) {
        const row = rowsOf(state, entity).get(id);
        if (row && tokenMark(row) === mark) draft.reseal(entity, row as Config & Credential, primaryId, key);
      }
    },
    answer: () => new Uint8Array(),
    body: () => new Uint8Array(),
  });
}
