import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ServiceError as GrpcError, InterceptingCall, type Interceptor, status } from '@grpc/grpc-js';
import { afterAll, beforeAll, onTestFinished } from 'vitest';
import { PreconditionFailure } from '../../gen/ts/google/rpc/error_details.js';
import { Status } from '../../gen/ts/google/rpc/status.js';
import {
  type AgentLLM,
  AgentLLMError,
  type CallOptions,
  connect as connectClient,
  type Resource,
} from '../../src/client/index.js';
import { readSettings, type Settings } from '../../src/config.js';
import type { NewToken, TokenRequest } from '../../src/domain/token.js';
import type { Violation } from '../../src/errors.js';
import { createLog } from '../../src/log.js';
import { openConfigured, type Running, serve } from '../../src/main.js';
import { migrator } from '../../src/store/maintenance/migrate.js';
import { Store } from '../../src/store/store.js';
import { catchUp } from '../../src/store/write/change_log.js';
import { copyFirstStart } from './command.js';
import { grant } from './grant.js';
import { startPostgres } from './postgres.js';

/** The methods of the client with a required request. */
export type Promised<Methods> = {
  readonly [M in keyof Methods]: Methods[M] extends (request?: infer Request, options?: CallOptions) => infer Response
    ? (request: NonNullable<Request>, options?: CallOptions) => Response
    : never;
};

/** The error of a failed call: the error of the client with the numeric code and the preconditions. */
export class CallError extends Error {
  readonly code: number;
  /** Empty when there is none. */
  readonly reason: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly violations: readonly Violation[];
  readonly resources: readonly Resource[];
  readonly preconditions: readonly { type: string; subject: string; description: string }[];
  /** The delay after which a retry can succeed, in ms. */
  readonly retry: number | undefined;

  constructor(failed: AgentLLMError | GrpcError) {
    const error = failed instanceof AgentLLMError ? failed : AgentLLMError.from(failed, '');
    super(error.message, { cause: failed });
    this.code = status[error.code];
    this.reason = error.reason ?? '';
    this.metadata = error.metadata;
    this.violations = error.violations;
    this.resources = error.resources;
    this.preconditions = preconditionsOf(error.cause as Partial<GrpcError> | undefined);
    this.retry = error.retryAfterMs;
  }

  /** The fields of the violations, in the order of the response. */
  get fields(): string[] {
    return this.violations.map((v) => v.field);
  }
}

