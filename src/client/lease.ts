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

/** A moment by both clocks: one that nobody sets, and one that goes on while the machine sleeps. */
interface Moment {
  readonly monotonic: number;
  readonly wall: number;
}
const now = (): Moment => ({ monotonic: performance.now(), wall: Date.now() });

/** What is asked for. */
export interface LeaseWish {
  readonly agentId: number;
  readonly lifetimeMs: number;
  /** Not before this revision. */
  readonly least: bigint;
}

/** Whose key is wanted, and where it is to be sent. */
export interface WantedKey {
  readonly config_id: number;
  /** Canonical name. */
  readonly provider: string;
  readonly origin: string;
}

type Facts = Omit<ApiKeyLease, 'encapsulated_key' | 'ciphertext'>;

/**
 * The keys of one agent from one request, for as long as they may be used. The texts stand where nothing that prints,
 * inspects or serializes objects finds them.
 */
export class Lease {
  readonly #texts: ReadonlyMap<number, string>;
  private readonly facts: ReadonlyMap<number, Facts>;

  private constructor(
    /** Store revision that it is of. */
    readonly revision: bigint,
    private readonly sent: Moment,
    private readonly lifetimeMs: number,
    private readonly unreadable: readonly number[],
    opened: readonly (readonly [Facts, string])[],
  ) {
    this.facts = new Map(opened.map(([facts]) => [facts.config_id, facts]));
    this.#texts = new Map(opened.map(([{ config_id }, text]) => [config_id, text]));
  }

  /** Asks the service, with a key pair for this once. What it lasts counts from before it was asked. */
  static async request(connection: Connection, wish: LeaseWish, options: CallOptions): Promise<Lease> {
    const pair = await makeLeaseKeyPair();
    const request = LeaseApiKeysRequest.fromPartial({
      agent: { id: wish.agentId },
      public_key: Buffer.from(pair.publicKey),
      lifetime: { seconds: BigInt(Math.floor(wish.lifetimeMs / 1000)), nanos: (wish.lifetimeMs % 1000) * 1e6 },
      min_revision: wish.least,
    });
    const sent = now();
    const answer = await connection.call(METHOD, () => ({ bytes: METHOD.requestSerialize(request) }), options);
    const opened = await Promise.all(
      answer.leases.map(async (one) => {
        const { ciphertext: _, encapsulated_key: __, ...facts } = one;
        return [facts, await open(pair, wish, one)] as const;
      }),
    );
    return new Lease(answer.revision, sent, lifetimeOf(answer, wish), answer.unreadable_config_ids, opened);
  }

  /** When it ends, as it is told to people. */
  get endsAt(): Date {
    return new Date(this.sent.wall + this.lifetimeMs);
  }

  /** How long it lasts yet, in ms; by the clock that is further. */
  get remainingMs(): number {
    return this.lifetimeMs - this.ageMs;
  }

  get ageMs(): number {
    const { monotonic, wall } = now();
    return Math.max(monotonic - this.sent.monotonic, wall - this.sent.wall);
  }

  /** In how many ms another one is to be had. */
  get dueInMs(): number {
    return this.lifetimeMs * RENEWED_AT - this.ageMs;
  }

  /** The key; undefined when there is none of this config. Throws when it is for somebody else. */
  keyFor({ config_id, provider, origin }: WantedKey): string | undefined {
    const facts = this.facts.get(config_id);
    if (!facts) return undefined;
    if (facts.provider !== provider || facts.origin !== origin)
      throw refused(
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

  /** Why there is no key of a config. */
  lackOf(configId: number): AgentLLMError {
    return this.cannotRead(configId)
      ? refused(
          `The service cannot read the stored key of config ${configId} with its ENCRYPTION_KEY; set the key again. Nothing is used in its place`,
        )
      : refused(`Config ${configId} has no stored key any more, or is switched off; resolve again`);
  }

  /** Whether it has a key of one of these credentials or providers. */
  uses(credentials: ReadonlySet<string | undefined>, providers: ReadonlySet<string | undefined>): boolean {
    for (const { credential_name, provider } of this.facts.values())
      if (credentials.has(credential_name) || providers.has(provider)) return true;
    return false;
  }

  /**
   * Whether all of its keys are still those that a later view has. That a key was replaced is not seen in a view, only
   * that its row was changed. @param unchanged whether no row may have changed since, either.
   */
  stands(view: View, name: string, unchanged: boolean): boolean {
    const { agent, configs = [] } = view.agent(name)?.message ?? {};
    if (agent?.is_active === false) return false;
    return [...this.facts.values()].every((facts) => {
      const { agent_id, config_id, credential_name, key_source } = facts;
      const config = configs.find(({ id }) => id === config_id);
      const provider = view.catalogue.provider(config?.provider ?? '');
      if (agent?.id !== agent_id || !config?.enabled || !provider?.enabled) return false;
      const sameKey =
        key_source === 'KEY_SOURCE_CREDENTIAL'
          ? config.credential_name === credential_name
          : config.has_api_key_override;
      const sameSide = provider.name === facts.provider && originOf(provider.base_url) === facts.origin;
      if (!sameKey || !sameSide) return false;
      const credential = view.catalogue.credentials.get(view.catalogue.ids.of(credentialKey(credential_name)));
      return !unchanged || (config.revision <= this.revision && (credential?.revision ?? 0) <= this.revision);
    });
  }
}

/** Another one is had when this much of one is over, so that a service that is away for a while is not noticed. */
const RENEWED_AT = 0.8;

/** Never longer than was asked for, whatever the answer says. */
function lifetimeOf({ leases }: LeaseApiKeysResponse, { lifetimeMs }: LeaseWish): number {
  return Math.min(lifetimeMs, ...leases.map(msOf));
}

const msOf = ({ lifetime }: ApiKeyLease): number =>
  lifetime ? Number(lifetime.seconds) * 1000 + Math.floor(lifetime.nanos / 1e6) : 0;

async function open(pair: LeaseKeyPair, { agentId }: LeaseWish, lease: ApiKeyLease): Promise<string> {
  const { config_id, agent_id } = lease;
  const bad = (why: string, cause?: unknown) =>
    AgentLLMError.here(`The leased key of config ${config_id} is not used: ${why}`, {
      code: 'DATA_LOSS',
      method: LEASE_METHOD,
      cause,
    });
  if (agent_id !== agentId) throw bad(`it is of agent ${agent_id}, and agent ${agentId} was asked for`);
  try {
    return await openSealedKey(pair, lease, { ...lease, lifetime_ms: msOf(lease) });
  } catch (cause) {
    throw bad('it was sealed for somebody else, or changed on its way', cause);
  }
}

const refused = (message: string): AgentLLMError =>
  AgentLLMError.here(message, { code: 'FAILED_PRECONDITION', method: LEASE_METHOD });
