import { status } from '@grpc/grpc-js';
import { expect } from 'vitest';
import type { Agent } from '../../../gen/ts/agentllm/v1/agent.js';
import type { AgentLLMConfig } from '../../../gen/ts/agentllm/v1/agent_llm_config.js';
import type { Finding } from '../../../gen/ts/agentllm/v1/finding.js';
import { ErrorInfo } from '../../../gen/ts/google/rpc/error_details.js';
import type { Status } from '../../../gen/ts/google/rpc/status.js';
import { type CallError, type Clients, failure, unique } from '../../support/service.js';

export { status };

type AgentFields = NonNullable<Parameters<Clients['agents']['createAgent']>[0]['agent']>;
export type ConfigFields = NonNullable<Parameters<Clients['configs']['createConfig']>[0]['config']>;
export type ProviderFields = NonNullable<Parameters<Clients['providers']['createProvider']>[0]['provider']>;
export type ModelFields = NonNullable<Parameters<Clients['providers']['createModel']>[0]['model']>;

/** Asserts that a message field that the contract always sets is present. */
export function present<T>(value: T | undefined | null): T {
  if (value === undefined || value === null) throw new Error('the response lacks a message that the contract requires');
  return value;
}

export async function newAgent({ agents }: Clients, fields: AgentFields = {}): Promise<Agent> {
  const { agent } = await agents.createAgent({ agent: { name: unique('agent'), agent_type: 'analyst', ...fields } });
  return present(agent);
}

export const GPT4: ConfigFields = { provider: 'openai', model_name: 'gpt-4' };
export const HAIKU: ConfigFields = { provider: 'claude', model_name: 'claude-3-haiku-20240307' };

/** A config of an agent (a new one by default), `openai`/`gpt-4` by default. */
export async function newConfig(
  service: Clients,
  fields: ConfigFields = {},
  agent?: { readonly id: number },
  allow_unknown_model = false,
): Promise<AgentLLMConfig> {
  const { id } = agent ?? (await newAgent(service));
  const { config } = await service.configs.createConfig({
    agent: { id },
    config: { ...GPT4, ...fields },
    allow_unknown_model,
  });
  return present(config);
}

export async function newProvider({ providers }: Clients, fields: ProviderFields = {}) {
  const { provider } = await providers.createProvider({ provider: { ...endpoint(), ...fields } });
  return present(provider);
}

export const endpoint = (): ProviderFields => ({
  name: unique('prov').toLowerCase(),
  dialect: 'DIALECT_OPENAI_COMPATIBLE',
  base_url: 'https://llm.example.com/v1',
});

export async function newModel({ providers }: Clients, fields: ModelFields) {
  const { model } = await providers.createModel({ model: { name: unique('model'), ...fields } });
  return present(model);
}

export async function getConfig({ configs }: Clients, id: number): Promise<AgentLLMConfig> {
  return present((await configs.getConfig({ id })).config);
}

export async function getAgent({ agents }: Clients, id: number): Promise<Agent> {
  return present((await agents.getAgent({ agent: { id } })).agent);
}

export async function configsOf({ configs }: Clients, agentId: number): Promise<AgentLLMConfig[]> {
  return (await configs.listConfigs({ agent: { id: agentId } })).configs;
}

export async function revision({ agents }: Clients): Promise<bigint> {
  return (await agents.listAgents({ page_size: 1 })).revision;
}

/** The call must fail with INVALID_FIELDS and violations of these fields, in any order, each at least once. */
export async function invalid(call: Promise<unknown>, ...fields: string[]): Promise<CallError> {
  const error = await failure(call);
  expect({ code: error.code, reason: error.reason }, error.message).toEqual({
    code: status.INVALID_ARGUMENT,
    reason: 'INVALID_FIELDS',
  });
  if (fields.length > 0) expect([...new Set(error.fields)].sort()).toEqual([...fields].sort());
  for (const violation of error.violations) expect(violation.description).not.toBe('');
  return error;
}

export async function refused(call: Promise<unknown>, code: number, reason: string): Promise<CallError> {
  const error = await failure(call);
  expect({ code: error.code, reason: error.reason }, error.message).toEqual({ code, reason });
  expect(error.message).not.toBe('');
  return error;
}

/** NOT_FOUND and ALREADY_EXISTS must carry a ResourceInfo, FAILED_PRECONDITION a PreconditionFailure. */
export async function notFound(call: Promise<unknown>, reason: string): Promise<CallError> {
  const error = await refused(call, status.NOT_FOUND, reason);
  expect(error.resources.length).toBeGreaterThan(0);
  return error;
}

export async function alreadyExists(call: Promise<unknown>, reason: string): Promise<CallError> {
  const error = await refused(call, status.ALREADY_EXISTS, reason);
  expect(error.resources.length).toBeGreaterThan(0);
  return error;
}

export async function precondition(call: Promise<unknown>, reason: string): Promise<CallError> {
  const error = await refused(call, status.FAILED_PRECONDITION, reason);
  expect(error.preconditions.length).toBeGreaterThan(0);
  return error;
}

export const stale = (call: Promise<unknown>): Promise<CallError> => refused(call, status.ABORTED, 'STALE_ETAG');

/** Code, reason, domain and message of the status in a result. */
export function statusOf(value: Status | undefined) {
  const { code, message, details } = present(value);
  const info = details.find((any) => any.type_url.endsWith('.ErrorInfo'));
  const { reason, domain } = ErrorInfo.decode(present(info).value as Uint8Array);
  return { code, reason, domain, message };
}

export const reasonsOf = (findings: readonly Finding[]): string[] =>
  findings.map((finding) => finding.reason.replace('FINDING_REASON_', ''));

/** Findings without those about shutdown dates, which the models of the seeds have. */
export const withoutShutdowns = (findings: readonly Finding[]): Finding[] =>
  findings.filter(({ reason }) => reason !== 'FINDING_REASON_MODEL_RETIRING');

export function findingOf(findings: readonly Finding[], reason: string): Finding {
  const found = findings.find((finding) => finding.reason === `FINDING_REASON_${reason}`);
  if (!found) throw new Error(`no finding ${reason} among: ${reasonsOf(findings).join(', ') || 'none'}`);
  return found;
}

/** Repeats a character, which may be outside the BMP: `count` is in code points. */
export const chars = (count: number, character = 'x'): string => character.repeat(count);
