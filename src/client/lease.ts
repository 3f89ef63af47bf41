import {
  type ApiKeyLease,
  CredentialServiceService,
  LeaseApiKeysRequest,
  type LeaseApiKeysResponse,
} from '../../gen/ts/agentllm/v1/credential_service.js';
import { type LeaseKeyPair, makeLeaseKeyPair, openSealedKey } from '../domain/lease.js';
import { originOf } from '../domain/origin.js';
import type { CallOptions, Connection } from './connection.js';
import { AgentLLMError } from './error.js';
import { credentialKey } from './rows.js';
import type { View } from './view.js';

const METHOD = CredentialServiceService.leaseApiKeys;
export const LEASE_METHOD = METHOD.path.slice(1);

/** A time on two clocks: the monotonic one cannot be set, and the wall clock includes time in which the machine slept. */
interface Moment {
  readonly monotonic: number;
  readonly wall: number;
}
const now = (): Moment => ({ monotonic: performance.now(), wall: Date.now() });

/** The parameters of a lease request. */
export interface LeaseParameters {
  readonly agentId: number;
  readonly lifetimeMs: number;
  /** The minimum revision of the lease. */
  readonly minRevision: bigint;
}

/** The key that is requested, and where it will be sent. */
export interface RequestedKey {
  readonly config_id: number;
  /** Canonical name. */
  readonly provider: string;
  readonly origin: string;
}

type Facts = Omit<ApiKeyLease, 'encapsulated_key' | 'ciphertext'>;

/**
 * The keys of one agent from one lease request. The key texts are in a private field, so that printing, inspecting or
 * serializing a lease does not reveal them.
 */
export class Lease {
  readonly #texts: ReadonlyMap<number, string>;
  private readonly facts: ReadonlyMap<number, Facts>;

  private constructor(
    /** Store revision of the keys. */
    readonly revision: bigint,
    private readonly sent: Moment,
    private readonly lifetimeMs: number,
    private readonly unreadable: readonly number[],
    opened: readonly (readonly [Facts, string])[],
  ) {
    this.facts = new Map(opened.map(([facts]) => [facts.config_id, facts]));
    this.#texts = new Map(opened.map(([{ config_id }, text]) => [config_id, text]));
  }

  /** Leases the keys with a new key pair. The lifetime begins before the request is sent. */
  static async request(connection: Connection, parameters: LeaseParameters, options: CallOptions): Promise<Lease> {
    const pair = await makeLeaseKeyPair();
    const request = LeaseApiKeysRequest.fromPartial({
      agent: { id: parameters.agentId },
      public_key: Buffer.from(pair.publicKey),
      lifetime: {
        seconds: BigInt(Math.floor(parameters.lifetimeMs / 1000)),
        nanos: (parameters.lifetimeMs % 1000) * 1e6,
      },
      min_revision: parameters.minRevision,
    });
    const sent = now();
    const response = await connection.call(METHOD, () => ({ bytes: METHOD.requestSerialize(request) }), options);
    const opened = await Promise.all(
      response.leases.map(async (one) => {
        const { ciphertext: _, encapsulated_key: __, ...facts } = one;
        return [facts, await open(pair, parameters, one)] as const;
      }),
    );
    const lifetimeMs = lifetimeOf(response, parameters);
    return new Lease(response.revision, sent, lifetimeMs, response.unreadable_config_ids, opened);
  }

  /** When the lease expires, by the wall clock; for messages. */
  get expiresAt(): Date {
    return new Date(this.sent.wall + this.lifetimeMs);
  }

  /** The remaining lifetime in ms, by the clock on which more time has passed. */
  get remainingMs(): number {
    return this.lifetimeMs - this.ageMs;
  }

  get ageMs(): number {
    const { monotonic, wall } = now();
    return Math.max(monotonic - this.sent.monotonic, wall - this.sent.wall);
  }

  /** In how many ms the lease is due for renewal. */
  get dueInMs(): number {
    return this.lifetimeMs * RENEWED_AT - this.ageMs;
  }

