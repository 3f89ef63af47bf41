import { setImmediate } from 'node:timers/promises';
import { onAbort } from '../../abort.js';
import { ServiceError } from '../../errors.js';

/** An item that waits in the queue. */
export interface Waiting<Item> {
  readonly item: Item;
  /** Its share of the maximum weight of a batch. */
  readonly weight: number;
  /** Aborts when the caller no longer waits for the result. */
  readonly signal: AbortSignal | undefined;
}

export interface WriteQueueOptions {
  /** Maximum number of items of one batch. */
  readonly items: number;
  /** Maximum total weight of one batch. */
  readonly weight: number;
  readonly longestWaitMs: number;
  /** Maximum number of batches in progress. Default: 1. */
  readonly concurrency?: number;
}

interface QueuedItem<Item, Result> extends Waiting<Item> {
  /** Removes the item from the queue and stops its timer. */
  dequeue(): void;
  resolve(result: Result): void;
  reject(reason: unknown): void;
}

/**
 * The queue of writes (group commit): while one batch commits, the next one collects and is then committed as one
 * transaction, so the cost per write decreases under load. Two concurrent batches would be smaller and would wait for
 * each other at the counter row, which halves the throughput of 16 writers. A write whose caller gives up is removed
 * from the queue without effect.
 */
export class WriteQueue<Item, Result> {
  private running = 0;
  private readonly waiting: QueuedItem<Item, Result>[] = [];

  /** @param work returns a settled result for each item, in order. If it rejects, every item rejects. */
  constructor(
    private readonly options: WriteQueueOptions,
    private readonly work: (items: readonly Item[]) => Promise<readonly PromiseSettledResult<Result>[]>,
  ) {}

  add({ item, weight, signal }: Waiting<Item>): Promise<Result> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const dequeue = () => {
        clearTimeout(timer);
        release();
        const index = this.waiting.indexOf(queued);
        if (index >= 0) this.waiting.splice(index, 1);
      };
      const queued = { item, weight, signal, dequeue, resolve, reject };
      const timer = setTimeout(() => {
        dequeue();
        reject(ServiceError.of('WRITE_CONFLICT', {}));
      }, this.options.longestWaitMs);
      const release = onAbort(signal, () => {
        dequeue();
        reject(signal?.reason);
      });
      this.waiting.push(queued);
      void this.run();
    });
  }

  private async run(): Promise<void> {
    const { concurrency = 1 } = this.options;
    if (this.running === concurrency) return;
    this.running++;
    // Requests that arrived together, and callers that continue together, form one batch.
    await setImmediate();
    while (this.waiting.length > 0) await this.process(this.nextBatch());
    this.running--;
  }

  /** The first items up to the limits of a batch. An item above the maximum weight forms a batch alone. */
  private nextBatch(): QueuedItem<Item, Result>[] {
    let [count, weight] = [0, 0];
    for (const queued of this.waiting) {
      if (count > 0 && (count === this.options.items || weight + queued.weight > this.options.weight)) break;
      count++;
      weight += queued.weight;
    }
    const batch = this.waiting.slice(0, count);
    for (const { dequeue } of batch) dequeue();
    return batch;
  }

  private async process(batch: readonly QueuedItem<Item, Result>[]): Promise<void> {
    const failed = (reason: unknown) => batch.map(() => ({ status: 'rejected', reason }) as const);
    const results = await this.work(batch.map(({ item }) => item)).catch(failed);
    for (const [index, { resolve, reject }] of batch.entries()) {
      const result = results[index] as PromiseSettledResult<Result>;
      if (result.status === 'fulfilled') resolve(result.value);
      else reject(result.reason);
    }
  }
}
