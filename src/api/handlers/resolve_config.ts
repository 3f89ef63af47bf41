import type {
  ResolveConfigRequest,
  ResolveConfigResponse,
} from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import type { ResolvedConfig } from '../../../gen/ts/agentllm/v1/resolution.js';
import { providerProblem } from '../../domain/config.js';
import { subjectProblem } from '../../domain/experiments/subject.js';
import { type ResolveOptions, resolve } from '../../domain/resolve.js';
import type { Agent, Config, Credential } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { printable } from '../../domain/text.js';
import type { ResolveView } from '../../domain/view.js';
import { ServiceError } from '../../errors.js';
import { coveringBudgets } from '../../feed/budget_monitor.js';
import { Problems } from '../../problems.js';
import { onDatabase } from '../../store/failure.js';
import { oldestKept } from '../../store/history/compaction.js';
import { agentAt } from '../../store/history/time_travel.js';
import type { Call, HandlerResult } from '../dispatch/method.js';
import { resolvedMessage } from '../messages/resolution.js';
import { withRevision } from '../messages/revision.js';
import { activeExperimentOf } from './active_experiments.js';
import type { Backend } from './backend.js';
import { requireCallable } from './callable_agent.js';
import { encodedResolution } from './encoded_resolution.js';
import { requireHistory } from './historical_config.js';
import { read } from './read_write.js';
import { agentOf, checkRef, findAgent, namedAgent, noAgent } from './requests.js';

type ResolveCall = Call<ResolveConfigRequest, ResolveConfigResponse>;

/** Resolves the config of an agent, now or at a past revision. */
export function resolveConfig(
  backend: Backend,
  call: ResolveCall,
): HandlerResult<ResolveConfigResponse> | Promise<HandlerResult<ResolveConfigResponse>> {
  const { at_revision, provider_down, budget_exhausted, agent, subject } = call.request;
  return read(backend, call, (state) => {
    if (at_revision !== undefined) return resolvePast(backend, call, at_revision);
    if (provider_down.length > 0 || budget_exhausted.length > 0) return simulate(backend, state, call.request);
    if (subject !== undefined) requestProblems(call.request).throwIfAny();
    return withRevision(encodedResolution(backend, state, namedAgent(state, agent), subject).response, state.revision);
  });
}

/** The budgets of a request, and the monitor that has their states. */
type BudgetBackend = Pick<Backend, 'budgets'>;

function simulate(backend: BudgetBackend, state: State, request: ResolveConfigRequest): ResolveConfigResponse {
  const problems = requestProblems(request);
  addUnknownNames(problems, state, request);
  problems.throwIfAny();
  const agent = agentOf(state, request.agent);
  const { provider_down: down, subject } = request;
  const assumed = { down, budgets: budgetsOf(backend, agent, request), subject };
  return { resolved: resolvedWith(state, agent, state, assumed), revision: BigInt(state.revision) };
}

/** The budgets that cover an agent, with those of the request counting as exhausted. */
export const budgetsOf = ({ budgets }: BudgetBackend, agent: Agent, { budget_exhausted }: Assumptions) =>
  budgets.covering(agent, new Set(budget_exhausted));

/** What a request assumes. */
type Assumptions = Pick<ResolveConfigRequest, 'provider_down' | 'budget_exhausted'>;

/** A resolution for a subject under assumptions: providers that are down, budgets that are exhausted. */
interface AssumedResolution extends Pick<ResolveOptions, 'down' | 'budgets'> {
  readonly subject: string | undefined;
}

/** The resolution of an agent under assumptions. */
export function resolvedWith(
  view: ResolveView,
  agent: Agent,
  state: State,
  { subject, ...assumed }: AssumedResolution,
): ResolvedConfig {
  const configs = state.configsOf(agent.id);
  const active = activeExperimentOf(state, agent.id);
  const chosen = active?.choose(subject);
  requireCallable(agent, configs, chosen);
  const resolution = resolve(view, agent, configs, new Date(), { ...assumed, chosen });
  return resolvedMessage(agent, resolution, active && subject !== undefined ? active.assigned(subject) : undefined);
}

const noBudget = (name: string) => `no budget has the name ${JSON.stringify(printable(name, 60))}`;

function requestProblems({ agent, at_revision, subject }: ResolveConfigRequest): Problems {
  const problems = new Problems();
  checkRef(problems, agent);
  if (at_revision !== undefined && at_revision < 1n)
    problems.add('at_revision', `must be at least 1, not ${at_revision}`);
  problems.add('subject', subject === undefined ? undefined : subjectProblem(subject));
  return problems;
}

/** Adds the providers and budgets that do not exist; disabled ones are accepted. */
export function addUnknownNames(
  problems: Problems,
  state: State,
  { provider_down, budget_exhausted }: Assumptions,
): void {
  for (const [at, name] of provider_down.entries())
    if (!state.provider(name)) problems.add(`provider_down[${at}]`, providerProblem(state, name));
  for (const [at, name] of budget_exhausted.entries())
    if (!state.budgets.named(name)) problems.add(`budget_exhausted[${at}]`, noBudget(name));
}

/** Resolves an agent at a past revision. The shutdown of models is evaluated at the current time, even for an earlier config. */
async function resolvePast(backend: Backend, call: ResolveCall, atRevision: bigint): Promise<ResolveConfigResponse> {
  const { request, signal } = call;
  requestProblems(request).throwIfAny();
  await requireHistory(backend, atRevision, signal);
  call.recheckAccess();
  const { state: current } = backend.store;
  const revision = Number(atRevision);
  if (revision === current.revision) return simulate(backend, current, request);
  const { agent, state } = await agentAtRevision(backend, call, revision);
  call.recheckAccess();
  const problems = new Problems();
  addUnknownNames(problems, state, request);
  problems.throwIfAny();
  // What was spent then is not known, so only the budgets of the request are exhausted.
  const simulated = new Set(request.budget_exhausted);
  const covering = state.budgets.covering(agent, simulated.size > 0);
  const budgets = coveringBudgets(covering, simulated, () => ({ exhausted: false, warning: false }));
  const { provider_down: down, subject } = request;
  const resolved = resolvedWith(pastView(state, current), agent, state, { down, budgets, subject });
  return { resolved, revision: BigInt(revision) };
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
