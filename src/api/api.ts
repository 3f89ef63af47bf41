import { AccessServiceService } from '../../gen/ts/agentllm/v1/access_service.js';
import { AgentLLMConfigServiceService } from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { AgentLLMConfigWatchServiceService } from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { AgentServiceService } from '../../gen/ts/agentllm/v1/agent_service.js';
import { AuditServiceService } from '../../gen/ts/agentllm/v1/audit_service.js';
import { BudgetServiceService } from '../../gen/ts/agentllm/v1/budget_service.js';
import { CredentialServiceService } from '../../gen/ts/agentllm/v1/credential_service.js';
import { ExperimentServiceService } from '../../gen/ts/agentllm/v1/experiment_service.js';
import { ProviderServiceService } from '../../gen/ts/agentllm/v1/provider_service.js';
import { UsageServiceService } from '../../gen/ts/agentllm/v1/usage_service.js';
import { ConcurrencyLimiter } from '../concurrency_limiter.js';
import type { Anonymous } from '../domain/access.js';
import { ServiceError } from '../errors.js';
import { BudgetBroadcast } from '../feed/budget_broadcast.js';
import { BudgetMonitor } from '../feed/budget_monitor.js';
import { WatcherRegistry } from '../feed/watcher_registry.js';
import { Watches } from '../feed/watches.js';
import { limits } from '../limits.js';
import { RequestBudget } from '../net/request_budget.js';
import { UnreadResponses } from '../net/unread_responses.js';
import { chargeBudgets } from '../store/budgets/charge.js';
import { countAttempts } from '../store/experiments/count.js';
import { OutcomeWriter } from '../store/experiments/outcome_writer.js';
import { isCounted } from '../store/experiments/subject_changes.js';
import { UsageWriter } from '../store/usage/usage_writer.js';
import { AccessLog } from './dispatch/access_log.js';
import { type ApiService, apiServiceOf, type Invoke, invokerOf } from './dispatch/api_service.js';
import { Authorizer } from './dispatch/authorizer.js';
import { CallLimiter } from './dispatch/call_limiter.js';
import type { Contract } from './dispatch/contract.js';
import type { DispatchContext } from './dispatch/method.js';
import { OpenStreams } from './dispatch/open_streams.js';
import { agentService } from './handlers/agents.js';
import { auditService } from './handlers/audit.js';
import type { Backend } from './handlers/backend.js';
import { budgetService } from './handlers/budgets.js';
import { configService } from './handlers/configs.js';
import { credentialService } from './handlers/credentials.js';
import { experimentService } from './handlers/experiments.js';
import { providerService } from './handlers/providers.js';
import { accessService } from './handlers/tokens.js';
import { usageService } from './handlers/usage.js';
import { watchService } from './handlers/watches.js';
import { WatchMessageEncoder } from './messages/watch_messages.js';

/** The dependencies of the API that are created outside of it. */
export type ApiParts = Omit<
  Backend,
  | 'log'
  | 'budgets'
  | 'watches'
  | 'watcherRegistry'
  | 'adoptionWaits'
  | 'accessLog'
  | 'authorizer'
  | 'usageWriter'
  | 'outcomeWriter'
  | 'usageMetrics'
>;

export interface ApiOptions extends Omit<DispatchContext, 'limiter' | 'authorizer' | 'openStreams'> {
  readonly anonymous: Anonymous;
}

/** All services of the contract, independent of the transport. */
export interface Api {
  readonly contract: Contract;
  readonly services: readonly ApiService[];
  /** Every unary method by its path `/package.Service/Method`. */
  readonly methods: ReadonlyMap<string, Invoke>;
  /** Authorizes requests that are not calls of a method. */
  readonly authorizer: Authorizer;
  /** Counts the responses that clients have not read, over all transports. */
  readonly unreadResponses: UnreadResponses;
  /** Limits the memory that requests use, over all transports. */
  readonly requestBudget: RequestBudget;
  /** Whether a caller without a token can be admitted. */
  readonly anonymous: Anonymous;
  /** The number of open watches that have caught up (`live`), and of those that lag (`behind`). */
  watches(): { readonly live: number; readonly behind: number };
  /** Rejects new calls and ends every watch; resolves when the calls in progress have ended. */
  drain(): Promise<void>;
  /** Releases all remaining resources; call it once, after the transports are closed. */
  close(): Promise<void>;
}

