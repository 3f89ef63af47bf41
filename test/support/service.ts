import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type ChannelCredentials,
  type Client,
  credentials,
  type ServiceError as GrpcError,
  Metadata,
} from '@grpc/grpc-js';
import { afterAll, beforeAll } from 'vitest';
import * as configMessages from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import * as agentMessages from '../../gen/ts/agentllm/v1/agent_service.js';
import * as credentialMessages from '../../gen/ts/agentllm/v1/credential_service.js';
import * as providerMessages from '../../gen/ts/agentllm/v1/provider_service.js';
import {
  BadRequest,
  ErrorInfo,
  PreconditionFailure,
  ResourceInfo,
  RetryInfo,
} from '../../gen/ts/google/rpc/error_details.js';
import { Status } from '../../gen/ts/google/rpc/status.js';
import { readSettings } from '../../src/config.js';
import { createLog } from '../../src/log.js';
import { type Running, serve } from '../../src/main.js';
import { copyFirstStart } from './command.js';
import { startPostgres } from './postgres.js';

type DeepPartial<T> = T extends Date | bigint | Uint8Array | string | number | boolean | undefined
  ? T
  : T extends readonly (infer E)[]
    ? readonly DeepPartial<E>[]
    : { readonly [K in keyof T]?: DeepPartial<T[K]> };

/** A typed client whose methods give promises and take partial requests. */
export type Promised<Service> = {
  readonly [M in keyof Service]: Service[M] extends {
    requestDeserialize: (bytes: Buffer) => infer Request;
    responseDeserialize: (bytes: Buffer) => infer Response;
  }
    ? (request: DeepPartial<Request>, options?: { deadlineMs?: number }) => Promise<Response>
    : never;
};

/** A failed call as tests look at it: the status with its details decoded. */
export class CallError extends Error {
  readonly code: number;
  readonly reason: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly violations: readonly { field: string; description: string }[];
  readonly resources: readonly ResourceInfo[];
  readonly preconditions: readonly { type: string; subject: string; description: string }[];
  readonly retry: RetryInfo | undefined;

  constructor(error: GrpcError) {
    super(error.details);
    this.code = error.code;
    const [bytes] = error.metadata?.get('grpc-status-details-bin') ?? [];
    const details = bytes ? Status.decode(bytes as Buffer).details : [];
    const all = <T>(type: string, read: (value: Buffer) => T): T[] =>
      details.filter((any) => any.type_url.endsWith(`.${type}`)).map((any) => read(any.value as Buffer));
    const [info] = all('ErrorInfo', ErrorInfo.decode);
    this.reason = info?.reason ?? '';
    this.metadata = info?.metadata ?? {};
    this.violations = all('BadRequest', BadRequest.decode).flatMap((b) => b.field_violations);
    this.resources = all('ResourceInfo', ResourceInfo.decode);
    this.preconditions = all('PreconditionFailure', PreconditionFailure.decode).flatMap((p) => p.violations);
    this.retry = all('RetryInfo', RetryInfo.decode)[0];
  }

  /** The fields that were named, in the order of the answer. */
  get fields(): string[] {
    return this.violations.map((v) => v.field);
  }
}

/** Awaits a call that must fail and returns its error. */
export async function failure(call: Promise<unknown>): Promise<CallError> {
  const outcome = await call.then(
    (response) => ({ response }),
    (error: unknown) => ({ error }),
  );
  if ('response' in outcome) throw new Error(`the call succeeded: ${show(outcome.response)}`);
  if (outcome.error instanceof CallError) return outcome.error;
  throw outcome.error;
}

const show = (value: unknown) =>
  JSON.stringify(value, (_, inner) => (typeof inner === 'bigint' ? String(inner) : inner)).slice(0, 500);

type Messages = Readonly<Record<string, unknown>>;

