import { Model as ModelMessage, Provider as ProviderMessage } from '../../gen/ts/agentllm/v1/provider.js';
import {
  CreateModelResponse,
  CreateProviderResponse,
  DeleteModelResponse,
  DeleteProviderResponse,
  type ProviderServiceService,
  UpdateModelResponse,
  UpdateProviderResponse,
} from '../../gen/ts/agentllm/v1/provider_service.js';
import {
  checkModel,
  checkProvider,
  fixedFields,
  modelFields,
  modelOutputOnly,
  newModel,
  newModelFields,
  newProvider,
  newProviderFields,
  patchModel,
  patchProvider,
  providerFields,
  providerOutputOnly,
  ratesOf,
  usersOf,
} from '../domain/catalogue.js';
import { keysFor, originOf } from '../domain/credential.js';
import type { Draft } from '../domain/draft.js';
import { type Patch, readPatch } from '../domain/patch.js';
import type { Model, Price, Provider, Rates } from '../domain/rows.js';
import type { State } from '../domain/state.js';
import { ServiceError } from '../errors.js';
import { etagOf, modelMessage, providerMessage } from './messages.js';
import type { Handlers } from './method.js';
import { checkPage, pageOf } from './pages.js';
import { checkEtag, modelOf, Problems, providerOf } from './requests.js';
import { type Backend, read, write } from './service.js';

interface StoredModel {
  readonly model: Model;
  readonly price: Price | undefined;
}

/** ProviderService over the state in memory and the one write path. */
export function providerService(backend: Backend): Handlers<typeof ProviderServiceService> {
  const answerProvider = (provider: Provider, revision: bigint, state: State) => ({
    provider: providerMessage(state, provider),
    revision,
  });
  const answerModel = ({ model, price }: StoredModel, revision: bigint, state: State) => ({
    model: modelMessage(state, model, price),
    revision,
  });
  return {
    listProviders: (call) =>
      read(backend, call, (state) => {
        const problems = new Problems();
        checkPage(problems, call.request);
        problems.throwIfAny();
        const page = pageOf(call.request, {
          values: state.providersInOrder,
          keyOf: (provider) => [provider.name],
          filter: ['providers'],
          keep: () => true,
        });
        return {
          providers: page.values.map((provider) => providerMessage(state, provider)),
          next_page_token: page.nextPageToken,
          revision: BigInt(state.revision),
        };
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
        respond: answerProvider,
        encode: (response) => CreateProviderResponse.encode(response).finish(),
      }),

    updateProvider: (call) =>
      write(backend, call, {
        plan(state, draft, problems) {
          const body = call.request.provider ?? ProviderMessage.create();
          const mask = call.request.update_mask ?? [];
          const patch = readPatch({
            body,
            mask,
            specs: providerFields,
            outputOnly: providerOutputOnly,
            at: 'provider',
          });
          if (body.name === '') problems.add('provider.name', 'is required');
          problems.addAll(patch.violations);
          if (!state.provider(body.name)) problems.throwIfAny();
          const before = providerOf(state, body.name);
          const row = patchProvider(before, patch);
          problems.addAll(checkProvider(state, row, patch, backend.allowedAddresses));
          problems.throwIfAny();
          const fixed = before.built_in ? fixedFields(patch) : [];
          if (fixed.length > 0) throw builtIn(before, `${fixed.join(', ')} cannot be changed`);
          checkEtag(body.etag, etagOf(state, before), `Provider ${before.name}`);
          refuseTakenNames(state, row);
          refuseNewOrigin(state, before, row);
          return draft.update('provider', before, row);
        },
        respond: answerProvider,
        encode: (response) => UpdateProviderResponse.encode(response).finish(),
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
        encode: (response) => DeleteProviderResponse.encode(response).finish(),
      }),

    listModels: (call) =>
      read(backend, call, (state) => {
        const problems = new Problems();
        checkPage(problems, call.request);
        problems.throwIfAny();
        const provider = call.request.provider === '' ? undefined : providerOf(state, call.request.provider).name;
        const page = pageOf(call.request, {
          values: state.modelsInOrder,
          keyOf: (model) => [model.provider, model.name],
          filter: ['models', provider],
          keep: (model) => provider === undefined || model.provider === provider,
        });
        return {
          models: page.values.map((model) => modelMessage(state, model)),
          next_page_token: page.nextPageToken,
          revision: BigInt(state.revision),
        };
      }),

    getModel: (call) =>
      read(backend, call, (state) => {
        const { provider, name } = call.request;
        requireText({ provider, name });
        return { model: modelMessage(state, modelOf(state, provider, name)), revision: BigInt(state.revision) };
      }),

    createModel: (call) =>
      write(backend, call, {
        plan(state, draft, problems): StoredModel {
          const body = call.request.model ?? ModelMessage.create();
          const patch = readPatch({ body, mask: [], specs: newModelFields, outputOnly: modelOutputOnly, at: 'model' });
          problems.addAll(patch.violations);
          const row = patchModel(newModel(), patch);
          problems.addAll(checkModel(row, patch));
          problems.throwIfAny();
          const provider = providerOf(state, row.provider);
          if (state.model(provider.name, row.name))
            throw ServiceError.of(
              'MODEL_NAME_TAKEN',
              { provider: provider.name, model: row.name },
              { resources: [{ type: 'model', name: `${provider.name}/${row.name}` }] },
            );
          const model = draft.create('model', { ...row, provider: provider.name });
          return { model, price: newPrice(draft, model, patch, undefined) };
        },
        respond: answerModel,
        encode: (response) => CreateModelResponse.encode(response).finish(),
      }),

    updateModel: (call) =>
      write(backend, call, {
        plan(state, draft, problems): StoredModel {
          const body = call.request.model ?? ModelMessage.create();
          const mask = call.request.update_mask ?? [];
          const patch = readPatch({ body, mask, specs: modelFields, outputOnly: modelOutputOnly, at: 'model' });
          for (const field of ['provider', 'name'] as const)
            if (body[field] === '') problems.add(`model.${field}`, 'is required');
          problems.addAll(patch.violations);
          problems.throwIfAny();
          const before = modelOf(state, body.provider, body.name);
          checkEtag(body.etag, etagOf(state, before), `Model ${before.provider}/${before.name}`);
          const model = draft.update('model', before, patchModel(before, patch));
          const last = state.pricesOf(model.id).at(-1);
          return { model, price: newPrice(draft, model, patch, last) ?? last };
        },
        respond: answerModel,
        encode: (response) => UpdateModelResponse.encode(response).finish(),
      }),

    deleteModel: (call) =>
      write(backend, call, {
        plan(state, draft, problems) {
          const { provider, name, etag } = call.request;
          for (const [field, value] of Object.entries({ provider, name }))
            if (value === '') problems.add(field, 'is required');
          problems.throwIfAny();
          const model = modelOf(state, provider, name);
          checkEtag(etag, etagOf(state, model), `Model ${model.provider}/${model.name}`);
          const shown = `${model.provider}/${model.name}`;
          if (model.built_in)
            throw ServiceError.of('BUILT_IN_MODEL', { model: shown }, { resources: [{ type: 'model', name: shown }] });
          refuseUsed(state, model.provider, model.name);
          removeModel(state, draft, model);
        },
        respond: (_, revision) => ({ revision }),
        encode: (response) => DeleteModelResponse.encode(response).finish(),
      }),
  };
}

