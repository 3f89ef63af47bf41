/*
 * @agentllm/client: what agent processes install. `connect()` gives the methods
 * of every service as functions with promises, and with `agents` a client that
 * holds their configuration in memory; the types of the messages, and the bare
 * grpc-js stubs, are in `@agentllm/client/proto`.
 */
export type { Reason, Violation } from '../errors.js';
export type { HeldConfigs, ResidentAgent, WatchedResidentAgent } from './agent.js';
export type { KeyedHop } from './api_key.js';
export type { Change } from './change.js';
export type { TlsOptions } from './channel.js';
export type { AgentLLM, ResidentAgentLLM } from './client.js';
export { connect } from './connect.js';
export type { CallOptions } from './connection.js';
export { AgentLLMError, type Code, type Resource } from './error.js';
export type { ListenOptions } from './events.js';
export type { Frozen } from './freeze.js';
export type { Token } from './headers.js';
export type { Methods, Partially } from './methods.js';
export type { ConnectOptions, ResidentOptions } from './options.js';
export type * from './proto.js';
export type { ClientEvents } from './resident.js';
export type { Resolution, ResolutionHop, ResolutionSkip, ResolveOptions } from './resolution_types.js';
export type { Pin, Run, RunMoved } from './run.js';
export type { CacheOptions } from './snapshot_cache.js';
export type { ClientState, Status } from './state.js';
export type { ClientWarning } from './warning.js';
