import { Credential as CredentialMessage } from '../../../gen/ts/agentllm/v1/credential.js';
import {
  type CredentialServiceService,
  ListCredentialsResponse,
} from '../../../gen/ts/agentllm/v1/credential_service.js';
import { providerProblem } from '../../domain/config.js';
import { credentialFields, credentialOutputOnly, keyProblem, newCredential } from '../../domain/credential.js';
import { normalName } from '../../domain/name_index.js';
import { applyPatch, readPatch } from '../../domain/patch.js';
import type { Credential } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { nameProblem } from '../../domain/text.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import { Problems } from '../../problems.js';
import type { Handlers } from '../dispatch/method.js';
import { credentialMessage, etagOf } from '../messages/entities.js';
import { checkPage, pageOf } from '../messages/pages.js';
import type { Backend } from './backend.js';
import { encryptionStatus, rotateEncryptionKey } from './encryption.js';
import { leaseApiKeys } from './leases.js';
import { read, write } from './read_write.js';
import { checkEtag, credentialOf } from './requests.js';
import { keyColumns } from './write_config.js';

/** The handlers of CredentialService. */
export function credentialService(backend: Backend): Handlers<typeof CredentialServiceService> {
  const credentialResponse = (credential: Credential, revision: bigint, state: State) => ({
    credential: credentialMessage(state, credential),
    revision,
  });
  return {
    createCredential: (call) =>
      write(backend, call, {
        plan(state, draft, problems) {
          const body = call.request.credential ?? CredentialMessage.create();
          const name = normalName(body.name);
          const patch = patchOf(body, []);
          problems.add('credential.name', nameProblem(name, limits.credentialName));
          problems.add('credential.provider', providerProblem(state, body.provider));
          problems.add('api_key', keyProblem(call.request.api_key));
          problems.addAll(patch.violations);
          problems.throwIfAny();
          refuseTakenName(state, name);
          const provider = state.provider(body.provider)?.name ?? body.provider;
          const { api_key } = call.request;
          const row = { ...applyPatch(newCredential(), patch, credentialFields), ...keyColumns(state, draft, api_key) };
          const stored = draft.create('credential', { ...row, name, provider });
          draft.keys.push({ entity: 'credential', row: stored, key: api_key });
          return stored;
        },
        respond: credentialResponse,
      }),

    getCredential: (call) =>
      read(backend, call, (state) => {
        const problems = new Problems();
        if (call.request.name === '') problems.add('name', 'is required');
        problems.throwIfAny();
        const credential = credentialOf(state, call.request.name);
        return { credential: credentialMessage(state, credential), revision: BigInt(state.revision) };
      }),

    listCredentials: (call) =>
      read(backend, call, (state) => {
        const problems = new Problems();
        checkPage(problems, call.request);
        const written = call.request.provider;
        const provider = written === '' ? undefined : state.provider(written);
        if (written !== '' && !provider) problems.add('provider', providerProblem(state, written));
        problems.throwIfAny();
        return pageOf(call.request, {
          type: ListCredentialsResponse,
          revision: state.revision,
          values: state.credentialsInOrder,
          keyOf: (credential) => [credential.name],
          filter: ['credentials', provider?.name],
          keep: (credential) => provider === undefined || credential.provider === provider.name,
          rowOf: (credential) => ({ credentials: [credentialMessage(state, credential)] }),
        });
      }),

    updateCredential: (call) =>
      write(backend, call, {
        plan(state, draft, problems) {
          const { api_key, update_mask } = call.request;
          const body = call.request.credential ?? CredentialMessage.create();
          const patch = patchOf(body, update_mask ?? []);
          if (body.name === '') problems.add('credential.name', 'is required');
          if (api_key !== undefined) problems.add('api_key', keyProblem(api_key));
          problems.addAll(patch.violations);
          const before = state.credentialNamed(body.name);
          if (before && body.provider !== '' && state.provider(body.provider)?.name !== before.provider)
            problems.add('credential.provider', `is ${before.provider} and cannot be changed`);
          problems.throwIfAny();
          const found = credentialOf(state, body.name);
          checkEtag(body.etag, etagOf(state, found), `Credential ${JSON.stringify(found.name)}`);
          const key = api_key === undefined ? {} : keyColumns(state, draft, api_key);
          const row = { ...applyPatch(found, patch, credentialFields), ...key };
          const stored = draft.update('credential', found, row);
          if (api_key !== undefined) draft.keys.push({ entity: 'credential', row: stored, key: api_key });
          return stored;
        },
        respond: credentialResponse,
      }),

    deleteCredential: (call) =>
      write(backend, call, {
        plan(state, draft, problems) {
          if (call.request.name === '') problems.add('name', 'is required');
          problems.throwIfAny();
          const credential = credentialOf(state, call.request.name);
          checkEtag(call.request.etag, etagOf(state, credential), `Credential ${JSON.stringify(credential.name)}`);
          refuseUsed(state, credential);
          draft.remove('credential', credential);
        },
        respond: (_, revision) => ({ revision }),
      }),

    leaseApiKeys: (call) => leaseApiKeys(backend, call),

    rotateEncryptionKey: (call) => rotateEncryptionKey(backend, call),

    getEncryptionStatus: (call) => read(backend, call, encryptionStatus),
  };
}

const patchOf = (body: CredentialMessage, mask: readonly string[]) =>
  readPatch({ body, mask, specs: credentialFields, outputOnly: credentialOutputOnly, at: 'credential' });

function refuseTakenName(state: State, name: string): void {
  if (state.credentialNamed(name))
    throw ServiceError.of('CREDENTIAL_NAME_TAKEN', { credential: name }, { resources: [{ type: 'credential', name }] });
}

function refuseUsed(state: State, { id, name }: Credential): void {
  const users = state.usesOf(id);
  if (users > 0)
    throw ServiceError.of(
      'CREDENTIAL_IN_USE',
      { credential: name, users: String(users) },
      { resources: [{ type: 'credential', name }] },
    );
}
