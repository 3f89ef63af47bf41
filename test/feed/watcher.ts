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

/** Stubs of a replica, each for a limited number of streams per connection; the port is read for each stream. */
export class Stubs {
  private readonly open: AgentLLMConfigWatchServiceClient[] = [];
  private used = 0;
  private port = 0;

  constructor(
    private readonly currentPort: () => number,
    private readonly streamsPerStub = 250,
  ) {}

  next(): AgentLLMConfigWatchServiceClient {
    const port = this.currentPort();
    if (port !== this.port || this.used % this.streamsPerStub === 0) this.open.push(watchStub(port));
    if (port !== this.port) this.used = 0;
    this.port = port;
    this.used++;
    return this.open.at(-1) as AgentLLMConfigWatchServiceClient;
  }

  close(): void {
    for (const stub of this.open.splice(0)) stub.close();
  }
}

/** Errors after which a client has to start again without a token. */
const RESTART_REASONS = /^(REVISION_COMPACTED|REVISION_IN_FUTURE|STORE_CHANGED)$/;

/** A client that watches, resumes after its last token when its stream breaks, and records everything. */
export class Watcher implements ClientHistory {
  readonly watched: Watched;
  readonly streams: (Stream & { events: Event[] })[] = [];
  /** The number of streams that ended in each way. */
  readonly ends = new Map<string, number>();
  /** The times from commit to arrival, in ms. */
  readonly delays: number[] = [];
  /** Every change up to this revision has arrived. */
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
      // A client does not read messages that arrive after it has cancelled the stream.
      if (stream === this.stream) this.receive(message, record);
    });
    stream.on('error', (error: GrpcError) => this.ended(stream, new CallError(error)));
  }

  /** Cancels the stream and resumes it, by default on the same replica. */
  reconnect(stubs = this.stubs): void {
    this.stubs = stubs;
    this.cancelStream();
    this.start();
  }

  /** Cancels the stream and does not resume it. */
  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
    this.cancelStream();
  }

  private cancelStream(): void {
    const { stream } = this;
    this.stream = undefined;
    stream?.cancel();
  }

  private receive(message: WatchConfigsResponse, record: Stream & { events: Event[] }): void {
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
    if (RESTART_REASONS.test(error.reason)) {
      this.token = '';
      this.reached = 0;
    }
    this.timer = setTimeout(() => this.start(), error.retry ?? 20 + Math.random() * 150);
  }
}

/** Resolves when every watcher has received all changes up to a revision. */
export async function allReach(watchers: readonly Watcher[], revision: number, ms = 60_000): Promise<void> {
  const end = performance.now() + ms;
  for (;;) {
    const late = watchers.filter(({ reached }) => reached < revision);
    if (late.length === 0) return;
    if (performance.now() > end) {
      const { name, reached, ends } = late[0] as Watcher;
      throw new Error(
        `${late.length} have not reached ${revision}; ${name} is at ${reached}, ended by ${JSON.stringify([...ends])}`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The number of streams of all watchers that ended in each way. */
export function endsOf(watchers: readonly Watcher[]): Record<string, number> {
  const all: Record<string, number> = {};
  for (const { ends } of watchers) for (const [how, count] of ends) all[how] = (all[how] ?? 0) + count;
  return all;
}
