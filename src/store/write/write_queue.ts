import { onAbort } from '../../abort.js';
import { ServiceError } from '../../errors.js';

/** What waits in a line. */
export interface Waiting<Item> {
  readonly item: Item;
  /** How much of a batch it takes. */
  readonly weight: number;
  /** Aborts when nobody waits for the result any more. */
  readonly signal: AbortSignal | undefined;
}

export interface WriteQueueOptions {
  /** Items of one batch, and their weight together. */
  readonly items: number;
  readonly weight: number;
  readonly longestWaitMs: number;
}

interface Place<Item, Result> extends Waiting<Item> {
  /** Ends the waiting: the item is worked on, or given up. */
  leave(): void;
  resolve(result: Result): void;
  reject(reason: unknown): void;
}

/**
 * Where writes wait for the database: while one batch commits the next one
 * gathers, and goes as one (group commit, as databases and logs do it
 * themselves). The busier it is, the less each of them costs; two batches at once
 * would be smaller ones that wait for each other at the counter row, and halve
 * what 16 writers get done. A caller who gives up while waiting leaves the line,
 * and nothing is done.
 */
export class WriteQueue<Item, Result> {
  private busy = false;
  private readonly waiting: Place<Item, Result>[] = [];

  /** @param work has a settled result for each item, in order; when it rejects, they all have. */
  constructor(
    private readonly options: WriteQueueOptions,
    private readonly work: (items: readonly Item[]) => Promise<readonly PromiseSettledResult<Result>[]>,
  ) {}

  add({ item, weight, signal }: Waiting<Item>): Promise<Result> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const leave = () => {
        clearTimeout(timer);
        release();
        const at = this.waiting.indexOf(place);
        if (at >= 0) this.waiting.splice(at, 1);
      };
      const place = { item, weight, signal, leave, resolve, reject };
      const timer = setTimeout(() => {
        leave();
        reject(ServiceError.of('WRITE_CONFLICT', {}));
      }, this.options.longestWaitMs);
      const release = onAbort(signal, () => {
        leave();
        reject(signal?.reason);
      });
      this.waiting.push(place);
      void this.proceed();
    });
  }

  private async proceed(): Promise<void> {
    if (this.busy) return;
    this.busy = true;
    while (this.waiting.length > 0) await this.workOn(this.nextBatch());
    this.busy = false;
  }

  /** Those at the front, as many as fit; one that is too heavy goes alone. */
  private nextBatch(): Place<Item, Result>[] {
    let [count, weight] = [0, 0];
    for (const place of this.waiting) {
      if (count > 0 && (count === this.options.items || weight + place.weight > this.options.weight)) break;
      count++;
      weight += place.weight;
    }
    const batch = this.waiting.slice(0, count);
    for (const { leave } of batch) leave();
    return batch;
  }

  private async workOn(batch: readonly Place<Item, Result>[]): Promise<void> {
    const failed = (reason: unknown) => batch.map(() => ({ status: 'rejected', reason }) as const);
    const results = await this.work(batch.map(({ item }) => item)).catch(failed);
    for (const [at, { resolve, reject }] of batch.entries()) {
      const result = results[at] as PromiseSettledResult<Result>;
      if (result.status === 'fulfilled') resolve(result.value);
      else reject(result.reason);
    }
  }
}
