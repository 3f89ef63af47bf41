import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import { type ChannelCredentials, type ChannelOptions, Client, credentials } from '@grpc/grpc-js';
import * as configs from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import * as agents from '../../gen/ts/agentllm/v1/agent_service.js';
import * as sharedKeys from '../../gen/ts/agentllm/v1/credential_service.js';
import * as providers from '../../gen/ts/agentllm/v1/provider_service.js';
import { serviceConfig } from '../../gen/ts/service_config.js';
import { checkAddress, ipOf, isLocal } from './address.js';
import { Connection, checkDeadline } from './connection.js';
import { checkToken, type Token } from './headers.js';
import { type Methods, methodsOf } from './methods.js';
import { waitUntilReady } from './ready.js';

/** How the service is reached. */
export interface ConnectOptions {
  /**
   * `host:port`, or any target that gRPC knows (`dns:///…`, `unix:…`). Default: the environment's AGENTLLM_ADDRESS, else
   * 127.0.0.1:50051.
   */
  readonly address?: string | undefined;
  /**
   * Encrypts the connection; `true` trusts the certificate authorities of the system. Default: false, for a service on
   * this machine.
   */
  readonly tls?: boolean | TlsOptions | undefined;
  /**
   * Sent as `authorization: Bearer …`; a function is asked anew for each call, and its failure is the call's, with code
   * UNAUTHENTICATED; an empty text sends none. Default: AGENTLLM_TOKEN, else none.
   */
  readonly token?: Token | undefined;
  /** Sends the token without TLS to another machine too, where the network keeps others out. Default: false. */
  readonly allowPlaintextToken?: boolean | undefined;
  /** How long a call waits for its answer, retries included, in ms. Default: 10 000. */
  readonly deadlineMs?: number | undefined;
  /**
   * Whether calls that the service could not take are sent again, by the policy of `service_config.json`: up to five
   * times in about four seconds. Writes carry a request id, so nothing is done twice. Default: true.
   */
  readonly retry?: boolean | undefined;
  /** Options of the channel, for what is not said here. */
  readonly channelOptions?: ChannelOptions | undefined;
}

/** PEM texts. */
export interface TlsOptions {
  /** Authorities to trust in place of the system's. */
  readonly ca?: string | Uint8Array | undefined;
  /** Certificate of this client, where the service wants one (mutual TLS); with its key. */
  readonly cert?: string | Uint8Array | undefined;
  /** The key of `cert`. */
  readonly key?: string | Uint8Array | undefined;
  /** The name in the service's certificate, where the address has another one. */
  readonly serverName?: string | undefined;
}

/**
 * A connection to the service: the methods of each of its services. Safe to share; one is enough for a process, and an
 * idle one keeps no process alive.
 */
export interface AgentLLM extends AsyncDisposable {
  /** The registry of agents. */
  readonly agents: Methods<typeof agents.AgentServiceService>;
  /** The configurations of the agents. */
  readonly configs: Methods<typeof configs.AgentLLMConfigServiceService>;
  /** Providers and models as data, and their prices. */
  readonly providers: Methods<typeof providers.ProviderServiceService>;
  /** API keys under a name, which many configurations share. */
  readonly credentials: Methods<typeof sharedKeys.CredentialServiceService>;
  /**
   * Resolves once the service says that it serves; rejects with the last failure when it does not within the time.
   * Default: `deadlineMs`. Calls need not wait for it.
   */
  ready(deadlineMs?: number): Promise<void>;
  /**
   * Ends the connection: calls that run are finished first, later ones fail with code CANCELLED. `await using` and
   * `Symbol.asyncDispose` wait until it has ended.
   */
  close(): void;
}

const DEADLINE_MS = 10_000;
/** Answers may be long: a thousand configs with 16 KiB of metadata each. */
const MOST_BYTES = 64 * 1024 * 1024;