/** Gives a generated client promise methods; its module has the request types, which fill what a test leaves out. */
export function promised<Service>(client: Client, messages: Messages): Promised<Service> {
  return new Proxy({} as Promised<Service>, {
    get: (_, method: string) => {
      const type = messages[`${method[0]?.toUpperCase()}${method.slice(1)}Request`] as {
        fromPartial(request: object): object;
      };
      return (request: object, options: { deadlineMs?: number } = {}) =>
        new Promise((resolve, reject) => {
          const call = client[method as keyof Client] as unknown as (...args: unknown[]) => void;
          const deadline = Date.now() + (options.deadlineMs ?? 20_000);
          const settle = (error: GrpcError | null, response: unknown) =>
            error ? reject(new CallError(error)) : resolve(response);
          call.call(client, type.fromPartial(request), new Metadata(), { deadline }, settle);
        });
    },
  });
}

export interface Clients {
  readonly agents: Promised<typeof agentMessages.AgentServiceService>;
  readonly configs: Promised<typeof configMessages.AgentLLMConfigServiceService>;
  readonly providers: Promised<typeof providerMessages.ProviderServiceService>;
  readonly credentials: Promised<typeof credentialMessages.CredentialServiceService>;
  close(): void;
}

export function connect(port: number, creds: ChannelCredentials = credentials.createInsecure()): Clients {
  // A subchannel of its own for each, or grpc-js would share one connection between all tests of a process.
  const options = { 'grpc.use_local_subchannel_pool': 1 };
  const address = `127.0.0.1:${port}`;
  const all = [
    new agentMessages.AgentServiceClient(address, creds, options),
    new configMessages.AgentLLMConfigServiceClient(address, creds, options),
    new providerMessages.ProviderServiceClient(address, creds, options),
    new credentialMessages.CredentialServiceClient(address, creds, options),
  ] as const;
  return {
    agents: promised(all[0], agentMessages),
    configs: promised(all[1], configMessages),
    providers: promised(all[2], providerMessages),
    credentials: promised(all[3], credentialMessages),
    close: () => {
      for (const client of all) client.close();
    },
  };
}

export type Backend = 'embedded' | 'postgres';

export interface TestService extends Clients {
  readonly running: Running;
  readonly port: number;
  stop(): Promise<void>;
}

/** Starts the service in this process on free ports; without DATABASE_URL on a directory of its own. */
export async function startService(env: Readonly<Record<string, string>> = {}): Promise<TestService> {
  const embedded = env['DATABASE_URL'] === undefined && env['DATA_DIR'] === undefined;
  const directory = embedded ? await copyFirstStart(await mkdtemp(join(tmpdir(), 'agentllm-test-'))) : undefined;
  const settings = readSettings({
    GRPC_ADDRESS: '127.0.0.1:0',
    HTTP_ADDRESS: '127.0.0.1:0',
    DATA_DIR: directory,
    LOG_LEVEL: 'silent',
    POLL_INTERVAL_MS: '50',
    ...env,
  });
  const flags = { allowPlaintext: false, allowAnonymous: false };
  const running = await serve(settings, flags, createLog(settings.LOG_LEVEL));
  const clients = connect(running.grpcPort);
  return {
    ...clients,
    running,
    port: running.grpcPort,
    async stop() {
      clients.close();
      await running.stop();
      if (directory) await rm(directory, { recursive: true, force: true });
    },
  };
}

/** The service for all tests of a `describe`, on one of the engines. */
export function useService(backend: Backend, env: Readonly<Record<string, string>> = {}): () => TestService {
  let service: TestService;
  let stopDatabase = async () => {};
  beforeAll(async () => {
    if (backend === 'embedded') {
      service = await startService(env);
      return;
    }
    const postgres = await startPostgres();
    stopDatabase = () => postgres.stop();
    service = await startService({ ...env, DATABASE_URL: await postgres.createDatabase() });
  });
  afterAll(async () => {
    await service?.stop();
    await stopDatabase();
  });
  return () => service;
}

/** A name that no other test has. */
export const unique = (prefix: string): string => `${prefix}_${randomUUID().slice(0, 8)}`;
