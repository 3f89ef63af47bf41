import type { ChannelOptions } from '@grpc/grpc-js';
import * as access from '../../gen/ts/agentllm/v1/access_service.js';
import * as configs from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import * as watch from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import * as agents from '../../gen/ts/agentllm/v1/agent_service.js';
import * as audit from '../../gen/ts/agentllm/v1/audit_service.js';
import * as sharedKeys from '../../gen/ts/agentllm/v1/credential_service.js';
import * as providers from '../../gen/ts/agentllm/v1/provider_service.js';
import { onAbort } from './abort.js';
import { checkAddress, isLocal } from './address.js';
import { callChannel, securityOf, streamChannel, type TlsOptions } from './channel.js';
import { Connection, checkDeadline } from './connection.js';
import { checkToken, type Token } from './headers.js';
import { hold, type ResidentAgentLLM, type ResidentOptions, settingsOf } from './resident_client.js';
import { type Methods, methodsOf } from './methods.js';
import { outboxOf } from './ack_batcher.js';
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
  /** Closes the connection when it aborts. */
  readonly signal?: AbortSignal | undefined;
  /** Options of the channel, for what is not said here. */
  readonly channelOptions?: ChannelOptions | undefined;
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
  /** The agent processes that watch, and what they have applied. */
  readonly watchers: Pick<
    Methods<typeof watch.AgentLLMConfigWatchServiceService>,
    'listWatchers' | 'acknowledgeRevision'
  >;
  /** Who may do what: tokens, and whom the service takes this side for. */
  readonly access: Methods<typeof access.AccessServiceService>;
  /** What happened, who did it and when. */
  readonly audit: Methods<typeof audit.AuditServiceService>;
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
/**
 * Connects to a service and holds the configuration of agents in this process, kept up to date by a stream: resolving
 * it needs no network, and goes on while the service is away. Returns at once; the stream begins in the background.
 */
export function connect(options: ResidentOptions): ResidentAgentLLM;
/** Connects to a service; returns at once, the connection is made with the first call and again whenever it breaks. */
export function connect(options?: string | ConnectOptions): AgentLLM;
export function connect(options: string | ConnectOptions | ResidentOptions = {}): AgentLLM {
  const given: ConnectOptions = typeof options === 'string' ? { address: options } : options;
  const address = checkAddress(given.address ?? (process.env['AGENTLLM_ADDRESS']?.trim() || '127.0.0.1:50051'));
  const token = checkedToken(given, address);
  const deadlineMs = checkDeadline(given.deadlineMs ?? DEADLINE_MS);
  const resident = isResident(given) ? settingsOf(given) : undefined;
  const connection = new Connection(() => callChannel(address, given), address, token, deadlineMs, securityOf(given));
  const connected = {
    agents: methodsOf(agents.AgentServiceService, agents, connection),
    configs: methodsOf(configs.AgentLLMConfigServiceService, configs, connection),
    providers: methodsOf(providers.ProviderServiceService, providers, connection),
    credentials: methodsOf(sharedKeys.CredentialServiceService, sharedKeys, connection),
    watchers: methodsOf(watch.AgentLLMConfigWatchServiceService, watch, connection),
    access: methodsOf(access.AccessServiceService, access, connection),
    audit: methodsOf(audit.AuditServiceService, audit, connection),
    ready: (ms = deadlineMs) => waitUntilReady(connection, address, ms),
  };
  if (!resident) return closable(connected, given.signal, () => connection.close());
  const stream = new Connection(() => streamChannel(address, given), address, token, deadlineMs, securityOf(given));
  const outbox = outboxOf({ address, token, tls: given.tls });
  const held = hold({ connection: stream, calls: connection, outbox }, resident, { address, deadlineMs });
  const end = held.close;
  // Not by spreading, which would read the state once and for all.
  Object.defineProperties(connected, Object.getOwnPropertyDescriptors(held));
  return closable(connected, given.signal, () => Promise.all([end(), connection.close()]).then(() => {}));
}

const isResident = (options: ConnectOptions): options is ResidentOptions =>
  (options as Partial<ResidentOptions>).agents !== undefined;

function checkedToken(given: ConnectOptions, address: string): Token | undefined {
  const token = (given.token ?? process.env['AGENTLLM_TOKEN']?.trim()) || undefined;
  if (token !== undefined && typeof token !== 'function') checkToken(token);
  if (token !== undefined && !given.tls && !given.allowPlaintextToken && !isLocal(address))
    throw new TypeError(`A token would go to ${address} in clear: set tls, or allowPlaintextToken`);
  return token;
}

/** Adds the ways to close it. */
function closable<C extends object>(connected: C, signal: AbortSignal | undefined, end: () => Promise<void>) {
  let release = () => {};
  const close = () => {
    release();
    return end();
  };
  Object.assign(connected, { close: () => void close() });
  // Node 20 has the symbol since 20.5; before, `await using` has nothing to call.
  const dispose = Symbol.asyncDispose as symbol | undefined;
  if (dispose) Object.assign(connected, { [dispose]: close });
  release = onAbort(signal, () => void close());
  return connected as C & Pick<AgentLLM, 'close' | typeof Symbol.asyncDispose>;
}