/** Connects to a service; returns at once, the connection is made with the first call and again whenever it breaks. */
export function connect(options: string | ConnectOptions = {}): AgentLLM {
  const given = typeof options === 'string' ? { address: options } : options;
  const address = checkAddress(given.address ?? (process.env['AGENTLLM_ADDRESS'] || '127.0.0.1:50051'));
  const token = (given.token ?? process.env['AGENTLLM_TOKEN']) || undefined;
  if (token !== undefined && typeof token !== 'function') checkToken(token);
  if (token !== undefined && !given.tls && !given.allowPlaintextToken && !isLocal(address))
    throw new TypeError(`A token would go to ${address} in clear: set tls, or allowPlaintextToken`);
  const deadlineMs = checkDeadline(given.deadlineMs ?? DEADLINE_MS);
  const client = new Client(address, channelCredentials(address, given.tls), channelOptions(address, given));
  const connection = new Connection(client, address, token, deadlineMs);
  const connected = {
    agents: methodsOf(agents.AgentServiceService, agents, connection),
    configs: methodsOf(configs.AgentLLMConfigServiceService, configs, connection),
    providers: methodsOf(providers.ProviderServiceService, providers, connection),
    credentials: methodsOf(sharedKeys.CredentialServiceService, sharedKeys, connection),
    ready: (ms = deadlineMs) => waitUntilReady(connection, address, ms),
    close: () => void connection.close(),
  };
  // Node 20 has the symbol since 20.5; before, `await using` has nothing to call.
  const dispose = Symbol.asyncDispose as symbol | undefined;
  return (dispose ? { ...connected, [dispose]: () => connection.close() } : connected) as AgentLLM;
}

function channelCredentials(address: string, tls: ConnectOptions['tls']): ChannelCredentials {
  if (!tls) return credentials.createInsecure();
  const { ca, cert, key, serverName } = tls === true ? ({} as TlsOptions) : tls;
  const bytes = (pem: string | Uint8Array | undefined) => (pem === undefined ? null : Buffer.from(pem as Uint8Array));
  const ip = serverName ? undefined : ipOf(address);
  const verify = ip ? { checkServerIdentity: (_: string, seen: PeerCertificate) => checkServerIdentity(ip, seen) } : {};
  return credentials.createSsl(bytes(ca), bytes(key), bytes(cert), verify);
}

/** The names that TLS and HTTP/2 are told when they are not to be those of the address. */
function serverNames(address: string, tls: ConnectOptions['tls']): ChannelOptions {
  const serverName = typeof tls === 'object' ? tls.serverName : undefined;
  if (serverName) return { 'grpc.ssl_target_name_override': serverName, 'grpc.default_authority': serverName };
  // grpc-js takes an IP for the name to ask for, which newer Node refuses; the certificate is checked for the IP anyway.
  return tls && ipOf(address) ? { 'grpc.ssl_target_name_override': 'agentllm' } : {};
}

const channelOptions = (
  address: string,
  { tls, retry = true, channelOptions: more }: ConnectOptions,
): ChannelOptions => ({
  'grpc.service_config': JSON.stringify(serviceConfig),
  // What a resolver says in its place must not take the retries away.
  'grpc.service_config_disable_resolution': 1,
  'grpc.enable_retries': retry ? 1 : 0,
  // Room to keep the largest request that the service takes until it is answered, or it could not be sent again.
  'grpc.per_rpc_retry_buffer_size': 8 * 1024 * 1024,
  'grpc.retry_buffer_size': MOST_BYTES,
  'grpc.max_receive_message_length': MOST_BYTES,
  // A service that is frozen or gone without a word is noticed within 8 s, so that the call that finds out can still be
  // sent again before its deadline. Nothing is sent while no call runs.
  'grpc.keepalive_time_ms': 4_000,
  'grpc.keepalive_timeout_ms': 4_000,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1_000,
  // A proxy that the environment names is for what is outside of this machine.
  ...(isLocal(address) && { 'grpc.enable_http_proxy': 0 }),
  ...serverNames(address, tls),
  ...more,
});
