import { BinaryWriter } from '@bufbuild/protobuf/wire';
import type {
  ResolveConfigRequest,
  ResolveConfigResponse,
} from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { ResolvedConfig } from '../../../gen/ts/agentllm/v1/resolution.js';
import { hasDefaultModel, primaryOf } from '../../domain/chain.js';
import { providerProblem } from '../../domain/config.js';
import { resolve } from '../../domain/resolve.js';
import type { Agent, Config, Credential } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import type { ResolveView } from '../../domain/view.js';
import { ServiceError } from '../../errors.js';
import { Problems } from '../../problems.js';
import { onDatabase } from '../../store/failure.js';
import { oldestKept } from '../../store/history/compaction.js';
import { agentAt } from '../../store/history/time_travel.js';
import type { Call, HandlerResult } from '../dispatch/method.js';
import { EncodeOnce } from '../messages/encode_once.js';
import { resolvedMessage } from '../messages/resolution.js';
import { withRevision } from '../messages/revision.js';
import type { Backend } from './backend.js';
import { requireHistory } from './historical_config.js';
import { noEnabledConfig } from './read_configs.js';
import { read } from './read_write.js';
import { agentOf, checkRef, findAgent, namedAgent, noAgent } from './requests.js';

type ResolveCall = Call<ResolveConfigRequest, ResolveConfigResponse>;

/** Resolves the config of an agent, now or at a past revision. */
export function resolveConfig(
  backend: Backend,
  call: ResolveCall,
): HandlerResult<ResolveConfigResponse> | Promise<HandlerResult<ResolveConfigResponse>> {
  const { at_revision, provider_down, agent } = call.request;
  return read(backend, call, (state) => {
    if (at_revision !== undefined) return resolvePast(backend, call, at_revision);
    if (provider_down.length > 0) return simulate(state, call.request);
    return withRevision(encodedResolution(state, namedAgent(state, agent)).response, state.revision);
  });
}

/** Throws if an agent cannot be resolved: it is inactive, or has neither an enabled config nor a default model. */
function refuseIdle(agent: Agent, configs: readonly Config[]): void {
  requireActive(agent);
  if (!hasDefaultModel(agent) && !primaryOf(configs)) throw noEnabledConfig(agent);
}

/** Returns the agent; throws AGENT_INACTIVE if it is inactive. */
export function requireActive(agent: Agent): Agent {
  if (agent.is_active) return agent;
  const resources = [{ type: 'agent', name: agent.name }] as const;
  throw ServiceError.of('AGENT_INACTIVE', { agent: agent.name }, { resources });
}

/** The current resolution of an agent. */
interface EncodedResolution {
  /** An encoded ResolvedConfig. */
  readonly resolved: Uint8Array;
  /** An encoded ResolveConfigResponse without its revision. */
  readonly response: Uint8Array;
}

/** The detail is the agent's configurations. */
const resolutions = new EncodeOnce<Agent, readonly Config[], EncodedResolution>({
  encode(state, agent, configs) {
    const message = resolvedMessage(agent, resolve(state, agent, configs, new Date()));
    const resolved = ResolvedConfig.encode(message).finish();
    return { resolved, response: responseOf(resolved) };
  },
  inputs: [(state) => state, (_, configs) => configs, (state) => state.catalogueVersion],
  // The finding about a shutdown date changes with time, without a write.
  maxAgeMs: 60_000,
});

/** The current resolution of an agent; throws if the agent cannot be resolved. */
export function encodedResolution(state: State, agent: Agent): EncodedResolution {
  const configs = state.configsOf(agent.id);
  refuseIdle(agent, configs);
  return resolutions.get(state, agent, configs);
}

/** A ResolveConfigResponse without its revision. */
const responseOf = (resolved: Uint8Array) =>
  new BinaryWriter()
    .uint32((1 << 3) | 2)
    .bytes(resolved)
    .finish();

function simulate(state: State, request: ResolveConfigRequest): ResolveConfigResponse {
  const problems = requestProblems(request);
  addUnknownProviders(problems, state, request);
  problems.throwIfAny();
  const agent = agentOf(state, request.agent);
  return resolutionResponse(state, agent, state, request, state.revision);
}

