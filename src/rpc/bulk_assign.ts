import type { AgentRef } from '../../gen/ts/agentllm/v1/agent.js';
import type { BulkAssignConfigRequest } from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import type { Draft } from '../domain/draft.js';
import type { Patch } from '../domain/patch.js';
import type { Agent } from '../domain/rows.js';
import type { State } from '../domain/state.js';
import { ServiceError, type Violation } from '../errors.js';
import { invalidFields, type Problems } from '../problems.js';
import { findAgent, noAgent, refProblem } from './requests.js';
import {
  checkUpsert,
  draftProposal,
  keyRefusal,
  type Proposal,
  patchOf,
  proposeUpsert,
  type Upserted,
} from './write_config.js';

/** What became of one agent of the request. */
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

/** Upserts the same fields for many agents: all of them, or with `allow_partial` those that can be served. */
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
  const places = new Map<Agent, number>();
  const asked = { ...request, texts: new Map<string, string>() };
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
    const first = places.get(agent);
    if (first !== undefined) return fail('', `names the same agent as agents[${first}]`);
    places.set(agent, at);
    const proposal = proposeUpsert(state, agent, patch, asked);
    if (proposal.violations.length > 0) return { ref, agent, proposal: invalidFields(proposal.violations) };
    return { ref, agent, proposal: keyRefusal(state, proposal, request) ?? proposal };
  });
}

/** All or nothing: the problems of the request and those of every agent in one error. */
function refuseAny(candidates: readonly Candidate[], problems: Problems): void {
  const errors = candidates.flatMap(({ proposal }, at) =>
    proposal instanceof ServiceError ? [{ at, error: proposal }] : [],
  );
  const [first] = errors;
  if (!first) return;
  if (problems.any || errors.some(({ error }) => error.reason === 'INVALID_FIELDS')) {
    problems.addAll(merged(errors, candidates.length));
    problems.throwIfAny();
  }
  const other = errors.find(({ error }) => error.reason !== 'AGENT_NOT_FOUND');
  if (other) throw other.error;
  throw ServiceError.of('AGENT_NOT_FOUND', first.error.metadata as { agent: string }, {
    violations: errors.flatMap(violationsAt),
    resources: errors.flatMap(({ error }) => error.resources),
  });
}

interface Failed {
  readonly at: number;
  readonly error: ServiceError;
}

const violationsAt = ({ at, error }: Failed): readonly Violation[] =>
  error.reason === 'INVALID_FIELDS' ? error.violations : [{ field: `agents[${at}]`, description: error.message }];

/** A field of the shared config that is wrong for several agents is named once; for which of them, unless for all. */
function merged(errors: readonly Failed[], agents: number): Violation[] {
  const places = new Map<string, { violation: Violation; at: number[] }>();
  for (const failed of errors)
    for (const violation of violationsAt(failed)) {
      const key = JSON.stringify([violation.field, violation.description]);
      const place = places.get(key) ?? { violation, at: [] };
      place.at.push(failed.at);
      places.set(key, place);
    }
  return [...places.values()].map(({ violation, at }) => {
    if (at.length === agents || violation.field.startsWith('agents[')) return violation;
    const named = at
      .slice(0, 5)
      .map((place) => `agents[${place}]`)
      .join(', ');
    const more = at.length > 5 ? ` and ${at.length - 5} more` : '';
    return { ...violation, description: `${violation.description} (for ${named}${more})` };
  });
}
