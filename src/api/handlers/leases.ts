import { randomUUID } from 'node:crypto';
import { AuditEventKind } from '../../../gen/ts/agentllm/v1/audit_service.js';
import type {
  ApiKeyLease,
  LeaseApiKeysRequest,
  LeaseApiKeysResponse,
} from '../../../gen/ts/agentllm/v1/credential_service.js';
import { canonicalBaseUrl } from '../../domain/base_url.js';
import { nanosProblem } from '../../domain/duration.js';
import { type StoredKey, storedKeyOf } from '../../domain/key_choice.js';
import { type LeaseBinding, publicKeyProblem, sealKey } from '../../domain/lease.js';
import { originOf } from '../../domain/origin.js';
import type { Agent } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { limits } from '../../limits.js';
import { Problems } from '../../problems.js';
import { type OpenedKeys, openKeys } from '../../store/keys/open_keys.js';
import type { Call, HandlerResult } from '../dispatch/method.js';
import { activeExperimentOf } from './active_experiments.js';
import { auditFirst } from './audit.js';
import type { Backend } from './backend.js';
import { requireActive } from './callable_agent.js';
import { read } from './read_write.js';
import { checkRef, namedAgent } from './requests.js';

type LeaseCall = Call<LeaseApiKeysRequest, LeaseApiKeysResponse>;

/** Leases the stored keys of an agent, sealed for its process, after they are recorded in the audit. */
export function leaseApiKeys(
  backend: Backend,
  call: LeaseCall,
): HandlerResult<LeaseApiKeysResponse> | Promise<HandlerResult<LeaseApiKeysResponse>> {
  checkRequest(call.request);
  return read(backend, call, () => lease(backend, call));
}

function checkRequest(request: LeaseApiKeysRequest): void {
  const { agent, public_key, lifetime } = request;
  const problems = new Problems();
  checkRef(problems, agent);
  problems.add('public_key', public_key.length === 0 ? 'is required' : publicKeyProblem(public_key));
  const { min, max } = limits.leaseLifetime;
  const ms = lifetimeMs(request);
  const nanos = lifetime && nanosProblem(lifetime);
  if (nanos) problems.add('lifetime', nanos);
  else if (ms < min * 1000 || ms > max * 1000) problems.add('lifetime', `must be ${min} to ${max} s`);
  problems.throwIfAny();
}

/** The lifetime, rounded down to whole milliseconds. */
function lifetimeMs({ lifetime }: LeaseApiKeysRequest): number {
  if (!lifetime) return limits.defaultLeaseLifetime * 1000;
  return Number(lifetime.seconds) * 1000 + Math.floor(lifetime.nanos / 1e6);
}

/** A stored key to lease, and its binding. */
interface LeasableKey {
  readonly stored: StoredKey;
  readonly config_id: number;
  readonly provider: string;
  readonly origin: string;
}

/**
 * The stored keys of an agent's enabled configs, and of those that a variant of its experiment begins with, in the order of
 * the chain. A key is skipped if its provider
 * is disabled, or if the agent process could read another host from the base URL than the host the key is sealed for.
 */
function leasableKeysOf(state: State, agent: Agent): LeasableKey[] {
  const active = activeExperimentOf(state, agent.id);
  return state.configsOf(agent.id).flatMap((config) => {
    const isUsed = config.enabled || active?.isBase(config.id);
    const provider = isUsed ? state.provider(config.provider) : undefined;
    const url = provider && canonicalBaseUrl(provider.base_url);
    const stored = provider?.enabled && storedKeyOf(state, config, provider.name);
    if (url === undefined || !stored || stored.row.key_id === null) return [];
    return [{ stored, config_id: config.id, provider: provider.name, origin: originOf(url) }];
  });
}

async function lease(backend: Backend, call: LeaseCall): Promise<LeaseApiKeysResponse> {
  const { id } = namedAgent(backend.store.state, call.request.agent);
  backend.authorizer.takeLease(call.principal, id);
  for (;;) {
    const opened = await open(backend, call);
    if (opened) return respond(backend, call, opened);
  }
}

/** The decrypted keys and the state for which they were decrypted. */
interface Opened {
  readonly identity: string;
  readonly revision: number;
  readonly agent: Agent;
  readonly leasableKeys: readonly LeasableKey[];
  readonly keys: OpenedKeys;
}

