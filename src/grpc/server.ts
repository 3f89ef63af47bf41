import { logVerbosity, Server, ServerCredentials, setLogVerbosity } from '@grpc/grpc-js';
import { HealthImplementation, type ServingStatusMap } from 'grpc-health-check';
import { AccessServiceService } from '../../gen/ts/agentllm/v1/access_service.js';
import { AgentLLMConfigServiceService } from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { AgentLLMConfigWatchServiceService } from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { AgentServiceService } from '../../gen/ts/agentllm/v1/agent_service.js';
import { AuditServiceService } from '../../gen/ts/agentllm/v1/audit_service.js';
import { CredentialServiceService } from '../../gen/ts/agentllm/v1/credential_service.js';
import { ProviderServiceService } from '../../gen/ts/agentllm/v1/provider_service.js';
import { AccessLog } from '../api/dispatch/access_log.js';
import { Authorizer } from '../api/dispatch/authorizer.js';
import { ConcurrencyLimiter } from '../api/dispatch/concurrency_limiter.js';
import { type DispatchContext, type Invoke, serviceOf } from '../api/dispatch/method.js';
import { OpenStreams } from '../api/dispatch/open_streams.js';
import { agentService } from '../api/handlers/agents.js';
import { auditService } from '../api/handlers/audit.js';
import type { Backend } from '../api/handlers/backend.js';
import { configService } from '../api/handlers/configs.js';
import { credentialService } from '../api/handlers/credentials.js';
import { providerService } from '../api/handlers/providers.js';
import { accessService } from '../api/handlers/tokens.js';
import { watchService } from '../api/handlers/watches.js';
import { WatchMessageEncoder } from '../api/messages/watch_messages.js';
import type { Address, Reflection } from '../config.js';
import type { Anonymous } from '../domain/access.js';
import { ServiceError } from '../errors.js';
import { WatcherRegistry } from '../feed/watcher_registry.js';
import { Watches } from '../feed/watches.js';
import { limits } from '../limits.js';
import { type Listener, listen } from '../net/listen.js';
import { RequestBudget } from '../net/request_budget.js';
import type { ServerTls } from '../net/tls.js';
import { UnreadResponses } from '../net/unread_responses.js';
import { addReflection } from './reflection.js';
import { RequestGuard } from './request_guard.js';

/** The entry of grpc.health.v1 that tells whether writes are taken; reads go on without the database. */
const WRITES = 'agentllm.v1.Writes';
// grpc-js tells standard error of headers that it cannot read, with their values.
setLogVerbosity(logVerbosity.NONE);
const SERVICES = [
  'agentllm.v1.AccessService',
  'agentllm.v1.AgentService',
  'agentllm.v1.AgentLLMConfigService',
  'agentllm.v1.AgentLLMConfigWatchService',
  'agentllm.v1.ProviderService',
  'agentllm.v1.CredentialService',
  'agentllm.v1.AuditService',
];

/** The options of the server; the bench gives them to what it compares it with. */
export const serverOptions = {
  'grpc.max_receive_message_length': limits.maxRequestBytes,
  'grpc.max_concurrent_streams': limits.maxStreamsPerConnection,
  // A frozen or vanished peer is noticed within 40 s.
  'grpc.keepalive_time_ms': 30_000,
  'grpc.keepalive_timeout_ms': 10_000,
  'grpc.enable_channelz': 0,
};

/** The gRPC server, listening. */
export interface GrpcServer {
  readonly port: number;
  /** Every unary method of the contract by its path `/package.Service/Method`, for other transports. */
  readonly methods: ReadonlyMap<string, Invoke>;
  /** Who may do what, for what is no method. */
  readonly authorizer: Authorizer;
  /** The responses that clients have not read, of all ports. */
  readonly outgoing: UnreadResponses;
  /** The memory of requests over both ports. */
  readonly requests: RequestBudget;
  /** How many streams of WatchConfigs there are, by whether they have caught up. */
  watches(): { readonly live: number; readonly behind: number };
  setWritable(writable: boolean): void;
  /** Stops taking calls over any transport, lets those that run end within the time, and closes. */
  drain(graceMs: number): Promise<void>;
}

