import type { ChangeCause } from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { onAbort } from '../abort.js';
import { limits } from '../limits.js';

/** A change of the state that a resident client holds. */
export interface Change {
  /** The store revision after the change. */
  readonly revision: bigint;
  /** Names of the agents that were changed, created, deleted or renamed. */
  readonly agents: readonly string[];
  /** Whether providers, models, prices or credentials have changed, which may concern any agent. */
  readonly catalogue: boolean;
  /**
   * Whether the change overrides pins and moves pinned runs: a key was replaced or removed, or a provider or an agent was
   * disabled. False for a snapshot, which does not report urgency; a snapshot after a gap always moves pinned runs.
   */
  readonly urgent: boolean;
  /** Actor and reason of the change; undefined for a snapshot. Merged changes have the cause of the last one. */
  readonly cause: ChangeCause | undefined;
  /** Whether a snapshot replaced the whole state, so that the individual changes are not known. */
  readonly snapshot: boolean;
  /** The number of changes in this one; more than 1 if a slow reader caused changes to be merged. */
  readonly merged: number;
}

/** Merges two changes. Only the assignment of agents to revisions and causes is lost. */
export function merge(a: Change, b: Change): Change {
  return {
    revision: b.revision,
    agents: [...new Set([...a.agents, ...b.agents])],
    catalogue: a.catalogue || b.catalogue,
    urgent: a.urgent || b.urgent,
    cause: b.cause,
    snapshot: a.snapshot || b.snapshot,
    merged: a.merged + b.merged,
  };
}

/** Buffered changes per reader. Later changes are merged into the last one, which bounds the memory of a slow reader. */
const MAX_BUFFERED = 64;

/** The changes for one reader, in revision order. */
export class Changes implements AsyncIterableIterator<Change> {
  private readonly buffered: Change[] = [];
  private readers: ((result: IteratorResult<Change>) => void)[] = [];
  /** Runs while a reader waits: the watch does not keep the process alive, but a loop over its changes does. */
  private keepAlive: NodeJS.Timeout | undefined;
  private ended = false;
  private release = () => {};
  private wanted: (change: Change) => boolean = () => true;

  /** @param onEnd called once, when the iteration ends. */
  constructor(
    private readonly onEnd: (reader: Changes) => void,
    signal: AbortSignal | undefined,
  ) {
    this.release = onAbort(signal, () => this.end());
  }

  /** Restricts the iteration to some changes. */
  only(wanted: (change: Change) => boolean): this {
    this.wanted = wanted;
    return this;
  }

  push(change: Change): void {
    if (this.ended || !this.wanted(change)) return;
    const reader = this.readers.shift();
    if (reader) {
      this.stopKeepAlive();
      reader({ done: false, value: change });
    } else if (this.buffered.length < MAX_BUFFERED) this.buffered.push(change);
    else this.buffered.push(merge(this.buffered.pop() as Change, change));
  }

  /** Ends the iteration. Buffered changes can still be read. */
  end(): void {
    if (this.ended) return;
    this.ended = true;
    this.release();
    this.onEnd(this);
    for (const reader of this.readers.splice(0)) reader({ done: true, value: undefined });
    this.stopKeepAlive();
  }

  next(): Promise<IteratorResult<Change>> {
    const value = this.buffered.shift();
    if (value) return Promise.resolve({ done: false, value });
    if (this.ended) return Promise.resolve({ done: true, value: undefined });
    this.keepAlive ??= setInterval(() => {}, limits.maxTimerMs);
    return new Promise((resolve) => this.readers.push(resolve));
  }

  return(): Promise<IteratorResult<Change>> {
    this.buffered.length = 0;
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  private stopKeepAlive(): void {
    if (this.readers.length > 0) return;
    clearInterval(this.keepAlive);
    this.keepAlive = undefined;
  }
}
