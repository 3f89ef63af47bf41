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
import type { Vault } from '../../domain/vault.js';
import type { ResolveView } from '../../domain/view.js';
import { ServiceError } from '../../errors.js';
import { Problems } from '../../problems.js';
import { onDatabase } from '../../store/failure.js';
import { oldestKept } from '../../store/history/compaction.js';
import { agentAt } from '../../store/history/time_travel.js';
import type { Call, Reply } from '../dispatch/method.js';
import { resolvedMessage } from '../messages/resolution.js';
import { withRevision } from '../messages/revision.js';
import type { Backend } from './backend.js';
import { requireHistory } from './historical_config.js';
import { noEnabledConfig } from './read_configs.js';
import { read } from './read_write.js';
import { agentOf, checkRef, findAgent, namedAgent, noAgent } from './requests.js';

type ResolveCall = Call<ResolveConfigRequest, ResolveConfigResponse>;

/** What is in effect for an agent, now or at a past revision. */
export function resolveConfig(
  backend: Backend,
  call: ResolveCall,
): Reply<ResolveConfigResponse> | Promise<Reply<ResolveConfigResponse>> {
  const { at_revision, provider_down, agent } = call.request;
  return read(backend, call, (state) => {
    if (at_revision !== undefined) return resolvePast(backend, call, at_revision);
    if (provider_down.length > 0) return simulate(state, call.request);
    return withRevision(response(encodedResolution(state, namedAgent(state, agent))), state.revision);
  });
}

/**
 * Throws where nothing can be in effect: the agent is inactive, or has neither an enabled config nor a default model.
 */
function refuseIdle(agent: Agent, configs: readonly Config[]): void {
  inUse(agent);
  if (!hasDefaultModel(agent) && !primaryOf(configs)) throw noEnabledConfig(agent);
}

/** An inactive agent has nothing in effect. */
export function inUse(agent: Agent): Agent {
  if (agent.is_active) return agent;
  const resources = [{ type: 'agent', name: agent.name }] as const;
  throw ServiceError.of('AGENT_INACTIVE', { agent: agent.name }, { resources });
}

/** An answer as bytes, for as long as everything that it was made of stands. */
interface Encoded {
  readonly state: State;
  readonly configs: readonly Config[];
  readonly catalogueVersion: number;
  readonly vault: Vault;
  /** In ms; models are retired without anybody writing. */
  readonly until: number;
  /** A ResolvedConfig. */
  readonly bytes: Uint8Array;
}
const encodings = new WeakMap<Agent, Encoded>();

/** What is in effect for an agent now, as an encoded ResolvedConfig; throws where nothing can be. */
export function encodedResolution(state: State, agent: Agent): Uint8Array {
  const { catalogueVersion, vault } = state;
  const configs = state.configsOf(agent.id);
  refuseIdle(agent, configs);
  const now = Date.now();
  const known = encodings.get(agent);
  if (
    known?.state === state &&
    known.configs === configs &&
    known.catalogueVersion === catalogueVersion &&
    known.vault === vault &&
    now < known.until
  )
    return known.bytes;
  const resolved = resolvedMessage(agent, resolve(state, agent, configs, new Date(now)));
  const bytes = ResolvedConfig.encode(resolved).finish();
  encodings.set(agent, { state, configs, catalogueVersion, vault, until: now + FRESH_MS, bytes });
  return bytes;
}
const FRESH_MS = 60_000;

/** A ResolveConfigResponse without its revision. */
const response = (resolved: Uint8Array) =>
  new BinaryWriter()
    .uint32((1 << 3) | 2)
    .bytes(resolved)
    .finish();

function simulate(state: State, request: ResolveConfigRequest): ResolveConfigResponse {
  const problems = requestProblems(request);
  addUnknownProviders(problems, state, request);
  problems.throwIfAny();
  const agent = agentOf(state, request.agent);
  return answer(state, agent, state, request, state.revision);
}

function answer(
  view: ResolveView,
  agent: Agent,
  state: State,
  { provider_down }: ResolveConfigRequest,
  revision: number,
): ResolveConfigResponse {
  return { resolved: resolvedWithout(view, agent, state, provider_down), revision: BigInt(revision) };
}

/** What is in effect for an agent while providers are down. */
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

/** One that is switched off may be down too. */
export function addUnknownProviders(
  problems: Problems,
  state: State,
  { provider_down }: Pick<ResolveConfigRequest, 'provider_down'>,
): void {
  for (const [at, name] of provider_down.entries())
    if (!state.provider(name)) problems.add(`provider_down[${at}]`, providerProblem(state, name));
}

/** The times that matter are those of now: a model that is retired since is said to be, whenever it was configured. */
async function resolvePast(backend: Backend, call: ResolveCall, wanted: bigint): Promise<ResolveConfigResponse> {
  const { request, signal } = call;
  requestProblems(request).throwIfAny();
  await requireHistory(backend, wanted, signal);
  call.recheckAccess();
  const { state: current } = backend.store;
  const revision = Number(wanted);
  if (revision === current.revision) return simulate(current, request);
  const { agent, state } = await agentThen(backend, call, revision);
  call.recheckAccess();
  const problems = new Problems();
  addUnknownProviders(problems, state, request);
  problems.throwIfAny();
  return answer(pastView(state, current), agent, state, request, revision);
}

/** The agent at a past revision. A token for certain agents must be for the name that it had then. */
async function agentThen({ store }: Backend, call: ResolveCall, revision: number) {
  const { agent: written = {} } = call.request;
  const ref = written.name === undefined ? written : { name: store.state.storedAgentName(written.name) };
  const { found, oldest } = await onDatabase(store, async (db) => ({
    found: await agentAt(db, revision, ref, findAgent(store.state, ref)?.id),
    // Asked last: what is forgotten while we read is no longer promised by then.
    oldest: await oldestKept(db),
  }));
  if (revision < oldest)
    throw ServiceError.of('REVISION_COMPACTED', { revision: String(revision), oldest: String(oldest) });
  call.requirePastAgent(found?.agent.name);
  // Names of today would be no help.
  if (!found) throw noAgent(store.state, ref, false);
  return found;
}

/**
 * The past as a resolution looks at it. The history holds no keys: what is known of one that is still stored today is
 * known of it then, and one that was replaced or taken away since was stored and is taken to have been good.
 */
const pastView = (past: State, current: State): ResolveView => ({
  provider: (name) => past.provider(name),
  model: (provider, name) => past.model(provider, name),
  modelsOf: (provider) => past.modelsOf(provider),
  pricesOf: (modelId) => past.pricesOf(modelId),
  credentials: past.credentials,
  vault: { stateOf: (entity, row) => keyStateThen(current, entity, row) },
});

function keyStateThen(current: State, entity: 'config' | 'credential', then: Config | Credential) {
  if (then.key_id === null) return 'API_KEY_STATE_NONE';
  const now = (entity === 'config' ? current.configs : current.credentials).get(then.id);
  const isSame = now !== undefined && now.key_id !== null && now.key_revision === then.key_revision;
  return isSame ? current.vault.stateOf(entity, now) : 'API_KEY_STATE_SET';
}
