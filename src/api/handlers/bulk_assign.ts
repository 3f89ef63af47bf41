import type { AgentRef } from '../../../gen/ts/agentllm/v1/agent.js';
import type { BulkAssignConfigRequest } from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import type { Draft } from '../../domain/draft.js';
import type { Patch } from '../../domain/patch.js';
import type { Agent } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { printable } from '../../domain/text.js';
import { ServiceError, type Violation } from '../../errors.js';
import { invalidFields, type Problems } from '../../problems.js';
import { findAgent, noAgent, refProblem } from './requests.js';
import {
  checkUpsert,
  draftProposal,
  keyRefusal,
  type Proposal,
  patchOf,
  proposeUpsert,
  type Upserted,
  upsertTarget,
} from './write_config.js';

/** The outcome for one agent of the request. */
export interface Assigned {
  readonly ref: AgentRef;
  readonly agent: Agent | undefined;
  readonly outcome: Upserted | ServiceError;
}

interface Candidate {
  readonly ref: AgentRef;
  readonly agent: Agent | undefined;
  readonly proposal: Proposal | ServiceError;
}

/** Upserts the same fields for all agents of the request, or with `allow_partial` for the agents without a problem. */
export function bulkAssign(
  state: State,
  draft: Draft,
  problems: Problems,
  request: BulkAssignConfigRequest,
): readonly Assigned[] {
  const patch = patchOf(request);
  checkUpsert(problems, request);
  if (request.agents.length === 0) problems.add('agents', 'is required');
  problems.addAll(patch.violations);
  const candidates = candidatesOf(state, patch, request);
  if (!request.allow_partial) refuseAny(candidates, problems);
  problems.throwIfAny();
  return candidates.map(({ ref, agent, proposal }) => {
    if (proposal instanceof ServiceError) return { ref, agent, outcome: proposal };
    return {
      ref,
      agent,
      outcome: { config: draftProposal(state, draft, proposal, request), created: !proposal.before },
    };
  });
}

function candidatesOf(state: State, patch: Patch, request: BulkAssignConfigRequest): Candidate[] {
  const firstIndexes = new Map<Agent, number>();
  const sharedRequest = { ...request, texts: new Map<string, string>() };
  return request.agents.map((ref, at): Candidate => {
    const problem = refProblem(ref);
    const agent = problem ? undefined : findAgent(state, ref);
    const fail = (field: string, description: string) => ({
      ref,
      agent,
      proposal: invalidFields([{ field: `agents[${at}]${field}`, description }]),
    });
    if (problem) return fail(problem.field, problem.description);
    if (!agent) return { ref, agent, proposal: noAgent(state, ref, request.agents.length <= 10) };
    const first = firstIndexes.get(agent);
    if (first !== undefined) return fail('', `names the same agent as agents[${first}]`);
    firstIndexes.set(agent, at);
    const proposal = proposeOne(state, agent, patch, sharedRequest);
    if (proposal.violations.length > 0) return { ref, agent, proposal: invalidFields(proposal.violations) };
    return { ref, agent, proposal: keyRefusal(state, proposal, request) ?? proposal };
  });
}

type SharedRequest = BulkAssignConfigRequest & { readonly texts: Map<string, string> };

/**
 * Proposes the upsert of one agent. Values that the config already has are not rejected; they are compared only if
 * there are violations, because the comparison is slow.
 */
function proposeOne(state: State, agent: Agent, patch: Patch, request: SharedRequest): Proposal {
  const proposal = proposeUpsert(state, agent, patch, request);
  const stored = upsertTarget(state, agent);
  if (proposal.violations.length === 0 || !stored) return proposal;
  return proposeUpsert(state, agent, patchOf(request, state, stored), request);
}

/** Throws one error with the problems of the request and of every agent, with the names of the agents. */
function refuseAny(candidates: readonly Candidate[], problems: Problems): void {
  const errors = candidates.flatMap(({ proposal, agent }, at) =>
    proposal instanceof ServiceError ? [{ at, name: agent?.name, error: proposal }] : [],
  );
  const [first] = errors;
  if (!first) return;
  if (problems.any || errors.some(({ error }) => error.reason === 'INVALID_FIELDS')) {
    problems.addAll(merged(errors, candidates.length));
    problems.throwIfAny();
  }
  const other = errors.find(({ error }) => error.reason !== 'AGENT_NOT_FOUND');
  if (other) throw otherError(other.error, errors);
  throw ServiceError.of('AGENT_NOT_FOUND', first.error.metadata as { agent: string }, {
    violations: errors.flatMap(violationsAt),
    resources: errors.flatMap(({ error }) => error.resources),
  });
}

/** Adds the names of the agents to an error about single configs, such as a key for another provider. */
function otherError({ reason, metadata, resources }: ServiceError, errors: readonly Failed[]): ServiceError {
  const sameReason = errors.filter(({ error }) => error.reason === reason);
  const remedy = metadata['remedy'] && { remedy: `${metadata['remedy']} (for ${namesOf(sameReason)})` };
  const violations = errors.flatMap(violationsAt);
  return ServiceError.of(reason, { ...metadata, ...remedy } as never, { violations, resources });
}

interface Failed {
  readonly at: number;
  /** The name of the agent; undefined if it does not exist. */
  readonly name: string | undefined;
  readonly error: ServiceError;
}

function violationsAt({ at, name, error }: Failed): readonly Violation[] {
  if (error.reason === 'INVALID_FIELDS') return error.violations;
  const prefix = name === undefined ? '' : `${quoted(name)}: `;
  return [{ field: `agents[${at}]`, description: prefix + error.message }];
}

const NAMED = 5;
const quoted = (name: string) => JSON.stringify(printable(name, 60));

/** The names of the agents with a problem: `"trader", "risk_manager" and 3 more`. */
function namesOf(failed: readonly Failed[]): string {
  const named = failed.slice(0, NAMED).map(({ at, name }) => (name === undefined ? `agents[${at}]` : quoted(name)));
  const more = failed.length > NAMED ? ` and ${failed.length - NAMED} more` : '';
  return named.join(', ') + more;
}

/**
 * Merges violations: a field of the shared config is listed once. The description names the agents, unless the
 * violation concerns all agents.
 */
function merged(errors: readonly Failed[], agents: number): Violation[] {
  const groups = new Map<string, { violation: Violation; failed: Failed[] }>();
  for (const error of errors)
    for (const violation of violationsAt(error)) {
      const key = JSON.stringify([violation.field, violation.description]);
      const group = groups.get(key) ?? { violation, failed: [] };
      group.failed.push(error);
      groups.set(key, group);
    }
  return [...groups.values()].map(({ violation, failed }) => {
    if (failed.length === agents || violation.field.startsWith('agents[')) return violation;
    // A long list of known values must not displace the names.
    return { ...violation, description: `${printable(violation.description, 180)} (for ${namesOf(failed)})` };
  });
}
