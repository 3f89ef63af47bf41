import type { ApiKeyState } from '../../gen/ts/agentllm/v1/agent_llm_config.js';
import type { Config, Credential, Model, Price, Provider } from './rows.js';

/**
 * The data that resolution reads. The state of the service implements it, and so does the state of a resident client,
 * which receives the states of stored keys from the service.
 */
export interface ResolveView {
  /** A provider by its name or one of its aliases, in any case. */
  provider(nameOrAlias: string): Provider | undefined;
  model(provider: string, name: string): Model | undefined;
  modelsOf(provider: string): readonly Model[];
  /** The prices of a model, oldest first. */
  pricesOf(modelId: number): readonly Price[];
  readonly credentials: { get(id: number): Credential | undefined };
  readonly encryption: { stateOf(entity: 'config' | 'credential', row: Config | Credential): ApiKeyState };
}

/** The canonical name of a provider for a name or alias; an unknown name is returned unchanged. */
export const canonicalName = (view: Pick<ResolveView, 'provider'>, provider: string): string =>
  view.provider(provider)?.name ?? provider;
