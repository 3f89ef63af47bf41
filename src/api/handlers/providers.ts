import { Permission } from '../../../gen/ts/agentllm/v1/options.js';
import { Provider as ProviderMessage } from '../../../gen/ts/agentllm/v1/provider.js';
import { ListProvidersResponse, type ProviderServiceService } from '../../../gen/ts/agentllm/v1/provider_service.js';
import {
  checkProvider,
  fixedFields,
  newProvider,
  newProviderFields,
  patchProvider,
  providerFields,
  providerOutputOnly,
  usersOf,
} from '../../domain/catalogue.js';
import { keysFor } from '../../domain/credential.js';
import { originOf } from '../../domain/origin.js';
import { readPatch } from '../../domain/patch.js';
import type { Provider } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import { Problems } from '../../problems.js';
import type { Handlers } from '../dispatch/method.js';
import { TokenBucket } from '../dispatch/token_bucket.js';
import { etagOf, providerMessage } from '../messages/entities.js';
import { checkPage, pageOf } from '../messages/pages.js';
import type { Backend } from './backend.js';
import { importModels } from './import_models.js';
import { modelHandlers, removeModel } from './models.js';
import { priceHandlers } from './prices.js';
import { read, write } from './read_write.js';
import { checkEtag, providerOf, requireText } from './requests.js';
import { validateKey } from './validate_key.js';

/** The handlers of ProviderService. */
export function providerService(backend: Backend): Handlers<typeof ProviderServiceService> {
  const providerResponse = (provider: Provider, revision: bigint, state: State) => ({
    provider: providerMessage(state, provider),
    revision,
  });
  const bucket = new TokenBucket(limits.keyValidationsPerMinute);
  return {
    listProviders: (call) =>
      read(backend, call, (state) => {
        const problems = new Problems();
        checkPage(problems, call.request);
        problems.throwIfAny();
        return pageOf(call.request, {
          type: ListProvidersResponse,
          revision: state.revision,
          values: state.providersInOrder,
          keyOf: (provider) => [provider.name],
          filter: ['providers'],
          keep: () => true,
          rowOf: (provider) => ({ providers: [providerMessage(state, provider)] }),
        });
      }),

    getProvider: (call) =>
      read(backend, call, (state) => {
        requireText({ name: call.request.name });
        const provider = providerOf(state, call.request.name);
        return { provider: providerMessage(state, provider), revision: BigInt(state.revision) };
      }),

    createProvider: (call) =>
      write(backend, call, {
        plan(state, draft, problems) {
          const body = call.request.provider ?? ProviderMessage.create();
          const patch = readPatch({
            body,
            mask: [],
            specs: newProviderFields,
            outputOnly: providerOutputOnly,
            at: 'provider',
          });
          problems.addAll(patch.violations);
          const row = patchProvider(newProvider(), patch);
          problems.addAll(checkProvider(state, row, patch, backend.allowedAddresses));
          problems.throwIfAny();
          refuseTakenNames(state, row);
          return draft.create('provider', row);
        },
        respond: providerResponse,
      }),

    updateProvider: (call) =>
      write(backend, call, {
        plan(state, draft, problems) {
          const body = call.request.provider ?? ProviderMessage.create();
          const mask = call.request.update_mask ?? [];
          const existing = state.provider(body.name);
          const patch = readPatch({
            body,
            mask,
            specs: providerFields,
            outputOnly: providerOutputOnly,
            at: 'provider',
            stored: existing && providerMessage(state, existing),
          });
          if (body.name === '') problems.add('provider.name', 'is required');
          problems.addAll(patch.violations);
          if (!existing) problems.throwIfAny();
          const before = providerOf(state, body.name);
          const row = patchProvider(before, patch);
          problems.addAll(checkProvider(state, row, patch, backend.allowedAddresses));
          problems.throwIfAny();
          const fixed = before.built_in ? fixedFields(patch, before, row) : [];
          if (fixed.length > 0) throw builtIn(before, `${fixed.join(', ')} cannot be changed`);
          checkEtag(body.etag, etagOf(state, before), `Provider ${before.name}`);
          refuseTakenNames(state, row);
          if (row.base_url !== before.base_url) call.require(Permission.ENDPOINTS_WRITE);
          refuseNewOrigin(state, before, row);
          return draft.update('provider', before, row);
        },
        respond: providerResponse,
      }),

    deleteProvider: (call) =>
      write(backend, call, {
        plan(state, draft, problems) {
          if (call.request.name === '') problems.add('name', 'is required');
          problems.throwIfAny();
          const provider = providerOf(state, call.request.name);
          checkEtag(call.request.etag, etagOf(state, provider), `Provider ${provider.name}`);
          if (provider.built_in) throw builtIn(provider, 'it cannot be deleted');
          refuseUsed(state, provider.name);
          const models = state.modelsOf(provider.name);
          for (const model of models) removeModel(state, draft, model);
          draft.remove('provider', provider);
          return models.length;
        },
        respond: (deleted_models, revision) => ({ deleted_models, revision }),
      }),

    validateApiKey: (call) => read(backend, call, (state) => validateKey(backend, state, call, bucket)),

    ...modelHandlers(backend),

    ...priceHandlers(backend),

    importModels: (call) => importModels(backend, call),
  };
}

/** Throws if another provider has the name or one of the aliases. */
function refuseTakenNames(state: State, row: Provider): void {
  for (const name of [row.name, ...row.aliases]) {
    const owner = state.provider(name);
    if (owner && owner.id !== row.id)
      throw ServiceError.of(
        'PROVIDER_NAME_TAKEN',
        { provider: owner.name, name },
        { resources: [{ type: 'provider', name: owner.name }] },
      );
  }
}

/** Throws if the origin changes while API keys are stored: a key is never sent to another origin. */
function refuseNewOrigin(state: State, before: Provider, row: Provider): void {
  const [from, to] = [originOf(before.base_url), originOf(row.base_url)];
  const keys = from === to ? 0 : keysFor(state, before.name);
  if (keys === 0) return;
  const remedy = `clear the ${keys} keys that configs and credentials hold for ${before.name} first`;
  throw ServiceError.of(
    'KEY_PROVIDER_MISMATCH',
    { key_provider: from, provider: to, remedy },
    { resources: [{ type: 'provider', name: before.name }] },
  );
}

const builtIn = (provider: Provider, what: string) =>
  ServiceError.of(
    'BUILT_IN_PROVIDER',
    { provider: provider.name, what },
    { resources: [{ type: 'provider', name: provider.name }] },
  );

function refuseUsed(state: State, provider: string): void {
  const users = usersOf(state, provider);
  if (users > 0)
    throw ServiceError.of(
      'PROVIDER_IN_USE',
      { provider, users: String(users) },
      { resources: [{ type: 'provider', name: provider }] },
    );
}