export async function startGrpcServer(
  address: Address,
  parts: Omit<Backend, 'log' | 'watches' | 'watcherRegistry' | 'accessLog' | 'authorizer'>,
  {
    anonymous,
    reflection,
    tls,
    ...given
  }: Omit<DispatchContext, 'limiter' | 'authorizer' | 'openStreams' | 'unreadResponses'> & {
    readonly anonymous: Anonymous;
    readonly reflection: Reflection;
    /** Without it the server speaks in clear. */
    readonly tls?: ServerTls | undefined;
  },
): Promise<GrpcServer> {
  const gate = new ConcurrencyLimiter();
  const trail = new AccessLog(parts.store, given.log);
  const access = new Authorizer(parts.store, anonymous, trail);
  // Before the watches, which hand over what it may take away.
  const standing = new OpenStreams(parts.store);
  const outgoing = new UnreadResponses(given.log);
  const context = { ...given, gate, access, standing, outgoing };
  const watches = new Watches(parts.store, new WatchMessageEncoder(parts.store));
  const presence = new WatcherRegistry(parts.store, watches);
  const backend = { ...parts, log: given.log, watches, presence, trail, access };
  const services = [
    serviceOf(AccessServiceService, accessService(backend), context),
    serviceOf(AgentServiceService, agentService(backend), context),
    serviceOf(AgentLLMConfigServiceService, configService(backend), context),
    serviceOf(AgentLLMConfigWatchServiceService, watchService(backend), context),
    serviceOf(ProviderServiceService, providerService(backend), context),
    serviceOf(CredentialServiceService, credentialService(backend), context),
    serviceOf(AuditServiceService, auditService(backend), context),
  ];
  const requests = new RequestBudget(limits.requests);
  const guard = new RequestGuard({ access, anonymous, reflection }, requests);
  const server = new Server({ ...serverOptions, interceptors: [guard.interceptor] });
  for (const { definition, implementation } of services) server.addService(definition, implementation);
  const health = new HealthImplementation(serving());
  health.addToServer(server);
  addReflection(server, context, reflection);
  const listener = await bind(server, guard, address, tls, outgoing).catch((error) => {
    watches.close(shuttingDown);
    void presence.close();
    standing.close();
    outgoing.close();
    void trail.close();
    throw error;
  });
  return {
    port: listener.port,
    authorizer: access,
    outgoing,
    requests,
    methods: new Map(services.flatMap(({ methods }) => [...methods])),
    watches: () => ({ live: watches.count - watches.behind, behind: watches.behind }),
    setWritable: (writable) => health.setStatus(WRITES, writable ? 'SERVING' : 'NOT_SERVING'),
    async drain(graceMs) {
      for (const name of Object.keys(serving())) health.setStatus(name, 'NOT_SERVING');
      const told = presence.close();
      // Before the calls are waited for: these streams never end by themselves.
      watches.close(shuttingDown);
      await shutDown(server, listener, gate, graceMs);
      standing.close();
      outgoing.close();
      guard.stop();
      requests.stop();
      await Promise.all([told, trail.close()]);
    },
  };
}

/** Watchers come back to another replica, or to the next one here, and not all in the same moment. */
const shuttingDown = () =>
  ServiceError.of('SERVER_SHUTTING_DOWN', {}, { retryAfterMs: Math.round(Math.random() * 1000) });

const serving = (): ServingStatusMap =>
  Object.fromEntries(['', ...SERVICES, WRITES].map((name) => [name, 'SERVING' as const]));

/** The connections that we take go into the server by its own door for them, which wants them decrypted. */
function bind(
  server: Server,
  guard: RequestGuard,
  address: Address,
  tls: ServerTls | undefined,
  outgoing: UnreadResponses,
): Promise<Listener> {
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  guard.install(server);
  return listen(address, tls, (socket) => {
    outgoing.openPeer(socket);
    injector.injectConnection(socket);
  });
}

/** tryShutdown waits for open streams for ever (a health watch is one), so it gets a cap. */
async function shutDown(server: Server, listener: Listener, gate: ConcurrencyLimiter, graceMs: number): Promise<void> {
  listener.stop();
  let timer: NodeJS.Timeout | undefined;
  const ended = new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
  const cap = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, graceMs);
  });
  await Promise.race([Promise.all([ended, gate.drain()]), cap]);
  clearTimeout(timer);
  server.forceShutdown();
  listener.destroy();
}
