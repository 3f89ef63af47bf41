import { isDeepStrictEqual } from 'node:util';
import { Model as ModelMessage } from '../../../gen/ts/agentllm/v1/provider.js';
import { ListModelsResponse, type ProviderServiceService } from '../../../gen/ts/agentllm/v1/provider_service.js';
import {
  checkModel,
  modelFields,
  modelOutputOnly,
  newModel,
  newModelFields,
  patchModel,
  ratesOf,
  usersOf,
} from '../../domain/catalogue.js';
import type { Draft } from '../../domain/draft.js';
import { type Patch, readPatch } from '../../domain/patch.js';
import { currentPrice, startNow } from '../../domain/price_book.js';
import type { Model, Price, TieredRates } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { ServiceError } from '../../errors.js';
import { Problems } from '../../problems.js';
import type { Handlers } from '../dispatch/method.js';
import { etagOf, modelMessage } from '../messages/entities.js';
import { checkPage, pageOf } from '../messages/pages.js';
import type { Backend } from './backend.js';
import { read, write } from './read_write.js';
import { checkEtag, modelOf, providerOf, requireText } from './requests.js';

type ModelMethods = 'listModels' | 'getModel' | 'createModel' | 'updateModel' | 'deleteModel';

interface StoredModel {
  readonly model: Model;
  readonly price: Price | undefined;
}

/** The handlers of ProviderService for models. */
export function modelHandlers(backend: Backend): Pick<Handlers<typeof ProviderServiceService>, ModelMethods> {
  const modelResponse = ({ model, price }: StoredModel, revision: bigint, state: State) => ({
    model: modelMessage(state, model, price),
    revision,
  });
  return {
    listModels: (call) =>
      read(backend, call, (state) => {
        const problems = new Problems();
        checkPage(problems, call.request);
        problems.throwIfAny();
        const provider = call.request.provider === '' ? undefined : providerOf(state, call.request.provider).name;
        return pageOf(call.request, {
          type: ListModelsResponse,
          revision: state.revision,
          values: state.modelsInOrder,
          keyOf: (model) => [model.provider, model.name],
          filter: ['models', provider],
          keep: (model) => provider === undefined || model.provider === provider,
          rowOf: (model) => ({ models: [modelMessage(state, model)] }),
        });
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
          return { model, price: newPrice(draft, model, patch, []) };
        },
        respond: modelResponse,
      }),

    updateModel: (call) =>
      write(backend, call, {
        plan(state, draft, problems): StoredModel {
          const body = call.request.model ?? ModelMessage.create();
          const mask = call.request.update_mask ?? [];
          const existing = findModel(state, body);
          const stored = existing && modelMessage(state, existing);
          const patch = readPatch({ body, mask, specs: modelFields, outputOnly: modelOutputOnly, at: 'model', stored });
          for (const field of ['provider', 'name'] as const)
            if (body[field] === '') problems.add(`model.${field}`, 'is required');
          problems.addAll(patch.violations);
          problems.throwIfAny();
          const before = modelOf(state, body.provider, body.name);
          checkEtag(body.etag, etagOf(state, before), `Model ${before.provider}/${before.name}`);
          const model = draft.update('model', before, patchModel(before, patch));
          const prices = state.pricesOf(model.id);
          return { model, price: newPrice(draft, model, patch, prices) ?? currentPrice(prices, draft.now) };
        },
        respond: modelResponse,
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
          refuseUsed(state, model);
          removeModel(state, draft, model);
        },
        respond: (_, revision) => ({ revision }),
      }),
  };
}

function findModel(state: State, { provider, name }: Pick<Model, 'provider' | 'name'>): Model | undefined {
  const owner = state.provider(provider);
  return owner && state.model(owner.name, name);
}

function refuseUsed(state: State, { provider, name }: Model): void {
  const users = usersOf(state, provider, name);
  const shown = `${provider}/${name}`;
  if (users > 0)
    throw ServiceError.of(
      'MODEL_IN_USE',
      { model: shown, users: String(users) },
      { resources: [{ type: 'model', name: shown }] },
    );
}

/** Deletes a model with its prices. */
export function removeModel(state: State, draft: Draft, model: Model): void {
  for (const price of state.pricesOf(model.id)) draft.remove('price', price);
  draft.remove('model', model);
}

/** Adds a row to the price book if the request sets a price that differs from the current one. */
function newPrice(draft: Draft, model: Model, patch: Patch, prices: readonly Price[]): Price | undefined {
  const requested = patch.set['price'] as SentPrice | undefined;
  if (!requested) return undefined;
  const price = { ...ratesOf(requested), source: requested.source };
  const current = currentPrice(prices, draft.now);
  const isUnchanged = (field: string) =>
    isDeepStrictEqual(current?.[field as keyof Price], price[field as keyof typeof price]);
  if (current && Object.keys(price).every(isUnchanged)) return undefined;
  return addPrice(draft, model, price, startNow(prices, draft.now));
}

/** A price of a request, after its check. */
export type SentPrice = Partial<TieredRates> & { readonly source: string };

/** Adds a row to the price book. */
export function addPrice(
  draft: Draft,
  model: Model,
  price: TieredRates & { readonly source: string },
  valid_from: Date,
): Price {
  return draft.create('price', { ...price, valid_from, id: 0, model_id: model.id, created_at: draft.now, revision: 0 });
}
