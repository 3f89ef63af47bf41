import { StringDecoder } from 'node:string_decoder';
import type { AttemptTimers } from './attempt_timers.js';
import type { Clock } from './clock.js';
import { parseJson } from './response_body.js';
import { type SseEvent, SseSplitter } from './sse.js';
import { END_MARKER, failed, invalid, type Problem, type ResponseFacts, type WireReader } from './wire_reader.js';

/** How long to wait for usage and the end marker after a stream is finished, and for the end of the connection. */
const TAIL_MS = 1_000;
/** Characters of one event. */
const MAX_EVENT = 16 * 1024 * 1024;
/** A stream can begin with a byte order mark. */
const BYTE_ORDER_MARK = '\uFEFF';

/** The events that the reader of a stream reports to the attempt. */
export interface StreamObserver {
  readonly reader: WireReader;
  readonly facts: ResponseFacts;
  readonly timers: AttemptTimers;
  readonly clock: Clock;
  /** Whether content that was forwarded has been emitted to the caller, so that no other hop can replace it. */
  readonly isLive: boolean;
  /** Whether a response that the model refuses is a failure. */
  readonly refusalFails: boolean;
  bytes(count: number): void;
  /** Content has arrived. */
  content(): void;
  /** An event that is not JSON was left out. */
  dropped(): void;
  /** Fails the attempt. The result is thrown. */
  fail(problem: Problem): Error;
  /** Fails the attempt because the stream ended too early. The result is thrown. */
  torn(message: string, cause?: unknown): Error;
}

/**
 * Reads a stream of server-sent events and forwards it to a provider package, event by event. Provider packages report
 * many faults as a regular end; a fault that is found here ends the forwarded stream with an error instead.
 */
export class EventStream {
  /** The forwarded events. */
  readonly stream: ReadableStream<Uint8Array>;
  private readonly source: ReadableStreamDefaultReader<Uint8Array>;
  private readonly decoder = new StringDecoder('utf8');
  private readonly splitter = new SseSplitter();
  /** A problem of the response that is reported at its end, because usage may still follow. */
  private pending: Problem | undefined;
  /** A problem that is reported after the content before it has been forwarded. */
  private deferred: Problem | undefined;
  private forwardedContent = false;
  private isEmpty = true;
  private cancelTail: (() => void) | undefined;

  constructor(
    source: ReadableStream<Uint8Array>,
    private readonly observer: StreamObserver,
  ) {
    this.source = source.getReader();
    const pull = (controller: ReadableStreamDefaultController<Uint8Array>) => this.pull(controller);
    const cancel = (reason: unknown) => this.source.cancel(reason).catch(() => {});
    this.stream = new ReadableStream({ pull, cancel }, { highWaterMark: 0 });
  }

  private async pull(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> {
    for (;;) {
      if (this.deferred) throw this.observer.fail(this.deferred);
      const text = await this.read();
      const forwarded = this.accept(text === undefined ? this.lastEvents() : this.splitter.push(text));
      if (forwarded !== '') controller.enqueue(Buffer.from(forwarded));
      if (this.deferred && forwarded !== '') return;
      const { terminal } = this.observer.facts;
      if (text === undefined || terminal === 'ended') return this.end(controller, text !== undefined);
      if (terminal === 'finished') this.startTail();
      if (this.splitter.pending > MAX_EVENT) throw this.observer.fail(invalid('An event of the stream is too large'));
      if (forwarded !== '') return;
    }
  }

  /** The next text; undefined at the end. A broken connection after the terminal event also counts as the end. */
  private async read(): Promise<string | undefined> {
    const { timers, facts } = this.observer;
    if (facts.terminal === 'none') timers.wait();
    try {
      const { value, done } = await this.source.read();
      if (done) return undefined;
      this.observer.bytes(value.byteLength);
      const text = this.decoder.write(value);
      return this.isEmpty && text.startsWith(BYTE_ORDER_MARK) ? text.slice(1) : text;
    } catch (error) {
      if (facts.terminal !== 'none') return undefined;
      throw this.observer.torn('the connection broke', error);
    } finally {
      timers.resume();
    }
  }

  /**
   * The events at the end of the stream. Some servers omit the empty line after the last event. An incomplete event is
   * ignored.
   */
  private lastEvents(): SseEvent[] {
    const complete = this.splitter.push(this.decoder.end());
    const last = this.splitter.end();
    if (last) this.isEmpty = false;
    const isWhole = last?.data !== undefined && (last.data === END_MARKER || parseJson(last.data) !== undefined);
    return last && isWhole ? [...complete, last] : complete;
  }

  /** Reads events and returns the text to forward. */
  private accept(events: readonly SseEvent[]): string {
    let forwarded = '';
    for (const { text, data } of events) {
      if (data === undefined || this.deferred) continue;
      this.isEmpty = false;
      const { content, problem } = this.readEvent(data);
      if (content) this.observeContent();
      if (problem?.kind === 'invalid' && this.isCommitted) {
        this.observer.dropped();
        continue;
      }
      this.notice(problem);
      if (this.pending || this.deferred) continue;
      forwarded += text;
      this.forwardedContent ||= content;
    }
    return forwarded;
  }

  private readEvent(data: string) {
    if (data === END_MARKER) return this.observer.reader.event(END_MARKER);
    const json = parseJson(data);
    return json === undefined
      ? failed(invalid('An event of the stream is not JSON'))
      : this.observer.reader.event(json);
  }

  private observeContent(): void {
    this.observer.timers.content();
    this.observer.content();
  }

  /** Whether the caller has received content of this response. */
  private get isCommitted(): boolean {
    return this.observer.isLive && this.forwardedContent;
  }

  private notice(problem: Problem | undefined): void {
    const { facts, refusalFails } = this.observer;
    if (problem?.kind === 'truncated') this.pending ??= problem;
    else if (problem && !this.isCommitted) throw this.observer.fail(problem);
    else if (problem) this.deferred = problem;
    if (refusalFails && facts.finishReason === 'content-filter' && !this.isCommitted)
      this.pending ??= { kind: 'refused' };
  }

  private startTail(): void {
    this.cancelTail ??= this.observer.clock.after(TAIL_MS, () => void this.source.cancel().catch(() => {}));
  }

  private end(controller: ReadableStreamDefaultController<Uint8Array>, mayContinue: boolean): void {
    this.cancelTail?.();
    this.cancelTail = undefined;
    const problem = this.deferred ?? this.pending;
    if (problem) throw this.observer.fail(problem);
    if (this.observer.facts.terminal === 'none')
      throw this.isEmpty
        ? this.observer.fail(invalid('The stream is empty'))
        : this.observer.torn('the connection was closed');
    const { lastEvent } = this.observer.reader;
    if (this.observer.facts.terminal === 'finished' && lastEvent) controller.enqueue(Buffer.from(lastEvent));
    controller.close();
    if (mayContinue) void this.drain();
  }

  /** Reads to the end of the connection, so that it can be used again. */
  private async drain(): Promise<void> {
    this.startTail();
    try {
      while (!(await this.source.read()).done);
    } catch {
      // The response is complete; only the connection is lost.
    } finally {
      this.cancelTail?.();
    }
  }
}
