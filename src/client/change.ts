import type { ChangeCause } from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { onAbort } from '../abort.js';
import { limits } from '../limits.js';

/** Something is different from what was held before. */
export interface Change {
  /** The store revision that is held now. */
  readonly revision: bigint;
  /** Names of the agents that were changed, created, deleted or renamed. */
  readonly agents: readonly string[];
  /** Whether providers, models, prices or credentials were changed, which may concern any agent. */
  readonly catalogue: boolean;
  /**
   * Whether runs that are pinned to an earlier revision have left it: a key was replaced or taken away, a provider or an
   * agent switched off. Of a snapshot it is not known, and they have left theirs too.
   */
  readonly urgent: boolean;
  /** Who made the change, and why; absent for a snapshot. Of several changes in one, the last one's. */
  readonly cause: ChangeCause | undefined;
  /** Whether everything was taken anew, after a gap that is not known in its parts. */
  readonly snapshot: boolean;
  /** How many changes this is: more than 1 where they were not read in time and were put together. */
  readonly merged: number;
}

/** Two changes in one: nothing is lost but which came with which. */
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

/** Changes that wait for a reader; from here on they are put together, so that one who never reads costs no more. */
const MOST_WAITING = 64;

/** Changes for one reader, in order. */
export class Changes implements AsyncIterableIterator<Change> {
  private readonly waiting: Change[] = [];
  private readers: ((result: IteratorResult<Change>) => void)[] = [];
  /** Runs while somebody waits: an open stream keeps no process alive, but a loop over its changes does. */
  private alive: NodeJS.Timeout | undefined;
  private ended = false;
  private release = () => {};
  private wanted: (change: Change) => boolean = () => true;

  /** @param stop called once, when nothing more is wanted. */
  constructor(
    private readonly stop: (reader: Changes) => void,
    signal: AbortSignal | undefined,
  ) {
    this.release = onAbort(signal, () => this.end());
  }

  /** Leaves out all others. */
  only(wanted: (change: Change) => boolean): this {
    this.wanted = wanted;
    return this;
  }

  push(change: Change): void {
    if (this.ended || !this.wanted(change)) return;
    const reader = this.readers.shift();
    if (reader) {
      this.rest();
      reader({ done: false, value: change });
    } else if (this.waiting.length < MOST_WAITING) this.waiting.push(change);
    else this.waiting.push(merge(this.waiting.pop() as Change, change));
  }

  /** No more come; what waits can still be read. */
  end(): void {
    if (this.ended) return;
    this.ended = true;
    this.release();
    this.stop(this);
    for (const reader of this.readers.splice(0)) reader({ done: true, value: undefined });
    this.rest();
  }

  next(): Promise<IteratorResult<Change>> {
    const value = this.waiting.shift();
    if (value) return Promise.resolve({ done: false, value });
    if (this.ended) return Promise.resolve({ done: true, value: undefined });
    this.alive ??= setInterval(() => {}, limits.maxTimerMs);
    return new Promise((resolve) => this.readers.push(resolve));
  }

  return(): Promise<IteratorResult<Change>> {
    this.waiting.length = 0;
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  private rest(): void {
    if (this.readers.length > 0) return;
    clearInterval(this.alive);
    this.alive = undefined;
  }
}
