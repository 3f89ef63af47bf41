import type { AgentLLMConfigServiceService } from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import type { State } from '../../domain/state.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import type { Handlers } from '../dispatch/method.js';
import { chainEtagOf, configMessage, etagOf } from '../messages/entities.js';
import { statusOf } from '../messages/status.js';
import type { Backend } from './backend.js';
import { batchResolve } from './batch_resolve.js';
import { type Assigned, bulkAssign } from './bulk_assign.js';
import { checkHandlers } from './checks.js';
import { requireUnusedConfig } from './experiment_requests.js';
import { historyHandlers } from './history.js';
import { batchGetPrimaries, getConfig, getPrimary, listConfigs } from './read_configs.js';
import { read, write } from './read_write.js';
import { reorder } from './reorder.js';
import { checkEtag, checkRef, configOf, idProblem } from './requests.js';
import { resolveConfig } from './resolve_config.js';
import { rollbackRevision } from './rollback_revision.js';
import { validateConfig } from './validate_config.js';
import {
  configResponse,
  findingsOf,
  missingConfigFindings,
  planCreate,
  planUpdate,
  planUpsert,
} from './write_config.js';

/** The handlers of AgentLLMConfigService. */
export function configService(backend: Backend): Handlers<typeof AgentLLMConfigServiceService> {
  return {
    createConfig: (call) =>
      write(backend, call, {
        plan(state, draft, problems) {
          checkRef(problems, call.request.agent);
          return planCreate(state, draft, problems, call.request);
        },
        respond: configResponse,
      }),

    getConfig: (call) => read(backend, call, (state) => getConfig(state, call.request.id)),

    listConfigs: (call) => read(backend, call, (state) => listConfigs(state, call.request)),

    updateConfig: (call) =>
      write(backend, call, {
        plan: (state, draft, problems) => planUpdate(state, draft, problems, call.request),
        respond: configResponse,
      }),

    deleteConfig: (call) =>
      write(backend, call, {
        plan(state, draft, problems) {
          problems.add('id', idProblem(call.request.id));
          problems.throwIfAny();
          const config = configOf(state, call.request.id);
          checkEtag(call.request.etag, etagOf(state, config), `Config ${config.id}`);
          requireUnusedConfig(state, config);
          draft.remove('config', config);
          return config;
        },
        respond: ({ id, agent_id }, revision, state) => ({
          revision,
          findings: missingConfigFindings(state, agent_id, id),
        }),
      }),

    getPrimaryConfig: (call) => read(backend, call, (state) => getPrimary(state, call.request.agent)),

    batchGetPrimaryConfigs: (call) => read(backend, call, (state) => batchGetPrimaries(state, call.request)),

    upsertPrimaryConfig: (call) =>
      write(backend, call, {
        plan(state, draft, problems) {
          checkRef(problems, call.request.agent);
          return planUpsert(state, draft, problems, call.request);
        },
        respond: ({ config, created }, revision, state) => ({ ...configResponse(config, revision, state), created }),
      }),

    bulkAssignConfig: (call) =>
      write(backend, call, {
        plan: (state, draft, problems) => bulkAssign(state, draft, problems, call.request),
        respond: (assigned, revision, state) => ({
          results: assigned.map((result) => assignedMessage(state, result)),
          revision,
          findings: commonFindings(state, assigned),
        }),
      }),

    reorderConfigs: (call) =>
      write(backend, call, {
        plan: (state, draft, problems) => reorder(state, draft, problems, call.request),
        respond: ({ configs, chainRevision }, revision, state) => ({
          configs: configs.map((config) => configMessage(state, config)),
          revision,
          chain_etag: chainEtagOf(state, chainRevision, configs),
        }),
      }),

    validateConfig: (call) => read(backend, call, (state) => validateConfig(state, call.request)),

    resolveConfig: (call) => resolveConfig(backend, call),

    batchResolveConfigs: (call) => read(backend, call, (state) => batchResolve(backend, state, call.request)),

    ...historyHandlers(backend),

    rollbackRevision: (call) => rollbackRevision(backend, call),

    ...checkHandlers(backend),
  };
}

function assignedMessage(state: State, { ref, agent, outcome }: Assigned) {
  const agentFields = { agent_id: agent?.id ?? ref.id ?? 0, agent_name: agent?.name ?? ref.name ?? '' };
  if (outcome instanceof ServiceError) return { ...agentFields, status: statusOf(outcome), created: false };
  return { ...agentFields, config: configMessage(state, outcome.config), created: outcome.created };
}

/** The findings of all assigned configs, without duplicates: all agents get the same fields. */
function commonFindings(state: State, assigned: readonly Assigned[]) {
  const findings = assigned.flatMap(({ outcome }) =>
    outcome instanceof ServiceError ? [] : findingsOf(state, outcome.config),
  );
  return [...new Map(findings.map((finding) => [finding.message, finding])).values()].slice(0, limits.maxFindings);
}
