import { randomUUID } from 'node:crypto';
import { type ClientReadableStream, type ServiceError as GrpcError, status } from '@grpc/grpc-js';
import {
  type AgentLLMConfigWatchServiceClient,
  WatchConfigsRequest,
  type WatchConfigsResponse,
} from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { CallError } from '../support/service.js';
import { type ClientHistory, type Event, eventOf, type Stream, type Watched } from './history.js';
import { type WatchRequest, watchedBy, watchStub } from './support.js';

/** Stubs of a replica, each for as many streams as a connection takes well; the port is asked for with each stream. */
export class Stubs {
  private readonly open: AgentLLMConfigWatchServiceClient[] = [];
  private used = 0;
  private port = 0;

  constructor(
    private readonly portNow: () => number,
    private readonly streamsEach = 250,
  ) {}

  next(): AgentLLMConfigWatchServiceClient {
    const port = this.portNow();
    if (port !== this.port || this.used % this.streamsEach === 0) this.open.push(watchStub(port));
    if (port !== this.port) this.used = 0;
    this.port = port;
    this.used++;
    return this.open.at(-1) as AgentLLMConfigWatchServiceClient;
  }

  close(): void {
    for (const stub of this.open.splice(0)) stub.close();
  }
}

/** Errors after which a client has to start over. */
const START_OVER = /^(REVISION_COMPACTED|REVISION_IN_FUTURE|STORE_CHANGED)$/;

/** A client that watches and goes on behind its last token whenever its stream breaks, and writes everything down. */
export class Follower implements ClientHistory {
  readonly watched: Watched;
  readonly streams: (Stream & { events: Event[] })[] = [];
  /** How its streams ended, each kind with how often. */
  readonly ends = new Map<string, number>();
  /** From the commit to here, in ms. */
  readonly delays: number[] = [];
  /** Everything up to here has come. */
  reached = 0;
  token = '';
  private stream: ClientReadableStream<WatchConfigsResponse> | undefined;
  private timer: NodeJS.Timeout | undefined;
  private stopped = false;

  constructor(
    readonly name: string,
    private readonly request: WatchRequest,
    private stubs: Stubs,
    private readonly clientId = randomUUID(),
  ) {
    this.watched = watchedBy(request);
  }

  start(): void {
    const resumedAt = this.token === '' ? undefined : this.reached;
    const record = { resumedAt, events: [] as Event[] };
    const stream = this.stubs.next().watchConfigs(
      WatchConfigsRequest.fromPartial({
        ...this.request,
        client_id: this.clientId,
        client_name: this.name,
        resume_token: this.token,
      }),
    );
    this.stream = stream;
    stream.on('data', (message: WatchConfigsResponse) => {
      // What is on its way when a client breaks off is not read by it.
      if (stream === this.stream) this.hear(message, record);
    });
    stream.on('error', (error: GrpcError) => this.ended(stream, new CallError(error)));
  }

  /** Breaks the stream, as a client does that goes to another replica, and goes on there. */
  hop(stubs = this.stubs): void {
    this.stubs = stubs;
    this.breakOff();
    this.start();
  }

  /** Breaks the stream and does not come back. */
  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
    this.breakOff();
  }

  private breakOff(): void {
    const { stream } = this;
    this.stream = undefined;
    stream?.cancel();
  }

  private hear(message: WatchConfigsResponse, record: Stream & { events: Event[] }): void {
    const event = eventOf(message);
    if (this.streams.at(-1) !== record) this.streams.push(record);
    record.events.push(event);
    if (event.kind === 'changes' && message.cause?.created_at) this.delays.push(Date.now() - +message.cause.created_at);
    if (!event.complete) return;
    this.reached = event.revision;
    this.token = message.resume_token;
  }

  private ended(stream: ClientReadableStream<WatchConfigsResponse>, error: CallError): void {
    if (stream !== this.stream || this.stopped) return;
    this.stream = undefined;
    const how = `${status[error.code]} ${error.reason}`.trim();
    this.ends.set(how, (this.ends.get(how) ?? 0) + 1);
    if (START_OVER.test(error.reason)) {
      this.token = '';
      this.reached = 0;
    }
    this.timer = setTimeout(() => this.start(), error.retry ?? 20 + Math.random() * 150);
  }
}

/** Resolves when all of them have everything up to a revision. */
export async function allReach(followers: readonly Follower[], revision: number, ms = 20_000): Promise<void> {
  const end = performance.now() + ms;
  for (;;) {
    const late = followers.filter(({ reached }) => reached < revision);
    if (late.length === 0) return;
    if (performance.now() > end) {
      const { name, reached, ends } = late[0] as Follower;
      throw new Error(
        `${late.length} have not reached ${revision}; ${name} is at ${reached}, ended by ${JSON.stringify([...ends])}`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** How often the streams of followers ended, by how. */
export function endsOf(followers: readonly Follower[]): Record<string, number> {
  const all: Record<string, number> = {};
  for (const { ends } of followers) for (const [how, count] of ends) all[how] = (all[how] ?? 0) + count;
  return all;
}
