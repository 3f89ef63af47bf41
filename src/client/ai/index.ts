/*
 * @agentllm/client/ai: the client of @agentllm/client, whose agents have models for the AI SDK. The packages of the AI SDK
 * are optional peer dependencies, which are imported on first use.
 */
import type { wrapLanguageModel } from 'ai';
import type { AgentExtension } from '../agent_extension.js';
import type { AgentLLM, ResidentAgentLLM } from '../client.js';
import { connectWith } from '../connect.js';
import type { ConnectOptions, ResidentOptions } from '../options.js';
import { checkOptions, type ModelOptions } from '../runtime/call_settings.js';
import { Runtime } from '../runtime/runtime.js';
import { AgentLanguageModel } from './language_model.js';
import { installedSpecification } from './specification.js';

export * from '../index.js';
export { MissingPackageError } from '../missing_package.js';
export type { ModelOptions } from '../runtime/call_settings.js';
export { CallAbortedError, ChainError, TornStreamError } from '../runtime/chain_error.js';
export { type Dialect, type DialectSettings, registerDialect } from './dialect.js';

/** A model of the installed AI SDK: LanguageModelV3 with `ai` 6, LanguageModelV4 with `ai` 7. */
export type LanguageModel = ReturnType<typeof wrapLanguageModel>;

/** What this entry point adds to agents. */
export interface WithLanguageModel {
  /**
   * A model for `generateText`, `streamText` and the other functions of the AI SDK. Each call uses the configuration that
   * the agent has when the call starts: provider, model, parameters and key, and the fallbacks in order. The result has
   * the receipt in `providerMetadata.agentllm`. Options of one call are in `providerOptions.agentllm`.
   *
   * A call rejects with a ChainError when no hop produces a response, with a TornStreamError when a stream breaks after
   * its first part (as an error part of the stream), and with the errors of `resolve()`. All have a message that states
   * what to do. Throws a TypeError for an option that is not valid.
   */
  languageModel(options?: ModelOptions): LanguageModel;
}

/** Adds `languageModel` to the agents of a client. */
const withLanguageModels: AgentExtension = (emit) => {
  const runtime = new Runtime(emit);
  return ({ handle, runId }) => {
    const languageModel = (options: ModelOptions = {}) => {
      checkOptions(options);
      return new AgentLanguageModel(installedSpecification(), handle, runtime, [{ runId }, options]);
    };
    Object.assign(handle, { languageModel });
  };
};

/**
 * Connects like `connect` of `@agentllm/client` and holds the configuration of agents in this process. Its agents, also
 * those of its runs, have `languageModel()`.
 */
export function connect(options: ResidentOptions): ResidentAgentLLM<WithLanguageModel>;
/** Connects like `connect` of `@agentllm/client`. Without `agents` the client has no agents, and so no models. */
export function connect(options?: string | ConnectOptions): AgentLLM;
export function connect(options?: string | ConnectOptions | ResidentOptions): AgentLLM {
  return connectWith(options, withLanguageModels);
}
