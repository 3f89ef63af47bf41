import {
  AgentLLMConfigWatchServiceService,
  WatchConfigsRequest,
  type WatchConfigsResponse,
  type WatchStarted,
} from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { onAbort } from '../abort.js';
import { Backoff } from './backoff.js';
import type { Connection } from './connection.js';
import { AgentLLMError, type Code } from './error.js';
import { MessageAssembler } from './message_assembler.js';
import type { Batch } from './view.js';

const METHOD = AgentLLMConfigWatchServiceService.watchConfigs;
const NAME = METHOD.path.slice(1);
/** A stream that stood for this long was good: the next pause is a short one again. */
const STOOD_MS = 5_000;
/** How long a stream may say nothing before it has said how often it does. */
const FIRST_MESSAGE_MS = 30_000;
/** Bounds of what a stream may say of that: an absurd one would make it dead at once, or never. */
const INTERVAL_MS = { least: 50, most: 10 * 60 * 1000 };
/** The place to go on from is no good; everything is. */
const START_OVER: readonly string[] = [
  'INVALID_RESUME_TOKEN',
  'RESUME_TOKEN_FILTER_CHANGED',
  'REVISION_COMPACTED',
  'REVISION_IN_FUTURE',
  'STORE_CHANGED',
];
/** With these the numbers of revisions still mean what they did. */
const SAME_STORE: readonly string[] = ['INVALID_RESUME_TOKEN', 'RESUME_TOKEN_FILTER_CHANGED', 'REVISION_COMPACTED'];
/** What time alone will not mend: somebody must give other credentials, other options or another service. */
const LASTING: readonly Code[] = ['UNAUTHENTICATED', 'PERMISSION_DENIED', 'INVALID_ARGUMENT', 'UNIMPLEMENTED'];

/** What the stream is about, and who asks for it. */
export type Watched = Pick<
  WatchConfigsRequest,
  'agents' | 'all_agents' | 'client_id' | 'client_name' | 'client_version'
>;

/** What hears of the stream. */
export interface WatchObserver {
  /** Where to go on from; empty: from the beginning. */
  readonly token: string;
  /** Without a token: not before this revision, which a replica that lags behind may not have yet. */
  readonly least?: bigint;
  /** A stream stands. It goes on behind the token, or a snapshot follows; who has the newest revision has caught up. */
  started(started: WatchStarted, newest: bigint): void;
  batch(batch: Batch): void;
  bookmark(revision: bigint, token: string): void;
  /** The stream broke, or none could be had; another attempt follows. @param lasting time alone will not mend it. */
  broken(error: AgentLLMError, lasting: boolean): void;
  /** The token is no good any more. @param sameStore the store is the one that it was of, only its log is not. */
  startOver(sameStore: boolean): void;
}

/**
 * Follows the service: one stream at a time, and after each a pause before the next. gRPC itself never opens a stream
 * again, so that all of it is here: where to go on from, how long to wait, and when a silent stream is dead.
 */
export class WatchStream {
  private readonly backoff = new Backoff();
  private readonly closing = new AbortController();
  private readonly done: Promise<void>;

  constructor(
    private readonly connection: Connection,
    private readonly watched: Watched,
    private readonly follower: WatchObserver,
  ) {
    this.done = this.run();
  }

  /** Resolves when nothing more is heard of the stream. */
  close(): Promise<void> {
    this.closing.abort();
    return this.done;
  }

  private async run(): Promise<void> {
    // Not within connect(), whose caller has no client to listen to yet.
    await Promise.resolve();
    while (!this.closing.signal.aborted) {
      const error = await new Stream(this.connection, this.watched, this.follower, this.backoff, this.closing.signal)
        .end;
      if (this.closing.signal.aborted) return;
      await pause(this.react(error), this.closing.signal);
    }
  }

  /** What is to be done about the end of a stream; gives the pause before the next, in ms. */
  private react(error: AgentLLMError): number {
    const startOver = START_OVER.includes(error.reason ?? '') || error.code === 'OUT_OF_RANGE';
    const lasting = !startOver && isOfService(error) && LASTING.includes(error.code);
    if (startOver) this.follower.startOver(SAME_STORE.includes(error.reason ?? ''));
    this.follower.broken(error, lasting);
    return lasting ? this.backoff.longest() : this.backoff.next(error.retryAfterMs);
  }
}

/** One attempt: a stream from its request to its end. */
class Stream {
  /** Resolves with why it ended; there is always a reason, because a watch never ends by itself. */
  readonly end: Promise<AgentLLMError>;
  private readonly assembly = new MessageAssembler();
  private readonly closing = new AbortController();
  /** Ends when nothing was heard for too long. */
  private watchdog: NodeJS.Timeout;
  private silenceMs = FIRST_MESSAGE_MS;
  private stood: NodeJS.Timeout | undefined;
  private silent = false;

  constructor(
    private readonly connection: Connection,
    private readonly watched: Watched,
    private readonly follower: WatchObserver,
    private readonly backoff: Backoff,
    signal: AbortSignal,
  ) {
    this.watchdog = this.watch();
    const release = onAbort(signal, () => this.closing.abort());
    this.end = this.open().finally(() => {
      release();
      clearTimeout(this.watchdog);
      clearTimeout(this.stood);
    });
  }

  private async open(): Promise<AgentLLMError> {
    const { token: resume_token, least = 0n } = this.follower;
    const min_revision = resume_token === '' ? least : 0n;
    const make = () => {
      const request = WatchConfigsRequest.fromPartial({ ...this.watched, resume_token, min_revision });
      return { bytes: METHOD.requestSerialize(request) };
    };
    try {
      await this.connection.stream(METHOD, make, (message) => this.hear(message), this.closing.signal);
      return AgentLLMError.here('The service ended the stream', { code: 'UNAVAILABLE', method: NAME });
    } catch (error) {
      if (this.silent) {
        this.connection.renew();
        const text = `The stream was silent for ${this.silenceMs} ms`;
        return AgentLLMError.here(text, { code: 'UNAVAILABLE', method: NAME, cause: error });
      }
      return error as AgentLLMError;
    }
  }

  private hear(message: WatchConfigsResponse): void {
    this.watchdog.refresh();
    const known = this.assembly.add(message);
    if (!known) return;
    if (known.kind === 'batch') this.follower.batch(known.batch);
    else if (known.kind === 'bookmark') this.follower.bookmark(known.revision, known.token);
    else this.started(known.started, known.newest);
  }

  private started(started: WatchStarted, newest: bigint): void {
    const { least, most } = INTERVAL_MS;
    if (started.bookmark_interval_ms > 0)
      this.silenceMs = 2 * Math.min(Math.max(started.bookmark_interval_ms, least), most);
    clearTimeout(this.watchdog);
    this.watchdog = this.watch();
    this.stood = setTimeout(() => this.backoff.reset(), STOOD_MS).unref();
    this.follower.started(started, newest);
  }

  private watch(): NodeJS.Timeout {
    const dead = () => {
      this.silent = true;
      this.closing.abort();
    };
    return setTimeout(dead, this.silenceMs).unref();
  }
}

/** Whether the service has said so, or something before it: what fails on this side, such as a token, may work next time. */
const isOfService = ({ cause }: AgentLLMError): boolean =>
  typeof (cause as { code?: unknown } | undefined)?.code === 'number';

/** Keeps no process alive, and ends early when it is to end. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    let release = () => {};
    const end = () => {
      clearTimeout(timer);
      release();
      resolve();
    };
    const timer = setTimeout(end, ms).unref();
    release = onAbort(signal, end);
  });
}
