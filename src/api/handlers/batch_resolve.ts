import { BinaryWriter } from '@bufbuild/protobuf/wire';
import type { AgentRef } from '../../../gen/ts/agentllm/v1/agent.js';
import {
  type BatchResolveConfigsRequest,
  BatchResolveConfigsResponse,
  ResolveConfigResult,
} from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { ResolvedConfig } from '../../../gen/ts/agentllm/v1/resolution.js';
import { subjectProblem } from '../../domain/experiments/subject.js';
import type { Agent } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import { maxElements } from '../../max_elements.js';
import { Problems } from '../../problems.js';
import { checkPage, pageOf } from '../messages/pages.js';
import { statusOf } from '../messages/status.js';
import type { Backend } from './backend.js';
import { encodedResolution } from './encoded_resolution.js';
import { checkRef, findAgent, noAgent } from './requests.js';
import { addUnknownNames, budgetsOf, resolvedWith } from './resolve_config.js';

/** ResolveConfig for many agents at one revision. */
export function batchResolve(
  backend: Pick<Backend, 'budgets'>,
  state: State,
  request: BatchResolveConfigsRequest,
): Uint8Array {
  check(state, request);
  const { agents, provider_down, budget_exhausted, subject } = request;
  const resultOf = (ref: AgentRef, agent: Agent | undefined) => framed(result(backend, state, { ref, agent, request }));
  if (agents.length > 0)
    return batchResponse(
      state,
      agents.map((ref) => resultOf(ref, findAgent(state, ref))),
    );
  const page_size = Math.min(request.page_size || limits.defaultPageSize, MAX_AGENTS);
  return pageOf(
    { ...request, page_size },
    {
      type: BatchResolveConfigsResponse,
      revision: state.revision,
      values: state.agentsInOrder,
      keyOf: (agent) => [agent.id],
      filter: ['resolutions', provider_down, budget_exhausted, ...(subject === undefined ? [] : [subject])],
      keep: () => true,
      rowOf: (agent) => resultOf({}, agent),
    },
  );
}

const MAX_AGENTS = maxElements['agentllm.v1.BatchResolveConfigsRequest.agents'];

function check(state: State, request: BatchResolveConfigsRequest): void {
  const { agents, subject } = request;
  const problems = new Problems();
  checkPage(problems, request);
  for (const [at, ref] of agents.entries()) checkRef(problems, ref, `agents[${at}]`);
  addUnknownNames(problems, state, request);
  problems.add('subject', subject === undefined ? undefined : subjectProblem(subject));
  problems.throwIfAny();
}

const RESULTS = (1 << 3) | 2;
const RESOLVED = (3 << 3) | 2;

interface Requested {
  readonly ref: AgentRef;
  readonly agent: Agent | undefined;
  readonly request: BatchResolveConfigsRequest;
}

function result(backend: Pick<Backend, 'budgets'>, state: State, { ref, agent, request }: Requested): Uint8Array {
  try {
    if (!agent) throw noAgent(state, ref, false);
    // Concatenated protobuf messages merge their fields, and a resolution is already encoded.
    const resolved =
      request.provider_down.length === 0 && request.budget_exhausted.length === 0
        ? encodedResolution(backend, state, agent, request.subject).resolved
        : ResolvedConfig.encode(resolvedWith(state, agent, state, assumed(backend, agent, request))).finish();
    const agentFields = ResolveConfigResult.encode({ agent_id: agent.id, agent_name: agent.name }).finish();
    return Buffer.concat([agentFields, new BinaryWriter().uint32(RESOLVED).bytes(resolved).finish()]);
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    const agentFields = { agent_id: agent?.id ?? ref.id ?? 0, agent_name: agent?.name ?? ref.name ?? '' };
    return ResolveConfigResult.encode({ ...agentFields, status: statusOf(error) }).finish();
  }
}

const assumed = (backend: Pick<Backend, 'budgets'>, agent: Agent, request: BatchResolveConfigsRequest) => ({
  down: request.provider_down,
  budgets: budgetsOf(backend, agent, request),
  subject: request.subject,
});

const framed = (result: Uint8Array): Uint8Array => new BinaryWriter().uint32(RESULTS).bytes(result).finish();

function batchResponse(state: State, results: readonly Uint8Array[]): Uint8Array {
  const rest = { results: [], next_page_token: '', revision: BigInt(state.revision) };
  return Buffer.concat([...results, BatchResolveConfigsResponse.encode(rest).finish()]);
}
