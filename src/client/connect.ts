import * as access from '../../gen/ts/agentllm/v1/access_service.js';
import * as configs from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import * as watch from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import * as agents from '../../gen/ts/agentllm/v1/agent_service.js';
import * as audit from '../../gen/ts/agentllm/v1/audit_service.js';
import * as sharedKeys from '../../gen/ts/agentllm/v1/credential_service.js';
import * as providers from '../../gen/ts/agentllm/v1/provider_service.js';
import { onAbort } from '../abort.js';
import { ackBatcherOf } from './ack_batcher.js';
import { checkAddress, isLocal } from './address.js';
import { callChannel, securityOf, streamChannel } from './channel.js';
import type { AgentLLM, ResidentAgentLLM } from './client.js';
import { Connection, checkDeadline } from './connection.js';
import { checkToken, type Token } from './headers.js';
import { methodsOf } from './methods.js';
import type { ConnectOptions, ResidentOptions } from './options.js';
import { waitUntilReady } from './ready.js';
import { createResidentClient, settingsOf } from './resident_client.js';

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
  const outbox = ackBatcherOf({ address, token, tls: given.tls });
  const held = createResidentClient({ connection: stream, calls: connection, outbox }, resident, {
    address,
    deadlineMs,
  });
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
