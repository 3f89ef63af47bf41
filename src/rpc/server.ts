import { Server, ServerCredentials } from '@grpc/grpc-js';
import { HealthImplementation, type ServingStatusMap } from 'grpc-health-check';
import { AgentLLMConfigServiceService } from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { AgentLLMConfigWatchServiceService } from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { AgentServiceService } from '../../gen/ts/agentllm/v1/agent_service.js';
import { AuditServiceService } from '../../gen/ts/agentllm/v1/audit_service.js';
import { CredentialServiceService } from '../../gen/ts/agentllm/v1/credential_service.js';
import { ProviderServiceService } from '../../gen/ts/agentllm/v1/provider_service.js';
import type { Address } from '../config.js';
import { ServiceError, StartError } from '../errors.js';
import { Presence } from '../feed/presence.js';
import { Watches } from '../feed/watches.js';
import { limits } from '../limits.js';
import { agentService } from './agents.js';
import { auditService } from './audit.js';
import { configService } from './configs.js';
import { credentialService } from './credentials.js';
import { Gate } from './gate.js';
import { type Invoke, type MethodContext, serviceOf } from './method.js';
import { providerService } from './providers.js';
import { addReflection } from './reflection.js';
import type { Backend } from './service.js';
import { WatchFrames } from './watch_frames.js';
import { watchService } from './watches.js';

/** The entry of grpc.health.v1 that tells whether writes are taken; reads go on without the database. */
const WRITES = 'agentllm.v1.Writes';
const SERVICES = [
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
export interface RpcServer {
  readonly port: number;
  /** Every unary method of the contract by its path `/package.Service/Method`, for other transports. */
  readonly methods: ReadonlyMap<string, Invoke>;
  /** How many streams of WatchConfigs there are, by whether they have caught up. */
  watches(): { readonly live: number; readonly behind: number };
  setWritable(writable: boolean): void;
  /** Stops taking calls over any transport, lets those that run end within the time, and closes. */
  drain(graceMs: number): Promise<void>;
}

export async function startRpcServer(
  address: Address,
  parts: Omit<Backend, 'log' | 'watches' | 'presence'>,
  given: Omit<MethodContext, 'gate'>,
): Promise<RpcServer> {
  const gate = new Gate();
  const context = { ...given, gate };
  const watches = new Watches(parts.store, new WatchFrames(parts.store));
  const presence = new Presence(parts.store, watches);
  const backend = { ...parts, log: given.log, watches, presence };
  const services = [
    serviceOf(AgentServiceService, agentService(backend), context),
    serviceOf(AgentLLMConfigServiceService, configService(backend), context),
    serviceOf(AgentLLMConfigWatchServiceService, watchService(backend), context),
    serviceOf(ProviderServiceService, providerService(backend), context),
    serviceOf(CredentialServiceService, credentialService(backend), context),
    serviceOf(AuditServiceService, auditService(backend), context),
  ];
  const server = new Server(serverOptions);
  for (const { definition, implementation } of services) server.addService(definition, implementation);
  const health = new HealthImplementation(serving());
  health.addToServer(server);
  addReflection(server, context.contract);
  const port = await bind(server, address).catch((error) => {
    watches.close(shuttingDown);
    void presence.close();
    throw error;
  });
  return {
    port,
    methods: new Map(services.flatMap(({ methods }) => [...methods])),
    watches: () => ({ live: watches.count - watches.behind, behind: watches.behind }),
    setWritable: (writable) => health.setStatus(WRITES, writable ? 'SERVING' : 'NOT_SERVING'),
    async drain(graceMs) {
      for (const name of Object.keys(serving())) health.setStatus(name, 'NOT_SERVING');
      const told = presence.close();
      // Before the calls are waited for: these streams never end by themselves.
      watches.close(shuttingDown);
      await shutDown(server, gate, graceMs);
      await told;
    },
  };
}

/** Watchers come back to another replica, or to the next one here, and not all in the same moment. */
const shuttingDown = () =>
  ServiceError.of('SERVER_SHUTTING_DOWN', {}, { retryAfterMs: Math.round(Math.random() * 1000) });

const serving = (): ServingStatusMap =>
  Object.fromEntries(['', ...SERVICES, WRITES].map((name) => [name, 'SERVING' as const]));

function bind(server: Server, { host, port, text }: Address): Promise<number> {
  const target = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
  return new Promise((resolve, reject) => {
    server.bindAsync(target, ServerCredentials.createInsecure(), (error, bound) => {
      if (error) reject(new StartError(`GRPC_ADDRESS ${text} cannot be listened on: ${error.message}`));
      else resolve(bound);
    });
  });
}

/** tryShutdown waits for open streams for ever (a health watch is one), so it gets a cap. */
async function shutDown(server: Server, gate: Gate, graceMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const ended = new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
  const cap = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, graceMs);
  });
  await Promise.race([Promise.all([ended, gate.drain()]), cap]);
  clearTimeout(timer);
  server.forceShutdown();
}