function resolutionResponse(
  view: ResolveView,
  agent: Agent,
  state: State,
  { provider_down }: ResolveConfigRequest,
  revision: number,
): ResolveConfigResponse {
  return { resolved: resolvedWithout(view, agent, state, provider_down), revision: BigInt(revision) };
}

/** The resolution of an agent while providers are down. */
export function resolvedWithout(
  view: ResolveView,
  agent: Agent,
  state: State,
  down: readonly string[],
): ResolvedConfig {
  const configs = state.configsOf(agent.id);
  refuseIdle(agent, configs);
  return resolvedMessage(agent, resolve(view, agent, configs, new Date(), { down }));
}

function requestProblems({ agent, at_revision }: ResolveConfigRequest): Problems {
  const problems = new Problems();
  checkRef(problems, agent);
  if (at_revision !== undefined && at_revision < 1n)
    problems.add('at_revision', `must be at least 1, not ${at_revision}`);
  return problems;
}

/** Adds the names that are not in the catalogue; a disabled provider is accepted. */
export function addUnknownProviders(
  problems: Problems,
  state: State,
  { provider_down }: Pick<ResolveConfigRequest, 'provider_down'>,
): void {
  for (const [at, name] of provider_down.entries())
    if (!state.provider(name)) problems.add(`provider_down[${at}]`, providerProblem(state, name));
}

/** Resolves an agent at a past revision. The shutdown of models is evaluated at the current time, even for an earlier config. */
async function resolvePast(backend: Backend, call: ResolveCall, atRevision: bigint): Promise<ResolveConfigResponse> {
  const { request, signal } = call;
  requestProblems(request).throwIfAny();
  await requireHistory(backend, atRevision, signal);
  call.recheckAccess();
  const { state: current } = backend.store;
  const revision = Number(atRevision);
  if (revision === current.revision) return simulate(current, request);
  const { agent, state } = await agentAtRevision(backend, call, revision);
  call.recheckAccess();
  const problems = new Problems();
  addUnknownProviders(problems, state, request);
  problems.throwIfAny();
  return resolutionResponse(pastView(state, current), agent, state, request, revision);
}

/** The agent at a past revision. A token for certain agents must include the name that the agent had then. */
async function agentAtRevision({ store }: Backend, call: ResolveCall, revision: number) {
  const { agent: written = {} } = call.request;
  const ref = written.name === undefined ? written : { name: store.state.storedAgentName(written.name) };
  const { found, oldest } = await onDatabase(store, async (db) => ({
    found: await agentAt(db, revision, ref, findAgent(store.state, ref)?.id),
    // Read last, so that a compaction during the read is detected.
    oldest: await oldestKept(db),
  }));
  if (revision < oldest)
    throw ServiceError.of('REVISION_COMPACTED', { revision: String(revision), oldest: String(oldest) });
  call.requirePastAgent(found?.agent.name);
  // No suggestion, because it would be a current name.
  if (!found) throw noAgent(store.state, ref, false);
  return found;
}

/**
 * The view of a past state for a resolution. The history has no keys: a key that is still stored has its current state;
 * a key that was replaced or removed since is reported as set.
 */
const pastView = (past: State, current: State): ResolveView => ({
  provider: (name) => past.provider(name),
  model: (provider, name) => past.model(provider, name),
  modelsOf: (provider) => past.modelsOf(provider),
  pricesOf: (modelId) => past.pricesOf(modelId),
  credentials: past.credentials,
  encryption: { stateOf: (entity, row) => keyStateAt(current, entity, row) },
});

function keyStateAt(current: State, entity: 'config' | 'credential', then: Config | Credential) {
  if (then.key_id === null) return 'API_KEY_STATE_NONE';
  const now = (entity === 'config' ? current.configs : current.credentials).get(then.id);
  const isSame = now !== undefined && now.key_id !== null && now.key_revision === then.key_revision;
  return isSame ? current.encryption.stateOf(entity, now) : 'API_KEY_STATE_SET';
}