function requireText(fields: Readonly<Record<string, string>>): void {
  const problems = new Problems();
  for (const [field, value] of Object.entries(fields)) if (value === '') problems.add(field, 'is required');
  problems.throwIfAny();
}

/** No two providers share a name or an alias. */
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

/** Keys that were given for one address are never sent to another. */
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

function refuseUsed(state: State, provider: string, model?: string): void {
  const users = usersOf(state, provider, model);
  if (users === 0) return;
  if (model === undefined)
    throw ServiceError.of(
      'PROVIDER_IN_USE',
      { provider, users: String(users) },
      { resources: [{ type: 'provider', name: provider }] },
    );
  const shown = `${provider}/${model}`;
  throw ServiceError.of(
    'MODEL_IN_USE',
    { model: shown, users: String(users) },
    { resources: [{ type: 'model', name: shown }] },
  );
}

function removeModel(state: State, draft: Draft, model: Model): void {
  for (const price of state.pricesOf(model.id)) draft.remove('price', price);
  draft.remove('model', model);
}

/** A new row of the price book, when the request brings a price that is another than the last one. */
function newPrice(draft: Draft, model: Model, patch: Patch, last: Price | undefined): Price | undefined {
  const given = patch.set['price'] as (Partial<Rates> & { source: string }) | undefined;
  if (!given) return undefined;
  const price = { ...ratesOf(given), source: given.source };
  const same = (field: string) => last?.[field as keyof Price] === price[field as keyof typeof price];
  if (last && Object.keys(price).every(same)) return undefined;
  // Times order the prices, also when two come in one millisecond or the clock was set back.
  const valid_from = new Date(Math.max(draft.now.getTime(), (last?.valid_from.getTime() ?? 0) + 1));
  return draft.create('price', { ...price, valid_from, id: 0, model_id: model.id, created_at: draft.now, revision: 0 });
}
