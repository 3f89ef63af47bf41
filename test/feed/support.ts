import { type ClientReadableStream, credentials, type ServiceError as GrpcError, Metadata } from '@grpc/grpc-js';
import { onTestFinished } from 'vitest';
import {
  AcknowledgeRevisionRequest,
  type AcknowledgeRevisionResponse,
  AgentLLMConfigWatchServiceClient,
  ListWatchersRequest,
  type ListWatchersResponse,
  WatchConfigsRequest,
  type WatchConfigsResponse,
} from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { limits } from '../../src/limits.js';
import { CallError } from '../support/service.js';
import { type ClientHistory, eventOf, type Item, type Watched } from './history.js';

type Message = WatchConfigsResponse;
export type WatchRequest = Parameters<typeof WatchConfigsRequest.fromPartial>[0];

type NumericLimits = { -readonly [K in keyof typeof limits as (typeof limits)[K] extends number ? K : never]?: number };

/** Replaces limits of this process for the rest of a test, so that no test waits for a minute. */
export function withLimits(overrides: NumericLimits): void {
  const before = { ...limits };
  Object.assign(limits, overrides);
  onTestFinished(() => {
    Object.assign(limits, before);
  });
}

/** The generated stub, on its own connection. */
export const watchStub = (port: number): AgentLLMConfigWatchServiceClient =>
  new AgentLLMConfigWatchServiceClient(`127.0.0.1:${port}`, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
  });

/** The agents that a request watches, in the form that the validators use. */
export const watchedBy = ({ all_agents, agents = [] }: WatchRequest): Watched => {
  const refs = [...agents];
  return {
    all: all_agents === true,
    names: refs.flatMap(({ name }) => name ?? []),
    ids: refs.flatMap(({ id }) => id ?? []),
  };
};

/** A recorded stream of WatchConfigs; it uses the generated stub, so that no client code changes what arrives. */
export class RecordedWatch {
  readonly events: Message[] = [];
  /** The arrival time of each message, in ms of `performance.now()`. */
  readonly times: number[] = [];
  /** The error with which the stream ended; undefined while it is open. */
  error: CallError | undefined;
  ended = false;
  private readonly stream: ClientReadableStream<Message>;
  private readonly listeners = new Set<() => void>();

  constructor(
    port: number,
    readonly request: WatchRequest,
    options: { readonly deadlineMs?: number } = {},
    readonly client = watchStub(port),
  ) {
    const deadline = options.deadlineMs === undefined ? {} : { deadline: Date.now() + options.deadlineMs };
    this.stream = client.watchConfigs(WatchConfigsRequest.fromPartial(request), new Metadata(), deadline);
    this.stream.on('data', (message: Message) => {
      this.events.push(message);
      this.times.push(performance.now());
      this.notifyListeners();
    });
    this.stream.on('error', (error: GrpcError) => {
      this.error = new CallError(error);
      this.finish();
    });
    this.stream.on('end', () => this.finish());
  }

  /** The revisions of the received change messages, including repetitions. */
  get revisions(): number[] {
    return this.changes.map(({ revision }) => Number(revision));
  }

  get changes(): Message[] {
    return this.events.filter(({ changes }) => changes);
  }

  /** The messages and items that arrived for a revision. */
  itemsOf(revision: number | bigint) {
    const messages = this.changes.filter((one) => Number(one.revision) === Number(revision));
    return {
      messages,
      agents: messages.flatMap(({ changes }) => changes?.agents ?? []),
      catalogue: messages.flatMap(({ changes }) => changes?.catalogue ?? []),
    };
  }

  get snapshot(): { readonly items: readonly Item[]; readonly messages: readonly Message[] } {
    const messages = this.events.filter(({ snapshot }) => snapshot);
    return { messages, items: messages.flatMap((message) => eventOf(message).items) };
  }

  /** The agents of the snapshot. */
  get agents() {
    return this.events.flatMap(({ snapshot }) => snapshot?.agents ?? []);
  }

