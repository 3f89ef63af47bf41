import { AuditEventKind } from '../../../gen/ts/agentllm/v1/audit_service.js';
import {
  type EncryptionKey,
  type GetEncryptionStatusResponse,
  type RotateEncryptionKeyRequest,
  RotateEncryptionKeyResponse,
} from '../../../gen/ts/agentllm/v1/credential_service.js';
import type { EncryptionState } from '../../domain/encryption_state.js';
import type { Config, Credential } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import { acceptLostKeys } from '../../store/keys/encryption.js';
import { type RotationProgress, rotateKeys } from '../../store/keys/rotation.js';
import type { StreamCall } from '../dispatch/method.js';
import { audit } from './audit.js';
import type { Backend } from './backend.js';

/**
 * Re-encrypts the stored keys and streams the progress; stops when the caller disconnects or the service shuts down.
 */
export async function rotateEncryptionKey(
  backend: Backend,
  call: StreamCall<RotateEncryptionKeyRequest>,
): Promise<void> {
  const { caller: actor, method, sink, signal } = call;
  let last: RotationProgress | undefined;
  try {
    const options = { actor, method, skipUnreadable: call.request.skip_unreadable };
    if (options.skipUnreadable) await acceptLostKeys(backend.store);
    for await (const progress of rotateKeys(backend.store, options)) {
      if (!last || progress.finished) await recordRotation(backend, call, last ? 'finished' : 'begun', progress);
      last = progress;
      sink.write(progressMessage(backend.store.state, progress));
      await sink.drained();
      if (signal.aborted) throw signal.reason;
      if (!progress.finished) call.checkOpen();
    }
    sink.finish();
  } catch (error) {
    if (last && !last.finished) await recordRotation(backend, call, 'ended early', last);
    throw error;
  }
}

function progressMessage({ revision, encryption }: State, progress: RotationProgress): Buffer {
  const message = { ...progress, revision: BigInt(revision), key_id: encryption.writable.primaryId };
  return Buffer.from(RotateEncryptionKeyResponse.encode(message).finish());
}

function recordRotation(
  backend: Backend,
  { caller: actor, method }: StreamCall<unknown>,
  stage: string,
  { done, total, unreadable }: RotationProgress,
): Promise<void> {
  const key = backend.store.state.encryption.writable.primaryId;
  const outcome = `${stage}: ${done} of ${total} under key ${key}, ${unreadable} unreadable`;
  const noConfig = { agent_id: null, config_id: null, provider: '' };
  return audit(backend, { kind: AuditEventKind.KEY_ROTATION, actor, method, ...noConfig, outcome });
}

/** The encryption keys and the number of API keys that each encrypts, in the state of this replica. */
export function encryptionStatus(state: State): GetEncryptionStatusResponse {
  const { encryption } = state;
  const holders = [...holdersOf(state)];
  const problem = problemOf(encryption, holders.length > 0);
  const primary = encryption.keyring?.primaryId;
  const unreadable = holders.filter(
    ({ entity, row }) => encryption.stateOf(entity, row) === 'API_KEY_STATE_UNREADABLE',
  );
  return {
    ready: problem === '',
    revision: BigInt(state.revision),
    problem,
    keys: keysOf(encryption, holders),
    outdated_count: holders.filter(({ row }) => row.key_id !== primary).length,
    unreadable_count: unreadable.length,
    unreadable: unreadable.slice(0, limits.namedUnreadable).map(displayName),
  };
}

function problemOf(encryption: EncryptionState, areKeysStored: boolean): string {
  const { problem } = encryption;
  // A new encryption key could not decrypt the stored API keys.
  if (problem?.reason === 'ENCRYPTION_NOT_CONFIGURED' && areKeysStored)
    return `API keys cannot be stored or read: ENCRYPTION_KEY ${problem.problem}; set it to the encryption key of the stored API keys and restart the service`;
  try {
    void encryption.writable;
    return '';
  } catch (error) {
    if (error instanceof ServiceError) return error.message;
    throw error;
  }
}

/** A row with a stored API key. */
type Holder =
  | { readonly entity: 'config'; readonly row: Config }
  | { readonly entity: 'credential'; readonly row: Credential };

function* holdersOf({ configsInOrder, credentialsInOrder }: State): Generator<Holder> {
  for (const row of configsInOrder.after()) if (row.key_id !== null) yield { entity: 'config', row };
  for (const row of credentialsInOrder.after()) if (row.key_id !== null) yield { entity: 'credential', row };
}

const displayName = ({ entity, row }: Holder) => `${entity} ${entity === 'config' ? row.id : row.name}`;

/** The encryption keys of the keyring in its order, followed by the other encryption keys of stored API keys. */
function keysOf({ keyring }: EncryptionState, holders: readonly Holder[]): EncryptionKey[] {
  const available = new Set(keyring?.ids);
  const missing = holders.map(({ row }) => row.key_id as string).filter((id) => !available.has(id));
  const countOf = (id: string, entity: Holder['entity']) =>
    holders.filter((holder) => holder.entity === entity && holder.row.key_id === id).length;
  return [...available, ...[...new Set(missing)].sort()].map((id) => ({
    id,
    primary: id === keyring?.primaryId,
    available: available.has(id),
    config_count: countOf(id, 'config'),
    credential_count: countOf(id, 'credential'),
  }));
}
