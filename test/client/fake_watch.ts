import { Metadata, Server, ServerCredentials, type ServerWritableStream, type status } from '@grpc/grpc-js';
import { onTestFinished } from 'vitest';
import {
  type Acknowledgement,
  type AcknowledgeRevisionRequest,
  AgentLLMConfigWatchServiceService as Definition,
  type WatchConfigsRequest,
  WatchConfigsResponse,
} from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { ErrorInfo, RetryInfo } from '../../gen/ts/google/rpc/error_details.js';
import { Status } from '../../gen/ts/google/rpc/status.js';
import { connect, type ResidentAgentLLM, type ResidentOptions } from '../../src/client/index.js';
import { until } from '../support/until.js';

/*
 * A watch service that sends the messages and errors that a test specifies, in any order, including those that the real
 * service never sends.
 */

type Message = Parameters<typeof WatchConfigsResponse.fromPartial>[0];
type AgentPart = NonNullable<NonNullable<Message['changes']>['agents']>[number];
export type CataloguePart = NonNullable<NonNullable<Message['changes']>['catalogue']>[number];
type ConfigPart = NonNullable<AgentPart['configs']>[number];

/** The server side of one stream. */
export class FakeStream {
  readonly request: WatchConfigsRequest;
  readonly headers: Metadata;
  /** The time at which the stream was opened, in ms of `performance.now()`. */
  readonly at = performance.now();
  cancelled = false;

  constructor(private readonly call: ServerWritableStream<WatchConfigsRequest, unknown>) {
    this.request = call.request;
    this.headers = call.metadata;
    call.on('cancelled', () => {
      this.cancelled = true;
    });
  }

  send(message: Message | Buffer): this {
    this.call.write(Buffer.isBuffer(message) ? message : WatchConfigsResponse.fromPartial(message));
    return this;
  }

  /** @param newest the revision that a client must reach to be READY. */
  start({ resumed = false, interval = 15_000, newest = 0 } = {}): this {
    return this.send({
      revision: BigInt(newest),
      started: { client_id: this.request.client_id, bookmark_interval_ms: interval, resumed, replica: 'r1' },
    });
  }

  /** A complete snapshot; by default with the catalogue of the tests. */
  snapshot(revision: number, agents: readonly AgentPart[], catalogue: readonly CataloguePart[] = CATALOGUE): this {
    return this.openSnapshot(revision, agents, catalogue).send({
      revision: BigInt(revision),
      snapshot_end: {},
      resume_token: `t${revision}`,
    });
  }

  /** A snapshot without its end message. */
  openSnapshot(revision: number, agents: readonly AgentPart[], catalogue: readonly CataloguePart[] = CATALOGUE): this {
    const at = { revision: BigInt(revision) };
    this.send({ ...at, snapshot_begin: { agent_count: agents.length } });
    this.send({ ...at, snapshot: { catalogue: [...catalogue] } });
    for (const agent of agents) this.send({ ...at, snapshot: { agents: [agent] } });
    return this;
  }

  /** The changes of a revision in one message. */
  change(revision: number, agents: readonly AgentPart[], catalogue: readonly CataloguePart[] = []): this {
    return this.part(revision, agents, catalogue, `t${revision}`);
  }

  /** A part of the changes of a revision; the resume token marks the last part. */
  part(revision: number, agents: readonly AgentPart[], catalogue: readonly CataloguePart[] = [], token = ''): this {
    const changes = { agents: [...agents], catalogue: [...catalogue] };
    const cause = { actor: 'tester', method: 'agentllm.v1.Test/Write', reason: 'because' };
    return this.send({ revision: BigInt(revision), resume_token: token, changes, cause });
  }

  bookmark(revision: number): this {
    return this.send({ revision: BigInt(revision), resume_token: `t${revision}`, bookmark: {} });
  }

  fail(code: status, reason?: string, retryAfterMs?: number): void {
    this.call.emit('error', errorStatus(code, reason, retryAfterMs));
  }

  /** Ends the stream without an error, which the service never does. */
  end(): void {
    this.call.end();
  }
}

export function errorStatus(code: status, reason?: string, retryAfterMs?: number) {
  const details = [];
  const any = (type: string, value: Uint8Array) => ({
    type_url: `type.googleapis.com/google.rpc.${type}`,
    value: Buffer.from(value),
  });
  if (reason) {
    const info = ErrorInfo.fromPartial({ reason, domain: 'agentllm' });
    details.push(any('ErrorInfo', ErrorInfo.encode(info).finish()));
  }
  if (retryAfterMs !== undefined) {
    const delay = { seconds: BigInt(Math.floor(retryAfterMs / 1000)), nanos: (retryAfterMs % 1000) * 1e6 };
    details.push(any('RetryInfo', RetryInfo.encode(RetryInfo.fromPartial({ retry_delay: delay })).finish()));
  }
  const metadata = new Metadata();
  const trailer = Status.encode(Status.fromPartial({ code, message: reason ?? 'no', details })).finish();
  metadata.set('grpc-status-details-bin', Buffer.from(trailer));
  return { code, details: reason ?? 'no', metadata };
}