  /** The key; undefined if there is none for the config. Throws if the key is for another provider or origin. */
  keyFor({ config_id, provider, origin }: RequestedKey): string | undefined {
    const facts = this.facts.get(config_id);
    if (!facts) return undefined;
    if (facts.provider !== provider || facts.origin !== origin)
      throw failure(
        `The stored key of config ${config_id} is for ${facts.provider} at ${facts.origin}, not for ${provider} at ${origin}; resolve again`,
      );
    return this.#texts.get(config_id);
  }

  has(configId: number): boolean {
    return this.facts.has(configId);
  }

  /** Whether the service has a key of a config that it cannot decrypt. */
  cannotRead(configId: number): boolean {
    return this.unreadable.includes(configId);
  }

  /** The error for a config without a key. */
  missingKey(configId: number): AgentLLMError {
    return this.cannotRead(configId)
      ? failure(
          `The service cannot decrypt the stored key of config ${configId} with its ENCRYPTION_KEY; set the key again. No other key is used instead`,
        )
      : failure(`Config ${configId} no longer has a stored key, or is disabled; resolve again`);
  }

  /** Whether it has a key of one of these credentials or providers. */
  uses(credentials: ReadonlySet<string | undefined>, providers: ReadonlySet<string | undefined>): boolean {
    for (const { credential_name, provider } of this.facts.values())
      if (credentials.has(credential_name) || providers.has(provider)) return true;
    return false;
  }

  /**
   * Whether all keys of the lease are still valid in a later view. A view does not show that a key was replaced, only
   * that its row has changed. @param unchanged require that no row has changed since the lease.
   */
  isValidIn(view: View, name: string, unchanged: boolean): boolean {
    const held = view.agent(name);
    const { agent, configs = [] } = held?.message ?? {};
    if (agent?.is_active === false) return false;
    return [...this.facts.values()].every((facts) => {
      const { agent_id, config_id, credential_name, key_source } = facts;
      const config = configs.find(({ id }) => id === config_id);
      const provider = view.catalogue.provider(config?.provider ?? '');
      const isUsed = config?.enabled || held?.experiment?.isBase(config_id);
      if (agent?.id !== agent_id || !config || !isUsed || !provider?.enabled) return false;
      const sameKey =
        key_source === 'KEY_SOURCE_CREDENTIAL'
          ? config.credential_name === credential_name
          : config.has_api_key_override;
      const sameTarget = provider.name === facts.provider && originOf(provider.base_url) === facts.origin;
      if (!sameKey || !sameTarget) return false;
      const credential = view.catalogue.credentials.get(view.catalogue.ids.of(credentialKey(credential_name)));
      return !unchanged || (config.revision <= this.revision && (credential?.revision ?? 0) <= this.revision);
    });
  }
}

/** A lease in use is renewed after this share of its lifetime, which bridges a short outage of the service. */
const RENEWED_AT = 0.8;

/** The lifetime of the response, but never longer than requested. */
function lifetimeOf({ leases }: LeaseApiKeysResponse, { lifetimeMs }: LeaseParameters): number {
  return Math.min(lifetimeMs, ...leases.map(msOf));
}

const msOf = ({ lifetime }: ApiKeyLease): number =>
  lifetime ? Number(lifetime.seconds) * 1000 + Math.floor(lifetime.nanos / 1e6) : 0;

async function open(pair: LeaseKeyPair, { agentId }: LeaseParameters, lease: ApiKeyLease): Promise<string> {
  const { config_id, agent_id } = lease;
  const invalid = (reason: string, cause?: unknown) =>
    AgentLLMError.here(`The leased key of config ${config_id} is not used: ${reason}`, {
      code: 'DATA_LOSS',
      method: LEASE_METHOD,
      cause,
    });
  if (agent_id !== agentId) throw invalid(`it belongs to agent ${agent_id}, not to the requested agent ${agentId}`);
  try {
    return await openSealedKey(pair, lease, { ...lease, lifetime_ms: msOf(lease) });
  } catch (cause) {
    throw invalid('it was sealed for another recipient, or changed in transit', cause);
  }
}

const failure = (message: string): AgentLLMError =>
  AgentLLMError.here(message, { code: 'FAILED_PRECONDITION', method: LEASE_METHOD });
