import { randomUUID } from 'node:crypto';
import type { BudgetStatus } from './budget_monitor.js';
import type { AgentMaterial, CatalogueMaterial, ChangeEvent } from './change_event.js';
import type { Filter } from './filter.js';

/** The stream that a watch writes to. */
export interface Sink {
  readonly closed: boolean;
  /** When the client last read from a stream with waiting data, in ms of `performance.now()`; undefined: none waits. */
  readonly waitingSince: number | undefined;
  /** Writes a message. Returns false when the next write must wait for `drained`. */
  write(bytes: Buffer): boolean;
  /** Resolves when the transport has accepted every message, or the stream is closed. */
  drained(): Promise<void>;
  /** Ends the stream with an error. The sink hides internal details from the caller. */
  end(thrown: unknown): void;
  onClose(callback: () => void): void;
}

/** The agent process that opened a watch. */
export interface WatcherIdentity {
  readonly client_id: string;
  readonly client_name: string;
  readonly client_version: string;
}

/** The complete selected state at one revision: the start of a stream without a resume token. */
export interface Snapshot {
  readonly revision: number;
  readonly nonce: string;
  readonly agents: readonly AgentMaterial[];
  readonly catalogue: readonly CatalogueMaterial[];
}

/** Encodes the messages of a watch, so that the feed does not depend on the protocol. */
export interface MessageEncoder {
  /** @param newest the newest revision of the replica; a client that has received it has caught up. */
  started(watcher: WatcherIdentity, resumed: boolean, newest: number): Buffer;
  snapshot(snapshot: Snapshot, filter: Filter): Iterable<Buffer>;
  /** The messages of a revision; none when it does not concern the filter. */
  changes(event: ChangeEvent, filter: Filter): readonly Buffer[];
  bookmark(revision: number, nonce: string, filter: Filter): Buffer;
  /** @param complete whether these are all states that concern the watch. */
  budgetStates(states: readonly BudgetStatus[], complete: boolean): Buffer;
}

/** The stream of one watch. It has a cursor over the revisions instead of a queue of messages. */
export class Watch {
  /** Identifies the stream: a process that reconnects gets another id. */
  readonly id = randomUUID();
  /** While the watch is not live: the last revision that was written completely. A live watch is at the head. */
  cursor = 0;
  /** The nonce of that revision; empty while the watch cannot be resumed from it. */
  nonce = '';
  /** Whether the watch has caught up and receives new revisions directly. */
  live = false;
  /** Whether all states of budgets are to be sent. */
  statesDue = true;
  /** The newest revision with a change for this watch that was written. */
  sent = 0;
  /** The newest revision that the process has acknowledged. */
  applied: number | undefined;
  lastWrite = 0;

  constructor(
    readonly filter: Filter,
    readonly watcher: WatcherIdentity,
    readonly sink: Sink,
  ) {}

  /** Writes a message. Returns whether the stream accepts another one immediately. */
  write(bytes: Buffer): boolean {
    this.lastWrite = performance.now();
    return this.sink.write(bytes);
  }

  /** Writes a message; resolves when the transport has accepted it. */
  async send(bytes: Buffer): Promise<void> {
    if (this.sink.closed) return;
    this.write(bytes);
    await this.sink.drained();
  }
}
