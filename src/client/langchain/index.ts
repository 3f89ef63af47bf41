/*
 * @agentllm/client/langchain: the client of @agentllm/client, whose agents have chat models for LangChain. It needs
 * @langchain/core; the provider packages are optional peer dependencies, which are imported on first use.
 */
import type { AgentExtension } from '../agent_extension.js';
import type { AgentLLM, ResidentAgentLLM } from '../client.js';
import { connectWith } from '../connect.js';
import type { ConnectOptions, ResidentOptions } from '../options.js';
import { checkOptions, type ModelOptions } from '../runtime/call_settings.js';
import { Runtime } from '../runtime/runtime.js';
import { AgentChatModel } from './chat_model.js';

export * from '../index.js';
export { MissingPackageError } from '../missing_package.js';
export type { ModelOptions } from '../runtime/call_settings.js';
export { CallAbortedError, ChainError, TornStreamError } from '../runtime/chain_error.js';
export type { AgentCallOptions } from './call_options.js';
export type { AgentChatModel } from './chat_model.js';

/** What this entry point adds to agents. */
export interface WithChatModel {
  /**
   * A `BaseChatModel` of LangChain, with `bindTools`, `withStructuredOutput` and streaming. Each call uses the
   * configuration that the agent has when the call starts: provider, model, parameters and key, and the fallbacks in order.
   * The receipt is in `response_metadata.agentllm` of the message.
   *
   * A call rejects with a ChainError when no hop produces a response, with a TornStreamError when a stream breaks after
   * its first part, and with the errors of `resolve()`. Throws a TypeError for an option that is not valid.
   */
  chatModel(options?: ModelOptions): AgentChatModel;
}

/** Adds `chatModel` to the agents of a client. */
const withChatModels: AgentExtension = (emit) => {
  const runtime = new Runtime(emit);
  return ({ handle: agent, runId }) => {
    const chatModel = (options: ModelOptions = {}) => {
      checkOptions(options);
      return new AgentChatModel({ agent, runtime, options: [{ runId }, options] });
    };
    Object.assign(agent, { chatModel });
  };
};

/**
 * Connects like `connect` of `@agentllm/client` and holds the configuration of agents in this process. Its agents, also
 * those of its runs, have `chatModel()`.
 */
export function connect(options: ResidentOptions): ResidentAgentLLM<WithChatModel>;
/** Connects like `connect` of `@agentllm/client`. Without `agents` the client has no agents, and so no models. */
export function connect(options?: string | ConnectOptions): AgentLLM;
export function connect(options?: string | ConnectOptions | ResidentOptions): AgentLLM {
  return connectWith(options, withChatModels);
}
