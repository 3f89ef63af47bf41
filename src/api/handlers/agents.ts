import { Agent as AgentMessage } from '../../../gen/ts/agentllm/v1/agent.js';
import {
  type AgentServiceService,
  type GetAgentResponse,
  ListAgentsResponse,
} from '../../../gen/ts/agentllm/v1/agent_service.js';
import type { Finding } from '../../../gen/ts/agentllm/v1/finding.js';
import { agentFields, agentOutputOnly, checkAgent, newAgent, newAgentFields, patchAgent } from '../../domain/agent.js';
import { primaryOf } from '../../domain/chain.js';
import { lintChain } from '../../domain/lint.js';
import { readPatch } from '../../domain/patch.js';
import type { Agent } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { printable } from '../../domain/text.js';
import { ServiceError } from '../../errors.js';
import { Problems } from '../../problems.js';
import type { Handlers } from '../dispatch/method.js';
import { agentMessage, etagOf } from '../messages/entities.js';
import { checkPage, pageOf } from '../messages/pages.js';
import type { Backend } from './backend.js';
import { read, write } from './read_write.js';
import { agentOf, checkEtag, checkRef, idProblem, noAgent } from './requests.js';

/** The handlers of AgentService. */
export function agentService(backend: Backend): Handlers<typeof AgentServiceService> {
  const agentResponse = (agent: Agent, revision: bigint, state: State) => ({
    agent: agentMessage(state, agent),
    revision,
    findings: findingsOf(state, agent),
  });
  return {
    createAgent: (call) =>
      write(backend, call, {
        plan(state, draft, problems) {
          const body = call.request.agent ?? AgentMessage.create();
          const patch = readPatch({ body, mask: [], specs: newAgentFields, outputOnly: agentOutputOnly, at: 'agent' });
          problems.addAll(patch.violations);
          const row = patchAgent(state, newAgent(), patch);
          problems.addAll(checkAgent(state, row, patch));
          problems.throwIfAny();
          refuseTakenName(state, row);
          return draft.create('agent', row);
        },
        respond: agentResponse,
      }),

    getAgent: (call) =>
      read(backend, call, (state): GetAgentResponse => {
        const problems = new Problems();
        checkRef(problems, call.request.agent);
        problems.throwIfAny();
        const agent = agentOf(state, call.request.agent);
        return { agent: agentMessage(state, agent), revision: BigInt(state.revision) };
      }),

    listAgents: (call) =>
      read(backend, call, (state) => {
        const { agent_type, role, is_active } = call.request;
        const problems = new Problems();
        checkPage(problems, call.request);
        problems.throwIfAny();
        return pageOf(call.request, {
          type: ListAgentsResponse,
          revision: state.revision,
          values: state.agentsInOrder,
          keyOf: (agent) => [agent.id],
          filter: ['agents', agent_type, role, is_active],
          keep: (agent) =>
            (agent_type === '' || agent.agent_type === agent_type) &&
            (role === '' || agent.role === role) &&
            (is_active === undefined || agent.is_active === is_active),
          rowOf: (agent) => ({ agents: [agentMessage(state, agent)] }),
        });
      }),

    updateAgent: (call) =>
      write(backend, call, {
        plan(state, draft, problems) {
          const body = call.request.agent ?? AgentMessage.create();
          const mask = call.request.update_mask ?? [];
          const before = state.agents.get(body.id);
          const stored = before && agentMessage(state, before);
          const patch = readPatch({ body, mask, specs: agentFields, outputOnly: agentOutputOnly, at: 'agent', stored });
          problems.add('agent.id', idProblem(body.id));
          problems.addAll(patch.violations);
          if (!before) {
            problems.throwIfAny();
            throw noAgent(state, { id: body.id });
          }
          const row = patchAgent(state, before, patch);
          problems.addAll(checkAgent(state, row, patch));
          if ((body.is_reserved ?? before.is_reserved) !== before.is_reserved)
            problems.add('agent.is_reserved', `is ${before.is_reserved} and cannot be changed`);
          problems.throwIfAny();
          checkEtag(body.etag, etagOf(state, before), `Agent ${before.id}`);
          if (row.name !== before.name) refuseTakenName(state, row);
          return draft.update('agent', before, row);
        },
        respond: agentResponse,
      }),

    deleteAgent: (call) =>
      write(backend, call, {
        plan(state, draft, problems) {
          checkRef(problems, call.request.agent);
          problems.throwIfAny();
          const agent = agentOf(state, call.request.agent);
          checkEtag(call.request.etag, etagOf(state, agent), `Agent ${agent.id}`);
          const configs = state.configsOf(agent.id);
          refuseDeletion(agent, configs.length, call.request.cascade);
          for (const config of configs) draft.remove('config', config);
          for (const budget of state.budgets.ofAgent(agent.id)) draft.remove('budget', budget);
          for (const experiment of state.experiments.ofAgent(agent.id)) draft.remove('experiment', experiment);
          draft.remove('agent', agent);
          return configs.length;
        },
        respond: (deleted_configs, revision) => ({ deleted_configs, revision }),
      }),
  };
}

/** The findings of an active agent without an enabled config. Such an agent uses its default model, if it has one. */
function findingsOf(state: State, agent: Agent): Finding[] {
  const configs = state.configsOf(agent.id);
  if (!agent.is_active || primaryOf(configs)) return [];
  return [...lintChain(state, agent, configs, new Date()).findings];
}

const resources = (agent: Agent) => [{ type: 'agent', name: printable(agent.name) }] as const;

function refuseTakenName(state: State, row: Agent): void {
  const existing = state.agentNamed(row.name);
  if (existing && existing.id !== row.id)
    throw ServiceError.of('AGENT_NAME_TAKEN', { agent: row.name }, { resources: resources(row) });
}

function refuseDeletion(agent: Agent, configs: number, cascade: boolean): void {
  if (agent.is_reserved)
    throw ServiceError.of('AGENT_RESERVED', { agent: agent.name }, { resources: resources(agent) });
  if (configs > 0 && !cascade) {
    const metadata = { agent: agent.name, configs: String(configs) };
    throw ServiceError.of('AGENT_HAS_CONFIGS', metadata, { resources: resources(agent) });
  }
}