/** Decrypts an agent's keys; undefined if they changed meanwhile, so that the caller must start again. */
async function open({ store, feed }: Backend, { request, signal }: LeaseCall): Promise<Opened | undefined> {
  const { state } = store;
  const agent = requireActive(namedAgent(state, request.agent));
  // Called at the time of the comparison, because a later revision may replace a key.
  const currentRevision = () => ({ identity: store.state.identity, revision: store.state.revision });
  const leasableKeys = leasableKeysOf(state, agent);
  if (leasableKeys.length === 0) return { agent, leasableKeys, keys: new Map(), ...currentRevision() };
  // Throws if ENCRYPTION_KEY is not set or belongs to another store.
  void state.encryption.writable;
  const stored = leasableKeys.map((leasableKey) => leasableKey.stored);
  const opened = await openKeys(store, stored);
  signal.throwIfAborted();
  if ('keys' in opened)
    return isUnchanged(leasableKeys, store.state, agent)
      ? { agent, leasableKeys, keys: opened.keys, ...currentRevision() }
      : undefined;
  await feed.reached(opened.newer, signal);
  return undefined;
}

async function respond(
  backend: Backend,
  call: LeaseCall,
  { agent, leasableKeys, keys, identity, revision }: Opened,
): Promise<LeaseApiKeysResponse> {
  const common = { store_id: identity, agent_id: agent.id, lifetime_ms: lifetimeMs(call.request) };
  const sealing: Promise<ApiKeyLease>[] = [];
  const unreadable_config_ids: number[] = [];
  for (const leasableKey of leasableKeys) {
    const key = keys.get(leasableKey.stored.row);
    if (key === undefined) unreadable_config_ids.push(leasableKey.config_id);
    else sealing.push(sealed(call.request.public_key, key, bindingFor(leasableKey, common), leasableKey.stored));
  }
  const leases = await Promise.all(sealing);
  const events = leases.map((lease) => eventOf(call, lease));
  if (events.length > 0) await auditFirst(backend, events);
  call.recheckAccess();
  return { leases, revision: BigInt(revision), unreadable_config_ids };
}

/** Whether the keys to lease are unchanged since they were decrypted. */
function isUnchanged(leasableKeys: readonly LeasableKey[], state: State, agent: Agent): boolean {
  const now = state.agents.get(agent.id);
  if (!now?.is_active) return false;
  const current = leasableKeysOf(state, now);
  return (
    current.length === leasableKeys.length &&
    current.every((key, index) => {
      const earlier = leasableKeys[index] as LeasableKey;
      return (
        key.config_id === earlier.config_id &&
        key.origin === earlier.origin &&
        key.provider === earlier.provider &&
        key.stored.source === earlier.stored.source &&
        key.stored.row.id === earlier.stored.row.id &&
        key.stored.row.key_revision === earlier.stored.row.key_revision
      );
    })
  );
}

const bindingFor = (
  { stored, config_id, provider, origin }: LeasableKey,
  common: Pick<LeaseBinding, 'store_id' | 'agent_id' | 'lifetime_ms'>,
): LeaseBinding => ({
  ...common,
  lease_id: randomUUID(),
  config_id,
  provider,
  origin,
  key_revision: BigInt(stored.row.key_revision ?? 0),
});

async function sealed(
  publicKey: Uint8Array,
  key: string,
  binding: LeaseBinding,
  stored: StoredKey,
): Promise<ApiKeyLease> {
  const { encapsulated_key, ciphertext } = await sealKey(publicKey, key, binding);
  const { lifetime_ms, ...fields } = binding;
  return {
    ...fields,
    lifetime: { seconds: BigInt(Math.floor(lifetime_ms / 1000)), nanos: (lifetime_ms % 1000) * 1e6 },
    key_source: stored.source,
    credential_name: stored.source === 'KEY_SOURCE_CREDENTIAL' ? stored.row.name : '',
    encapsulated_key: Buffer.from(encapsulated_key),
    ciphertext: Buffer.from(ciphertext),
  };
}

function eventOf({ caller, method, request }: LeaseCall, { agent_id, config_id, provider, lease_id }: ApiKeyLease) {
  const outcome = `leased for ${lifetimeMs(request) / 1000} s, lease ${lease_id}`;
  return { kind: AuditEventKind.KEY_LEASE, actor: caller, method, agent_id, config_id, provider, outcome };
}
