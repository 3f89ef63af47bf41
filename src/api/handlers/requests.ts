import type { AgentRef } from '../../../gen/ts/agentllm/v1/agent.js';
import type { WaitForAdoption } from '../../../gen/ts/agentllm/v1/write.js';
import { nanosProblem } from '../../domain/duration.js';
import type { Agent, Budget, Config, Credential, Model, Provider } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { nearest, printable, textProblem, UUID } from '../../domain/text.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import { Problems } from '../../problems.js';

/** The fields of every write request. */
export interface WriteRequest {
  readonly request_id: string;
  readonly validate_only: boolean;
  readonly reason: string;
  readonly wait_for_adoption?: WaitForAdoption | undefined;
}

/** The idempotency key in lower case; undefined if it is not set or invalid. */
export const requestIdOf = ({ request_id }: WriteRequest): string | undefined =>
  UUID.test(request_id) ? request_id.toLowerCase() : undefined;

/** The problems of the fields of every write request. */
export function writeProblems(request: WriteRequest): Problems {
  const problems = new Problems();
  if (request.request_id !== '' && !UUID.test(request.request_id)) problems.add('request_id', 'must be a UUID');
  problems.add('reason', textProblem(request.reason, limits.reason));
  problems.add('wait_for_adoption.timeout', adoptionProblem(request));
  return problems;
}

/** How long a write waits for adoption, in ms; undefined if `wait_for_adoption` is not set. */
export function adoptionWaitMs({ wait_for_adoption }: WriteRequest): number | undefined {
  if (!wait_for_adoption) return undefined;
  const { seconds, nanos } = wait_for_adoption.timeout ?? { seconds: 0n, nanos: 0 };
  return Number(seconds) * 1000 + nanos / 1e6;
}

function adoptionProblem(request: WriteRequest): string | undefined {
  const ms = adoptionWaitMs(request) ?? 0;
  const nanos = nanosProblem(request.wait_for_adoption?.timeout ?? { nanos: 0 });
  if (nanos) return nanos;
  return ms >= 0 && ms <= limits.adoptionSeconds * 1000 ? undefined : `must be 0 to ${limits.adoptionSeconds} s`;
}

/** Throws if one of these texts is empty. */
export function requireText(fields: Readonly<Record<string, string>>): void {
  const problems = new Problems();
  for (const [field, value] of Object.entries(fields)) if (value === '') problems.add(field, 'is required');
  problems.throwIfAny();
}

export function idProblem(id: number): string | undefined {
  return id >= 1 && id <= limits.maxInt32 ? undefined : `must be 1 to ${limits.maxInt32}, not ${id}`;
}

export const minRevisionProblem = (revision: bigint): string | undefined =>
  revision >= 0n ? undefined : `must be at least 0, not ${revision}`;

export const revisionProblem = (revision: bigint): string | undefined =>
  revision >= 1n ? undefined : revision === 0n ? 'is required' : `must be at least 1, not ${revision}`;

/** The problem of a reference to an agent, which must have an id or a name. */
export function refProblem(ref: AgentRef | undefined): { field: string; description: string } | undefined {
  if (ref?.id !== undefined && ref.name !== undefined)
    return { field: '', description: 'must have id or name, not both' };
  if (ref?.id !== undefined) {
    const description = idProblem(ref.id);
    return description ? { field: '.id', description } : undefined;
  }
  if (ref?.name === undefined) return { field: '', description: 'is required: set id or name' };
  const description = ref.name === '' ? 'must not be empty' : textProblem(ref.name, limits.agentName);
  return description ? { field: '.name', description } : undefined;
}

/** Adds the problem of a reference to an agent. */
export function checkRef(problems: Problems, ref: AgentRef | undefined, at = 'agent'): void {
  const problem = refProblem(ref);
  if (problem) problems.add(at + problem.field, problem.description);
}

export const findAgent = (state: State, ref: AgentRef): Agent | undefined =>
  ref.id !== undefined ? state.agents.get(ref.id) : state.agentNamed(ref.name ?? '');

