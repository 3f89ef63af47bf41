/*
 * @agentllm/client: what agent processes install. `connect()` gives the methods
 * of every service as functions with promises; the types of their messages, and
 * the bare grpc-js stubs, are in `@agentllm/client/proto`.
 */
export type { Reason, Violation } from '../errors.js';
export { type AgentLLM, type ConnectOptions, connect, type TlsOptions } from './connect.js';
export type { CallOptions } from './connection.js';
export { AgentLLMError, type Code, type Resource } from './error.js';
export type { Token } from './headers.js';
export type { Methods, Partially } from './methods.js';
export type * from './proto.js';
