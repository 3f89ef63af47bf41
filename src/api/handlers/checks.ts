import type {
  AgentLLMConfigServiceService,
  CheckConfigHealthRequest,
  CheckConfigHealthResponse,
  ListConfigHealthRequest,
  ListRetiringModelsRequest,
} from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import {
  ListConfigHealthResponse,
  ListRetiringModelsResponse,
} from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { AuditEventKind } from '../../../gen/ts/agentllm/v1/audit_service.js';
import { CheckStatus } from '../../../gen/ts/agentllm/v1/check.js';
import { type RetiringUse, retiringUses } from '../../domain/retiring.js';
import type { Config } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import { Problems } from '../../problems.js';
import { listHealth } from '../../store/config_health.js';
import type { Call, Handlers } from '../dispatch/method.js';
import { TokenBucket, takeCheck } from '../dispatch/token_bucket.js';
import { healthMessage, retiringUseMessage } from '../messages/entities.js';
import { checkPage, compareKeys, pageFrom, pageResponse } from '../messages/pages.js';
import { audit } from './audit.js';
import type { Backend } from './backend.js';
import { checkConfigHealth } from './check_config.js';
import { read } from './read_write.js';
import { agentOf, checkRef, configOf, idProblem } from './requests.js';

type CheckMethods = 'checkConfigHealth' | 'listConfigHealth' | 'listRetiringModels';

/** The handlers of AgentLLMConfigService that check whether configs work now, and which models will be shut down. */
export function checkHandlers(backend: Backend): Pick<Handlers<typeof AgentLLMConfigServiceService>, CheckMethods> {
  const bucket = new TokenBucket(limits.configChecksPerMinute);
  return {
    checkConfigHealth: (call) =>
      read(backend, call, (state) => {
        const problems = new Problems();
        problems.add('id', idProblem(call.request.id));
        problems.throwIfAny();
        const config = configOf(state, call.request.id);
        takeCheck(bucket);
        return checkAudited(backend, config, call);
      }),
    listConfigHealth: (call) => read(backend, call, (state) => listConfigHealth(backend, state, call.request)),
    listRetiringModels: (call) => read(backend, call, (state) => listRetiringModels(state, call.request)),
  };
}

async function checkAudited(
  backend: Backend,
  config: Config,
  call: Call<CheckConfigHealthRequest, CheckConfigHealthResponse>,
): Promise<CheckConfigHealthResponse> {
  const response = await checkConfigHealth(backend, config, call);
  const outcome = response.health?.status ?? CheckStatus.UNSPECIFIED;
  const { id: config_id, agent_id, provider } = config;
  const kind = AuditEventKind.HEALTH_CHECK;
  await audit(backend, { kind, actor: call.caller, method: call.method, agent_id, config_id, provider, outcome });
  return response;
}

async function listConfigHealth({ store }: Backend, state: State, request: ListConfigHealthRequest): Promise<Buffer> {
  const problems = new Problems();
  checkPage(problems, request);
  if (request.agent) checkRef(problems, request.agent);
  if (request.config_id !== 0) problems.add('config_id', idProblem(request.config_id));
  for (const [at, status] of request.statuses.entries())
    if (status === CheckStatus.UNSPECIFIED || status === CheckStatus.UNRECOGNIZED)
      problems.add(`statuses[${at}]`, 'must be one of CheckStatus');
  problems.throwIfAny();
  const ids = idsOf(state, request);
  const { statuses } = request;
  const page = pageFrom(request, [
    'health',
    request.agent && agentOf(state, request.agent).id,
    request.config_id,
    statuses,
  ]);
  const after = page.last === undefined ? 0 : idIn(page.last);
  const found = await listHealth(store, { ids, statuses, after, limit: page.size + 1 });
  return pageResponse(page, found, {
    type: ListConfigHealthResponse,
    revision: state.revision,
    keyOf: ({ config_id }) => [config_id],
    rowOf(one) {
      // The state may change during the read of the database: a config that was deleted meanwhile has no row.
      const config = state.configs.get(one.config_id);
      return config && { health: [healthMessage(state, config, one)] };
    },
  });
}

/** Reads the id in a page token, and checks it because a client can forge a token. */
function idIn([id]: readonly (string | number)[]): number {
  if (typeof id !== 'number' || !Number.isInteger(id) || idProblem(id)) throw ServiceError.of('INVALID_PAGE_TOKEN', {});
  return id;
}

/** The ids of the configs that a filter selects; undefined: all. */
function idsOf(state: State, { agent, config_id }: ListConfigHealthRequest): number[] | undefined {
  const ofAgent = agent && state.configsOf(agentOf(state, agent).id).map(({ id }) => id);
  if (config_id === 0) return ofAgent;
  return ofAgent === undefined || ofAgent.includes(config_id) ? [config_id] : [];
}

function listRetiringModels(state: State, request: ListRetiringModelsRequest): Buffer {
  const { min, max } = limits.retiringDays;
  const days = request.within_days ?? limits.defaultRetiringDays;
  const problems = new Problems();
  checkPage(problems, request);
  if (days < min || days > max) problems.add('within_days', `must be ${min} to ${max}, not ${days}`);
  problems.throwIfAny();
  const page = pageFrom(request, ['retiring', 'variants', days]);
  const found: RetiringUse[] = [];
  for (const use of retiringUses(state, days, new Date(), page.last ? idIn(page.last) : 0)) {
    if (page.last && compareKeys(sortKeyOf(use), page.last) <= 0) continue;
    found.push(use);
    if (found.length > page.size) break;
  }
  return pageResponse(page, found, {
    type: ListRetiringModelsResponse,
    revision: state.revision,
    keyOf: sortKeyOf,
    rowOf: (use) => ({ uses: [retiringUseMessage(use)] }),
  });
}

/** The sort key of a use: an agent precedes its configs, a model precedes its fallback, and variants are last. */
const sortKeyOf = ({ agent, hop, chosen }: RetiringUse): readonly number[] =>
  chosen
    ? [agent.id, 1, chosen.experiment.id, chosen.position]
    : [agent.id, 0, hop.config?.id ?? 0, hop.source === 'HOP_SOURCE_FALLBACK' ? 1 : 0];