/** The violations of google.rpc.PreconditionFailure, which the client omits: they repeat the reason and the message. */
function preconditionsOf(error: Partial<GrpcError> | undefined) {
  const [bytes] = error?.metadata?.get('grpc-status-details-bin') ?? [];
  const details = bytes ? Status.decode(bytes as Buffer).details : [];
  return details
    .filter((any) => any.type_url.endsWith('.PreconditionFailure'))
    .flatMap((any) => PreconditionFailure.decode(any.value).violations);
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

/** The methods of the client with errors as CallError, and with a request_id only if the test sets one. */
function promised<Methods extends object>(methods: Methods): Promised<Methods> {
  const entries = Object.entries(methods).map(([name, method]) => {
    const call = (request: object, options?: CallOptions) =>
      method({ request_id: '', ...request }, options).catch((error: unknown) => {
        throw error instanceof AgentLLMError ? new CallError(error) : error;
      });
    return [name, call];
  });
  return Object.fromEntries(entries);
}

export interface Clients {
  readonly agents: Promised<AgentLLM['agents']>;
  readonly configs: Promised<AgentLLM['configs']>;
  readonly providers: Promised<AgentLLM['providers']>;
  readonly credentials: Promised<AgentLLM['credentials']>;
  readonly watchers: Promised<AgentLLM['watchers']>;
  readonly audit: Promised<AgentLLM['audit']>;
  readonly budgets: Promised<AgentLLM['budgets']>;
  readonly experiments: Promised<AgentLLM['experiments']>;
  readonly access: Promised<AgentLLM['access']>;
  readonly usage: Promised<AgentLLM['usage']>;
  close(): void;
}

/** Leaves it to the service to end a call at its deadline. */
const deadlineOfService: Interceptor = (options, next) =>
  new InterceptingCall(next({ ...options, deadline: Number.POSITIVE_INFINITY }), {
    start(metadata, listener, startCall) {
      metadata.set('grpc-timeout', `${Math.max(0, Number(options.deadline) - Date.now())}m`);
      startCall(metadata, listener);
    },
  });

/** The client with calls that only the service ends: a busy caller would end them while the response arrives. */
export const connectPatiently = (port: number, token?: string): Clients => connect(port, token, [deadlineOfService]);

/** The client of the product without retries, so that tests observe a single call. */
export function connect(port: number, token?: string, interceptors: readonly Interceptor[] = []): Clients {
  const agentllm = connectClient({
    address: `127.0.0.1:${port}`,
    token,
    deadlineMs: 20_000,
    retry: false,
    // Without it grpc-js shares one connection between all tests of a process.
    channelOptions: { 'grpc.use_local_subchannel_pool': 1, interceptors },
  });
  return {
    agents: promised(agentllm.agents),
    configs: promised(agentllm.configs),
    providers: promised(agentllm.providers),
    credentials: promised(agentllm.credentials),
    watchers: promised(agentllm.watchers),
    audit: promised(agentllm.audit),
    budgets: promised(agentllm.budgets),
    experiments: promised(agentllm.experiments),
    access: promised(agentllm.access),
    usage: promised(agentllm.usage),
    close: () => agentllm.close(),
  };
}

export type Backend = 'embedded' | 'postgres';

export interface TestService extends Clients {
  readonly running: Running;
  /** The created tokens; the clients of this service use the first one. */
  readonly tokens: readonly NewToken[];
  readonly port: number;
  stop(): Promise<void>;
}

/**
 * Starts the service in this process on free ports, without DATABASE_URL in a new data directory.
 * @param tokenRequests tokens that exist from the start.
 */
export async function startService(
  env: Readonly<Record<string, string>> = {},
  tokenRequests: readonly Partial<TokenRequest>[] = [],
): Promise<TestService> {
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
  const tokens = tokenRequests.length > 0 ? await grantAll(settings, tokenRequests) : [];
  const flags = { allowPlaintext: false, allowAnonymous: false };
  const running = await serve(settings, flags, createLog(settings.LOG_LEVEL));
  const clients = connect(running.grpcPort, tokens[0]?.text);
  return {
    ...clients,
    running,
    tokens,
    port: running.grpcPort,
    async stop() {
      clients.close();
      await running.stop();
      if (directory) await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Starts the service until the end of the test, or until the test stops it. */
export async function startUntilEnd(env: Readonly<Record<string, string>> = {}): Promise<TestService> {
  const service = await startService(env);
  onTestFinished(() => service.stop());
  return service;
}

/**
 * Starts the service on a new seeded PostgreSQL database. For tests that do not depend on the engine: a start on the
 * embedded engine takes a second of processor time, this one a fifth of that.
 */
export async function startOnPostgres(env: Readonly<Record<string, string>> = {}): Promise<TestService> {
  const postgres = await startPostgres();
  const service = await startService({ ...env, DATABASE_URL: await postgres.createDatabase('seeded') });
  return {
    ...service,
    async stop() {
      await service.stop();
      await postgres.stop();
    },
  };
}

/** Creates tokens in a database that no service uses, as `token create --local` does. */
export async function grantAll(
  settings: Settings,
  tokenRequests: readonly Partial<TokenRequest>[],
): Promise<NewToken[]> {
  const database = await openConfigured(settings);
  try {
    await migrator(database).up();
    const store = new Store(database);
    await catchUp(store);
    const tokens: NewToken[] = [];
    for (const request of tokenRequests) tokens.push(await grant(store, request));
    return tokens;
  } finally {
    await database.close();
  }
}

/** One service for all tests of a `describe`, on the given engine. */
export function useService(
  backend: Backend,
  env: Readonly<Record<string, string>> = {},
  tokenRequests: readonly Partial<TokenRequest>[] = [],
): () => TestService {
  let service: TestService;
  let stopDatabase = async () => {};
  beforeAll(async () => {
    if (backend === 'embedded') {
      service = await startService(env, tokenRequests);
      return;
    }
    const postgres = await startPostgres();
    stopDatabase = () => postgres.stop();
    service = await startService({ ...env, DATABASE_URL: await postgres.createDatabase('seeded') }, tokenRequests);
  });
  afterAll(async () => {
    await service?.stop();
    await stopDatabase();
  });
  return () => service;
}

/** A unique name. */
export const unique = (prefix: string): string => `${prefix}_${randomUUID().replaceAll('-', '').slice(0, 16)}`;
