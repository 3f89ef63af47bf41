import { randomUUID } from 'node:crypto';
import type { AgentMaterial, CatalogueMaterial, ChangeEvent } from './change_event.js';
import type { Filter } from './filter.js';

/** The stream that a watch writes to. */
export interface Sink {
  readonly closed: boolean;
  /** Since when nothing was taken of what waits in it, in ms of `performance.now()`; undefined: nothing waits. */
  readonly waitingSince: number | undefined;
  /** Hands a message over; false: no more before `drained` resolves. */
  write(bytes: Buffer): boolean;
  /** Resolves when everything that was handed over is on its way, or the stream is closed. */
  drained(): Promise<void>;
  /** Ends the stream with a failure; of what the caller must not see, it hears no more than that. */
  end(thrown: unknown): void;
  onClose(callback: () => void): void;
}

/** The agent process behind a watch. */
export interface WatcherIdentity {
  readonly client_id: string;
  readonly client_name: string;
  readonly client_version: string;
}

/** Everything at one revision: how a stream without a token begins. */
export interface Snapshot {
  readonly revision: number;
  readonly nonce: string;
  readonly agents: readonly AgentMaterial[];
  readonly catalogue: readonly CatalogueMaterial[];
}

/** What goes out: the one place that knows the messages. */
export interface MessageEncoder {
  /** @param newest the newest revision of the replica: who has it has caught up. */
  started(who: WatcherIdentity, resumed: boolean, newest: number): Buffer;
  snapshot(snapshot: Snapshot, filter: Filter): Iterable<Buffer>;
  /** The messages of a revision; none when it does not concern the filter. */
  entry(entry: ChangeEvent, filter: Filter): readonly Buffer[];
  bookmark(revision: number, nonce: string, filter: Filter): Buffer;
}

/** One stream: a cursor over the revisions, never a queue. */
export class Watch {
  /** Of the stream: a process that comes back has another one. */
  readonly id = randomUUID();
  /** Everything up to here has been handed to the stream, while it is not live; a live one is at the head. */
  cursor = 0;
  /** Of that revision; empty while it is no place to go on from. */
  nonce = '';
  /** Caught up, so that new revisions are handed over as they come. */
  live = false;
  /** The newest revision with something in it for this watch that was handed over. */
  sent = 0;
  /** What the process says it has applied. */
  applied: number | undefined;
  lastWrite = 0;

  constructor(
    readonly filter: Filter,
    readonly who: WatcherIdentity,
    readonly sink: Sink,
  ) {}

  /** Hands a message over; whether there is room for another. */
  write(bytes: Buffer): boolean {
    this.lastWrite = performance.now();
    return this.sink.write(bytes);
  }

  /** Hands a message over when there is room for it; resolves when it is on its way. */
  async send(bytes: Buffer): Promise<void> {
    if (this.sink.closed) return;
    this.write(bytes);
    await this.sink.drained();
  }
}