export interface FakeWatch {
  /** For additional services on the same port. */
  readonly server: Server;
  readonly address: string;
  readonly port: number;
  /** Every stream that was opened, in order. */
  readonly streams: FakeStream[];
  readonly acknowledged: (Acknowledgement & { readonly at: number })[];
  /** Handles each new stream; undefined: the test does. */
  onStream: ((stream: FakeStream) => void) | undefined;
  /** The code with which acknowledgements fail; undefined: they succeed. */
  acknowledgementError: status | undefined;
  /** Resolves with the stream of this index, counted from 0, when it has been opened. */
  stream(number: number): Promise<FakeStream>;
  stop(): void;
}

export async function startFakeWatch(port = 0, credentials = ServerCredentials.createInsecure()): Promise<FakeWatch> {
  const server = new Server();
  const streams: FakeStream[] = [];
  const fake: FakeWatch = {
    server,
    address: '',
    port: 0,
    streams,
    acknowledged: [],
    onStream: undefined,
    acknowledgementError: undefined,
    async stream(number) {
      await until(() => streams.length > number, `stream ${number} is opened`);
      return streams[number] as FakeStream;
    },
    stop: () => server.forceShutdown(),
  };
  const watchConfigs = (call: ServerWritableStream<WatchConfigsRequest, unknown>) => {
    const stream = new FakeStream(call);
    streams.push(stream);
    fake.onStream?.(stream);
  };
  const acknowledgeRevision = (
    { request }: { request: AcknowledgeRevisionRequest },
    done: (error: object | null, response?: object) => void,
  ) => {
    for (const one of request.acknowledgements) fake.acknowledged.push({ ...one, at: performance.now() });
    if (fake.acknowledgementError !== undefined) done(errorStatus(fake.acknowledgementError));
    else done(null, { revision: 0n });
  };
  const encode = Definition.watchConfigs.responseSerialize;
  const rawDefinition = {
    ...Definition,
    watchConfigs: {
      ...Definition.watchConfigs,
      responseSerialize: (value: WatchConfigsResponse | Buffer) => (Buffer.isBuffer(value) ? value : encode(value)),
    },
  };
  const listWatchers = (_: unknown, done: (error: object | null, response?: object) => void) =>
    done(null, { watchers: [], revision: 0n, next_page_token: '' });
  server.addService(rawDefinition, { watchConfigs, acknowledgeRevision, listWatchers } as never);
  const bound = await new Promise<number>((resolve, reject) =>
    server.bindAsync(`127.0.0.1:${port}`, credentials, (error, boundPort) =>
      error ? reject(error) : resolve(boundPort),
    ),
  );
  onTestFinished(() => server.forceShutdown());
  return Object.assign(fake, { port: bound, address: `127.0.0.1:${bound}` });
}

/** A resident client that is closed at the end of the test. */
export function connectResident(address: string, options: Partial<ResidentOptions> = {}): ResidentAgentLLM {
  const client = connect({ address, agents: ['trader'], ...options });
  // Waits for the last write of the cache file, because its directory is removed next.
  onTestFinished(() => client[Symbol.asyncDispose]());
  return client;
}

/** A resident client that has received its first snapshot, and its stream. */
export async function startResident(
  agents: readonly AgentPart[] = [agent('trader', 1)],
  options: Partial<ResidentOptions> = {},
): Promise<{ fake: FakeWatch; client: ResidentAgentLLM; stream: FakeStream }> {
  const fake = await startFakeWatch();
  const client = connectResident(fake.address, options);
  const stream = await fake.stream(0);
  stream.start().snapshot(10, agents);
  await client.ready(30_000);
  return { fake, client, stream };
}

export const config = (id: number, revision: number, more: ConfigPart = {}): ConfigPart => ({
  id,
  agent_id: 1,
  provider: 'openai',
  model_name: 'gpt-4',
  temperature: 0.7,
  enabled: true,
  price_given: false,
  priority: 0,
  revision: BigInt(revision),
  api_key_state: 'API_KEY_STATE_NONE',
  ...more,
});

export const agent = (
  name: string,
  revision: number,
  more: Omit<AgentPart, 'agent'> & { readonly agent?: AgentPart['agent'] } = {},
): AgentPart => ({
  name,
  id: 1,
  ...more,
  agent: {
    id: 1,
    name,
    agent_type: 'trader',
    role: 'analyst',
    llm_provider: 'openai',
    llm_model: 'gpt-4o-mini',
    temperature: 0.5,
    is_active: true,
    substitution_policy: 'SUBSTITUTION_POLICY_ANY',
    revision: BigInt(revision),
    ...more.agent,
  },
  configs: more.configs ?? [config(1, revision)],
});

/** The message part for an agent that does not exist. */
export const absentAgent = (name: string, more: AgentPart = {}): AgentPart => ({ name, ...more });

export const openai = (more: NonNullable<CataloguePart['provider']> = {}): CataloguePart => ({
  provider: {
    name: 'openai',
    display_name: 'OpenAI',
    aliases: ['gpt'],
    dialect: 'DIALECT_OPENAI',
    base_url: 'https://api.openai.com/v1',
    api_key_env_vars: ['OPENAI_API_KEY'],
    built_in: true,
    enabled: true,
    revision: 1n,
    ...more,
  },
});

export const model = (name: string, more: NonNullable<CataloguePart['model']> = {}): CataloguePart => ({
  model: {
    provider: 'openai',
    name,
    max_output_tokens: 4096,
    price: { input_micro_usd_per_million: 30_000_000n, output_micro_usd_per_million: 60_000_000n, source: 'a page' },
    revision: 1n,
    ...more,
  },
});

export const CATALOGUE: readonly CataloguePart[] = [openai(), model('gpt-4'), model('gpt-4o-mini')];