/** The agent that a well-formed reference names. */
export function agentOf(state: State, ref: AgentRef | undefined): Agent {
  const agent = ref && findAgent(state, ref);
  if (!agent) throw noAgent(state, ref ?? {});
  return agent;
}

/**
 * The agent that a read names. A reference to an existing agent needs no other check: the validation of the text would
 * take as long as the response.
 */
export function namedAgent(state: State, ref: AgentRef | undefined): Agent {
  const existing = ref && (ref.id === undefined) !== (ref.name === undefined) ? findAgent(state, ref) : undefined;
  if (existing) return existing;
  const problems = new Problems();
  checkRef(problems, ref);
  problems.throwIfAny();
  return agentOf(state, ref);
}

/** @param suggest whether to search for a similar name; false for requests with many agents. */
export function noAgent(state: State, ref: AgentRef, suggest = true): ServiceError {
  if (ref.id !== undefined)
    return ServiceError.of(
      'AGENT_NOT_FOUND',
      { agent: `id ${ref.id}` },
      { resources: [{ type: 'agent', name: String(ref.id) }] },
    );
  const name = printable(ref.name ?? '', 100);
  const suggestion = suggest ? nearest(name, state.agentNames) : undefined;
  return ServiceError.of(
    'AGENT_NOT_FOUND',
    { agent: `name ${JSON.stringify(name)}`, ...(suggestion && { suggestion }) },
    { resources: [{ type: 'agent', name }] },
  );
}

export function configOf(state: State, id: number): Config {
  const config = state.configs.get(id);
  if (config) return config;
  const resources = [{ type: 'config', name: String(id) }] as const;
  throw ServiceError.of('CONFIG_NOT_FOUND', { id: String(id) }, { resources });
}

export function credentialOf(state: State, name: string): Credential {
  const credential = state.credentialNamed(name);
  if (credential) return credential;
  const shown = printable(name, 100);
  const suggestion = nearest(shown, state.credentialNames);
  throw ServiceError.of(
    'CREDENTIAL_NOT_FOUND',
    { credential: shown, ...(suggestion && { suggestion }) },
    { resources: [{ type: 'credential', name: shown }] },
  );
}

export function budgetOf(state: State, name: string): Budget {
  const budget = state.budgets.named(name);
  if (budget) return budget;
  const shown = printable(name, 100);
  const suggestion = nearest(shown, state.budgets.names);
  throw ServiceError.of(
    'BUDGET_NOT_FOUND',
    { budget: shown, ...(suggestion && { suggestion }) },
    { resources: [{ type: 'budget', name: shown }] },
  );
}

export function providerOf(state: State, name: string): Provider {
  const provider = state.provider(name);
  if (provider) return provider;
  const shown = printable(name, 100);
  const suggestion = nearest(shown, state.providerNames);
  throw ServiceError.of(
    'PROVIDER_NOT_FOUND',
    { provider: shown, ...(suggestion && { suggestion }) },
    { resources: [{ type: 'provider', name: shown }] },
  );
}

export function modelOf(state: State, providerName: string, name: string): Model {
  const provider = providerOf(state, providerName);
  const model = state.model(provider.name, name);
  if (model) return model;
  const shown = printable(name, 120);
  const suggestion = nearest(
    shown,
    state.modelsOf(provider.name).map((m) => m.name),
  );
  throw ServiceError.of(
    'MODEL_NOT_FOUND',
    { provider: provider.name, model: shown, ...(suggestion && { suggestion }) },
    { resources: [{ type: 'model', name: `${provider.name}/${shown}` }] },
  );
}

/** Throws STALE_ETAG if a write has the etag of an earlier state. */
export function checkEtag(etag: string, current: string | undefined, resource: string): void {
  if (etag !== '' && etag !== current) throw staleEtag(resource);
}

export const staleEtag = (resource: string): ServiceError => ServiceError.of('STALE_ETAG', { resource });
