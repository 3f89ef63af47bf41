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

type Numbers = { -readonly [K in keyof typeof limits as (typeof limits)[K] extends number ? K : never]?: number };

/** Other limits for the rest of a test, for what is in this process: nobody waits a minute. */
export function withLimits(numbers: Numbers): void {
  const before = { ...limits };
  Object.assign(limits, numbers);
  onTestFinished(() => {
    Object.assign(limits, before);
  });
}

/** The bare stub, on a connection of its own. */
export const watchStub = (port: number): AgentLLMConfigWatchServiceClient =>
  new AgentLLMConfigWatchServiceClient(`127.0.0.1:${port}`, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
  });

/** What a request watches, as the validators have it. */
export const watchedBy = ({ all_agents, agents = [] }: WatchRequest): Watched => {
  const refs = [...agents];
  return {
    all: all_agents === true,
    names: refs.flatMap(({ name }) => name ?? []),
    ids: refs.flatMap(({ id }) => id ?? []),
  };
};

/** A stream of WatchConfigs as it comes over the wire, recorded: the bare stub, so that nothing is put right on the way. */
export class RecordedWatch {
  readonly events: Message[] = [];
  /** When each came, in ms of `performance.now()`. */
  readonly times: number[] = [];
  /** How it ended, once it has. */
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
      this.tell();
    });
    this.stream.on('error', (error: GrpcError) => {
      this.error = new CallError(error);
      this.finish();
    });
    this.stream.on('end', () => this.finish());
  }

  /** The revisions of the changes that came, each as often as it came. */
  get revisions(): number[] {
    return this.changes.map(({ revision }) => Number(revision));
  }

  get changes(): Message[] {
    return this.events.filter(({ changes }) => changes);
  }

  /** What came with the changes of a revision. */
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

  /** Agents of the snapshot. */
  get agents() {
    return this.events.flatMap(({ snapshot }) => snapshot?.agents ?? []);
  }

  get started() {
    return this.events[0]?.started;
  }

  /** The last place to resume at. */
  get token(): string {
    return this.events.findLast(({ resume_token }) => resume_token !== '')?.resume_token ?? '';
  }

  /** The revision up to which everything is here. */
  get reached(): number {
    return Number(this.events.findLast(({ resume_token }) => resume_token !== '')?.revision ?? 0);
  }

  /** As the only stream of a client; `resumedAt` is the revision of its token. */
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

  /** Resolves when something is true of what has come; rejects when it never is. */
  async until(holds: (watch: this) => boolean, what = 'what is waited for', ms = 15_000): Promise<this> {
    if (holds(this)) return this;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve, reject) => {
      const look = () => {
        if (holds(this)) resolve();
        else if (this.ended) reject(new Error(`the stream ended before ${what}: ${this.error?.message ?? 'OK'}`));
        else return;
        this.listeners.delete(look);
      };
      this.listeners.add(look);
      timer = setTimeout(() => {
        this.listeners.delete(look);
        reject(new Error(`no ${what} within ${ms} ms`));
      }, ms);
      look();
    }).finally(() => clearTimeout(timer));
    return this;
  }

  /** Everything up to a revision is here. */
  has(revision: number | bigint): Promise<this> {
    return this.until((watch) => watch.reached >= Number(revision), `revision ${revision}`);
  }

  /** The first place to resume at is here. */
  ready(): Promise<this> {
    return this.until(({ reached }) => reached > 0, 'a resume token');
  }

  /** It has ended; how. */
  async end(ms = 15_000): Promise<CallError> {
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
    this.tell();
  }

  private tell(): void {
    for (const listener of [...this.listeners]) listener();
  }
}

/** The unary methods of the service, over the bare stub. */
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