export function createApi(parts: ApiParts, { anonymous, ...options }: ApiOptions): Api {
  const limiter = new CallLimiter();
  const accessLog = new AccessLog(parts.store, options.log);
  const authorizer = new Authorizer(parts.store, anonymous, accessLog);
  const openStreams = new OpenStreams();
  const unreadResponses = new UnreadResponses(options.log);
  const requestBudget = new RequestBudget(limits.requests);
  const encoder = new WatchMessageEncoder(parts.store);
  const watches = new Watches(parts.store, encoder, openStreams);
  const budgets = monitorBudgets(parts.store, watches, encoder);
  const watcherRegistry = new WatcherRegistry(parts.store, watches);
  const adoptionWaits = new ConcurrencyLimiter({ total: () => limits.adoptionWaits });
  const backend = {
    ...parts,
    log: options.log,
    budgets,
    watches,
    watcherRegistry,
    adoptionWaits,
    accessLog,
    authorizer,
    usageWriter: new UsageWriter(
      parts.store,
      async (tx, attempts) => {
        const { state } = parts.store;
        if (state.budgets.size > 0) await chargeBudgets(tx, state, attempts);
        if (state.experiments.startedCount > 0) await countAttempts(tx, state, attempts);
      },
      (attempts) => {
        const { budgets: limiting, experiments } = parts.store.state;
        return limiting.size > 0 || (experiments.startedCount > 0 && attempts.some(isCounted));
      },
    ),
    outcomeWriter: new OutcomeWriter(parts.store),
    usageMetrics: options.metrics.usage,
  };
  const services = servicesOf(backend, { ...options, limiter, authorizer, openStreams });
  const unary = services.flatMap((service) => [...service.unary.values()]);
  let registryClosed: Promise<void> | undefined;
  return {
    contract: options.contract,
    services,
    methods: new Map(unary.map((method) => [method.path, invokerOf(method)])),
    authorizer,
    unreadResponses,
    requestBudget,
    anonymous,
    watches: () => ({ live: watches.count - watches.lagging, behind: watches.lagging }),
    drain() {
      registryClosed ??= watcherRegistry.close();
      // Watches never end by themselves, so they are ended before the calls are awaited.
      watches.close(shuttingDown);
      return limiter.drain();
    },
    async close() {
      registryClosed ??= watcherRegistry.close();
      watches.close(shuttingDown);
      openStreams.close();
      unreadResponses.close();
      requestBudget.stop();
      await Promise.all([registryClosed, accessLog.close(), budgets.close()]);
    },
  };
}

/** Starts to read the amounts of budgets, and to send them to the watches. */
function monitorBudgets(store: Backend['store'], watches: Watches, encoder: WatchMessageEncoder): BudgetMonitor {
  const encode = encoder.budgetStates.bind(encoder);
  const broadcast = new BudgetBroadcast(watches, encode, (id) => store.state.agents.get(id)?.name);
  watches.onLive = broadcast.live;
  const monitor = new BudgetMonitor(store, broadcast.publish);
  broadcast.monitor = monitor;
  return monitor;
}

const servicesOf = (backend: Backend, context: DispatchContext): readonly ApiService[] => [
  apiServiceOf(AccessServiceService, accessService(backend), context),
  apiServiceOf(AgentServiceService, agentService(backend), context),
  apiServiceOf(AgentLLMConfigServiceService, configService(backend), context),
  apiServiceOf(AgentLLMConfigWatchServiceService, watchService(backend), context),
  apiServiceOf(ProviderServiceService, providerService(backend), context),
  apiServiceOf(CredentialServiceService, credentialService(backend), context),
  apiServiceOf(BudgetServiceService, budgetService(backend), context),
  apiServiceOf(ExperimentServiceService, experimentService(backend), context),
  apiServiceOf(AuditServiceService, auditService(backend), context),
  apiServiceOf(UsageServiceService, usageService(backend), context),
];

/** The retry delay is random, so that watchers do not all reconnect at the same time. */
const shuttingDown = () =>
  ServiceError.of('SERVER_SHUTTING_DOWN', {}, { retryAfterMs: Math.round(Math.random() * 1000) });
