import { randomUUID } from 'node:crypto';
import type { ServerUnaryCall, sendUnaryData, status } from '@grpc/grpc-js';
import {
  type ApiKeyLease,
  CredentialServiceService as Definition,
  type LeaseApiKeysRequest,
  type LeaseApiKeysResponse,
} from '../../gen/ts/agentllm/v1/credential_service.js';
import { sealKey } from '../../src/domain/lease.js';
import { errorStatus, type FakeWatch } from './fake_watch.js';

/** A stored key that the fake service leases. */
export interface FakeKey {
  readonly config_id: number;
  readonly key: string;
  readonly provider?: string;
  readonly origin?: string;
  readonly credential_name?: string;
}

/** A CredentialService on the server of a fake watch that leases the keys that a test sets. */
export class FakeLeases {
  keys: readonly FakeKey[] = [];
  unreadable: readonly number[] = [];
  revision = 10n;
  readonly requests: LeaseApiKeysRequest[] = [];
  readonly tokens: string[] = [];
  /** The error of every request; undefined: requests succeed. */
  error: readonly [code: status, reason?: string] | undefined;
  /** Changes a lease before it is returned. */
  tamper: (lease: ApiKeyLease) => ApiKeyLease = (lease) => lease;
  private held: Promise<void> = Promise.resolve();

  constructor(fake: FakeWatch) {
    const methods = Object.keys(Definition) as (keyof typeof Definition)[];
    const none = (_: unknown, done: sendUnaryData<unknown>) => done(errorStatus(12));
    const handlers = Object.fromEntries(methods.map((name) => [name, none]));
    fake.server.addService(Definition, { ...handlers, leaseApiKeys: this.lease } as never);
  }

  /** Holds back all responses until the returned function is called. */
  holdResponses(): () => void {
    let release = () => {};
    this.held = new Promise((resolve) => {
      release = resolve;
    });
    return () => release();
  }

  private readonly lease = async (
    { request, metadata }: ServerUnaryCall<LeaseApiKeysRequest, LeaseApiKeysResponse>,
    done: sendUnaryData<LeaseApiKeysResponse>,
  ) => {
    this.requests.push(request);
    this.tokens.push(String(metadata.get('authorization')[0] ?? ''));
    const { keys, revision, unreadable, error } = this;
    await this.held;
    if (error) return done(errorStatus(...error));
    const leases = await Promise.all(keys.map((key) => this.seal(key, request, revision)));
    done(null, { leases, revision, unreadable_config_ids: [...unreadable] });
  };

  private async seal(stored: FakeKey, request: LeaseApiKeysRequest, revision: bigint): Promise<ApiKeyLease> {
    const { config_id, key, provider = 'openai', origin = 'https://api.openai.com', credential_name = '' } = stored;
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
    return this.tamper({
      ...facts,
      lifetime,
      key_source: credential_name ? 'KEY_SOURCE_CREDENTIAL' : 'KEY_SOURCE_CONFIG',
      credential_name,
      encapsulated_key: Buffer.from(sealed.encapsulated_key),
      ciphertext: Buffer.from(sealed.ciphertext),
    });
  }
}
