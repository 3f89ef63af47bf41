import { randomUUID } from 'node:crypto';
import type { ServerUnaryCall, sendUnaryData, status } from '@grpc/grpc-js';
import {
  type ApiKeyLease,
  CredentialServiceService as Definition,
  type LeaseApiKeysRequest,
  type LeaseApiKeysResponse,
} from '../../gen/ts/agentllm/v1/credential_service.js';
import { sealKey } from '../../src/domain/lease.js';
import { type FakeWatch, refusal } from './fake_watch.js';

/** A stored key that the fake service leases. */
export interface FakeKey {
  readonly config_id: number;
  readonly key: string;
  readonly provider?: string;
  readonly origin?: string;
  readonly credential_name?: string;
}

/** A service that leases what a test tells it, beside a fake watch. */
export class FakeLeases {
  keys: readonly FakeKey[] = [];
  unreadable: readonly number[] = [];
  revision = 10n;
  readonly requests: LeaseApiKeysRequest[] = [];
  readonly tokens: string[] = [];
  /** Refuses, when it is there. */
  refuses: readonly [code: status, reason?: string] | undefined;
  /** Makes another answer of the right one. */
  forge: (lease: ApiKeyLease) => ApiKeyLease = (lease) => lease;
  /** What answers wait for. */
  gate: Promise<void> = Promise.resolve();

  constructor(fake: FakeWatch) {
    const methods = Object.keys(Definition) as (keyof typeof Definition)[];
    const none = (_: unknown, done: sendUnaryData<unknown>) => done(refusal(12));
    const handlers = Object.fromEntries(methods.map((name) => [name, none]));
    fake.server.addService(Definition, { ...handlers, leaseApiKeys: this.lease } as never);
  }

  private readonly lease = async (
    { request, metadata }: ServerUnaryCall<LeaseApiKeysRequest, LeaseApiKeysResponse>,
    done: sendUnaryData<LeaseApiKeysResponse>,
  ) => {
    this.requests.push(request);
    this.tokens.push(String(metadata.get('authorization')[0] ?? ''));
    const { keys, revision, unreadable, refuses } = this;
    await this.gate;
    if (refuses) return done(refusal(...refuses));
    const leases = await Promise.all(keys.map((key) => this.seal(key, request, revision)));
    done(null, { leases, revision, unreadable_config_ids: [...unreadable] });
  };

  private async seal(given: FakeKey, request: LeaseApiKeysRequest, revision: bigint): Promise<ApiKeyLease> {
    const { config_id, key, provider = 'openai', origin = 'https://api.openai.com', credential_name = '' } = given;
    const lifetime = request.lifetime ?? { seconds: 600n, nanos: 0 };
    const facts = {
      store_id: randomUUID(),
      lease_id: randomUUID(),
      agent_id: request.agent?.id ?? 0,
      config_id,
      provider,
      origin,
      key_revision: revision,
    };
    const binding = { ...facts, lifetime_ms: Number(lifetime.seconds) * 1000 + lifetime.nanos / 1e6 };
    const sealed = await sealKey(request.public_key, key, binding);
    return this.forge({
      ...facts,
      lifetime,
      key_source: credential_name ? 'KEY_SOURCE_CREDENTIAL' : 'KEY_SOURCE_CONFIG',
      credential_name,
      encapsulated_key: Buffer.from(sealed.encapsulated_key),
      ciphertext: Buffer.from(sealed.ciphertext),
    });
  }
}
