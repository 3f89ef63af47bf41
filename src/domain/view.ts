import type { ApiKeyState } from '../../gen/ts/agentllm/v1/agent_llm_config.js';
import type { Config, Credential, Model, Price, Provider } from './rows.js';

/**
 * What is looked at to resolve a chain. The state of the service is one, and so is what a resident client holds: it has
 * no vault, and knows from the service what is known of the keys.
 */
export interface ResolveView {
  /** A provider by its name or one of its aliases, in any case. */
  provider(nameOrAlias: string): Provider | undefined;
  model(provider: string, name: string): Model | undefined;
  modelsOf(provider: string): readonly Model[];
  /** The prices of a model, oldest first. */
  pricesOf(modelId: number): readonly Price[];
  readonly credentials: { get(id: number): Credential | undefined };
  readonly vault: { stateOf(entity: 'config' | 'credential', row: Config | Credential): ApiKeyState };
}

/** The name of the provider that a name or alias means; what means none stands for itself. */
export const canonicalName = (view: Pick<ResolveView, 'provider'>, provider: string): string =>
  view.provider(provider)?.name ?? provider;
