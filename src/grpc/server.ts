import { logVerbosity, Server, ServerCredentials, setLogVerbosity } from '@grpc/grpc-js';
import { HealthImplementation, type ServingStatusMap } from 'grpc-health-check';
import type { Api } from '../api/api.js';
import type { Address, Reflection } from '../config.js';
import { limits } from '../limits.js';
import { type Listener, listen } from '../net/listen.js';
import type { ServerTls } from '../net/tls.js';
import { grpcServiceOf } from './adapter.js';
import { GrpcConnection } from './connection.js';
import { addReflection } from './reflection.js';
import { RequestGuard } from './request_guard.js';
import { installSharedFrames } from './shared_frames.js';

/** The entry of grpc.health.v1 for writes; reads continue while the database is unavailable. */
const WRITES = 'agentllm.v1.Writes';
// grpc-js prints invalid headers, with their values, to standard error.
setLogVerbosity(logVerbosity.NONE);
const SERVICES = [
  'agentllm.v1.AccessService',
  'agentllm.v1.AgentService',
  'agentllm.v1.AgentLLMConfigService',
  'agentllm.v1.AgentLLMConfigWatchService',
  'agentllm.v1.ProviderService',
  'agentllm.v1.CredentialService',
  'agentllm.v1.AuditService',
  'agentllm.v1.UsageService',
];

/** The options of the server; the bench starts its reference server with the same ones. */
export const serverOptions = {
  'grpc.max_receive_message_length': limits.maxRequestBytes,
  'grpc.max_concurrent_streams': limits.maxStreamsPerConnection,
  // A peer that no longer responds is detected within 40 s.
  'grpc.keepalive_time_ms': 30_000,
  'grpc.keepalive_timeout_ms': 10_000,
  'grpc.enable_channelz': 0,
};

/** The gRPC server, listening. */
export interface GrpcServer {
  readonly port: number;
  /** Sets the health entry of writes. */
  setWritable(writable: boolean): void;
  /** Rejects new calls over any transport, waits at most `graceMs` for the calls in progress, and closes. */
  drain(graceMs: number): Promise<void>;
}

export interface GrpcOptions {
  readonly reflection: Reflection;
  /** Without it the server accepts plaintext connections. */
  readonly tls?: ServerTls | undefined;
}

/** Starts the gRPC server; closes the API when the address cannot be listened on, and when it drains. */
export async function startGrpcServer(
  address: Address,
  api: Api,
  { reflection, tls }: GrpcOptions,
): Promise<GrpcServer> {
  installSharedFrames();
  const guard = new RequestGuard(api, reflection);
  const server = new Server({ ...serverOptions, interceptors: [guard.interceptor] });
  for (const service of api.services) {
    const { definition, implementation } = grpcServiceOf(service);
    server.addService(definition, implementation);
  }
  const health = new HealthImplementation(serving());
  health.addToServer(server);
  addReflection(server, api, reflection);
  const listener = await bind(server, guard, address, { tls, api }).catch(async (error) => {
    guard.stop();
    await api.close();
    throw error;
  });
  return {
    port: listener.port,
    setWritable: (writable) => health.setStatus(WRITES, writable ? 'SERVING' : 'NOT_SERVING'),
    async drain(graceMs) {
      for (const name of Object.keys(serving())) health.setStatus(name, 'NOT_SERVING');
      await shutDown(server, listener, api, graceMs);
      guard.stop();
      await api.close();
    },
  };
}

const serving = (): ServingStatusMap =>
  Object.fromEntries(['', ...SERVICES, WRITES].map((name) => [name, 'SERVING' as const]));

/** Connects a listener to the server through a connection injector, which accepts decrypted connections. */
function bind(
  server: Server,
  guard: RequestGuard,
  address: Address,
  { tls, api }: { readonly tls: ServerTls | undefined; readonly api: Api },
): Promise<Listener> {
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const accept = guard.install(server);
  return listen(address, tls, (socket) => {
    const connection = new GrpcConnection(socket, api.unreadResponses.open(socket));
    accept(connection, () => injector.injectConnection(socket));
  });
}

/** tryShutdown waits for open streams, such as a health watch, without a limit, so the wait is bounded here. */
async function shutDown(server: Server, listener: Listener, api: Api, graceMs: number): Promise<void> {
  void listener.stop();
  let timer: NodeJS.Timeout | undefined;
  const drained = api.drain();
  const ended = new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
  const timeout = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, graceMs);
  });
  await Promise.race([Promise.all([ended, drained]), timeout]);
  clearTimeout(timer);
  server.forceShutdown();
  listener.destroy();
}
