import {
  AgentLLMConfigWatchServiceService,
  WatchConfigsRequest,
  type WatchConfigsResponse,
  type WatchStarted,
} from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import type { BudgetState } from '../../gen/ts/agentllm/v1/budget.js';
import { onAbort } from '../abort.js';
import { Backoff } from './backoff.js';
import type { Connection } from './connection.js';
import { AgentLLMError, type Code } from './error.js';
import { MessageAssembler } from './message_assembler.js';
import type { Batch } from './view.js';

const METHOD = AgentLLMConfigWatchServiceService.watchConfigs;
const NAME = METHOD.path.slice(1);
/** A stream that has been open for this long resets the backoff. */
const STABLE_MS = 5_000;
/** How long a stream may be silent before it has reported its bookmark interval. */
const FIRST_MESSAGE_MS = 30_000;
/** Bounds of the bookmark interval; without them an invalid value would end the stream immediately, or never. */
const INTERVAL_MS = { min: 50, max: 10 * 60 * 1000 };
/** Reasons for which the resume token is not valid, so that the watch needs a new snapshot. */
const START_OVER: readonly string[] = [
  'INVALID_RESUME_TOKEN',
  'RESUME_TOKEN_FILTER_CHANGED',
  'REVISION_COMPACTED',
  'REVISION_IN_FUTURE',
  'STORE_CHANGED',
];
/** The reasons of START_OVER after which the store is still the same. */
const SAME_STORE: readonly string[] = ['INVALID_RESUME_TOKEN', 'RESUME_TOKEN_FILTER_CHANGED', 'REVISION_COMPACTED'];
/** Codes that persist until someone changes the credentials, the options or the service. */
const PERMANENT: readonly Code[] = ['UNAUTHENTICATED', 'PERMISSION_DENIED', 'INVALID_ARGUMENT', 'UNIMPLEMENTED'];

/** The filter of the watch, and the identity of the client. */
export type WatchFilter = Pick<
  WatchConfigsRequest,
  'agents' | 'all_agents' | 'client_id' | 'client_name' | 'client_version'
>;

/** Receives the events of the watch. */
export interface WatchObserver {
  /** The resume token to continue from; empty: start with a snapshot. */
  readonly token: string;
  /** Without a token: the minimum revision of the snapshot, which a replica may not have received yet. */
  readonly minRevision?: bigint;
  /** A stream is open. It continues after the token or sends a snapshot. `newest` is the revision to catch up to. */
  started(started: WatchStarted, newest: bigint): void;
  batch(batch: Batch): void;
  bookmark(revision: bigint, token: string): void;
  /** States of budgets. @param complete whether missing states have the amounts 0. */
  budgetStates?(states: readonly BudgetState[], complete: boolean): void;
  /** The stream failed or could not be opened; a retry follows. @param permanent retries alone will not help. */
  broken(error: AgentLLMError, permanent: boolean): void;
  /** The resume token is no longer valid. @param sameStore whether the revisions are still those of the same store. */
  startOver(sameStore: boolean): void;
}

/**
 * Keeps a watch open with one stream at a time and a pause before the next stream. gRPC never reopens a stream, so this
 * class resumes it, waits between attempts and detects a silent stream.
 */
export class WatchStream {
  private readonly backoff = new Backoff();
  private readonly closing = new AbortController();
  private readonly finished: Promise<void>;

  constructor(
    private readonly connection: Connection,
    private readonly filter: WatchFilter,
    private readonly observer: WatchObserver,
  ) {
    this.finished = this.run();
  }

  /** Resolves when the observer receives no more events. */
  close(): Promise<void> {
    this.closing.abort();
    return this.finished;
  }

  private async run(): Promise<void> {
    // Deferred, so that the caller of connect() can add listeners first.
    await Promise.resolve();
    while (!this.closing.signal.aborted) {
      const error = await new Stream(this.connection, this.filter, this.observer, this.backoff, this.closing.signal)
        .end;
      if (this.closing.signal.aborted) return;
      await pause(this.reportEnd(error), this.closing.signal);
    }
  }

  /** Reports the end of a stream; returns the pause before the next one, in ms. */
  private reportEnd(error: AgentLLMError): number {
    const startOver = START_OVER.includes(error.reason ?? '') || error.code === 'OUT_OF_RANGE';
    const permanent = !startOver && isRemote(error) && PERMANENT.includes(error.code);
    if (startOver) this.observer.startOver(SAME_STORE.includes(error.reason ?? ''));
    this.observer.broken(error, permanent);
    return permanent ? this.backoff.longest() : this.backoff.next(error.retryAfterMs);
  }
}

/** One attempt: a stream from its request to its end. */
class Stream {
  /** Resolves with the error that ended the stream; a watch never ends without one. */
  readonly end: Promise<AgentLLMError>;
  private readonly assembler = new MessageAssembler();
  private readonly closing = new AbortController();
  /** Ends the stream when no message arrives for too long. */
  private watchdog: NodeJS.Timeout;
  private silenceMs = FIRST_MESSAGE_MS;
  private stableTimer: NodeJS.Timeout | undefined;
  private silent = false;

  constructor(
    private readonly connection: Connection,
    private readonly filter: WatchFilter,
    private readonly observer: WatchObserver,
    private readonly backoff: Backoff,
    signal: AbortSignal,
  ) {
    this.watchdog = this.startWatchdog();
    const release = onAbort(signal, () => this.closing.abort());
    this.end = this.open().finally(() => {
      release();
      clearTimeout(this.watchdog);
      clearTimeout(this.stableTimer);
    });
  }

  private async open(): Promise<AgentLLMError> {
    const { token: resume_token, minRevision = 0n } = this.observer;
    const min_revision = resume_token === '' ? minRevision : 0n;
    const make = () => {
      const request = WatchConfigsRequest.fromPartial({ ...this.filter, resume_token, min_revision });
      return { bytes: METHOD.requestSerialize(request) };
    };
    try {
      await this.connection.stream(METHOD, make, (message) => this.onMessage(message), this.closing.signal);
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

  private onMessage(message: WatchConfigsResponse): void {
    this.watchdog.refresh();
    const event = this.assembler.add(message);
    if (!event) return;
    if (event.kind === 'batch') this.observer.batch(event.batch);
    else if (event.kind === 'bookmark') this.observer.bookmark(event.revision, event.token);
    else if (event.kind === 'budget_states') this.observer.budgetStates?.(event.states, event.complete);
    else this.started(event.started, event.newest);
  }

  private started(started: WatchStarted, newest: bigint): void {
    const { min, max } = INTERVAL_MS;
    if (started.bookmark_interval_ms > 0)
      this.silenceMs = 2 * Math.min(Math.max(started.bookmark_interval_ms, min), max);
    clearTimeout(this.watchdog);
    this.watchdog = this.startWatchdog();
    this.stableTimer = setTimeout(() => this.backoff.reset(), STABLE_MS).unref();
    this.observer.started(started, newest);
  }

  private startWatchdog(): NodeJS.Timeout {
    const onSilence = () => {
      this.silent = true;
      this.closing.abort();
    };
    return setTimeout(onSilence, this.silenceMs).unref();
  }
}

/**
 * Whether the error is from the service or a proxy. A failure in this process, such as a failure of the token function,
 * may be transient.
 */
const isRemote = ({ cause }: AgentLLMError): boolean =>
  typeof (cause as { code?: unknown } | undefined)?.code === 'number';

/** Waits without keeping the process alive; ends early when the signal aborts. */
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
