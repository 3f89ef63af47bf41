import * as access from '../../gen/ts/agentllm/v1/access_service.js';
import * as configs from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import * as watch from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import * as agents from '../../gen/ts/agentllm/v1/agent_service.js';
import * as audit from '../../gen/ts/agentllm/v1/audit_service.js';
import * as budgets from '../../gen/ts/agentllm/v1/budget_service.js';
import * as sharedKeys from '../../gen/ts/agentllm/v1/credential_service.js';
import * as experiments from '../../gen/ts/agentllm/v1/experiment_service.js';
import * as providers from '../../gen/ts/agentllm/v1/provider_service.js';
import * as usage from '../../gen/ts/agentllm/v1/usage_service.js';
import { onAbort } from '../abort.js';
import { ackBatcherOf } from './ack_batcher.js';
import { checkAddress, isLocal } from './address.js';
import type { AgentExtension } from './agent_extension.js';
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
 * Connects to a service and holds the configuration of agents in this process. A watch keeps it current. Resolving needs
 * no network and continues while the service is unavailable. Returns immediately; the watch starts in the background.
 * Throws a TypeError for options that are not valid.
 */
export function connect(options: ResidentOptions): ResidentAgentLLM;
/**
 * Connects to a service. Returns immediately: the connection is opened by the first call, and reopened after it breaks.
 * Throws a TypeError for options that are not valid.
 */
export function connect(options?: string | ConnectOptions): AgentLLM;
export function connect(options?: string | ConnectOptions | ResidentOptions): AgentLLM {
  return connectWith(options);
}

/** Connects like `connect`. @param extend adds members to the agents of a resident client. */
export function connectWith(
  options: string | ConnectOptions | ResidentOptions = {},
  extend?: AgentExtension,
): AgentLLM | ResidentAgentLLM {
  const input: ConnectOptions = typeof options === 'string' ? { address: options } : options;
  const address = checkAddress(input.address ?? (process.env['AGENTLLM_ADDRESS']?.trim() || '127.0.0.1:50051'));
  const token = checkedToken(input, address);
  const deadlineMs = checkDeadline(input.deadlineMs ?? DEADLINE_MS);
  const settings = isResident(input) ? settingsOf(input) : undefined;
  const connection = new Connection(() => callChannel(address, input), address, token, deadlineMs, securityOf(input));
  const client = {
    agents: methodsOf(agents.AgentServiceService, agents, connection),
    configs: methodsOf(configs.AgentLLMConfigServiceService, configs, connection),
    providers: methodsOf(providers.ProviderServiceService, providers, connection),
    credentials: methodsOf(sharedKeys.CredentialServiceService, sharedKeys, connection),
    budgets: methodsOf(budgets.BudgetServiceService, budgets, connection),
    experiments: methodsOf(experiments.ExperimentServiceService, experiments, connection),
    watchers: methodsOf(watch.AgentLLMConfigWatchServiceService, watch, connection),
    access: methodsOf(access.AccessServiceService, access, connection),
    audit: methodsOf(audit.AuditServiceService, audit, connection),
    usage: methodsOf(usage.UsageServiceService, usage, connection),
    ready: (ms = deadlineMs) => waitUntilReady(connection, address, ms),
  };
  if (!settings) return closable(client, input.signal, () => connection.close());
  const stream = new Connection(() => streamChannel(address, input), address, token, deadlineMs, securityOf(input));
  const ackBatcher = ackBatcherOf({ address, token, tls: input.tls });
  const resident = createResidentClient({ connection: stream, calls: connection, ackBatcher }, settings, {
    address,
    deadlineMs,
    extend,
  });
  const closeResident = resident.close;
  // Copies the getters; spreading would copy the values that they have now.
  Object.defineProperties(client, Object.getOwnPropertyDescriptors(resident));
  return closable(client, input.signal, () => Promise.all([closeResident(), connection.close()]).then(() => {}));
}

const isResident = (options: ConnectOptions): options is ResidentOptions =>
  (options as Partial<ResidentOptions>).agents !== undefined;

function checkedToken(options: ConnectOptions, address: string): Token | undefined {
  const token = (options.token ?? process.env['AGENTLLM_TOKEN']?.trim()) || undefined;
  if (token !== undefined && typeof token !== 'function') checkToken(token);
  if (token !== undefined && !options.tls && !options.allowPlaintextToken && !isLocal(address))
    throw new TypeError(`The token would be sent to ${address} in plaintext: set tls, or allowPlaintextToken`);
  return token;
}

/** Adds `close` and `Symbol.asyncDispose`, and closes the client when the signal aborts. */
function closable<C extends object>(client: C, signal: AbortSignal | undefined, end: () => Promise<void>) {
  let release = () => {};
  const close = () => {
    release();
    return end();
  };
  Object.assign(client, { close: () => void close() });
  // Node 20 has the symbol since 20.5.
  const dispose = Symbol.asyncDispose as symbol | undefined;
  if (dispose) Object.assign(client, { [dispose]: close });
  release = onAbort(signal, () => void close());
  return client as C & Pick<AgentLLM, 'close' | typeof Symbol.asyncDispose>;
}
