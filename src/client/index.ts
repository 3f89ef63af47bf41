/*
 * @agentllm/client, the package that agent processes install. `connect()`
 * returns the methods of every service as functions that return promises. With
 * the option `agents` it returns a resident client, which also holds the
 * configuration of these agents in memory. The message types and the plain
 * grpc-js stubs are exported by `@agentllm/client/proto`.
 */
export type { Reason, Violation } from '../errors.js';
export type { HeldConfigs, ResidentAgent, WatchedResidentAgent } from './agent.js';
export type { KeyedHop } from './api_key.js';
export type { ReservationOptions } from './budgets/budget_leases.js';
export type { Change } from './change.js';
export type { TlsOptions } from './channel.js';
export type { AgentLLM, ResidentAgentLLM, RunOptions } from './client.js';
export type { ClientEvents } from './client_events.js';
export { connect } from './connect.js';
export type { CallOptions } from './connection.js';
export { AgentLLMError, type Code, type Resource } from './error.js';
export type { ListenOptions } from './events.js';
export type { Frozen } from './freeze.js';
export type { Token } from './headers.js';
export type { Methods, Partially } from './methods.js';
export type { ConnectOptions, ResidentOptions } from './options.js';
export type { OutcomeInput, RecordedOutcome } from './outcomes.js';
export type * from './proto.js';
export type { Resolution, ResolutionHop, ResolutionSkip, ResolveOptions } from './resolution_types.js';
export type { Pin, Run, RunMoved } from './run.js';
export type { CacheOptions } from './snapshot_cache.js';
export type { ClientState, Status } from './state.js';
export type { UsageOptions } from './usage/usage_options.js';
export type { UsageSpool, UsageStats } from './usage/usage_spool.js';
export type { ClientWarning } from './warning.js';
