import type { AgentRef } from '../../../gen/ts/agentllm/v1/agent.js';
import {
  type BatchGetPrimaryConfigsRequest,
  BatchGetPrimaryConfigsResponse,
  GetConfigResponse,
  type ListConfigsRequest,
  ListConfigsResponse,
  type PrimaryConfigResult,
} from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { hasDefaultModel, primaryIn } from '../../domain/chain.js';
import { providerProblem } from '../../domain/config.js';
import { Ordered } from '../../domain/ordered.js';
import type { Agent, Config } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { ServiceError } from '../../errors.js';
import { Problems } from '../../problems.js';
import { EncodeOnce } from '../messages/encode_once.js';
import { configMessage } from '../messages/entities.js';
import { checkPage, pageOf } from '../messages/pages.js';
import { withRevision } from '../messages/revision.js';
import { statusOf } from '../messages/status.js';
import { agentOf, checkRef, configOf, findAgent, idProblem, namedAgent, noAgent } from './requests.js';

export function getConfig(state: State, id: number): Buffer {
  const problems = new Problems();
  problems.add('id', idProblem(id));
  problems.throwIfAny();
  return configResponse(state, configOf(state, id));
}

export function getPrimary(state: State, ref: AgentRef | undefined): Buffer {
  const agent = namedAgent(state, ref);
  const config = primaryIn(state, agent.id);
  if (!config) throw noEnabledConfig(agent);
  return configResponse(state, config);
}

export const noEnabledConfig = (agent: Agent) =>
  ServiceError.of(
    'NO_ENABLED_CONFIG',
    { agent: agent.name, ...(hasDefaultModel(agent) && { model: `${agent.llm_provider}/${agent.llm_model}` }) },
    { resources: [{ type: 'agent', name: agent.name }] },
  );

/** The responses of GetConfig and GetPrimaryConfig without the revision; the detail is the agent's name. */
const responses = new EncodeOnce<Config, string>({
  encode: (state, config, agentName) =>
    GetConfigResponse.encode({ config: configMessage(state, config, agentName), revision: 0n }).finish(),
  inputs: [(_, agentName) => agentName],
});

/**
 * The response with one config: the cached response, followed by the encoded revision. Concatenated protobuf messages
 * merge their fields, and the responses of GetConfig and GetPrimaryConfig have the same fields.
 */
function configResponse(state: State, config: Config): Buffer {
  const agentName = state.agents.get(config.agent_id)?.name ?? '';
  return withRevision(responses.get(state, config, agentName), state.revision);
}

export function listConfigs(state: State, request: ListConfigsRequest): Buffer {
  const problems = new Problems();
  checkPage(problems, request);
  if (request.agent) checkRef(problems, request.agent);
  const provider = request.provider === '' ? undefined : state.provider(request.provider);
  if (request.provider !== '' && !provider) problems.add('provider', providerProblem(state, request.provider));
  problems.throwIfAny();
  const agent = request.agent && agentOf(state, request.agent);
  const { enabled, model_name, include_fallbacks } = request;
  const isWanted = (ofProvider: string | null, model: string | null) =>
    (provider === undefined || ofProvider === provider.name) && (model_name === '' || model === model_name);
  return pageOf(request, {
    type: ListConfigsResponse,
    revision: state.revision,
    values: agent ? configsById(state, agent) : state.configsInOrder,
    keyOf: (config) => [config.id],
    filter: ['configs', agent?.id, provider?.name, enabled, model_name, ...(include_fallbacks ? [true] : [])],
    keep: (config) =>
      (enabled === undefined || config.enabled === enabled) &&
      (isWanted(config.provider, config.model_name) ||
        (include_fallbacks && isWanted(config.fallback_provider, config.fallback_model))),
    rowOf: (config) => ({ configs: [configMessage(state, config)] }),
  });
}

function configsById(state: State, agent: Agent): Ordered<Config> {
  const configs = new Ordered<Config>((a, b) => a.id - b.id);
  for (const config of state.configsOf(agent.id)) configs.put(config);
  return configs;
}

export function batchGetPrimaries(state: State, request: BatchGetPrimaryConfigsRequest): Buffer {
  const problems = new Problems();
  checkPage(problems, request);
  const { length } = request.agents;
  for (const [at, ref] of request.agents.entries()) checkRef(problems, ref, `agents[${at}]`);
  problems.throwIfAny();
  if (length > 0) {
    const results = request.agents.map((ref) => primaryResult(state, ref, findAgent(state, ref)));
    return batchResponse(state, results);
  }
  return pageOf(request, {
    type: BatchGetPrimaryConfigsResponse,
    revision: state.revision,
    values: state.agentsInOrder,
    keyOf: (agent) => [agent.id],
    filter: ['primaries'],
    keep: () => true,
    rowOf: (agent) => primaryResult(state, {}, agent),
  });
}

/** Concatenates the encoded results and the fields that the response has once. */
function batchResponse(state: State, results: readonly Uint8Array[]): Buffer {
  const last = { results: [], next_page_token: '', revision: BigInt(state.revision) };
  return Buffer.concat([...results, BatchGetPrimaryConfigsResponse.encode(last).finish()]);
}

function primaryResult(state: State, ref: AgentRef, agent: Agent | undefined): Uint8Array {
  const config = agent && primaryIn(state, agent.id);
  if (config) return results.get(state, config, agent);
  return encodedResult({
    agent_id: agent?.id ?? ref.id ?? 0,
    agent_name: agent?.name ?? ref.name ?? '',
    status: statusOf(agent ? noEnabledConfig(agent) : noAgent(state, ref, false)),
  });
}

/** Results of BatchGetPrimaryConfigs; the detail is the agent. */
const results = new EncodeOnce<Config, Agent>({
  encode: (state, config, { id, name }) =>
    encodedResult({ agent_id: id, agent_name: name, config: configMessage(state, config, name) }),
  inputs: [(_, { name }) => name],
});

const encodedResult = (result: PrimaryConfigResult): Uint8Array =>
  BatchGetPrimaryConfigsResponse.encode({ results: [result], next_page_token: '', revision: 0n }).finish();
