import type { Change } from './faults/apply_fault.js';
import { type ProviderName, providers, type WireApi, wordingOf } from './providers.js';
import { readChatRequest } from './requests/chat_request.js';
import { readMessagesRequest } from './requests/messages_request.js';
import type { ModelRequest } from './requests/model_request.js';
import { type ModelRule, ruleOfModel } from './requests/model_rules.js';
import type { Fields } from './requests/parameters.js';
import { readResponsesRequest } from './requests/responses_request.js';
import type { StoredResponses } from './requests/stored_responses.js';
import { missingField, wrongType } from './requests/wording.js';
import { chatResponse, type ResponseContext } from './responses/chat_response.js';
import { complete } from './responses/completion.js';
import { messagesResponse } from './responses/messages_response.js';
import { checkServed } from './responses/models_response.js';
import { Rejection } from './responses/provider_error.js';
import type { FakeResponse } from './responses/response.js';
import { responsesResponse } from './responses/responses_api_response.js';
import { situationError, withValues } from './responses/situations.js';
import type { Selection } from './rules.js';
import type { Script } from './script.js';

/** A request to one of the APIs that generate text. */
export interface Generation {
  readonly api: WireApi;
  readonly provider: ProviderName;
  /** The name of the model without its fault. */
  readonly model: string;
  readonly body: Fields;
  readonly script: Script;
  readonly stored: StoredResponses;
  readonly context: ResponseContext;
}

/** Checks a request and generates its response. Throws a Rejection. */
export function generate(generation: Generation, { response }: Selection, change: Change): FakeResponse {
  const { api, provider, model, script, stored, context } = generation;
  checkModelName(generation);
  checkServed(provider, model, script.served_models);
  const rule = ruleOfModel(provider, model, script.models);
  const request = readRequest(generation, rule);
  checkWindow(request, rule);
  const completion = complete(request, response);
  const changed = change.completion ? change.completion(completion) : completion;
  if (api === 'chat_completions') return chatResponse(request, changed, context);
  if (api === 'messages') return messagesResponse(request, changed, context);
  const { response: sent, responseId, itemIds } = responsesResponse(request, changed, context);
  if (request.store) stored.store(context.credential, responseId, itemIds);
  return sent;
}

function checkModelName({ api, provider, body }: Generation): void {
  const wording = wordingOf(provider, api);
  const { model } = body;
  if (model === undefined || model === null || model === '') throw missingField(wording, 'model');
  if (typeof model !== 'string') throw wrongType(wording, 'model', 'string', model);
}

function readRequest(generation: Generation, rule: ModelRule): ModelRequest {
  const { api, provider, model, body, stored, context } = generation;
  const { credential } = context;
  if (api === 'messages') return readMessagesRequest(provider, model, body, rule, credential);
  if (api === 'responses') return readResponsesRequest(provider, model, body, rule, { credential, stored });
  return readChatRequest(provider, model, body, rule);
}

/** Rejects a prompt that is longer than the context window of the model, if that is known. */
function checkWindow({ provider, api, inputTokens, model }: ModelRequest, rule: ModelRule): void {
  const window = rule.context_window_tokens;
  if (window === undefined || inputTokens <= window) return;
  const form = api === 'messages' ? 'anthropic' : providers[provider].name;
  const error = situationError('context_length', form);
  throw new Rejection(withValues(error, { window: String(window), tokens: String(inputTokens), model }));
}
