import { type ClientReadableStream, credentials, type ServiceError as GrpcError } from '@grpc/grpc-js';
import {
  CredentialServiceClient,
  RotateEncryptionKeyRequest,
  type RotateEncryptionKeyResponse,
} from '../../gen/ts/agentllm/v1/credential_service.js';
import { bindingOf } from '../../src/domain/credential.js';
import { Keyring } from '../../src/domain/keyring.js';
import type { Store } from '../../src/store/store.js';
import { allCiphertexts } from '../../src/store/write/rows.js';
import { CallError } from './service.js';

type Progress = RotateEncryptionKeyResponse;

export interface RotateOptions {
  readonly skip_unreadable?: boolean;
  /** Is called with each message, and can cancel the call. */
  readonly onMessage?: (message: Progress, call: ClientReadableStream<Progress>) => void;
}

/** Calls RotateEncryptionKey. Returns its messages, or rejects with a CallError. */
export function rotate(port: number, { skip_unreadable = false, onMessage }: RotateOptions = {}): Promise<Progress[]> {
  const client = new CredentialServiceClient(`127.0.0.1:${port}`, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
  });
  const messages: Progress[] = [];
  return new Promise<Progress[]>((resolve, reject) => {
    const call = client.rotateEncryptionKey(RotateEncryptionKeyRequest.fromPartial({ skip_unreadable }));
    call.on('data', (message: Progress) => {
      messages.push(message);
      onMessage?.(message, call);
    });
    call.on('error', (error: GrpcError) => reject(new CallError(error)));
    call.on('end', () => resolve(messages));
  }).finally(() => client.close());
}

/** Every stored API key by name (`config 7`), decrypted only with these encryption keys; undefined: not decryptable. */
export async function keysUnder(store: Store, encryptionKey: string): Promise<Map<string, string | undefined>> {
  const keyring = Keyring.parse(encryptionKey);
  const keys = new Map<string, string | undefined>();
  for (const entity of ['config', 'credential'] as const)
    for await (const ciphertexts of allCiphertexts(store.database.knex, entity))
      for (const { id, ciphertext } of ciphertexts) {
        const row = (entity === 'config' ? store.state.configs : store.state.credentials).get(id);
        const opened = row && keyring.open(ciphertext, bindingOf(store.state, entity, row));
        keys.set(`${entity} ${id}`, opened && 'key' in opened ? opened.key : undefined);
      }
  return keys;
}