  get started() {
    return this.events[0]?.started;
  }

  /** The last resume token. */
  get token(): string {
    return this.events.findLast(({ resume_token }) => resume_token !== '')?.resume_token ?? '';
  }

  /** The revision up to which every change has arrived. */
  get reached(): number {
    return Number(this.events.findLast(({ resume_token }) => resume_token !== '')?.revision ?? 0);
  }

  /** The history of a client with this stream only; `resumedAt` is the revision of its resume token. */
  history(resumedAt?: number): ClientHistory {
    const stream = { resumedAt, events: this.events.map(eventOf) };
    return { name: 'the client', watched: watchedBy(this.request), streams: [stream] };
  }

  pause(): void {
    this.stream.pause();
  }

  resume(): void {
    this.stream.resume();
  }

  /** Resolves when a condition on the received messages holds; rejects when the stream ends or the time is over. */
  async until(holds: (watch: this) => boolean, what = 'what is waited for', ms = 30_000): Promise<this> {
    if (holds(this)) return this;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve, reject) => {
      const check = () => {
        if (holds(this)) resolve();
        else if (this.ended) reject(new Error(`the stream ended before ${what}: ${this.error?.message ?? 'OK'}`));
        else return;
        this.listeners.delete(check);
      };
      this.listeners.add(check);
      timer = setTimeout(() => {
        this.listeners.delete(check);
        reject(new Error(`no ${what} within ${ms} ms`));
      }, ms);
      check();
    }).finally(() => clearTimeout(timer));
    return this;
  }

  /** Resolves when every change up to a revision has arrived. */
  has(revision: number | bigint): Promise<this> {
    return this.until((watch) => watch.reached >= Number(revision), `revision ${revision}`);
  }

  /** Resolves when the first resume token has arrived. */
  ready(): Promise<this> {
    return this.until(({ reached }) => reached > 0, 'a resume token');
  }

  /** Resolves with the error when the stream has ended. */
  async end(ms = 30_000): Promise<CallError> {
    await this.until(({ ended }) => ended, 'an end', ms);
    if (!this.error) throw new Error('the stream ended without an error');
    return this.error;
  }

  cancel(): void {
    this.stream.cancel();
  }

  close(): void {
    this.stream.cancel();
    this.client.close();
  }

  private finish(): void {
    this.ended = true;
    this.notifyListeners();
  }

  private notifyListeners(): void {
    for (const listener of [...this.listeners]) listener();
  }
}

/** The unary methods of the watch service, over the generated stub. */
export function watchCalls(port: number) {
  const stub = watchStub(port);
  const call = <Request, Response>(
    method: (request: Request, done: (error: GrpcError | null, response: Response) => void) => unknown,
    request: Request,
  ) =>
    new Promise<Response>((resolve, reject) => {
      method.call(stub, request, (error: GrpcError | null, response: Response) =>
        error ? reject(new CallError(error)) : resolve(response),
      );
    });
  return {
    acknowledge: (...acknowledgements: { client_id?: string; revision?: bigint | number }[]) =>
      call<AcknowledgeRevisionRequest, AcknowledgeRevisionResponse>(
        stub.acknowledgeRevision,
        AcknowledgeRevisionRequest.fromPartial({
          acknowledgements: acknowledgements.map(({ client_id = '', revision = 0 }) => ({
            client_id,
            revision: BigInt(revision),
          })),
        }),
      ),
    list: (request: Parameters<typeof ListWatchersRequest.fromPartial>[0] = {}) =>
      call<ListWatchersRequest, ListWatchersResponse>(stub.listWatchers, ListWatchersRequest.fromPartial(request)),
    acknowledgeRevision: (request: AcknowledgeRevisionRequest) => call(stub.acknowledgeRevision, request),
    listWatchers: (request: ListWatchersRequest) => call(stub.listWatchers, request),
    close: () => stub.close(),
  };
}
